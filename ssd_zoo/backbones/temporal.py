"""Causal convolutions in time.

The frames of all clips lie one after another in a flat batch `(F, channels, height, width)`. `Past` finds the frames
before each of them, so clips need no padding and all other layers stay two-dimensional. A temporal convolution of three
taps is the sum of three Conv2d, over the frames and the two frames before each.

Before the first frame of a clip, that frame is repeated. Each layer replaces a Conv2d under the same names, so a 2-D
network's state loads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_zoo.layers.basic import Conv2dSame, init_conv, pad_same
from ssd_zoo.layers.convolution import convolve

__all__ = [
    "CausalConv3d",
    "FactoredConv",
    "Inflate",
    "Past",
    "ShiftConv",
    "State",
    "Temporal",
    "TemporalConv",
    "temporal_layer",
]

Temporal = Literal["3d", "2plus1d", "depthwise", "shift"]
Inflate = Literal["identity", "average"]
State = dict[str, Tensor]

_TAPS = 3
_SHIFTED = 8  # an eighth of the channels


class Past:
    """The frames before each frame of a batch, for one pass.

    Args:
        lengths: Frames of each clip, or of each stream's next piece; their sum is F. None for one frame of each of any
            number of streams, which needs a state; a graph then has no fixed number of streams.
        device: Device of the frames.
        state: The attribute `state` of the previous pass; None at the start of clips.
        remember: Whether layers store what the next pass needs.

    Attributes:
        state: Tensors for the next pass, with one row per stream. `frames_seen (S,)`, int64, counts frames. For each
            layer, `memory.0.1`, `memory.0.2`, `memory.1.1`, … `(S, channels, height, width)` hold its inputs one and
            two frames before its next input.
    """

    def __init__(
        self,
        lengths: Sequence[int] | None,
        device: torch.device,
        state: Mapping[str, Tensor] | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self._lengths, self._device, self._before, self._remember = list(lengths or ()), device, state, remember
        self._one_each = lengths is None or set(lengths) == {1}
        self._starts = [sum(self._lengths[:i]) for i in range(len(self._lengths))]
        self._calls = 0
        # Whether a stream may be new. On a GPU and in a graph this is assumed, because a test would synchronise or
        # specialise it.
        self._some_fresh = state is not None and (
            device.type != "cpu" or torch.compiler.is_compiling() or bool((state["frames_seen"] == 0).any())
        )
        self.state: State = {}
        if remember:
            pieces = torch.tensor([1] if lengths is None else self._lengths, device=device)
            self.state["frames_seen"] = pieces if state is None else state["frames_seen"] + pieces

    def look_back(self, features: Tensor, most: int = _TAPS - 1) -> list[Tensor]:
        """Return the frames before each frame of a layer's input.

        Layers must call this method in the same order in each pass.

        Args:
            features: The input `(F, channels, height, width)`.
            most: Number of frames to look back.

        Returns:
            `most` tensors of the input's shape: the frames one before each, two before each, …
        """
        names = [f"memory.{self._calls}.{back}" for back in range(1, most + 1)]
        self._calls += 1
        memory: list[Tensor] = []
        if self._before is not None:
            memory = [self._before[name] for name in names]
            if self._some_fresh:
                fresh = (self._before["frames_seen"] == 0).view(-1, 1, 1, 1)
                first = features if self._one_each else features[self._tensor(self._starts)]
                memory = [torch.where(fresh, first, frames) for frames in memory]
            if self._one_each:
                # With one frame per stream, the usual step, the frames before are those in memory.
                if self._remember:
                    self.state.update(zip(names, [features, *memory], strict=False))
                return memory
        rows = torch.cat([*memory, features]) if memory else features
        if self._remember:
            for back, name in enumerate(names, start=1):
                ends = [self._row(i, length - back, most) for i, length in enumerate(self._lengths)]
                self.state[name] = rows[self._tensor(ends)]
        return [rows[self._tensor(self._rows_before(back, most))] for back in range(1, most + 1)]

    def last(self, features: Tensor) -> Tensor:
        """Return the last frame of each clip, `(clips, channels, height, width)`, of features `(F, …)`."""
        if self._one_each:
            return features
        return features[self._tensor([start + length - 1 for start, length in self._pairs()])]

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._lengths, strict=True))

    def _rows_before(self, back: int, most: int) -> list[int]:
        """Return, for each frame, the row of the frame `back` frames before it; see `_row`."""
        return [self._row(i, t - back, most) for i, length in enumerate(self._lengths) for t in range(length)]

    def _row(self, i: int, t: int, most: int) -> int:
        """Return the row of frame `t` of clip `i` in a layer's inputs.

        Without a state these are the features, and a negative `t` is the first frame. With a state, `most` frames of
        each stream from memory come first, and a negative `t` is one of them.
        """
        if self._before is None:
            return self._starts[i] + max(t, 0)
        streams = len(self._lengths)
        return streams * most + self._starts[i] + t if t >= 0 else streams * (-t - 1) + i

    def _tensor(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, device=self._device)


class TemporalConv(nn.Module):
    """Base class of the layers that replace a Conv2d in a network for clips.

    It takes over stride, padding, dilation, groups and the bias itself, but no kernel. A subclass adds `weight` and
    `forward(features, past)`, which maps all clips' frames `(F, channels in, H, W)` to `(F, channels out, H', W')`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.pads_same, self.padding_mode = isinstance(conv, Conv2dSame), conv.padding_mode
        self.bias = conv.bias

    def _convolve(self, frames: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.pads_same:
            return convolve(self, frames, kernel, bias)
        frames, padding = pad_same(frames, kernel.shape[-2:], self.stride)
        return F.conv2d(frames, kernel, bias, self.stride, padding, self.dilation, self.groups)


class CausalConv3d(TemporalConv):
    """A convolution over three frames: this one and the two before it.

    A state dict may hold a Conv2d's kernel, which is inflated while it is loaded.

    Args:
        conv: The Conv2d to inflate.
        inflate: `"identity"` puts its kernel in the last tap and zeros in the others, which keeps its output.
            `"average"` puts a third of it in each tap, which delays features by about a frame.

    Attributes:
        weight: `(taps * out channels, in channels / groups, height, width)`: the Conv2d kernels of the taps one after
            another, the last for the frame itself. Its four axes allow all that a Conv2d's weight allows, such as
            `torch.channels_last`.
    """

    def __init__(self, conv: nn.Conv2d, inflate: Inflate) -> None:
        super().__init__(conv)
        self.inflate, self.out_channels = inflate, conv.out_channels
        self.weight = nn.Parameter(self.inflate_kernel(conv.weight.detach()), conv.weight.requires_grad)

    def inflate_kernel(self, kernel: Tensor) -> Tensor:
        """Inflate a kernel of a Conv2d to three taps, in the layout of `weight`."""
        if self.inflate == "average":
            return torch.cat([kernel / _TAPS] * _TAPS)
        return torch.cat([torch.zeros_like(kernel)] * (_TAPS - 1) + [kernel])

    @property
    def past_counts(self) -> bool:
        """Whether the kernels of earlier frames are not all zeros."""
        return bool(self.weight[: -self.out_channels].any())

    def forward(self, features: Tensor, past: Past) -> Tensor:
        """Convolve the frames of all clips.

        Args:
            features: `(F, in channels, H, W)`, one clip after another.
            past: Finds the frames before each; before a clip begins they are its first frame. Layers of a pass share it
                and call it in a fixed order.

        Returns:
            `(F, out channels, H', W')`.
        """
        if self.weight.shape[1:] == (1, 1, 1) and self.groups == self.out_channels:
            return self._scale(features, past)
        *before, now = self.weight.split(self.out_channels)
        result = self._convolve(features, now, self.bias)
        for frames, kernel in zip(past.look_back(features), reversed(before), strict=True):
            result += self._convolve(frames, kernel)
        return result

    def _scale(self, features: Tensor, past: Past) -> Tensor:
        """Apply a depthwise 1 × 1 kernel by multiplication.

        On a CPU the same convolution takes several times as long.
        """
        *before, now = self.weight.view(_TAPS, -1, 1, 1)
        result = features * now if self.bias is None else torch.addcmul(self.bias.view(-1, 1, 1), features, now)
        for frames, factor in zip(past.look_back(features), reversed(before), strict=True):
            result.addcmul_(frames, factor)
        return result

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        kernel = state_dict.get(f"{prefix}weight")
        if kernel is not None and len(kernel) == self.out_channels:
            state_dict[f"{prefix}weight"] = self.inflate_kernel(kernel)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        size = (_TAPS, *self.weight.shape[2:])
        return f"{self.weight.shape[1] * self.groups}, {self.out_channels}, kernel_size={size}, stride={self.stride}"


class FactoredConv(TemporalConv):
    """A Conv2d, then a 1 × 1 convolution over three frames.

    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", section 3.5, have an activation
    between the two. It is left out here, because it would change the output of a 2-D network with norms.
    https://arxiv.org/abs/1711.11248

    A state dict may be a Conv2d's; the second convolution then stays as it is.

    Args:
        conv: The Conv2d.
        inflate: Initial kernel of the second convolution; see `CausalConv3d`.
        depthwise: Whether the second convolution is depthwise.
    """

    def __init__(self, conv: nn.Conv2d, inflate: Inflate, *, depthwise: bool) -> None:
        super().__init__(conv)
        self.weight = conv.weight
        channels = conv.out_channels
        temporal = nn.Conv2d(channels, channels, 1, groups=channels if depthwise else 1).to(conv.weight)
        init_conv(temporal, lambda kernel: nn.init.dirac_(kernel, temporal.groups))
        temporal.requires_grad_(conv.weight.requires_grad)
        self.temporal = CausalConv3d(temporal, inflate)

    def forward(self, features: Tensor, past: Past) -> Tensor:
        """Return features `(F, out channels, height, width)`."""
        return self.temporal(self._convolve(features, self.weight, self.bias), past)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {f"{prefix}temporal.{name}": tensor for name, tensor in self.temporal.state_dict().items()}
        if not own.keys() & state_dict.keys():  # the state of a 2-D network
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ShiftConv(TemporalConv):
    """A Conv2d with an eighth of its channels from the previous frame.

    The shift needs no multiplications and has no weights.

    Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", section 4, the online model.
    https://arxiv.org/abs/1811.08383

    Args:
        conv: The Conv2d.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.weight = conv.weight

    def forward(self, features: Tensor, past: Past) -> Tensor:
        """Return features `(F, out channels, height, width)`."""
        shifted = features.shape[1] // _SHIFTED
        # A copy, because a view kept for the next frame would keep all channels in memory. vmap knows no layouts.
        layout = torch.preserve_format if torch._C._are_functorch_transforms_active() else torch.channels_last
        [before] = past.look_back(features[:, :shifted].clone(memory_format=layout), 1)
        return self._convolve(torch.cat([before, features[:, shifted:]], dim=1), self.weight, self.bias)


def temporal_layer(conv: nn.Conv2d, temporal: Temporal, inflate: Inflate) -> TemporalConv:
    """Create the temporal layer that replaces a Conv2d.

    Args:
        conv: The Conv2d, whose tensors the layer takes over.
        temporal: `"3d"` inflates its kernel to three taps. `"2plus1d"` adds a temporal convolution after it,
            `"depthwise"` a depthwise one. `"shift"` shifts an eighth of its channels.
        inflate: `"identity"` or `"average"`; see `CausalConv3d`.
    """
    if temporal == "3d":
        return CausalConv3d(conv, inflate)
    if temporal == "shift":
        return ShiftConv(conv)
    return FactoredConv(conv, inflate, depthwise=temporal == "depthwise")

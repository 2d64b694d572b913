"""Layers that look back in time.

The frames of all clips lie one after another in a flat batch `(F, channels, height, width)`, and `Past` tells a layer
which of them came before which. So there is no padding between clips, everything else stays two-dimensional, and no
Conv3d is needed: a kernel of three taps in time is the sum of three Conv2d over the frames and those before them.

Layers are causal, and before a clip's first frame comes that frame again. Each takes the place of a Conv2d under the
same names, so a 2-D network's state loads.
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
_SHIFTED = 8  # one of so many channels


class Past:
    """What came before each frame of a batch, for one pass through a backbone.

    Args:
        lengths: Frames of each clip, or of each stream's next piece; together F.
        device: Where the frames lie.
        state: What an earlier pass gave as `state`; None where clips start.
        remember: Whether layers leave what the next pass needs.

    Attributes:
        state: What the next pass needs, every tensor one row a stream: `frames_seen (S,)`, int64, and for each layer
            `memory.0.1`, `memory.0.2`, `memory.1.1`, … what came one frame, two frames before its next input,
            `(S, channels, height, width)`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        device: torch.device,
        state: Mapping[str, Tensor] | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self._lengths, self._device, self._before, self._remember = list(lengths), device, state, remember
        self._starts = [sum(self._lengths[:i]) for i in range(len(self._lengths))]
        self._calls = 0
        # Some streams may be new. A GPU would have to be waited for, and a graph holds for all states.
        self._some_fresh = state is not None and (
            device.type != "cpu" or torch.compiler.is_compiling() or bool((state["frames_seen"] == 0).any())
        )
        self.state: State = {}
        if remember:
            pieces = torch.tensor(self._lengths, device=device)
            self.state["frames_seen"] = pieces if state is None else state["frames_seen"] + pieces

    def look_back(self, features: Tensor, most: int = _TAPS - 1) -> list[Tensor]:
        """Gives a layer the frames before each of its input's.

        Args:
            features: `(F, channels, height, width)`.
            most: How many frames to look back.

        Returns:
            `most` tensors of that shape: the frames one before each, two before each, …
        """
        names = [f"memory.{self._calls}.{back}" for back in range(1, most + 1)]
        self._calls += 1
        memory: list[Tensor] = []
        if self._before is not None:
            memory = [self._before[name] for name in names]
            if self._some_fresh:
                fresh = (self._before["frames_seen"] == 0).view(-1, 1, 1, 1)
                first = features[self._tensor(self._starts)]
                memory = [torch.where(fresh, first, frames) for frames in memory]
            if set(self._lengths) == {1}:
                # A frame each, the usual step: what is before them lies there already.
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
        """Gives the last frame of each clip."""
        return features[self._tensor([start + length - 1 for start, length in self._pairs()])]

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._lengths, strict=True))

    def _rows_before(self, back: int, most: int) -> list[int]:
        return [self._row(i, t - back, most) for i, length in enumerate(self._lengths) for t in range(length)]

    def _row(self, i: int, t: int, most: int) -> int:
        """Says where frame `t` of clip `i` lies, which may be negative, in features, with memory before them or not."""
        if self._before is None:
            return self._starts[i] + max(t, 0)
        streams = len(self._lengths)
        return streams * most + self._starts[i] + t if t >= 0 else streams * (-t - 1) + i

    def _tensor(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, device=self._device)


class TemporalConv(nn.Module):
    """What layers that look back have in common: a Conv2d's settings and bias, and what it does with a kernel."""

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

    Args:
        conv: The Conv2d to inflate.
        inflate: `"identity"` puts its kernel in the last tap, zeros in the others: each frame then gives what it gave.
            `"average"` puts a third of it in each; features then come about a frame late.

    Attributes:
        weight: `(taps * out channels, in channels / groups, height, width)`: the Conv2d kernels of the taps one after
            another, the last for the frame itself. With four axes it goes wherever a Conv2d's goes, such as into
            `torch.channels_last`.
    """

    def __init__(self, conv: nn.Conv2d, inflate: Inflate) -> None:
        super().__init__(conv)
        self.inflate, self.out_channels = inflate, conv.out_channels
        self.weight = nn.Parameter(self.inflate_kernel(conv.weight.detach()), conv.weight.requires_grad)

    def inflate_kernel(self, kernel: Tensor) -> Tensor:
        """Makes a kernel of three taps from one of a Conv2d."""
        if self.inflate == "average":
            return torch.cat([kernel / _TAPS] * _TAPS)
        return torch.cat([torch.zeros_like(kernel)] * (_TAPS - 1) + [kernel])

    def forward(self, features: Tensor, past: Past) -> Tensor:
        """Gives `(F, out channels, height, width)`."""
        if self.weight.shape[1:] == (1, 1, 1) and self.groups == self.out_channels:
            return self._scale(features, past)
        *before, now = self.weight.split(self.out_channels)
        result = self._convolve(features, now, self.bias)
        for frames, kernel in zip(past.look_back(features), reversed(before), strict=True):
            result += self._convolve(frames, kernel)
        return result

    def _scale(self, features: Tensor, past: Past) -> Tensor:
        """Does the same with one number a channel: as a convolution it takes several times as long on a CPU."""
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
    """A Conv2d, then a convolution over the same place of three frames, without an activation between.

    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", section 3.5, put one there; but
    behind it a 2-D network with norms would not be the network that it was. https://arxiv.org/abs/1711.11248

    Args:
        conv: The Conv2d.
        inflate: What the second starts from; see `CausalConv3d`.
        depthwise: Whether the second takes each channel alone.
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
        """Gives `(F, out channels, height, width)`."""
        return self.temporal(self._convolve(features, self.weight, self.bias), past)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {f"{prefix}temporal.{name}": tensor for name, tensor in self.temporal.state_dict().items()}
        if not own.keys() & state_dict.keys():  # a 2-D network's
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ShiftConv(TemporalConv):
    """A Conv2d that sees an eighth of its channels as they were one frame before. It costs nothing and learns nothing.

    Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", section 4, the online model.
    https://arxiv.org/abs/1811.08383

    Args:
        conv: The Conv2d.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.weight = conv.weight

    def forward(self, features: Tensor, past: Past) -> Tensor:
        """Gives `(F, out channels, height, width)`."""
        shifted = features.shape[1] // _SHIFTED
        # A copy: what is kept for the next frame would hold all channels.
        [before] = past.look_back(features[:, :shifted].clone(memory_format=torch.channels_last), 1)
        return self._convolve(torch.cat([before, features[:, shifted:]], dim=1), self.weight, self.bias)


def temporal_layer(conv: nn.Conv2d, temporal: Temporal, inflate: Inflate) -> TemporalConv:
    """Makes the layer that takes a Conv2d's place.

    Args:
        conv: The Conv2d; its tensors go over to the layer.
        temporal: `"3d"` gives its kernel three taps; `"2plus1d"` puts a convolution in time behind it, `"depthwise"`
            one of each channel alone; `"shift"` shifts an eighth of its channels.
        inflate: `"identity"` or `"average"`; see `CausalConv3d`.
    """
    if temporal == "3d":
        return CausalConv3d(conv, inflate)
    if temporal == "shift":
        return ShiftConv(conv)
    return FactoredConv(conv, inflate, depthwise=temporal == "depthwise")

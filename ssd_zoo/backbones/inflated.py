"""Backbones for clips, built from backbones for images.

They keep the names of the 2-D network's tensors. Only the chosen stages relate frames; all other layers, such as extra
layers, treat each frame as an image.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ssd_zoo.backbones.temporal import (
    CausalConv3d,
    Inflate,
    Past,
    ShiftConv,
    State,
    Temporal,
    TemporalConv,
    temporal_layer,
)

__all__ = ["Frames", "VideoBackbone", "VideoMobileNet", "VideoVGG16D", "run_in_time"]

Frames = Literal["all", "last"]


class VideoBackbone(nn.Module):
    """Base class of backbones for clips.

    A subclass passes the names of its stages and defines `maps`.

    Args:
        backbone: The 2-D network, whose layers and tensors this network takes over.
        stages: Names of the convolutions of each stage that can be replaced by temporal layers.
        temporal: Kind of temporal layer; see `temporal_layer`.
        temporal_stages: The stages with temporal layers, counted from 1.
        inflate: Initial temporal kernels; see `temporal_layer`.
        frames: Whether `"all"` frames of a clip get feature maps, or only the `"last"`.

    Raises:
        ValueError: If a stage or a setting does not exist.
    """

    def __init__(
        self,
        backbone: Any,
        stages: Sequence[Sequence[str]],
        *,
        temporal: Temporal,
        temporal_stages: Sequence[int],
        inflate: Inflate,
        frames: Frames,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("temporal", temporal, get_args(Temporal)),
            ("inflate", inflate, get_args(Inflate)),
            ("frames", frames, get_args(Frames)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
        if not temporal_stages or not set(temporal_stages) <= set(range(1, len(stages) + 1)):
            raise ValueError(
                f"temporal_stages must name stages from 1 to {len(stages)}, got {tuple(temporal_stages)}. "
                "For none, use the 2-D model, which also takes clips and treats each frame as an image."
            )
        self.frames = frames
        for name, child in backbone.named_children():
            self.add_module(name, child)
        chosen = [name for stage in sorted(set(temporal_stages)) for name in stages[stage - 1]]
        for name in chosen:
            parent, _, place = name.rpartition(".")
            conv: Any = self.get_submodule(name)
            setattr(self.get_submodule(parent), place, temporal_layer(conv, temporal, inflate))
            while parent:
                self._relate(parent)
                parent = parent.rpartition(".")[0]
        self.new_layers: tuple[str, ...] = (*backbone.new_layers, *(f"{name}.temporal" for name in chosen))

    def _relate(self, name: str) -> None:
        """Replace a block or sequence with temporal layers inside by one that passes them the past frames."""
        parent, _, place = name.rpartition(".")
        layer: Any = self.get_submodule(name)
        if hasattr(layer, "residual"):
            setattr(self.get_submodule(parent), place, BlockInTime(layer))
        elif isinstance(layer, nn.Sequential):
            setattr(self.get_submodule(parent), place, SequenceInTime(layer))

    @property
    def looks_back(self) -> bool:
        """Whether earlier frames change the feature maps.

        They do not with fresh `"identity"` kernels, until these are trained on clips.
        """
        return any(
            isinstance(layer, ShiftConv) or (isinstance(layer, CausalConv3d) and layer.past_counts)
            for layer in self.modules()
        )

    def maps(self, batch: Tensor, past: Past) -> list[Tensor]:
        """Return the feature maps of a flat batch of frames, `(F, in_chans, H, W)`; a subclass defines it."""
        raise NotImplementedError

    def forward(self, batch: Tensor, lengths: Sequence[int] | None = None) -> list[Tensor]:
        """Return the feature maps of clips.

        Args:
            batch: The frames of all clips, `(F, in_chans, H, W)`.
            lengths: Frames of each clip; by default each frame is a clip.

        Returns:
            Feature maps of F frames, or of one frame per clip if `frames` is `"last"`.
        """
        return self.maps(batch, Past([1] * len(batch) if lengths is None else lengths, batch.device))

    def step(
        self, batch: Tensor, lengths: Sequence[int] | None, state: State | None = None
    ) -> tuple[list[Tensor], State]:
        """Return feature maps of the streams' next frames, and the new state.

        Args:
            batch: The frames of all streams, `(F, in_chans, H, W)`.
            lengths: Frames of each stream, at least one. None for one frame of each; the state is needed then.
            state: The state that the previous step returned; None at the start.

        Returns:
            Feature maps as in `forward`, and the state. Each of its tensors has one row per stream.
        """
        past = Past(lengths, batch.device, state, remember=True)
        return self.maps(batch, past), past.state

    def shown(self, features: Tensor, past: Past) -> Tensor:
        """Select the frames that get feature maps: all, or the last of each clip."""
        return past.last(features) if self.frames == "last" else features


class VideoVGG16D(VideoBackbone):
    """VGG-16 for clips, with the stages conv1 to conv5.

    Args:
        backbone: A `VGG16D`.
        **settings: See `VideoBackbone`.
    """

    features: nn.ModuleList
    conv4_3_norm: nn.Module
    extras: nn.ModuleList

    def __init__(self, backbone: Any, **settings: Any) -> None:
        pools = [i for i, layer in enumerate(backbone.features) if isinstance(layer, nn.MaxPool2d)]
        stages = [
            [f"features.{i}" for i in range(start, end) if isinstance(backbone.features[i], nn.Conv2d)]
            for start, end in pairwise([0, *pools])
        ]
        super().__init__(backbone, stages, **settings)
        self._conv4_3_end, self._conv5_3_end = pools[-2:]

    def maps(self, batch: Tensor, past: Past) -> list[Tensor]:
        """Return the feature maps of a flat batch of frames, `(F, in_chans, H, W)`."""
        maps: list[Tensor] = []
        for i, layer in enumerate(self.features):
            if i == self._conv4_3_end:
                maps.append(self.conv4_3_norm(self.shown(batch, past)))
            if i == self._conv5_3_end:
                batch = self.shown(batch, past)
            batch = run_in_time(layer, batch, past)
        maps.append(batch)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class VideoMobileNet(VideoBackbone):
    """MobileNetV2 or V3 for clips.

    A stage begins at each block of stride 2, the first at the stem. In each block the depthwise convolution is
    replaced, and in the first stage also the stem. For `"2plus1d"` it is the last convolution of a block instead, so
    that the temporal kernel mixes channels.

    Args:
        backbone: A `MobileNetV2` or `MobileNetV3`.
        temporal: See `VideoBackbone`.
        **settings: See `VideoBackbone`.
    """

    stem: nn.Module
    blocks: nn.ModuleList
    last: nn.Module
    extras: nn.ModuleList

    def __init__(self, backbone: Any, *, temporal: Temporal, **settings: Any) -> None:
        strided = [i for i, block in enumerate(backbone.blocks) if block.depthwise.conv.stride == (2, 2)]
        edges = [0, *strided, len(backbone.blocks)]
        layer = "project" if temporal == "2plus1d" else "depthwise"
        stages = [[f"blocks.{i}.{layer}.conv" for i in range(start, end)] for start, end in pairwise(edges)]
        stages[0].insert(0, "stem.conv")
        super().__init__(backbone, stages, temporal=temporal, **settings)
        self._taps_expansion = backbone.tap == "expansion"
        self._tapped = strided[-1 - getattr(backbone, "finer_maps", 0) :]

    def maps(self, batch: Tensor, past: Past) -> list[Tensor]:
        """Return the feature maps of a flat batch of frames, `(F, in_chans, H, W)`."""
        features = run_in_time(self.stem, batch, past)
        maps: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            before = features
            features, expanded = run_in_time(block, features, past)
            if i in self._tapped:
                maps.append(self.shown(expanded if self._taps_expansion else before, past))
        maps.append(self.last(self.shown(features, past)))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class SequenceInTime(nn.Sequential):
    """A sequence of layers, some of them temporal.

    Args:
        layers: The sequence whose layers it takes over.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__(OrderedDict(layers.named_children()))

    def forward(self, features: Tensor, past: Past) -> Tensor:  # type: ignore[override]
        """Return features of the frames, `(F, channels, H, W)`."""
        for layer in self:
            features = run_in_time(layer, features, past)
        return features


class BlockInTime(nn.Module):
    """An inverted residual with temporal layers.

    Args:
        block: The block whose layers it takes over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        for name, layer in block.named_children():
            self.add_module(name, layer)
        self.residual = block.residual

    def forward(self, features: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        """Return the block's output and its expansion, as the block does."""
        expand, *others = self.children()
        expanded = out = expand(features)
        for layer in others:
            out = run_in_time(layer, out, past)
        return (features + out if self.residual else out), expanded


def run_in_time(layer: nn.Module, features: Tensor, past: Past) -> Any:
    """Call a layer; temporal layers also get the past frames."""
    return layer(features, past) if isinstance(layer, (TemporalConv, SequenceInTime, BlockInTime)) else layer(features)

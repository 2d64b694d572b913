"""MobileNetV3-Large with SSDLite's extra layers.

Howard et al., "Searching for MobileNetV3", table 1 and section 6.3. https://arxiv.org/abs/1905.02244
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from ssd_zoo.backbones.blocks import freeze_blocks, tapped_maps
from ssd_zoo.layers.basic import RELU, BatchNorm2d, ConvNormAct, NormLayer, init_conv

__all__ = ["InvertedResidual", "MobileNetV3"]

_Row = tuple[int, int, int, int, Callable[[], nn.Module], int]

# In place, because nothing else uses the output of a norm.
_HSWISH = partial(nn.Hardswish, inplace=True)
# Kernel, intermediate channels, channels out, squeezed channels (0: no squeeze), activation, stride.
_BLOCKS: list[_Row] = [
    (3, 16, 16, 0, RELU, 1),
    (3, 64, 24, 0, RELU, 2),
    (3, 72, 24, 0, RELU, 1),
    (5, 72, 40, 24, RELU, 2),
    (5, 120, 40, 32, RELU, 1),
    (5, 120, 40, 32, RELU, 1),
    (3, 240, 80, 0, _HSWISH, 2),
    (3, 200, 80, 0, _HSWISH, 1),
    (3, 184, 80, 0, _HSWISH, 1),
    (3, 184, 80, 0, _HSWISH, 1),
    (3, 480, 112, 120, _HSWISH, 1),
    (3, 672, 112, 168, _HSWISH, 1),
]
_TAIL: list[_Row] = [
    (5, 672, 160, 168, _HSWISH, 2),
    (5, 960, 160, 240, _HSWISH, 1),
    (5, 960, 160, 240, _HSWISH, 1),
]
_REDUCED_TAIL: list[_Row] = [
    (5, 672, 80, 168, _HSWISH, 2),
    (5, 480, 80, 120, _HSWISH, 1),
    (5, 480, 80, 120, _HSWISH, 1),
]


class MobileNetV3(nn.Module):
    """MobileNetV3-Large of width 1 with SSDLite's extra layers.

    The feature maps are one at stride 16, that of the last 1 × 1 convolution, then one of each extra layer.

    Args:
        extras: Per extra layer (intermediate channels, channels out). It is a 1 × 1 convolution to the intermediate
            channels, a depthwise 3 × 3 convolution of stride 2, then a 1 × 1 convolution.
        reduced_tail: Whether the layers at stride 32 have half their channels, as section 6.3 does for detection.
        tap: The map at stride 16: the `"expansion"` of the block that leads to stride 32 (672 channels), or the
            `"output"` of the block before it (112 channels).
        block_extras: Whether extra layers are blocks with a 1 × 1 depthwise convolution of stride 2. They squeeze
            before its activation.
        squeeze_first: Whether blocks squeeze before the activation of their depthwise convolution, or after it.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
    """

    num_stages = 6

    def __init__(
        self,
        extras: Sequence[tuple[int, int]],
        *,
        reduced_tail: bool = False,
        tap: Literal["expansion", "output"] = "expansion",
        block_extras: bool = False,
        squeeze_first: bool = False,
        in_chans: int = 3,
        norm_layer: NormLayer = BatchNorm2d,
    ) -> None:
        super().__init__()
        self.tap = tap
        layer = partial(ConvNormAct, norm_layer=norm_layer)
        block = partial(InvertedResidual, squeeze_first=squeeze_first, norm_layer=norm_layer)
        self.stem = layer(in_chans, 16, 3, stride=2, act_layer=_HSWISH)
        self.blocks = nn.ModuleList()
        self._stages = []
        channels = 16
        rows = _BLOCKS + (_REDUCED_TAIL if reduced_tail else _TAIL)
        for kernel_size, between, out, squeezed, act_layer, stride in rows:
            if stride == 2:
                self._stages.append(len(self.blocks))
            self.blocks.append(
                block(channels, between, out, kernel_size, stride=stride, squeezed=squeezed, act_layer=act_layer)
            )
            channels = out
        self.last = layer(channels, 6 * channels, act_layer=_HSWISH)
        channels = 6 * channels
        self.extras = nn.ModuleList()
        extra_layer = _block_extra if block_extras else _lite_extra
        for between, out in extras:
            self.extras.append(extra_layer(channels, between, out, norm_layer=norm_layer))
            channels = out
        # Layers that a classifier's weights lack.
        self.new_layers: tuple[str, ...] = ("extras",)
        if reduced_tail:
            self.new_layers += ("blocks.12.project", "blocks.13", "blocks.14", "last")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.normal_, std=0.03))

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 6) of the 6 stages.

        A stage begins at each block of stride 2, the first at the stem. The last 1 × 1 convolution is the sixth. The
        extras always train. Nothing is unfrozen.
        """
        freeze_blocks(self.stem, self.blocks, [*self._stages, len(self.blocks)], trainable_layers)
        if trainable_layers == 0:
            self.last.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        return tapped_maps(features, self.blocks, self._stages[-1:], self.tap, self.last, self.extras)


class InvertedResidual(nn.Module):
    """MobileNetV2's block with squeeze and excitation (figure 4).

    Args:
        in_channels: Channels of the input.
        between: Channels of the depthwise convolution. If equal to `in_channels`, there is no expanding convolution.
        out_channels: Channels of the output.
        kernel_size: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        squeezed: Channels of squeeze and excitation; 0 for none.
        squeeze_first: Whether the block squeezes before the activation of its depthwise convolution, or after it.
        act_layer: Called without arguments.
        norm_layer: Called with the number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        between: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int,
        squeezed: int,
        squeeze_first: bool,
        act_layer: Callable[[], nn.Module],
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=act_layer)
        self.expand = layer(in_channels, between) if between != in_channels else nn.Identity()
        self.depthwise = ConvNormAct(
            between,
            between,
            kernel_size,
            stride=stride,
            depthwise=True,
            norm_layer=norm_layer,
            act_layer=None if squeeze_first else act_layer,
        )
        self.squeeze = (
            SqueezeExcitation(between, squeezed, scale_activation=nn.Hardsigmoid) if squeezed else nn.Identity()
        )
        self.act = act_layer() if squeeze_first else nn.Identity()
        self.project = layer(between, out_channels, act_layer=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its expansion (the input itself without one)."""
        expanded = self.expand(features)
        out = self.project(self.act(self.squeeze(self.depthwise(expanded))))
        return (features + out if self.residual else out), expanded


def _lite_extra(in_channels: int, between: int, out_channels: int, *, norm_layer: NormLayer) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, between, norm_layer=norm_layer),
        ConvNormAct(between, between, 3, stride=2, depthwise=True, norm_layer=norm_layer),
        ConvNormAct(between, out_channels, norm_layer=norm_layer),
    )


def _block_extra(in_channels: int, between: int, out_channels: int, *, norm_layer: NormLayer) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, between, norm_layer=norm_layer, act_layer=_HSWISH),
        ConvNormAct(between, between, stride=2, depthwise=True, norm_layer=norm_layer, act_layer=None),
        SqueezeExcitation(between, between // 4, scale_activation=nn.Hardsigmoid),
        _HSWISH(),
        ConvNormAct(between, out_channels, norm_layer=norm_layer, act_layer=None),
    )

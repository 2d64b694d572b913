"""MobileNetV2 with the extra layers of SSDLite or SSD.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2. https://arxiv.org/abs/1801.04381
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ssd_zoo.backbones.blocks import freeze_blocks, tapped_maps
from ssd_zoo.layers.basic import RELU6, BatchNorm2d, ConvNormAct, NormLayer, init_conv

__all__ = ["InvertedResidual", "MobileNetV2"]

# Expansion, channels, repetitions, stride of the first.
_BLOCKS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 with the extra layers of SSDLite or SSD.

    The feature maps are one at stride 16, that of the last 1 × 1 convolution, then one of each extra layer. With
    `finest_stride=8` one at stride 8 comes first.

    Args:
        extras: Per extra layer (intermediate channels, channels out). It is a 1 × 1 convolution to the intermediate
            channels, a depthwise 3 × 3 convolution of stride 2, then a 1 × 1 convolution.
        tap: The map at stride 16: the `"expansion"` of the block that leads to stride 32 (576 channels), or the
            `"output"` of the block before it (96 channels).
        finest_stride: Stride of the finest map, 8 or 16.
        linear_extras: Whether extra layers end without an activation, as the blocks of MobileNetV2 do.
        plain_extras: Whether extra layers are SSD's: a 1 × 1 convolution, then a 3 × 3 convolution of stride 2.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
        conv_layer: Class of the convolutions; it determines the padding.

    Raises:
        ValueError: If `finest_stride` is neither 8 nor 16.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("extras",)

    def __init__(
        self,
        extras: Sequence[tuple[int, int]],
        *,
        tap: Literal["expansion", "output"] = "expansion",
        finest_stride: int = 16,
        linear_extras: bool = False,
        plain_extras: bool = False,
        in_chans: int = 3,
        norm_layer: NormLayer = BatchNorm2d,
        conv_layer: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        if finest_stride not in (8, 16):
            raise ValueError(f"finest_stride must be 8 or 16, got {finest_stride!r}.")
        self.tap, self.finer_maps = tap, int(finest_stride == 8)
        layer = partial(ConvNormAct, norm_layer=norm_layer, conv_layer=conv_layer)
        self.stem = layer(in_chans, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self._stages = []
        channels = 32
        for expansion, out, repetitions, first_stride in _BLOCKS:
            for stride in [first_stride] + [1] * (repetitions - 1):
                if stride == 2:
                    self._stages.append(len(self.blocks))
                self.blocks.append(
                    InvertedResidual(
                        channels, out, expansion, stride=stride, norm_layer=norm_layer, conv_layer=conv_layer
                    )
                )
                channels = out
        self.last = layer(channels, 1280)
        self.extras = nn.ModuleList()
        channels = 1280
        last_layer = partial(layer, act_layer=None if linear_extras else RELU6)
        for between, out in extras:
            if plain_extras:
                coarser = [last_layer(between, out, 3, stride=2)]
            else:
                coarser = [layer(between, between, 3, stride=2, depthwise=True), last_layer(between, out)]
            self.extras.append(nn.Sequential(layer(channels, between), *coarser))
            channels = out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.kaiming_normal_, mode="fan_out"))

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        A stage begins at each block of stride 2, the first at the stem. The last 1 × 1 convolution is part of the
        fifth, and frozen only with 0. The extras always train. Nothing is unfrozen; running statistics are left to
        `freeze_norms`.
        """
        freeze_blocks(self.stem, self.blocks, self._stages, trainable_layers)
        if trainable_layers == 0:
            self.last.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        tapped = self._stages[-1 - self.finer_maps :]
        return tapped_maps(features, self.blocks, tapped, self.tap, self.last, self.extras)


class InvertedResidual(nn.Module):
    """An expansion, a depthwise convolution and a linear projection (figure 4).

    A shortcut is added if input and output have the same shape.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Intermediate channels over input channels; 1 leaves out the expanding convolution.
        stride: Stride of the depthwise convolution.
        norm_layer: Called with the number of channels.
        conv_layer: Class of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        *,
        stride: int,
        norm_layer: NormLayer,
        conv_layer: type[nn.Conv2d],
    ) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, conv_layer=conv_layer)
        between = in_channels * expansion
        self.expand = layer(in_channels, between) if expansion > 1 else nn.Identity()
        self.depthwise = layer(between, between, 3, stride=stride, depthwise=True)
        self.project = layer(between, out_channels, act_layer=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its expansion (the input itself without one)."""
        expanded = self.expand(features)
        out = self.project(self.depthwise(expanded))
        return (features + out if self.residual else out), expanded

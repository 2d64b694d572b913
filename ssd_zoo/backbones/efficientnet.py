"""EfficientNet-B3 with SSD's extra layers.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1 and section 3.3.
https://arxiv.org/abs/1905.11946
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from ssd_zoo.backbones.blocks import freeze_blocks
from ssd_zoo.layers.basic import BatchNorm2d, Conv2dSame, ConvNormAct, NormLayer, init_conv

__all__ = ["EfficientNetB3", "MBConv"]

_SWISH = partial(nn.SiLU, inplace=True)
# Kernel, expansion, channels, repetitions, stride of the first.
_STAGES = [
    (3, 1, 24, 2, 1),
    (3, 6, 32, 3, 2),
    (5, 6, 48, 3, 2),
    (3, 6, 96, 5, 2),
    (5, 6, 136, 5, 1),
    (5, 6, 232, 6, 2),
    (3, 6, 384, 2, 1),
]
# The stages that end at strides 8, 16 and 32.
_TAPS = (2, 4, 6)


class EfficientNetB3(nn.Module):
    """EfficientNet-B3 without its last 1 × 1 convolution, with SSD's extra layers.

    The feature maps are the last at strides 8, 16 and 32, then one of each extra layer. Convolutions have TensorFlow's
    "SAME" padding.

    Args:
        extras: Per extra layer (intermediate channels, channels out, stride, padding). It is a 1 × 1 convolution to the
            intermediate channels, then a 3 × 3 convolution of that stride and padding.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("extras",)

    def __init__(
        self,
        extras: Sequence[tuple[int, int, int, int]],
        *,
        in_chans: int = 3,
        norm_layer: NormLayer = BatchNorm2d,
    ) -> None:
        super().__init__()
        self.stem = ConvNormAct(
            in_chans, 40, 3, stride=2, norm_layer=norm_layer, act_layer=_SWISH, conv_layer=Conv2dSame
        )
        self.blocks = nn.ModuleList()
        self._strides: list[int] = []
        self._taps: list[int] = []
        channels = 40
        for k, (kernel_size, expansion, out, repetitions, first_stride) in enumerate(_STAGES):
            for stride in [first_stride] + [1] * (repetitions - 1):
                if stride == 2:
                    self._strides.append(len(self.blocks))
                self.blocks.append(MBConv(channels, out, kernel_size, expansion, stride=stride, norm_layer=norm_layer))
                channels = out
            if k in _TAPS:
                self._taps.append(len(self.blocks) - 1)
        self.extras = nn.ModuleList()
        for between, out, stride, padding in extras:
            self.extras.append(
                nn.Sequential(
                    nn.Conv2d(channels, between, 1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(between, out, 3, stride, padding),
                    nn.ReLU(inplace=True),
                )
            )
            channels = out
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                extra = name.startswith("extras.")
                init_conv(
                    module, nn.init.xavier_uniform_ if extra else partial(nn.init.kaiming_normal_, mode="fan_out")
                )

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        A stage begins at each block of stride 2, the first at the stem. The extras always train. Nothing is unfrozen;
        running statistics are left to `freeze_norms`.
        """
        freeze_blocks(self.stem, self.blocks, self._strides, trainable_layers)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        maps = []
        for i, block in enumerate(self.blocks):
            features = block(features)
            if i in self._taps:
                maps.append(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class MBConv(nn.Module):
    """MobileNetV2's block with squeeze and excitation.

    The squeezed channels are a quarter of the block's input channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the depthwise kernel.
        expansion: Intermediate channels over input channels; 1 leaves out the expanding convolution.
        stride: Stride of the depthwise convolution.
        norm_layer: Called with the number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expansion: int,
        *,
        stride: int,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=_SWISH, conv_layer=Conv2dSame)
        between = in_channels * expansion
        self.expand = layer(in_channels, between) if expansion > 1 else nn.Identity()
        self.depthwise = layer(between, between, kernel_size, stride=stride, depthwise=True)
        self.squeeze = SqueezeExcitation(between, in_channels // 4, activation=_SWISH)
        self.project = layer(between, out_channels, act_layer=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output `(N, out_channels, H', W')` for features `(N, in_channels, H, W)`."""
        out = self.project(self.squeeze(self.depthwise(self.expand(features))))
        return features + out if self.residual else out

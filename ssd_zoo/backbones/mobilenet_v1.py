"""MobileNetV1 with SSD's extra layers.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", table 1.
https://arxiv.org/abs/1704.04861
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from ssd_zoo.backbones.blocks import freeze_blocks
from ssd_zoo.layers.basic import RELU6, BatchNorm2d, ConvNormAct, NormLayer, init_conv

__all__ = ["MobileNetV1"]

# Channels, stride.
_BLOCKS = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
]


class MobileNetV1(nn.Module):
    """MobileNetV1 of width 1 with SSD's extra layers.

    The feature maps are the last at stride 16, the last at stride 32, then one of each extra layer.

    Args:
        extras: Per extra layer (intermediate channels, channels out). It is a 1 × 1 convolution to the intermediate
            channels, then a 3 × 3 convolution of stride 2.
        norm_extras: Whether extra layers have norms. If not, their convolutions have biases.
        separable_extras: Whether the 3 × 3 convolutions of extra layers are separable: depthwise, activation, 1 × 1.
            Such extra layers have no norms and no final activation.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
        act_layer: Called without arguments.
        conv_layer: Class of the convolutions; it determines the padding.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("extras",)

    def __init__(
        self,
        extras: Sequence[tuple[int, int]],
        *,
        norm_extras: bool = True,
        separable_extras: bool = False,
        in_chans: int = 3,
        norm_layer: NormLayer = BatchNorm2d,
        act_layer: Callable[[], nn.Module] = RELU6,
        conv_layer: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=act_layer, conv_layer=conv_layer)
        self.stem = layer(in_chans, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self._stages = []
        channels = 32
        for out, stride in _BLOCKS:
            if stride == 2:
                self._stages.append(len(self.blocks))
            self.blocks.append(
                nn.Sequential(layer(channels, channels, 3, stride=stride, depthwise=True), layer(channels, out))
            )
            channels = out
        extra_layer = layer if norm_extras else partial(_conv_act, act_layer=act_layer, conv_layer=conv_layer)
        self.extras = nn.ModuleList()
        for between, out in extras:
            if separable_extras:
                self.extras.append(_separable_extra(channels, between, out, act_layer=act_layer, conv_layer=conv_layer))
            else:
                layers = extra_layer(channels, between), extra_layer(between, out, 3, stride=2)
                self.extras.append(nn.Sequential(*layers))
            channels = out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.kaiming_normal_, mode="fan_out"))

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        A stage begins at each block of stride 2, the first at the stem. The extras always train. Nothing is unfrozen;
        running statistics are left to `freeze_norms`.
        """
        freeze_blocks(self.stem, self.blocks, self._stages, trainable_layers)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        maps = []
        for i, block in enumerate(self.blocks):
            if i == self._stages[-1]:
                maps.append(features)
            features = block(features)
        maps.append(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _conv_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    act_layer: Callable[[], nn.Module],
    conv_layer: type[nn.Conv2d],
) -> nn.Module:
    conv = conv_layer(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
    return nn.Sequential(OrderedDict(conv=conv, act=act_layer()))


def _separable_extra(
    in_channels: int,
    between: int,
    out_channels: int,
    *,
    act_layer: Callable[[], nn.Module],
    conv_layer: type[nn.Conv2d],
) -> nn.Module:
    return nn.Sequential(
        conv_layer(in_channels, between, 1),
        act_layer(),
        conv_layer(between, between, 3, stride=2, padding=1, groups=between),
        act_layer(),
        conv_layer(between, out_channels, 1),
    )

"""The small backbones of Ultra-Light-Fast-Generic-Face-Detector-1MB, with SSD's extra layer.

https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from ssd_zoo.backbones.blocks import freeze_blocks
from ssd_zoo.layers.basic import RELU, BatchNorm2d, ConvNormAct, NormLayer, init_conv

__all__ = ["ReceptiveFieldBlock", "UltraFaceNet"]

# Channels, stride.
_BLOCKS = [
    (32, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (64, 1),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
]
# Index of the receptive field block in the version "RFB".
_RFB = 6


class UltraFaceNet(nn.Module):
    """A small MobileNetV1 with one extra layer.

    The feature maps are the last at strides 8, 16 and 32, then that of the extra layer at stride 64.

    Args:
        rfb: Whether the last block at stride 8 is a receptive field block ("RFB"), or one like the others ("slim").
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("extra",)

    def __init__(self, *, rfb: bool, in_chans: int = 3, norm_layer: NormLayer = BatchNorm2d) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=RELU)
        self.stem = layer(in_chans, 16, 3, stride=2)
        self.blocks = nn.ModuleList()
        self._stages = []
        channels = 16
        for i, (out, stride) in enumerate(_BLOCKS):
            if stride == 2:
                self._stages.append(i)
            if rfb and i == _RFB:
                self.blocks.append(ReceptiveFieldBlock(channels, norm_layer=norm_layer))
            else:
                depthwise = layer(channels, channels, 3, stride=stride, depthwise=True)
                self.blocks.append(nn.Sequential(depthwise, layer(channels, out)))
            channels = out
        self.extra = nn.Sequential(
            nn.Conv2d(channels, 64, 1),
            RELU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64),
            RELU(),
            nn.Conv2d(64, 256, 1),
            RELU(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.kaiming_normal_, mode="fan_out"))

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        A stage begins at each block of stride 2, the first at the stem. The extra layer always trains. Nothing is
        unfrozen; running statistics are left to `freeze_norms`.
        """
        freeze_blocks(self.stem, self.blocks, self._stages, trainable_layers)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        maps = []
        for i, block in enumerate(self.blocks):
            if i in self._stages[-2:]:
                maps.append(features)
            features = block(features)
        maps += [features, self.extra(features)]
        return maps


class ReceptiveFieldBlock(nn.Module):
    """Three branches of dilations 2, 3 and 5, and a shortcut.

    Liu et al., "Receptive Field Block Net for Accurate and Fast Object Detection", figure 4.
    https://arxiv.org/abs/1711.07767

    Args:
        channels: Channels of the input and the output.
        norm_layer: Called with the number of channels.
    """

    def __init__(self, channels: int, *, norm_layer: NormLayer = BatchNorm2d) -> None:
        super().__init__()
        layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=RELU)
        linear = partial(layer, act_layer=None)
        few = channels // 8
        self.branches = nn.ModuleList(
            nn.Sequential(
                linear(channels, few),
                *(layer(before, after, 3) for before, after in between),
                _dilated(2 * few, dilation, norm_layer),
            )
            for dilation, between in (
                (2, [(few, 2 * few)]),
                (3, [(few, 2 * few)]),
                (5, [(few, few // 2 * 3), (few // 2 * 3, 2 * few)]),
            )
        )
        self.join = linear(6 * few, channels)
        self.shortcut = linear(channels, channels)
        self.act = RELU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, `(N, channels, H, W)`."""
        joined = self.join(torch.cat([branch(features) for branch in self.branches], dim=1))
        return self.act(joined + self.shortcut(features))


def _dilated(channels: int, dilation: int, norm_layer: NormLayer) -> nn.Module:
    conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm_layer(channels)))

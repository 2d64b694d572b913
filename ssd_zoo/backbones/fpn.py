"""Feature pyramids on ResNet-50 and MobileNetV2, levels 3 to 7.

They follow the TensorFlow Object Detection API.

Lin et al., "Feature Pyramid Networks for Object Detection". https://arxiv.org/abs/1612.03144
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ssd_zoo.backbones.mobilenet_v2 import MobileNetV2
from ssd_zoo.detector.shared_head import SeparableConv2d
from ssd_zoo.layers.basic import RELU6, BatchNorm2d, Conv2dSame, MaxPool2dSame, NormLayer, init_conv
from ssd_zoo.layers.convolution import FastConv2d

__all__ = ["FeaturePyramid", "MobileNetV2FPN", "ResNet50FPN"]


class FeaturePyramid(nn.Module):
    """A feature pyramid: a map per backbone map, and two coarser ones.

    Each map of the backbone is projected by a 1 × 1 convolution. The coarsest projection is the first finished map.
    Every finer one is added to the next coarser finished map, which is enlarged by repetition. A 3 × 3 convolution
    then finishes it. The two coarser maps follow by convolutions of stride 2 with "SAME" padding.

    Args:
        in_channels: Channels of the backbone's maps, from fine to coarse, each half as large as the one before.
        channels: Channels of all maps of the pyramid.
        separable: Whether the 3 × 3 convolutions are separable.
        norm_layer: Called with the number of channels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        *,
        separable: bool = False,
        norm_layer: NormLayer = BatchNorm2d,
    ) -> None:
        super().__init__()
        smoothing = SeparableConv2d if separable else FastConv2d
        halving = partial(SeparableConv2d, depthwise_layer=Conv2dSame) if separable else Conv2dSame
        layer = partial(_conv3x3, channels, norm_layer=norm_layer)
        self.projections = nn.ModuleList(nn.Conv2d(given, channels, 1) for given in in_channels)
        self.smoothings = nn.ModuleList(layer(conv_layer=smoothing) for _ in in_channels[:-1])
        self.coarser = nn.ModuleList(layer(stride=2, conv_layer=halving) for _ in range(2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.trunc_normal_, std=0.03))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the pyramid of a backbone's maps `(N, in_channels, H, W)`, both from fine to coarse."""
        projected = [project(given) for project, given in zip(self.projections, features, strict=True)]
        maps = [projected[-1]]
        for given, smooth in zip(reversed(projected[:-1]), reversed(self.smoothings), strict=True):
            maps.insert(0, smooth(given + F.interpolate(maps[0], size=given.shape[-2:], mode="nearest")))
        for coarser in self.coarser:
            maps.append(coarser(maps[-1]))
        return maps


def _conv3x3(
    channels: int, *, stride: int = 1, conv_layer: Callable[..., nn.Module], norm_layer: NormLayer
) -> nn.Module:
    conv = conv_layer(channels, channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm_layer(channels), act=RELU6()))


class ResNet50FPN(nn.Module):
    """ResNet-50 with a feature pyramid on conv3, conv4 and conv5.

    The network and its names are torchvision's, except that max pooling has TensorFlow's "SAME" padding. TensorFlow's
    ResNet-50 has the stride in a block's first convolution, torchvision's in the second. TensorFlow's activations are
    ReLU6.

    He et al., "Deep Residual Learning for Image Recognition", table 1. https://arxiv.org/abs/1512.03385

    Args:
        channels: Channels of the pyramid's maps.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("pyramid",)

    def __init__(self, channels: int, *, in_chans: int = 3, norm_layer: NormLayer = BatchNorm2d) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50(weights=None, norm_layer=norm_layer)
        self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
        init_conv(self.conv1, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        self.bn1 = resnet.bn1
        self.relu = resnet.relu
        self.maxpool = MaxPool2dSame(3, stride=2)
        self.layer1 = resnet.layer1
        self.layer2 = resnet.layer2
        self.layer3 = resnet.layer3
        self.layer4 = resnet.layer4
        self.pyramid = FeaturePyramid([512, 1024, 2048], channels, norm_layer=norm_layer)

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        The stages are conv1 to conv5. Nothing is unfrozen. The pyramid always trains.
        """
        stages = (nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3, self.layer4)
        for stage in stages[: self.num_stages - trainable_layers]:
            stage.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(batch)))))
        maps = []
        for stage in (self.layer2, self.layer3, self.layer4):
            features = stage(features)
            maps.append(features)
        return self.pyramid(maps)


class MobileNetV2FPN(nn.Module):
    """MobileNetV2 with a feature pyramid of separable convolutions.

    The pyramid's inputs are maps of 32, 96 and 1280 channels. Convolutions of MobileNetV2 have "SAME" padding.

    Args:
        channels: Channels of the pyramid's maps.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("pyramid",)

    def __init__(self, channels: int, *, in_chans: int = 3, norm_layer: NormLayer = BatchNorm2d) -> None:
        super().__init__()
        mobilenet = MobileNetV2(extras=[], in_chans=in_chans, norm_layer=norm_layer, conv_layer=Conv2dSame)
        self.stem = mobilenet.stem
        self.blocks = mobilenet.blocks
        self.last = mobilenet.last
        self.pyramid = FeaturePyramid([32, 96, 1280], channels, separable=True, norm_layer=norm_layer)

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        A stage begins at each block of stride 2, the first at the stem. The pyramid always trains. Nothing is unfrozen.
        """
        stages = (
            nn.ModuleList([self.stem, self.blocks[0]]),
            self.blocks[1:3],
            self.blocks[3:6],
            self.blocks[6:13],
            nn.ModuleList([*self.blocks[13:], self.last]),
        )
        for stage in stages[: self.num_stages - trainable_layers]:
            stage.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.stem(batch)
        maps = []
        for i, block in enumerate(self.blocks):
            features, _ = block(features)
            if i in (5, 12):
                maps.append(features)
        return self.pyramid([*maps, self.last(features)])

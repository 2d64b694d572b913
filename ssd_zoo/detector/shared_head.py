"""The head of detectors on a feature pyramid.

Lin et al., "Focal Loss for Dense Object Detection", section 4. https://arxiv.org/abs/1708.02002

The norms are those of the weight-shared predictor in the TensorFlow Object Detection API.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ssd_zoo.detector.heads import as_rows
from ssd_zoo.detector.torchvision_names import WithWaysOut
from ssd_zoo.layers.basic import BatchNorm2d, NormLayer, init_conv
from ssd_zoo.layers.convolution import FastConv2d

__all__ = ["SeparableConv2d", "SharedHead"]


class SharedHead(WithWaysOut):
    """A head whose convolutions are shared by all feature maps.

    Towers of convolutions precede the convolutions that predict. Each feature map has separate norms.

    Args:
        in_channels: Channels of each feature map, all the same.
        boxes_per_location: Default boxes in a cell of each feature map, all the same.
        num_classes: Number of classes, background counted.
        num_convs: Number of 3 × 3 convolutions in a tower.
        separable: Whether all 3 × 3 convolutions are separable.
        one_tower: Whether classes and boxes share one tower.
        own_towers: Whether each feature map has convolutions of its own after all, for 8-bit weights of a shared head
            that were rounded for each map.
        prior: Initial score of every class. A low one keeps the many negatives from dominating the first steps.
        norm_layer: Called with the number of channels.

    Raises:
        ValueError: If the maps differ in channels or in boxes.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        boxes_per_location: Sequence[int],
        num_classes: int,
        *,
        num_convs: int = 4,
        separable: bool = False,
        one_tower: bool = False,
        own_towers: bool = False,
        prior: float = 0.01,
        norm_layer: NormLayer = BatchNorm2d,
    ) -> None:
        super().__init__()
        for what, numbers in (("channels", in_channels), ("default boxes in a cell", boxes_per_location)):
            if len(set(numbers)) > 1:
                raise ValueError(f"A shared head needs equal numbers of {what} on all maps, got {list(numbers)}.")
        self.num_classes = num_classes
        channels, boxes = in_channels[0], boxes_per_location[0]
        conv_layer = SeparableConv2d if separable else FastConv2d
        of_maps = partial(_Tower, channels, num_convs, conv_layer=conv_layer, norm_layer=norm_layer)

        def tower() -> nn.Module:
            return _OwnTowers(of_maps(1) for _ in in_channels) if own_towers else of_maps(len(in_channels))

        self.tower = tower() if one_tower else nn.Identity()
        self.cls_logits = nn.ModuleList()
        self.bbox_regression = nn.ModuleList()
        for predictors, columns in ((self.cls_logits, num_classes), (self.bbox_regression, 4)):
            conv = conv_layer(channels, boxes * columns, 3, padding=1)
            predictors.append(_SharedPredictor(nn.Identity() if one_tower else tower(), conv))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.normal_, std=0.01))
        *_, bias = self.cls_logits.parameters()
        nn.init.constant_(bias, math.log(prior / (1 - prior)))

    def forward(self, feature_maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predict class logits and offsets of all default boxes.

        Args:
            feature_maps: One tensor `(N, channels, height, width)` per feature map.

        Returns:
            `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`, in float32 where the maps are in half precision.
        """
        feature_maps = self.tower(feature_maps)
        return {
            "cls_logits": as_rows(self.cls_logits[0](feature_maps), self.num_classes),
            "bbox_regression": as_rows(self.bbox_regression[0](feature_maps), 4),
        }


class _Tower(nn.Module):
    """Convolutions shared by all feature maps, with separate norms and ReLU6."""

    def __init__(
        self,
        channels: int,
        num_convs: int,
        num_maps: int,
        *,
        conv_layer: Callable[..., nn.Module],
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv_layer(channels, channels, 3, padding=1, bias=False) for _ in range(num_convs))
        self.norms = nn.ModuleList(
            nn.ModuleList(norm_layer(channels) for _ in range(num_convs)) for _ in range(num_maps)
        )

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        outputs = []
        for features, norms in zip(feature_maps, self.norms, strict=True):
            for conv, norm in zip(self.convs, norms.children(), strict=True):
                features = F.relu6(norm(conv(features)), inplace=True)
            outputs.append(features)
        return outputs


class _OwnTowers(nn.ModuleList):
    """One tower of convolutions for each feature map."""

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        return [tower([features])[0] for tower, features in zip(self, feature_maps, strict=True)]


class _SharedPredictor(nn.Module):
    """A tower, and the convolution that predicts from its output, for all feature maps."""

    def __init__(self, tower: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.conv = conv

    def forward(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.conv(features) for features in self.tower(feature_maps)]


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution, then a 1 × 1 convolution.

    No norm or activation lies between them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        padding: Padding of the depthwise convolution.
        bias: Whether the 1 × 1 convolution has a bias.
        depthwise_layer: The depthwise convolution's class.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        depthwise_layer: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.depthwise = depthwise_layer(
            in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

"""Heads, which predict class logits and box offsets from feature maps."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ssd_zoo.detector.torchvision_names import WithWaysOut
from ssd_zoo.layers.basic import BatchNorm2d, ConvNormAct, NormLayer, init_conv
from ssd_zoo.layers.convolution import FastConv2d

__all__ = ["SSDHead", "SSDLiteHead", "SSDSeparableHead", "as_rows"]

_init_lite = partial(nn.init.normal_, std=0.03)


class _Head(WithWaysOut):
    """Two predictors per feature map, one for classes and one for boxes.

    Args:
        predictors: One per feature map, called with the channels in and out. Its last layer is the convolution that
            predicts.
        in_channels: Channels of each feature map.
        boxes_per_location: Default boxes in a cell of each feature map.
        num_classes: Number of classes, background counted.
    """

    def __init__(
        self,
        predictors: Sequence[Callable[[int, int], nn.Module]],
        in_channels: Sequence[int],
        boxes_per_location: Sequence[int],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        maps = list(zip(predictors, in_channels, boxes_per_location, strict=True))
        self.cls_logits = nn.ModuleList(predictor(channels, boxes * num_classes) for predictor, channels, boxes in maps)
        self.bbox_regression = nn.ModuleList(predictor(channels, boxes * 4) for predictor, channels, boxes in maps)

    def forward(self, feature_maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predict class logits and offsets of all default boxes.

        Args:
            feature_maps: One tensor `(N, channels, height, width)` per feature map.

        Returns:
            `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`, in float32 where the maps are in half precision.
        """
        return {
            "cls_logits": _predict(self.cls_logits, feature_maps, self.num_classes),
            "bbox_regression": _predict(self.bbox_regression, feature_maps, 4),
        }


def _predict(predictors: nn.ModuleList, feature_maps: Sequence[Tensor], columns: int) -> Tensor:
    """Run one predictor per feature map; return `(N, D, columns)`."""
    return as_rows([predict(features) for predict, features in zip(predictors, feature_maps, strict=True)], columns)


def as_rows(predicted: Sequence[Tensor], columns: int) -> Tensor:
    """Arrange predictions in the order of the default boxes.

    That order is by map, row, column, shape.

    Args:
        predicted: One tensor `(N, boxes * columns, height, width)` per feature map.
        columns: Numbers per default box.

    Returns:
        `(N, D, columns)`, in float32 where the predictions are in half precision.
    """
    rows = [of_map.permute(0, 2, 3, 1).reshape(of_map.shape[0], -1, columns) for of_map in predicted]
    predictions = torch.cat(rows, dim=1)
    return predictions.float() if predictions.dtype in (torch.float16, torch.bfloat16) else predictions


class SSDHead(_Head):
    """SSD's head, with 3 × 3 convolutions for classes and for boxes.

    Liu et al., "SSD: Single Shot MultiBox Detector", section 2.1. https://arxiv.org/abs/1512.02325

    Args:
        in_channels: Channels of each feature map.
        boxes_per_location: Default boxes in a cell of each feature map.
        num_classes: Number of classes, background counted.
        kernel_size: Side of the convolutions; 1 in TensorFlow's SSD on MobileNetV1.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        boxes_per_location: Sequence[int],
        num_classes: int,
        *,
        kernel_size: int = 3,
    ) -> None:
        predictors = [partial(_conv, kernel_size=kernel_size)] * len(in_channels)
        super().__init__(predictors, in_channels, boxes_per_location, num_classes)


def _conv(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Module:
    conv = FastConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    init_conv(conv, nn.init.xavier_uniform_)
    return conv


class SSDLiteHead(_Head):
    """SSDLite's head: a depthwise 3 × 3 convolution, then a pointwise one.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", section 6.2.
    https://arxiv.org/abs/1801.04381

    Args:
        in_channels: Channels of each feature map.
        boxes_per_location: Default boxes in a cell of each feature map.
        num_classes: Number of classes, background counted.
        norm_layer: Norm of the depthwise convolution, called with the number of channels.
        plain_last: Whether the last map has only a 1 × 1 convolution, as in lufficc/SSD and qfgaohao/pytorch-ssd.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        boxes_per_location: Sequence[int],
        num_classes: int,
        *,
        norm_layer: NormLayer = BatchNorm2d,
        plain_last: bool = False,
    ) -> None:
        predictors: list[Callable[[int, int], nn.Module]]
        predictors = [partial(_separable3x3, norm_layer=norm_layer)] * len(in_channels)
        if plain_last:
            predictors[-1] = _conv1x1
        super().__init__(predictors, in_channels, boxes_per_location, num_classes)


def _separable3x3(in_channels: int, out_channels: int, *, norm_layer: NormLayer) -> nn.Module:
    depthwise = ConvNormAct(in_channels, in_channels, 3, depthwise=True, norm_layer=norm_layer)
    init_conv(depthwise.conv, _init_lite)
    return nn.Sequential(depthwise, _conv1x1(in_channels, out_channels))


def _conv1x1(in_channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    init_conv(conv, _init_lite)
    return conv


class SSDSeparableHead(_Head):
    """SSDLite's head without norms.

    It has a depthwise 3 × 3 convolution, a ReLU, then a pointwise convolution. The last map has a single convolution,
    as in the face detectors of Ultra-Light-Face and in qfgaohao's SSDLite on MobileNetV1.

    Args:
        in_channels: Channels of each feature map.
        boxes_per_location: Default boxes in a cell of each feature map.
        num_classes: Number of classes, background counted.
        last_kernel_size: Side of the last map's convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        boxes_per_location: Sequence[int],
        num_classes: int,
        *,
        last_kernel_size: int = 1,
    ) -> None:
        predictors: list[Callable[[int, int], nn.Module]] = [_separable_with_bias] * (len(in_channels) - 1)
        predictors.append(partial(_conv, kernel_size=last_kernel_size))
        super().__init__(predictors, in_channels, boxes_per_location, num_classes)


def _separable_with_bias(in_channels: int, out_channels: int) -> nn.Module:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
    init_conv(depthwise, nn.init.xavier_uniform_)
    return nn.Sequential(depthwise, nn.ReLU(inplace=True), _conv(in_channels, out_channels, kernel_size=1))

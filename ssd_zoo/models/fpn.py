"""SSD on a feature pyramid with a shared head, after RetinaNet.

Lin et al., "Focal Loss for Dense Object Detection". https://arxiv.org/abs/1708.02002
https://github.com/tensorflow/models/tree/master/research/object_detection/configs/tf2
"""

from functools import partial

import torchvision
from torch import nn
from typing_extensions import Unpack

from ssd_zoo.backbones.fpn import MobileNetV2FPN, ResNet50FPN
from ssd_zoo.detector.shared_head import SharedHead
from ssd_zoo.detector.ssd import SSD, Head
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import Settled, finish, settle
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.published import timm_weights, torchvision_weights
from ssd_zoo.weights.settings import TENSORFLOW, BoxSettings, OriginSettings

__all__ = [
    "MobileNetV2FPN_Weights",
    "ResNet50FPN_Weights",
    "ssd640_resnet50_fpn",
    "ssdlite320_mobilenet_v2_fpn",
    "ssdlite640_mobilenet_v2_fpn",
]


class ResNet50FPN_Weights(WeightsEnum):
    """Weights of ResNet-50, for the backbone below the feature pyramid."""

    TV_IN1K = timm_weights("resnet50.tv_in1k", "conv1.", "bn1.", "layer", num_params=23508032)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V1, num_params=23508032)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V2, num_params=23508032)
    DEFAULT = TV_IN1K


_MOBILENET = ("conv_stem.", "bn1.", "blocks.", "conv_head.", "bn2.")


class MobileNetV2FPN_Weights(WeightsEnum):
    """Weights of MobileNetV2, for the backbone below the feature pyramid."""

    RA_IN1K = timm_weights("mobilenetv2_100.ra_in1k", *_MOBILENET, num_params=2223872, licence="Apache-2.0")
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1, num_params=2223872)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V2, num_params=2223872)
    DEFAULT = IMAGENET1K_V2


@register_model
def ssd640_resnet50_fpn(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: ResNet50FPN_Weights | str | None = ResNet50FPN_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build SSD on ResNet-50's feature pyramid, after TensorFlow's source.

    Feature maps have 80 40 20 10 5 cells a side, with 51150 default boxes. Two towers of four convolutions, one for
    classes and one for boxes, serve all maps. Scores are sigmoids, trained by focal loss.

    Head, padding, default boxes and thresholds follow TensorFlow's `ssd_resnet50_v1_fpn_640x640`; no test compares
    them with its output. ResNet is torchvision's, so that its weights fit. It has strides in 3 × 3 convolutions, ReLUs,
    and pixels divided by ImageNet's standard deviation. TensorFlow's ResNet has strides in the first 1 × 1
    convolutions, ReLU6, norms with an epsilon of 0.001, and pixels less the mean.

    Args:
        size: Side, or (height, width), of the input. Default boxes keep their size in pixels. Along each axis a map's
            first centre lies half its stride from the edge if the stride divides the side, else on the edge.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd640_resnet50_fpn(weights_backbone=None, num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([51150, 4])
    """
    asked = settle(WeightsEnum, weights, ResNet50FPN_Weights, weights_backbone, options, size=640)
    norm_layer = asked.norm_layer or BatchNorm2d
    backbone = ResNet50FPN(256, in_chans=asked.in_chans, norm_layer=norm_layer)
    backbone.freeze(asked.trainable(backbone.num_stages))
    return _finish(
        asked,
        backbone,
        head=partial(SharedHead, norm_layer=norm_layer),
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )


@register_model
def ssdlite320_mobilenet_v2_fpn(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: MobileNetV2FPN_Weights | str | None = MobileNetV2FPN_Weights.DEFAULT,
    own_towers: bool = False,
    **options: Unpack[Options],
) -> SSD:
    """Build TensorFlow's FPNLite on MobileNetV2 for 320 × 320 input.

    Feature maps have 40 20 10 5 3 cells a side, with 12804 default boxes. One tower of four separable convolutions
    serves classes and boxes of all maps. Scores are sigmoids, trained by focal loss. Padding is TensorFlow's.

    Args:
        own_towers: Whether each map has a tower of its own, which trains alone. `load_checkpoint` sets it for 8-bit
            files whose tower was rounded for each map, so that one shared tower would detect otherwise.
        size: Side, or (height, width), of the input. Default boxes are placed as for `ssd640_resnet50_fpn`; the
            coarsest stride, 128, does not divide 320.
    """
    asked = settle(WeightsEnum, weights, MobileNetV2FPN_Weights, weights_backbone, options, size=320)
    return _fpnlite(asked, own_towers=own_towers)


@register_model
def ssdlite640_mobilenet_v2_fpn(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: MobileNetV2FPN_Weights | str | None = MobileNetV2FPN_Weights.DEFAULT,
    own_towers: bool = False,
    **options: Unpack[Options],
) -> SSD:
    """Build an FPNLite on MobileNetV2 for 640 × 640 input, after TensorFlow's.

    Feature maps have 80 40 20 10 5 cells a side, with 51150 default boxes. The network is that for 320 × 320 input.

    Args:
        own_towers: Whether each map has a tower of its own, as for 320 × 320 input.
    """
    asked = settle(WeightsEnum, weights, MobileNetV2FPN_Weights, weights_backbone, options, size=640)
    return _fpnlite(asked, own_towers=own_towers)


def _fpnlite(asked: Settled, *, own_towers: bool) -> SSD:
    """Build an FPNLite on MobileNetV2, for any size of input."""
    norm_layer = asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV2FPN(128, in_chans=asked.in_chans, norm_layer=norm_layer)
    backbone.freeze(asked.trainable(backbone.num_stages))
    head = partial(SharedHead, separable=True, one_tower=True, own_towers=own_towers, norm_layer=norm_layer)
    return _finish(asked, backbone, head=head)


def _finish(asked: Settled, backbone: nn.Module, *, head: Head, **pixels: Unpack[OriginSettings]) -> SSD:
    """Finish a detector with the default boxes, loss and settings that TensorFlow's FPN models share."""
    default_boxes = asked.default_boxes(**_multiscale_boxes(asked.size))
    settings: OriginSettings = {**TENSORFLOW, "antialias": False, **pixels}
    return finish(asked, backbone, default_boxes, head=head, classification_loss="focal", **settings)


def _multiscale_boxes(size: tuple[int, int]) -> BoxSettings:
    """Return the default boxes of TensorFlow's `multiscale_anchor_generator`, levels 3 to 7.

    Boxes have sides of 4 strides and half an octave more, each in three aspect ratios. Along each axis the first centre
    lies half a stride from the edge if the stride divides the side, else on the edge.

    Args:
        size: (height, width) of the input in pixels.

    Returns:
        Keywords of `DefaultBoxGenerator`.
    """
    height, width = size
    strides = (8, 16, 32, 64, 128)
    sides = [[4 * stride * octave / min(size) for octave in (1.0, 2**0.5)] for stride in strides]
    return {
        "shapes": [
            [(side * ratio**0.5, side / ratio**0.5) for ratio in (1.0, 2.0, 0.5) for side in of_level]
            for of_level in sides
        ],
        "steps": strides,
        "offsets": [tuple(0 if side % stride else stride / 2 for side in (width, height)) for stride in strides],
        "clip": "none",
    }

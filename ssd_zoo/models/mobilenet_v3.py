"""SSDLite on MobileNetV3-Large.

Howard et al., "Searching for MobileNetV3", section 6.3. https://arxiv.org/abs/1905.02244
"""

from functools import partial

import torchvision
from typing_extensions import Unpack

from ssd_zoo.backbones.mobilenet_v3 import MobileNetV3
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.options import Options
from ssd_zoo.models.projects import lufficc_ssdlite320
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import finish, settle
from ssd_zoo.weights.categories import COCO_CATEGORIES, VOC_CATEGORIES
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms
from ssd_zoo.weights.published import lufficc_weights, torchvision_weights
from ssd_zoo.weights.settings import SSDLITE

__all__ = [
    "MobileNetV3_Large_Weights",
    "SSDLite320_MobileNet_V3_Large_Lufficc_Weights",
    "SSDLite320_MobileNet_V3_Large_Weights",
    "ssdlite320_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large_lufficc",
]

_THEIRS = torchvision.models.MobileNet_V3_Large_Weights


class MobileNetV3_Large_Weights(WeightsEnum):
    """Weights of MobileNetV3-Large's convolutions, for the backbone.

    They have the whole tail: the layers at stride 32 with all their channels.
    """

    IMAGENET1K_V1 = torchvision_weights(_THEIRS.IMAGENET1K_V1, num_params=2971952)
    IMAGENET1K_V2 = torchvision_weights(_THEIRS.IMAGENET1K_V2, num_params=2971952)
    # torchvision's detector starts from these.
    DEFAULT = IMAGENET1K_V1


class SSDLite320_MobileNet_V3_Large_Weights(WeightsEnum):
    """Weights of torchvision's SSDLite320 on MobileNetV3-Large."""

    COCO_V1 = Weights(
        url="https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 3440060,
            "macs": 0.583e9,
            "file_size": 13.9e6,
            "categories": COCO_CATEGORIES,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, SSDLite320_MobileNet_V3_Large_Weights.COCO_V1",
            "recipe": "https://github.com/pytorch/vision/tree/main/references/detection#ssdlite320-mobilenetv3-large",
            "metrics": {"COCO-val2017": {"AP": 21.3, "source": "published"}},
        },
    )
    DEFAULT = COCO_V1


class SSDLite320_MobileNet_V3_Large_Lufficc_Weights(WeightsEnum):
    """Weights of lufficc's SSDLite320 on MobileNetV3-Large."""

    VOC0712_LUFFICC_V1 = lufficc_weights(
        "mobilenet_v3_ssd320_voc0712",
        VOC_CATEGORIES,
        num_params=3852148,
        macs=0.485e9,
        file_size=15.6e6,
        metrics={"VOC2007-test": {"mAP": 69.5}},
    )
    DEFAULT = VOC0712_LUFFICC_V1


@register_model
def ssdlite320_mobilenet_v3_large(
    *,
    weights: SSDLite320_MobileNet_V3_Large_Weights | str | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = MobileNetV3_Large_Weights.DEFAULT,
    reduced_tail: bool = True,
    **options: Unpack[Options],
) -> SSD:
    """Build torchvision's SSDLite on MobileNetV3-Large.

    Feature maps have 20 10 5 3 2 1 cells a side, with 3234 default boxes.

    Args:
        reduced_tail: Whether the layers at stride 32 have half their channels, as in the paper's detectors and
            `COCO_V1`. Weights of the backbone have the whole tail; a reduced tail starts fresh.
    """
    asked = settle(
        SSDLite320_MobileNet_V3_Large_Weights, weights, MobileNetV3_Large_Weights, weights_backbone, options, size=320
    )
    if isinstance(asked.weights, SSDLite320_MobileNet_V3_Large_Weights) and not reduced_tail:
        raise ValueError(
            f"{asked.weights} is of the reduced tail: leave out reduced_tail=False, or take weights_backbone."
        )
    trainable = asked.trainable(MobileNetV3.num_stages)
    if asked.weights_backbone is not None and reduced_tail and trainable < 2:
        raise ValueError(
            f"trainable_backbone_layers={trainable} would freeze the reduced tail, which {asked.weights_backbone} does "
            "not fill: take at least 2, or reduced_tail=False."
        )
    norm_layer = asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV3(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        reduced_tail=reduced_tail,
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
    )
    backbone.freeze(trainable)
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2, 3]] * 6,
        scales=[0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0],
    )
    return finish(asked, backbone, default_boxes, head=partial(SSDLiteHead, norm_layer=norm_layer), **SSDLITE)


@register_model
def ssdlite320_mobilenet_v3_large_lufficc(
    *,
    weights: SSDLite320_MobileNet_V3_Large_Lufficc_Weights | str | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSDLite on MobileNetV3-Large, after lufficc's.

    Feature maps have 20 10 5 3 2 1 cells a side, with 3234 default boxes. The extra layers are blocks of MobileNetV3,
    and the last map has a 1 × 1 head.

    Args:
        weights_backbone: Weights of the backbone alone; not used where `weights` is given. torchvision trained them
            with squeeze-and-excitation after the activation; here it comes before.
    """
    asked = settle(
        SSDLite320_MobileNet_V3_Large_Lufficc_Weights,
        weights,
        MobileNetV3_Large_Weights,
        weights_backbone,
        options,
        size=320,
    )
    norm_layer = asked.norm_layer or BatchNorm2d
    backbone = MobileNetV3(
        extras=[(192, 512), (128, 256), (128, 256), (64, 64)],
        tap="output",
        block_extras=True,
        squeeze_first=True,
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
    )
    return lufficc_ssdlite320(asked, backbone, norm_layer)

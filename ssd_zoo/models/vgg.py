"""SSD on VGG-16 (configuration D), as in the paper.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016. https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence
from functools import partial

from typing_extensions import Unpack

from ssd_zoo.backbones.vgg import VGG16D
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import L2Norm
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import Settled, finish, settle
from ssd_zoo.weights.categories import COCO80_CATEGORIES, COCO_CATEGORIES, VOC_CATEGORIES
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms
from ssd_zoo.weights.published import lufficc_weights, mmdet_weights, timm_weights

__all__ = [
    "SSD300_VGG16D_Weights",
    "SSD512_VGG16D_Weights",
    "VGG16D_Weights",
    "ssd256_vgg16d",
    "ssd300_vgg16d",
    "ssd512_vgg16d",
]


class VGG16D_Weights(WeightsEnum):
    """Weights of VGG-16's convolutions, for the backbone."""

    TV_IN1K = timm_weights(
        "vgg16.tv_in1k",
        "features.",
        num_params=14714688,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )
    IMAGENET1K_FEATURES = Weights(
        url="https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 14714688,
            "licence": "BSD-3-Clause",
            "origin": "Oxford's VGG, trained in Caffe; by way of github.com/amdegroot/ssd.pytorch and torchvision",
        },
    )
    DEFAULT = TV_IN1K


class SSD300_VGG16D_Weights(WeightsEnum):
    """Weights of SSD300 on VGG-16."""

    COCO_V1 = Weights(
        url="https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 35641826,
            "macs": 34.858e9,
            "file_size": 142.6e6,
            "categories": COCO_CATEGORIES,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, SSD300_VGG16_Weights.COCO_V1",
            "recipe": "https://github.com/pytorch/vision/tree/main/references/detection#ssd300-vgg16",
            "metrics": {"COCO-val2017": {"AP": 25.1, "source": "published"}},
        },
    )
    COCO_MMDET_V1 = mmdet_weights(
        "ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth",
        COCO80_CATEGORIES,
        config="ssd300_coco",
        num_params=34305206,
        macs=34.360e9,
        file_size=137.2e6,
        metrics={"COCO-val2017": {"AP": 25.5}},
    )
    COCO_LUFFICC_V1 = lufficc_weights(
        "vgg_ssd300_coco_trainval35k",
        COCO80_CATEGORIES,
        num_params=34305206,
        macs=34.360e9,
        file_size=137.2e6,
        metrics={"COCO-minival2014": {"AP": 25.2}},
    )
    VOC0712_LUFFICC_V1 = lufficc_weights(
        "vgg_ssd300_voc0712",
        VOC_CATEGORIES,
        num_params=26285486,
        macs=31.374e9,
        file_size=105.1e6,
        metrics={"VOC2007-test": {"mAP": 77.7}},
        default_boxes={"scales": [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05]},
    )
    DEFAULT = COCO_V1


class SSD512_VGG16D_Weights(WeightsEnum):
    """Weights of SSD512 on VGG-16."""

    COCO_MMDET_V1 = mmdet_weights(
        "ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
        COCO80_CATEGORIES,
        config="ssd512_coco",
        num_params=36038196,
        macs=98.629e9,
        file_size=144.2e6,
        metrics={"COCO-val2017": {"AP": 29.5}},
        # mmdet truncates box sizes to whole pixels.
        default_boxes={"scales": [side / 512 for side in (20, 51, 133, 215, 296, 378, 460, 542)]},
    )
    COCO_LUFFICC_V1 = lufficc_weights(
        "vgg_ssd512_coco_trainval35k",
        COCO80_CATEGORIES,
        num_params=36038196,
        macs=98.629e9,
        file_size=144.2e6,
        metrics={"COCO-minival2014": {"AP": 29.0}},
    )
    VOC0712_LUFFICC_V1 = lufficc_weights(
        "vgg_ssd512_voc0712",
        VOC_CATEGORIES,
        num_params=27188676,
        macs=90.208e9,
        file_size=108.8e6,
        metrics={"VOC2007-test": {"mAP": 80.7}},
        default_boxes={"scales": [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 537.65 / 512]},
    )
    DEFAULT = COCO_MMDET_V1


@register_model
def ssd300_vgg16d(
    *,
    weights: SSD300_VGG16D_Weights | str | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build the paper's SSD300 on VGG-16.

    Feature maps have 38 19 10 5 3 1 cells a side, with 8732 default boxes.

    Args:
        trainable_backbone_layers: Number of VGG's 5 stages that train, counted from the last; by default 4.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
    """
    asked = settle(SSD300_VGG16D_Weights, weights, VGG16D_Weights, weights_backbone, options, size=300)
    extras = [
        (256, 512, 3, 2, 1),  # conv8_2
        (128, 256, 3, 2, 1),  # conv9_2
        (128, 256, 3, 1, 0),  # conv10_2
        (128, 256, 3, 1, 0),  # conv11_2
    ]
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if asked.size == (300, 300) else None,
    )
    return _vgg16d(asked, extras, default_boxes)


@register_model
def ssd512_vgg16d(
    *,
    weights: SSD512_VGG16D_Weights | str | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD512 on VGG-16, after the paper's.

    Feature maps have 64 32 16 8 4 2 1 cells a side, with 24564 default boxes.

    Args:
        trainable_backbone_layers: Number of VGG's 5 stages that train, counted from the last; by default 4.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
    """
    asked = settle(SSD512_VGG16D_Weights, weights, VGG16D_Weights, weights_backbone, options, size=512)
    extras = [
        (256, 512, 3, 2, 1),  # conv8_2
        (128, 256, 3, 2, 1),  # conv9_2
        (128, 256, 3, 2, 1),  # conv10_2
        (128, 256, 3, 2, 1),  # conv11_2
        (128, 256, 4, 1, 1),  # conv12_2
    ]
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06],
    )
    return _vgg16d(asked, extras, default_boxes)


@register_model
def ssd256_vgg16d(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build SSD256 on VGG-16: SSD300 whose maps all divide the input.

    Feature maps have 32 16 8 4 2 1 cells a side, with 6132 default boxes.

    Args:
        trainable_backbone_layers: Number of VGG's 5 stages that train, counted from the last; by default 4.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
    """
    asked = settle(WeightsEnum, weights, VGG16D_Weights, weights_backbone, options, size=256)
    extras = [
        (256, 512, 3, 2, 1),  # conv8_2
        (128, 256, 3, 2, 1),  # conv9_2
        (128, 256, 3, 2, 1),  # conv10_2
        (128, 256, 3, 2, 1),  # conv11_2
    ]
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        # The paper's even steps from 0.2 to 0.9, and one step further.
        scales=[0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075],
    )
    return _vgg16d(asked, extras, default_boxes)


def _vgg16d(
    asked: Settled, extras: Sequence[tuple[int, int, int, int, int]], default_boxes: DefaultBoxGenerator
) -> SSD:
    """Build the paper's SSD on VGG-16, with given extra layers and default boxes."""
    norm_layer = asked.norm_layer or partial(L2Norm, scale=20)
    backbone = VGG16D(extras, norm_layer=norm_layer, in_chans=asked.in_chans)
    backbone.freeze(asked.trainable(backbone.num_stages, default=4))
    # Caffe subtracts the mean from pixels of 0 to 255 and does not divide.
    return finish(
        asked,
        backbone,
        default_boxes,
        image_mean=(0.48235, 0.45882, 0.40784),
        image_std=(1 / 255, 1 / 255, 1 / 255),
    )

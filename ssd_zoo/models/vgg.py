"""SSD on VGG-16 (configuration D), the detector of the paper.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016. https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.vgg import VGG16D
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.layers import L2Norm, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._origins import lufficc_weights, mmdet_weights, timm_weights
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import (
    COCO80_CATEGORIES,
    COCO_CATEGORIES,
    VOC_CATEGORIES,
    Weights,
    WeightsEnum,
    detection_transforms,
)

__all__ = [
    "SSD256_VGG16D_Weights",
    "SSD300_VGG16D_Weights",
    "SSD512_VGG16D_Weights",
    "VGG16D_Weights",
    "ssd256_vgg16d",
    "ssd300_vgg16d",
    "ssd512_vgg16d",
]

# Caffe's pixels: 0 to 255, less the mean, not divided.
_CAFFE_MEAN, _CAFFE_STD = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)


class VGG16D_Weights(WeightsEnum):
    """Weights of VGG-16's convolutions."""

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
    """Weights of `ssd300_vgg16d`."""

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
    """Weights of `ssd512_vgg16d`."""

    COCO_MMDET_V1 = mmdet_weights(
        "ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
        COCO80_CATEGORIES,
        config="ssd512_coco",
        num_params=36038196,
        macs=98.629e9,
        file_size=144.2e6,
        metrics={"COCO-val2017": {"AP": 29.5}},
        # mmdet cuts its sizes to whole pixels.
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


class SSD256_VGG16D_Weights(WeightsEnum):
    """Weights of `ssd256_vgg16d`: nobody has published any."""


@register_model
def ssd300_vgg16d(
    *,
    weights: SSD300_VGG16D_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds SSD300: 300 × 300 input, six feature maps of 38 19 10 5 3 1 cells a side, 8732 default boxes.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of VGG's 5 stages train, counted from the last; by default 4, and all of
            them without pretrained weights.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input. The paper's sizes of maps and boxes are for 300.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
        default_boxes: Other default boxes than those of the weights or the paper; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> model = ssd300_vgg16d(weights_backbone=None, num_classes=21).eval()
        >>> [detections] = model([torch.rand(3, 375, 500)])
        >>> sorted(detections)
        ['boxes', 'labels', 'scores']
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_VGG16D_Weights, weights, VGG16D_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=4, most=5)
    backbone = VGG16D(
        extras=[
            (256, 512, 3, 2, 1),  # conv8_2
            (128, 256, 3, 2, 1),  # conv9_2
            (128, 256, 3, 1, 0),  # conv10_2
            (128, 256, 3, 1, 0),  # conv11_2
        ],
        norm_layer=norm_layer or partial(L2Norm, scale=20),
        in_chans=in_chans,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if size == (300, 300) else None,
    )
    pixels = {"image_mean": _CAFFE_MEAN, "image_std": _CAFFE_STD}
    kwargs = settle_keywords(kwargs, weights or weights_backbone, in_chans, **pixels)
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)


@register_model
def ssd512_vgg16d(
    *,
    weights: SSD512_VGG16D_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 512,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds SSD512: 512 × 512 input, seven feature maps of 64 32 16 8 4 2 1 cells a side, 24564 default boxes.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of VGG's 5 stages train, counted from the last; by default 4, and all of
            them without pretrained weights.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input. The paper's sizes of maps and boxes are for 512.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
        default_boxes: Other default boxes than those of the weights or the paper; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd512_vgg16d(weights_backbone=None, num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([24564, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSD512_VGG16D_Weights, weights, VGG16D_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=4, most=5)
    backbone = VGG16D(
        extras=[
            (256, 512, 3, 2, 1),  # conv8_2
            (128, 256, 3, 2, 1),  # conv9_2
            (128, 256, 3, 2, 1),  # conv10_2
            (128, 256, 3, 2, 1),  # conv11_2
            (128, 256, 4, 1, 1),  # conv12_2
        ],
        norm_layer=norm_layer or partial(L2Norm, scale=20),
        in_chans=in_chans,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06],
    )
    pixels = {"image_mean": _CAFFE_MEAN, "image_std": _CAFFE_STD}
    kwargs = settle_keywords(kwargs, weights or weights_backbone, in_chans, **pixels)
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)


@register_model
def ssd256_vgg16d(
    *,
    weights: SSD256_VGG16D_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 256,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds SSD256: 256 × 256 input, six feature maps of 32 16 8 4 2 1 cells a side, 6132 default boxes.

    It is SSD300 for an input that every map divides evenly.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of VGG's 5 stages train, counted from the last; by default 4, and all of
            them without pretrained weights.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input. The sizes of maps and boxes are for 256.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
        default_boxes: Other default boxes than those of the weights or the paper; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd256_vgg16d(weights_backbone=None, num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([6132, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSD256_VGG16D_Weights, weights, VGG16D_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=4, most=5)
    backbone = VGG16D(
        extras=[
            (256, 512, 3, 2, 1),  # conv8_2
            (128, 256, 3, 2, 1),  # conv9_2
            (128, 256, 3, 2, 1),  # conv10_2
            (128, 256, 3, 2, 1),  # conv11_2
        ],
        norm_layer=norm_layer or partial(L2Norm, scale=20),
        in_chans=in_chans,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        # From 0.2 to 0.9 in even steps of 0.175; the last goes one step on.
        scales=[0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075],
    )
    pixels = {"image_mean": _CAFFE_MEAN, "image_std": _CAFFE_STD}
    kwargs = settle_keywords(kwargs, weights or weights_backbone, in_chans, **pixels)
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

"""SSD on VGG-16 (configuration D), the detector of the paper.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016. https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence
from typing import Any

from ssd_zoo.backbones.vgg import VGG16D
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import settle_pixels, settle_size, settle_trainable_layers, settle_weights
from ssd_zoo.models._weights import COCO_CATEGORIES, Weights, WeightsEnum, detection_transforms

__all__ = ["SSD300_VGG16D_Weights", "VGG16D_Weights", "ssd300_vgg16d"]

# Caffe's pixels: 0 to 255, less the mean, not divided.
_CAFFE_MEAN, _CAFFE_STD = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)


class VGG16D_Weights(WeightsEnum):
    """Weights of VGG-16's convolutions."""

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
    DEFAULT = IMAGENET1K_FEATURES


class SSD300_VGG16D_Weights(WeightsEnum):
    """Weights of `ssd300_vgg16d`."""

    COCO_V1 = Weights(
        url="https://download.pytorch.org/models/ssd300_vgg16_coco-b556d3b4.pth",
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 35641826,
            "categories": COCO_CATEGORIES,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, SSD300_VGG16_Weights.COCO_V1",
            "recipe": "https://github.com/pytorch/vision/tree/main/references/detection#ssd300-vgg16",
            "metrics": {"COCO-val2017": {"AP": 25.1, "source": "published"}},
        },
    )
    DEFAULT = COCO_V1


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
        default_boxes: Other default boxes than the paper's; as many feature maps of them.
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
        in_chans=in_chans,
    )
    backbone.freeze(trainable)
    default_boxes = default_boxes or DefaultBoxGenerator(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if size == (300, 300) else None,
    )
    defaults = settle_pixels(in_chans, mean=_CAFFE_MEAN, std=_CAFFE_STD)
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **{**defaults, **kwargs})
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

"""SSDLite on MobileNetV3-Large.

Howard et al., "Searching for MobileNetV3", section 6.3. https://arxiv.org/abs/1905.02244
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torchvision

from ssd_zoo.backbones.mobilenet_v3 import MobileNetV3
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.layers import BatchNorm2d, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._origins import lufficc_weights
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import COCO_CATEGORIES, VOC_CATEGORIES, Weights, WeightsEnum, detection_transforms

__all__ = [
    "MobileNetV3_Large_Weights",
    "SSDLite320_MobileNet_V3_Large_Lufficc_Weights",
    "SSDLite320_MobileNet_V3_Large_Weights",
    "ssdlite320_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large_lufficc",
]


class MobileNetV3_Large_Weights(WeightsEnum):
    """Weights of MobileNetV3-Large's convolutions, with the whole tail."""

    IMAGENET1K_V1 = Weights(
        url=torchvision.models.MobileNet_V3_Large_Weights.IMAGENET1K_V1.url,
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 2971952,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, MobileNet_V3_Large_Weights.IMAGENET1K_V1",
        },
    )
    IMAGENET1K_V2 = Weights(
        url=torchvision.models.MobileNet_V3_Large_Weights.IMAGENET1K_V2.url,
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 2971952,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        },
    )
    # torchvision's detector starts from these.
    DEFAULT = IMAGENET1K_V1


class SSDLite320_MobileNet_V3_Large_Weights(WeightsEnum):
    """Weights of `ssdlite320_mobilenet_v3_large`."""

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
    """Weights of `ssdlite320_mobilenet_v3_large_lufficc`."""

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
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = MobileNetV3_Large_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    reduced_tail: bool = True,
    in_chans: int = 3,
    size: int | tuple[int, int] = 320,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds torchvision's SSDLite: 320 × 320 input, maps of 20 10 5 3 2 1 cells a side, 3234 default boxes.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV3's 6 stages train, counted from the last; by default all.
        reduced_tail: Whether the layers at stride 32 have half their channels, as the paper's detectors and `COCO_V1`
            have. Weights of the backbone are of the whole tail: they leave a reduced one as it is initialised.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm with eps 0.001 and momentum 0.03.
        default_boxes: Other default boxes than torchvision's; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> model = ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=21).eval()
        >>> [detections] = model([torch.rand(3, 375, 500)])
        >>> sorted(detections)
        ['boxes', 'labels', 'scores']
    """
    weights, weights_backbone, categories = settle_weights(
        SSDLite320_MobileNet_V3_Large_Weights,
        weights,
        MobileNetV3_Large_Weights,
        weights_backbone,
        num_classes,
        categories,
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=6, most=6)
    if isinstance(weights, SSDLite320_MobileNet_V3_Large_Weights) and not reduced_tail:
        raise ValueError(f"{weights} is of the reduced tail: leave out reduced_tail=False, or take weights_backbone.")
    if weights_backbone is not None and reduced_tail and trainable < 2:
        raise ValueError(
            f"trainable_backbone_layers={trainable} would freeze the reduced tail, which {weights_backbone} does not "
            "fill: take at least 2, or reduced_tail=False."
        )
    norm_layer = norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV3(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        reduced_tail=reduced_tail,
        in_chans=in_chans,
        norm_layer=norm_layer,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * 6,
        scales=[0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0],
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        head=partial(SSDLiteHead, norm_layer=norm_layer),
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=300,
        topk_candidates=300,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)


@register_model
def ssdlite320_mobilenet_v3_large_lufficc(
    *,
    weights: SSDLite320_MobileNet_V3_Large_Lufficc_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 320,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSDLite on MobileNetV3-Large for 320 × 320 input, after lufficc's.

    Its maps have 20 10 5 3 2 1 cells a side and 3234 default boxes. The extra layers are blocks of MobileNetV3, and the
    last map's head is a 1 × 1 convolution.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given. torchvision's are of blocks
            that squeeze after an activation; here they squeeze before it.
        trainable_backbone_layers: How many of MobileNetV3's 6 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm.
        default_boxes: Other default boxes than the original's; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssdlite320_mobilenet_v3_large_lufficc(num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([3234, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSDLite320_MobileNet_V3_Large_Lufficc_Weights,
        weights,
        MobileNetV3_Large_Weights,
        weights_backbone,
        num_classes,
        categories,
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=6, most=6)
    norm_layer = norm_layer or BatchNorm2d
    backbone = MobileNetV3(
        extras=[(192, 512), (128, 256), (128, 256), (64, 64)],
        tap="output",
        block_extras=True,
        squeeze_first=True,
        in_chans=in_chans,
        norm_layer=norm_layer,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 320 for side in (60, 105, 150, 195, 240, 285, 330)],
        # 107 is no third of 320.
        steps=[16, 32, 64, 107, 160, 320] if size == (320, 320) else None,
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        head=partial(SSDLiteHead, norm_layer=norm_layer, plain_last=True),
        image_mean=(123 / 255, 117 / 255, 104 / 255),
        image_std=(1 / 255, 1 / 255, 1 / 255),
        score_thresh=0.01,
        nms_thresh=0.45,
        detections_per_img=100,
        topk_candidates=None,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

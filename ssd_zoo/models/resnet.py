"""SSD on ResNet, after NVIDIA's DeepLearningExamples and MLPerf.

The one on ResNet-50 is held to the output of NVIDIA's own, the others to the names and shapes of their checkpoints.

https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Detection/SSD
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torchvision

from ssd_zoo.backbones.resnet import ResNetConv4
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.layers import BatchNorm2d, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._origins import timm_weights, torchvision_weights
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import COCO80_CATEGORIES, Weights, WeightsEnum, detection_transforms

__all__ = [
    "ResNet101_Weights",
    "ResNet18_Weights",
    "ResNet34_Weights",
    "ResNet50_Weights",
    "SSD300_ResNet101_Weights",
    "SSD300_ResNet18_Weights",
    "SSD300_ResNet34_MLPerf_Weights",
    "SSD300_ResNet34_Weights",
    "SSD300_ResNet50_Weights",
    "ssd300_resnet101",
    "ssd300_resnet18",
    "ssd300_resnet34",
    "ssd300_resnet34_mlperf",
    "ssd300_resnet50",
]


# Of the classifier the detector leaves out conv5 and the last layer.
_UP_TO_CONV4 = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")


class ResNet18_Weights(WeightsEnum):
    """Weights of ResNet-18."""

    TV_IN1K = timm_weights("resnet18.tv_in1k", *_UP_TO_CONV4, num_params=2782784)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, num_params=2782784)
    DEFAULT = TV_IN1K


class ResNet34_Weights(WeightsEnum):
    """Weights of ResNet-34."""

    TV_IN1K = timm_weights("resnet34.tv_in1k", *_UP_TO_CONV4, num_params=8170304)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet34_Weights.IMAGENET1K_V1, num_params=8170304)
    DEFAULT = TV_IN1K


class ResNet50_Weights(WeightsEnum):
    """Weights of ResNet-50."""

    TV_IN1K = timm_weights("resnet50.tv_in1k", *_UP_TO_CONV4, num_params=8543296)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V1, num_params=8543296)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V2, num_params=8543296)
    DEFAULT = TV_IN1K


class ResNet101_Weights(WeightsEnum):
    """Weights of ResNet-101."""

    TV_IN1K = timm_weights("resnet101.tv_in1k", *_UP_TO_CONV4, num_params=27535424)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet101_Weights.IMAGENET1K_V1, num_params=27535424)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.ResNet101_Weights.IMAGENET1K_V2, num_params=27535424)
    DEFAULT = TV_IN1K


class SSD300_ResNet18_Weights(WeightsEnum):
    """Weights of `ssd300_resnet18`: none have a public address."""


class SSD300_ResNet34_Weights(WeightsEnum):
    """Weights of `ssd300_resnet34`: none have a public address."""


class SSD300_ResNet34_MLPerf_Weights(WeightsEnum):
    """Weights of `ssd300_resnet34_mlperf`: none have a public address."""


class SSD300_ResNet50_Weights(WeightsEnum):
    """Weights of `ssd300_resnet50`."""

    COCO_NVIDIA_V1 = Weights(
        url="https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt",
        transforms=detection_transforms,
        layout="nvidia",
        meta={
            "num_params": 22894902,
            "macs": 20.151e9,
            "file_size": 91.7e6,
            "categories": COCO80_CATEGORIES,
            "licence": "Apache-2.0",
            "origin": "https://github.com/NVIDIA/DeepLearningExamples",
            "recipe": "https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Detection/SSD",
            # The recipe gives AP 26.8 on average of 15 runs; the file's own AP is not published.
            "metrics": {},
        },
    )
    DEFAULT = COCO_NVIDIA_V1


class SSD300_ResNet101_Weights(WeightsEnum):
    """Weights of `ssd300_resnet101`: none have a public address."""


@register_model
def ssd300_resnet50(
    *,
    weights: SSD300_ResNet50_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: ResNet50_Weights | str | None = ResNet50_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds NVIDIA's SSD300 on ResNet-50: 300 × 300 input, maps of 38 19 10 5 3 1 cells a side, 8732 default boxes.

    conv4 keeps the stride 8 of conv3 and is the first feature map; conv5 is left out. Scores, NMS and resizing are
    those of NVIDIA's evaluation.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of ResNet's 4 stages, conv1 to conv4, train, counted from the last; by
            default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input. NVIDIA's sizes of maps and boxes are for 300.
        norm_layer: Called with the number of channels; by default batch norm.
        default_boxes: Other default boxes than those of the weights or NVIDIA; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> model = ssd300_resnet50(weights_backbone=None, num_classes=21).eval()
        >>> [detections] = model([torch.rand(3, 375, 500)])
        >>> sorted(detections)
        ['boxes', 'labels', 'scores']
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_ResNet50_Weights, weights, ResNet50_Weights, weights_backbone, num_classes, categories
    )
    return _ssd300(
        50,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


@register_model
def ssd300_resnet34(
    *,
    weights: SSD300_ResNet34_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: ResNet34_Weights | str | None = ResNet34_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD300 on ResNet-34, after NVIDIA's. The arguments are those of `ssd300_resnet50`."""
    weights, weights_backbone, categories = settle_weights(
        SSD300_ResNet34_Weights, weights, ResNet34_Weights, weights_backbone, num_classes, categories
    )
    return _ssd300(
        34,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


@register_model
def ssd300_resnet18(
    *,
    weights: SSD300_ResNet18_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: ResNet18_Weights | str | None = ResNet18_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD300 on ResNet-18, after NVIDIA's. The arguments are those of `ssd300_resnet50`."""
    weights, weights_backbone, categories = settle_weights(
        SSD300_ResNet18_Weights, weights, ResNet18_Weights, weights_backbone, num_classes, categories
    )
    return _ssd300(
        18,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


@register_model
def ssd300_resnet34_mlperf(
    *,
    weights: SSD300_ResNet34_MLPerf_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: ResNet34_Weights | str | None = ResNet34_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD300 on ResNet-34, after MLPerf's.

    Its extra layers have no norms. The arguments are those of `ssd300_resnet50`.
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_ResNet34_MLPerf_Weights, weights, ResNet34_Weights, weights_backbone, num_classes, categories
    )
    return _ssd300(
        34,
        norm_extras=False,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


@register_model
def ssd300_resnet101(
    *,
    weights: SSD300_ResNet101_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: ResNet101_Weights | str | None = ResNet101_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD300 on ResNet-101, after NVIDIA's. The arguments are those of `ssd300_resnet50`."""
    weights, weights_backbone, categories = settle_weights(
        SSD300_ResNet101_Weights, weights, ResNet101_Weights, weights_backbone, num_classes, categories
    )
    return _ssd300(
        101,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


def _ssd300(
    depth: int,
    *,
    weights: WeightsEnum | None,
    progress: bool,
    categories: Sequence[str],
    weights_backbone: WeightsEnum | None,
    trainable_backbone_layers: int | None,
    in_chans: int,
    size: int | tuple[int, int],
    norm_layer: NormLayer | None,
    default_boxes: DefaultBoxGenerator | None,
    kwargs: Mapping[str, Any],
    norm_extras: bool = True,
) -> SSD:
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=4, most=4)
    backbone = ResNetConv4(
        depth,
        extras=[
            (256, 512, 2, 1),
            (256, 512, 2, 1),
            (128, 256, 2, 1),
            (128, 256, 1, 0),
            (128, 128 if depth == 18 else 256, 1, 0),
        ],
        norm_extras=norm_extras,
        in_chans=in_chans,
        norm_layer=norm_layer or BatchNorm2d,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if size == (300, 300) else None,
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        antialias=True,
        score_thresh=0.05,
        nms_thresh=0.5,
        topk_candidates=200,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

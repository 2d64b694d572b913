"""SSD on EfficientNet-B3, after lufficc/SSD.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks".
https://arxiv.org/abs/1905.11946
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.efficientnet import EfficientNetB3
from ssd_zoo.detector.boxes import DefaultBoxGenerator
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
from ssd_zoo.models._weights import VOC_CATEGORIES, WeightsEnum

__all__ = ["EfficientNetB3_Weights", "SSD300_EfficientNet_B3_Weights", "ssd300_efficientnet_b3"]


class EfficientNetB3_Weights(WeightsEnum):
    """Weights of EfficientNet-B3's convolutions: torchvision's are of another padding."""


class SSD300_EfficientNet_B3_Weights(WeightsEnum):
    """Weights of `ssd300_efficientnet_b3`."""

    VOC0712_LUFFICC_V1 = lufficc_weights(
        "efficient_net_b3_ssd300_voc0712",
        VOC_CATEGORIES,
        num_params=12656262,
        macs=1.974e9,
        file_size=51.0e6,
        metrics={"VOC2007-test": {"mAP": 73.9}},
    )
    DEFAULT = VOC0712_LUFFICC_V1


@register_model
def ssd300_efficientnet_b3(
    *,
    weights: SSD300_EfficientNet_B3_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: EfficientNetB3_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD300 on EfficientNet-B3, after lufficc's.

    Its maps have 38 19 10 5 3 1 cells a side and 8732 default boxes.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of EfficientNet's 5 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input. The sizes of maps and boxes are for 300.
        norm_layer: Called with the number of channels; by default batch norm with TensorFlow's settings.
        default_boxes: Other default boxes than the original's; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd300_efficientnet_b3(num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([8732, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_EfficientNet_B3_Weights, weights, EfficientNetB3_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    backbone = EfficientNetB3(
        extras=[(128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)],
        in_chans=in_chans,
        norm_layer=norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.01),
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if size == (300, 300) else None,
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
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

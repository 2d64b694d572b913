"""SSD on MobileNetV1.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", section 4.6.
https://arxiv.org/abs/1704.04861
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.mobilenet_v1 import MobileNetV1
from ssd_zoo.detector.boxes import DefaultBoxGenerator, tf_box_shapes
from ssd_zoo.detector.heads import SSDHead, SSDSeparableHead
from ssd_zoo.detector.layers import RELU, BatchNorm2d, Conv2dSame, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import WeightsEnum

__all__ = [
    "MobileNetV1_Weights",
    "SSD300_MobileNet_V1_QFGaohao_Weights",
    "SSD300_MobileNet_V1_Weights",
    "SSDLite300_MobileNet_V1_QFGaohao_Weights",
    "ssd300_mobilenet_v1",
    "ssd300_mobilenet_v1_qfgaohao",
    "ssdlite300_mobilenet_v1_qfgaohao",
]


class MobileNetV1_Weights(WeightsEnum):
    """Weights of MobileNetV1's convolutions: torchvision has none."""


class SSD300_MobileNet_V1_Weights(WeightsEnum):
    """Weights of `ssd300_mobilenet_v1`: none has a public address that this package can read."""


class SSD300_MobileNet_V1_QFGaohao_Weights(WeightsEnum):
    """Weights of `ssd300_mobilenet_v1_qfgaohao`: none has a public address."""


class SSDLite300_MobileNet_V1_QFGaohao_Weights(WeightsEnum):
    """Weights of `ssdlite300_mobilenet_v1_qfgaohao`: none has a public address."""


@register_model
def ssd300_mobilenet_v1(
    *,
    weights: SSD300_MobileNet_V1_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV1_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD on MobileNetV1 for 300 × 300 input, after TensorFlow's.

    It follows the source of the TensorFlow Object Detection API, and has 1917 default boxes. The feature
    maps have 19 10 5 3 2 1 cells a side, the head's convolutions are 1 × 1. Convolutions are padded as TensorFlow pads,
    classes are scored by a sigmoid each, and NMS comes before boxes are clipped to the image, with an IoU of 0.6.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV1's 5 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm with TensorFlow's settings.
        default_boxes: Other default boxes than the original's; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd300_mobilenet_v1()
        >>> model.default_boxes.shape
        torch.Size([1917, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_MobileNet_V1_Weights, weights, MobileNetV1_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        in_chans=in_chans,
        norm_layer=norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03),
        conv_layer=Conv2dSame,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes, weights, shapes=tf_box_shapes([0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]), clip="none"
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        head=partial(SSDHead, kernel_size=1),
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        antialias=True,
        score_function="sigmoid",
        score_thresh=1e-8,
        nms_thresh=0.6,
        detections_per_img=100,
        topk_candidates=None,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)


@register_model
def ssd300_mobilenet_v1_qfgaohao(
    *,
    weights: SSD300_MobileNet_V1_QFGaohao_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV1_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSD on MobileNetV1 for 300 × 300 input, after qfgaohao's.

    Its maps have 19 10 5 3 2 1 cells a side and 3000 default boxes. Activations are ReLUs, and the extra layers have no
    norms.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV1's 5 stages train, counted from the last; by default all.
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
        ...     model = ssd300_mobilenet_v1_qfgaohao(num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([3000, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSD300_MobileNet_V1_QFGaohao_Weights, weights, MobileNetV1_Weights, weights_backbone, num_classes, categories
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (128, 256)],
        norm_extras=False,
        in_chans=in_chans,
        norm_layer=norm_layer or BatchNorm2d,
        act_layer=RELU,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 300 for side in (60, 105, 150, 195, 240, 285, 330)],
        steps=[16, 32, 64, 100, 150, 300] if size == (300, 300) else None,
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        image_mean=(127 / 255, 127 / 255, 127 / 255),
        image_std=(128 / 255, 128 / 255, 128 / 255),
        score_thresh=0.01,
        nms_thresh=0.45,
        topk_candidates=200,
        # There is no limit but that of each class.
        detections_per_img=200 * 20,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)


@register_model
def ssdlite300_mobilenet_v1_qfgaohao(
    *,
    weights: SSDLite300_MobileNet_V1_QFGaohao_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV1_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 300,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Build SSDLite on MobileNetV1 for 300 × 300 input, after qfgaohao's.

    Its maps have 19 10 5 3 2 1 cells a side and 3000 default boxes. Activations are ReLUs; the extra layers and the
    head are of separable convolutions without norms.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV1's 5 stages train, counted from the last; by default all.
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
        ...     model = ssdlite300_mobilenet_v1_qfgaohao(num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([3000, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSDLite300_MobileNet_V1_QFGaohao_Weights,
        weights,
        MobileNetV1_Weights,
        weights_backbone,
        num_classes,
        categories,
    )
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (128, 256)],
        separable_extras=True,
        in_chans=in_chans,
        norm_layer=norm_layer or BatchNorm2d,
        act_layer=RELU,
    )
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 300 for side in (60, 105, 150, 195, 240, 285, 330)],
        steps=[16, 32, 64, 100, 150, 300] if size == (300, 300) else None,
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        head=SSDSeparableHead,
        image_mean=(127 / 255, 127 / 255, 127 / 255),
        image_std=(128 / 255, 128 / 255, 128 / 255),
        score_thresh=0.01,
        nms_thresh=0.45,
        topk_candidates=200,
        # There is no limit but that of each class.
        detections_per_img=200 * 20,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

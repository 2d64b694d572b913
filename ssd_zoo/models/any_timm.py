"""SSD and SSDLite on any timm model that gives feature maps.

What is literal elsewhere follows here from the maps that the model has: extra layers halve its last map until a side is
one cell, and the default boxes' scales are spread evenly over all maps.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.timm import TimmMaps, find_timm_maps
from ssd_zoo.backbones.timm_backbone import TimmBackbone
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.layers import BatchNorm2d, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, note_loaded
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import WeightsEnum

__all__ = ["SSDLite_Timm_Weights", "SSD_Timm_Weights", "ssd_timm", "ssdlite_timm"]


class SSD_Timm_Weights(WeightsEnum):
    """Weights of `ssd_timm`: nobody has published any."""


class SSDLite_Timm_Weights(WeightsEnum):
    """Weights of `ssdlite_timm`: nobody has published any."""


@register_model
def ssd_timm(
    backbone: str = "resnet18",
    *,
    weights: SSD_Timm_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: str | bool | None = True,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 320,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds SSD on any timm model: its feature maps from stride 8 on, then extra layers down to one cell.

    Args:
        backbone: The timm model's name; a tag of pretrained weights may follow after a dot. It has a default so that
            this builder can be called as all others are.
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights of the whole detector are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone, which timm loads: True for those it prefers, or the tag of
            others, None or False for none; not used where `weights` is given.
        trainable_backbone_layers: How many of the stages of timm's `feature_info` train, counted from the last; by
            default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Norm of timm's maps and of the extra layers, called with the number of channels.
        default_boxes: Other default boxes than those derived; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, if timm has no such model or weights, if the model gives no
            feature maps, or if it does not work at this size; then the message names a size that works.

    Example:
        >>> model = ssd_timm("mobilenetv4_conv_small", size=256, weights_backbone=None, num_classes=4).eval()
        >>> len(model.default_boxes), 6 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2 + 1)
        (8190, 8190)
    """
    weights, _, categories = settle_weights(SSD_Timm_Weights, weights, WeightsEnum, None, num_classes, categories)
    backbone, pretrained = _settle_backbone(backbone, weights, weights_backbone)
    maps = find_timm_maps(backbone, settle_size(size), first_stride=8, in_chans=in_chans)
    stages = len(maps.stages)
    trainable = settle_trainable_layers(
        trainable_backbone_layers, pretrained=pretrained or weights is not None, default=stages, most=stages
    )
    # The paper's extra layers, as many as it takes.
    extras = [(256, 512), *[(128, 256)] * 16][: _halvings(maps)]
    network = TimmBackbone(maps, extras, norm_layer=norm_layer or BatchNorm2d, pretrained=pretrained)
    network.freeze(trainable)
    num_maps = len(maps.strides) + len(extras)
    # A map of stride 8 has smaller boxes than the paper's even spread, as conv4_3 has.
    scales = _even_scales(num_maps, 0.2, 0.9) if maps.strides[0] > 8 else [0.1, *_even_scales(num_maps - 1, 0.2, 0.9)]
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * num_maps,
        scales=scales,
    )
    kwargs = settle_keywords(kwargs, weights, in_chans, image_mean=maps.image_mean, image_std=maps.image_std)
    model = SSD(network, default_boxes, maps.size, categories, in_chans=in_chans, **kwargs)
    if pretrained:
        note_loaded(model, "backbone.net.", source=f"timm's {backbone}")
    return load(model, weights, progress=progress)


@register_model
def ssdlite_timm(
    backbone: str = "mobilenetv3_large_100",
    *,
    weights: SSDLite_Timm_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: str | bool | None = True,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = 320,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds SSDLite on any timm model: its feature maps from stride 16 on, then extra layers down to one cell.

    At 320 × 320 these are torchvision's maps of 20 10 5 3 2 1 cells a side and its 3234 default boxes.

    Args:
        backbone: The timm model's name; a tag of pretrained weights may follow after a dot. It has a default so that
            this builder can be called as all others are.
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights of the whole detector are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone, which timm loads: True for those it prefers, or the tag of
            others, None or False for none; not used where `weights` is given.
        trainable_backbone_layers: How many of the stages of timm's `feature_info` train, counted from the last; by
            default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Norm of timm's maps, the extra layers and the head, called with the number of channels; by default
            batch norm with the settings of torchvision's SSDLite.
        default_boxes: Other default boxes than those derived; as many feature maps of them.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, if timm has no such model or weights, if the model gives no
            feature maps, or if it does not work at this size; then the message names a size that works.

    Example:
        >>> model = ssdlite_timm("mobilenetv4_conv_small", weights_backbone=None, num_classes=4).eval()
        >>> len(model.default_boxes), 6 * (20**2 + 10**2 + 5**2 + 3**2 + 2**2 + 1)
        (3234, 3234)
    """
    weights, _, categories = settle_weights(SSDLite_Timm_Weights, weights, WeightsEnum, None, num_classes, categories)
    backbone, pretrained = _settle_backbone(backbone, weights, weights_backbone)
    maps = find_timm_maps(backbone, settle_size(size), first_stride=16, in_chans=in_chans)
    stages = len(maps.stages)
    trainable = settle_trainable_layers(
        trainable_backbone_layers, pretrained=pretrained or weights is not None, default=stages, most=stages
    )
    norm_layer = norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    # torchvision's extra layers, as many as it takes.
    extras = [(256, 512), (128, 256), (128, 256), *[(64, 128)] * 16][: _halvings(maps)]
    network = TimmBackbone(maps, extras, lite=True, norm_layer=norm_layer, pretrained=pretrained)
    network.freeze(trainable)
    num_maps = len(maps.strides) + len(extras)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        aspect_ratios=[[2, 3]] * num_maps,
        scales=[*_even_scales(num_maps, 0.2, 0.95)[:-1], 1.0],
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        image_mean=maps.image_mean,
        image_std=maps.image_std,
        head=partial(SSDLiteHead, norm_layer=norm_layer),
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=300,
        topk_candidates=300,
    )
    model = SSD(network, default_boxes, maps.size, categories, in_chans=in_chans, **kwargs)
    if pretrained:
        note_loaded(model, "backbone.net.", source=f"timm's {backbone}")
    return load(model, weights, progress=progress)


def _settle_backbone(
    backbone: str, weights: WeightsEnum | None, weights_backbone: str | bool | None
) -> tuple[str, bool]:
    """Gives the model's name with the tag of its weights, and whether to load them."""
    if isinstance(weights_backbone, str):
        backbone = f"{backbone.partition('.')[0]}.{weights_backbone}"
    return backbone, bool(weights_backbone) and weights is None


def _halvings(maps: TimmMaps) -> int:
    """Counts how often the last map halves, rounded up, until a side is one cell."""
    return (min(maps.map_sizes[-1]) - 1).bit_length()


def _even_scales(num_maps: int, first: float, last: float) -> list[float]:
    """Gives one scale a map, in even steps, and one step more."""
    step = (last - first) / max(num_maps - 1, 1)
    return [first + step * k for k in range(num_maps + 1)]

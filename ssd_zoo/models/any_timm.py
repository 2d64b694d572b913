"""SSD and SSDLite on any timm model that returns feature maps.

Extra layers and default boxes follow from the model's maps. Extra layers halve the last map until a side is one cell,
and the scales of the default boxes are spread evenly over all maps.
"""

from functools import partial

from typing_extensions import Unpack

from ssd_zoo.backbones.timm import TimmMaps, find_timm_maps
from ssd_zoo.backbones.timm_backbone import TimmBackbone
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.loading import note_loaded
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import finish, settle
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.settings import SSDLITE

__all__ = ["ssd_timm", "ssdlite_timm"]


@register_model
def ssd_timm(
    backbone: str = "resnet18",
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: str | bool | None = True,
    **options: Unpack[Options],
) -> SSD:
    """Build SSD on any timm model.

    Feature maps are the model's from stride 8 on, then those of extra layers down to one cell.

    Args:
        backbone: Name of the timm model; a tag of pretrained weights may follow after a dot.
        weights_backbone: Weights of the backbone alone, loaded by timm: True for timm's default, a tag for others,
            None or False for none. Not used where `weights` is given.
        size: Side, or (height, width), of the input; by default 320.
        trainable_backbone_layers: Number of the stages of timm's `feature_info` that train, counted from the last; by
            default all.
        norm_layer: Makes a norm of timm's maps and the extra layers from a number of channels; by default batch norm.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, timm has no such model or weights, the model returns no feature
            maps, or it does not work at this size; the message names a size that works.

    Example:
        >>> model = ssd_timm("mobilenetv4_conv_small", size=256, weights_backbone=None, num_classes=4).eval()
        >>> len(model.default_boxes), 6 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2 + 1)
        (8190, 8190)
    """
    asked = settle(WeightsEnum, weights, WeightsEnum, None, options, size=320)
    backbone, pretrained = _settle_backbone(backbone, asked.weights, weights_backbone)
    maps = find_timm_maps(backbone, asked.size, first_stride=8, in_chans=asked.in_chans)
    # The channels of the paper's extra layers; the last pair repeats.
    extras = [(256, 512), *[(128, 256)] * 16][: _halvings(maps)]
    network = TimmBackbone(maps, extras, norm_layer=asked.norm_layer or BatchNorm2d, pretrained=pretrained)
    network.freeze(asked.trainable(network.num_stages, pretrained=pretrained))
    num_maps = len(maps.strides) + len(extras)
    # A first map of stride 8 gets a smaller scale outside the even steps, as conv4_3 does in the paper.
    scales = _even_scales(num_maps, 0.2, 0.9) if maps.strides[0] > 8 else [0.1, *_even_scales(num_maps - 1, 0.2, 0.9)]
    default_boxes = asked.default_boxes(aspect_ratios=[[2, 3]] * num_maps, scales=scales)
    model = finish(asked, network, default_boxes, image_mean=maps.image_mean, image_std=maps.image_std)
    if pretrained:
        note_loaded(model, "backbone.net.", source=f"timm's {backbone}")
    return model


@register_model
def ssdlite_timm(
    backbone: str = "mobilenetv3_large_100",
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: str | bool | None = True,
    **options: Unpack[Options],
) -> SSD:
    """Build SSDLite on any timm model.

    Feature maps are the model's from stride 16 on, then those of extra layers down to one cell. At 320 × 320 they have
    20 10 5 3 2 1 cells a side and 3234 default boxes, as in torchvision's SSDLite.

    Args:
        backbone: Name of the timm model; a tag of pretrained weights may follow after a dot.
        weights_backbone: Weights of the backbone alone, loaded by timm: True for timm's default, a tag for others,
            None or False for none. Not used where `weights` is given.
        size: Side, or (height, width), of the input; by default 320.
        trainable_backbone_layers: Number of the stages of timm's `feature_info` that train, counted from the last; by
            default all.
        norm_layer: Makes a norm of timm's maps, extra layers and head from a number of channels; by default batch norm
            with torchvision's settings of SSDLite.
    """
    asked = settle(WeightsEnum, weights, WeightsEnum, None, options, size=320)
    backbone, pretrained = _settle_backbone(backbone, asked.weights, weights_backbone)
    maps = find_timm_maps(backbone, asked.size, first_stride=16, in_chans=asked.in_chans)
    norm_layer = asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    # The channels of torchvision's extra layers; the last pair repeats.
    extras = [(256, 512), (128, 256), (128, 256), *[(64, 128)] * 16][: _halvings(maps)]
    network = TimmBackbone(maps, extras, lite=True, norm_layer=norm_layer, pretrained=pretrained)
    network.freeze(asked.trainable(network.num_stages, pretrained=pretrained))
    num_maps = len(maps.strides) + len(extras)
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2, 3]] * num_maps, scales=[*_even_scales(num_maps, 0.2, 0.95)[:-1], 1.0]
    )
    model = finish(
        asked,
        network,
        default_boxes,
        head=partial(SSDLiteHead, norm_layer=norm_layer),
        **SSDLITE | {"image_mean": maps.image_mean, "image_std": maps.image_std},
    )
    if pretrained:
        note_loaded(model, "backbone.net.", source=f"timm's {backbone}")
    return model


def _settle_backbone(
    backbone: str, weights: WeightsEnum | None, weights_backbone: str | bool | None
) -> tuple[str, bool]:
    """Return timm's name of the model with the weights' tag, and whether timm loads weights."""
    if isinstance(weights_backbone, str):
        backbone = f"{backbone.partition('.')[0]}.{weights_backbone}"
    return backbone, bool(weights_backbone) and weights is None


def _halvings(maps: TimmMaps) -> int:
    """Count how often the last map is halved until a side is one cell."""
    return (min(maps.map_sizes[-1]) - 1).bit_length()


def _even_scales(num_maps: int, first: float, last: float) -> list[float]:
    """Return a scale for each map, evenly spaced, and one more after the last."""
    step = (last - first) / max(num_maps - 1, 1)
    return [first + step * k for k in range(num_maps + 1)]

"""Builders; one file a family, and one for its clips. Importing this room registers them all."""

from ssd_zoo.models import (
    any_timm,
    efficientnet,
    fpn,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v2_3d,
    mobilenet_v3,
    mobilenet_v3_3d,
    resnet,
    ultraface,
    vgg,
    vgg_3d,
)

__all__ = [
    "any_timm",
    "efficientnet",
    "fpn",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2_3d",
    "mobilenet_v3",
    "mobilenet_v3_3d",
    "resnet",
    "ultraface",
    "vgg",
    "vgg_3d",
]

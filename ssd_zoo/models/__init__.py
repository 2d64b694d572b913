"""Builders; one file a family. Importing this room registers them all."""

from ssd_zoo.models import any_timm, efficientnet, fpn, mobilenet_v1, mobilenet_v2, mobilenet_v3, resnet, ultraface, vgg

__all__ = [
    "any_timm",
    "efficientnet",
    "fpn",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "resnet",
    "ultraface",
    "vgg",
]

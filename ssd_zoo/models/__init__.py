"""Builders; one file a family. Importing this room registers them all."""

from ssd_zoo.models import any_timm, fpn, mobilenet_v2, resnet, vgg

__all__ = ["any_timm", "fpn", "mobilenet_v2", "resnet", "vgg"]

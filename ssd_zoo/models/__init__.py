"""Builders; one file a family. Importing this room registers them all."""

from ssd_zoo.models import mobilenet_v2, resnet, vgg

__all__ = ["mobilenet_v2", "resnet", "vgg"]

"""Detectors of lufficc's and qfgaohao's projects, for any of their backbones."""

from functools import partial

from ssd_zoo.backbones.mobilenet_v1 import MobileNetV1
from ssd_zoo.backbones.mobilenet_v2 import MobileNetV2
from ssd_zoo.backbones.mobilenet_v3 import MobileNetV3
from ssd_zoo.detector.heads import SSDLiteHead
from ssd_zoo.detector.ssd import SSD, Head
from ssd_zoo.layers.basic import NormLayer
from ssd_zoo.models.settle import Settled, finish
from ssd_zoo.weights.settings import AMDEGROOT, LUFFICC

__all__ = ["lufficc_ssdlite320", "qfgaohao_ssd300"]


def lufficc_ssdlite320(asked: Settled, backbone: MobileNetV2 | MobileNetV3, norm_layer: NormLayer) -> SSD:
    """Build lufficc's SSDLite320 on a backbone."""
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 320 for side in (60, 105, 150, 195, 240, 285, 330)],
        # The source rounds 320 / 3 to 107.
        steps=[16, 32, 64, 107, 160, 320] if asked.size == (320, 320) else None,
        clip="all",
    )
    head = partial(SSDLiteHead, norm_layer=norm_layer, plain_last=True)
    return finish(asked, backbone, default_boxes, head=head, **LUFFICC)


def qfgaohao_ssd300(asked: Settled, backbone: MobileNetV1 | MobileNetV2, head: Head) -> SSD:
    """Build qfgaohao's SSD300 on a backbone."""
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 300 for side in (60, 105, 150, 195, 240, 285, 330)],
        steps=[16, 32, 64, 100, 150, 300] if asked.size == (300, 300) else None,
        clip="all",
    )
    return finish(
        asked,
        backbone,
        default_boxes,
        head=head,
        **AMDEGROOT | {"image_mean": (127 / 255,) * 3, "image_std": (128 / 255,) * 3},
    )

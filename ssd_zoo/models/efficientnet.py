"""SSD on EfficientNet-B3, after lufficc/SSD.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks".
https://arxiv.org/abs/1905.11946
"""

from functools import partial

from typing_extensions import Unpack

from ssd_zoo.backbones.efficientnet import EfficientNetB3
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import finish, settle
from ssd_zoo.weights.categories import VOC_CATEGORIES
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.published import lufficc_weights
from ssd_zoo.weights.settings import LUFFICC

__all__ = ["SSD300_EfficientNet_B3_Weights", "ssd300_efficientnet_b3"]


class SSD300_EfficientNet_B3_Weights(WeightsEnum):
    """Weights of lufficc's SSD300 on EfficientNet-B3."""

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
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD300 on EfficientNet-B3, after lufficc's.

    Feature maps have 38 19 10 5 3 1 cells a side, with 8732 default boxes.
    """
    asked = settle(SSD300_EfficientNet_B3_Weights, weights, WeightsEnum, weights_backbone, options, size=300)
    backbone = EfficientNetB3(
        extras=[(128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)],
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.01),
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if asked.size == (300, 300) else None,
        clip="all",
    )
    return finish(
        asked,
        backbone,
        default_boxes,
        **LUFFICC,
    )

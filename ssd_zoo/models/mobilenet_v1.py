"""SSD on MobileNetV1.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", section 4.6.
https://arxiv.org/abs/1704.04861
"""

from functools import partial

from typing_extensions import Unpack

from ssd_zoo.backbones.mobilenet_v1 import MobileNetV1
from ssd_zoo.detector.boxes import tf_box_shapes
from ssd_zoo.detector.heads import SSDHead, SSDSeparableHead
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import RELU, BatchNorm2d, Conv2dSame
from ssd_zoo.models.options import Options
from ssd_zoo.models.projects import qfgaohao_ssd300
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import finish, settle
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.settings import TENSORFLOW

__all__ = [
    "ssd300_mobilenet_v1",
    "ssd300_mobilenet_v1_qfgaohao",
    "ssdlite300_mobilenet_v1_qfgaohao",
]


@register_model
def ssd300_mobilenet_v1(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build SSD on MobileNetV1 after the TensorFlow Object Detection API's source.

    Feature maps have 19 10 5 3 2 1 cells a side, with 1917 default boxes. The head's convolutions are 1 × 1, and
    padding is TensorFlow's. Scores are sigmoids. NMS comes before boxes are clipped to the image.
    """
    asked = settle(WeightsEnum, weights, WeightsEnum, weights_backbone, options, size=300)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03),
        conv_layer=Conv2dSame,
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(shapes=tf_box_shapes([0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]), clip="none")
    return finish(
        asked,
        backbone,
        default_boxes,
        head=partial(SSDHead, kernel_size=1),
        **TENSORFLOW,
    )


@register_model
def ssd300_mobilenet_v1_qfgaohao(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build SSD on MobileNetV1 after qfgaohao/pytorch-ssd.

    Feature maps have 19 10 5 3 2 1 cells a side, with 3000 default boxes. Activations are ReLUs, and the extra layers
    have no norms.
    """
    asked = settle(WeightsEnum, weights, WeightsEnum, weights_backbone, options, size=300)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (128, 256)],
        norm_extras=False,
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or BatchNorm2d,
        act_layer=RELU,
    )
    return qfgaohao_ssd300(asked, backbone, SSDHead)


@register_model
def ssdlite300_mobilenet_v1_qfgaohao(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build SSDLite on MobileNetV1 after qfgaohao/pytorch-ssd.

    Feature maps have 19 10 5 3 2 1 cells a side, with 3000 default boxes. Activations are ReLUs. Extra layers and head
    are separable convolutions without norms.
    """
    asked = settle(WeightsEnum, weights, WeightsEnum, weights_backbone, options, size=300)
    backbone = MobileNetV1(
        extras=[(256, 512), (128, 256), (128, 256), (128, 256)],
        separable_extras=True,
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or BatchNorm2d,
        act_layer=RELU,
    )
    return qfgaohao_ssd300(asked, backbone, SSDSeparableHead)

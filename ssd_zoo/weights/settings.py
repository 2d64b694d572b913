"""Settings of other projects for pixels, default boxes and detections.

Weights reproduce the detections of their origin only with the origin's settings.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

__all__ = ["AMDEGROOT", "LUFFICC", "MMDET", "SSDLITE", "TENSORFLOW", "BoxSettings", "OriginSettings"]


class BoxSettings(TypedDict, total=False):
    """Keywords of `DefaultBoxGenerator`."""

    aspect_ratios: Sequence[Sequence[float]]
    scales: Sequence[float]
    shapes: Sequence[Sequence[Sequence[float]]]
    steps: Sequence[float] | None
    offsets: Sequence[Sequence[float]] | None
    clip: Literal["sizes", "all", "none"]


class OriginSettings(TypedDict, total=False):
    """Keywords of `SSD` that reproduce an origin."""

    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    antialias: bool
    score_function: Literal["softmax", "sigmoid"]
    score_thresh: float
    nms_thresh: float
    topk_candidates: int | None
    detections_per_img: int
    clip_before_nms: bool


# The projects subtract the mean from pixels of 0 to 255 and do not divide.
_UNDIVIDED = (1 / 255, 1 / 255, 1 / 255)
_CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)

AMDEGROOT: OriginSettings = {
    "image_mean": _CAFFE_MEAN,
    "image_std": _UNDIVIDED,
    "score_thresh": 0.01,
    "nms_thresh": 0.45,
    "topk_candidates": 200,
    # The source limits detections by class alone, 200 of each; VOC has 20 classes.
    "detections_per_img": 200 * 20,
    "clip_before_nms": False,
}

LUFFICC: OriginSettings = {
    "image_mean": _CAFFE_MEAN,
    "image_std": _UNDIVIDED,
    "score_thresh": 0.01,
    "nms_thresh": 0.45,
    "topk_candidates": None,
    "detections_per_img": 100,
    "clip_before_nms": False,
}

# mmdet passes the 1000 best pairs of box and class of each feature map to NMS. That limit is left out here: it matters
# only where it leaves fewer than 200 detections.
MMDET: OriginSettings = {
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": _UNDIVIDED,
    "score_thresh": 0.02,
    "nms_thresh": 0.45,
    "topk_candidates": None,
    "detections_per_img": 200,
    "clip_before_nms": True,
}

# torchvision's SSDLite.
SSDLITE: OriginSettings = {
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "score_thresh": 0.001,
    "nms_thresh": 0.55,
    "detections_per_img": 300,
    "topk_candidates": 300,
}

# TensorFlow's configurations of SSD and SSDLite.
TENSORFLOW: OriginSettings = {
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "antialias": True,
    "score_function": "sigmoid",
    "score_thresh": 1e-8,
    "nms_thresh": 0.6,
    "detections_per_img": 100,
    "topk_candidates": None,
    "clip_before_nms": False,
}

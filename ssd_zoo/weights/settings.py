"""How projects treat pixels, default boxes and detections.

A model detects what its weights detect at their origin only with the origin's settings.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["AMDEGROOT", "LUFFICC", "MMDET"]

# Pixels from 0 to 255, less a mean, not divided.
_UNDIVIDED = (1 / 255, 1 / 255, 1 / 255)
_CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)

AMDEGROOT: Mapping[str, Any] = {
    "image_mean": _CAFFE_MEAN,
    "image_std": _UNDIVIDED,
    "score_thresh": 0.01,
    "nms_thresh": 0.45,
    "topk_candidates": 200,
    # There is no limit but that of each class.
    "detections_per_img": 200 * 20,
    "clip_before_nms": False,
    "default_boxes": {"clip": "all"},
}

LUFFICC: Mapping[str, Any] = {
    "image_mean": _CAFFE_MEAN,
    "image_std": _UNDIVIDED,
    "score_thresh": 0.01,
    "nms_thresh": 0.45,
    "topk_candidates": None,
    "detections_per_img": 100,
    "clip_before_nms": False,
    "default_boxes": {"clip": "all"},
}

# mmdet takes the 1000 best pairs of box and class of each feature map to NMS. No such limit here: it could tell only
# where those leave fewer than 200 detections.
MMDET: Mapping[str, Any] = {
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": _UNDIVIDED,
    "score_thresh": 0.02,
    "nms_thresh": 0.45,
    "topk_candidates": None,
    "detections_per_img": 200,
    "clip_before_nms": True,
    "default_boxes": {"clip": "none"},
}

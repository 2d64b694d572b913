"""Matching of default boxes to objects."""

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou

__all__ = ["match_default_boxes"]


def match_default_boxes(boxes: Tensor, valid: Tensor, default_boxes: Tensor, iou_thresh: float) -> Tensor:
    """Match default boxes to objects.

    A default box gets the object that it overlaps most, if by at least `iou_thresh`. Every object also gets its best
    default box, however small their overlap. If several objects have the same best default box, the last one gets it.

    The rules are those of section 2.2 of SSD's paper and of torchvision's `SSDMatcher`.

    Args:
        boxes: Objects `(N, G, 4)`, xyxy, padded to the same number for all images.
        valid: `(N, G)`, False for the padding.
        default_boxes: `(D, 4)`, xyxy.
        iou_thresh: Least intersection over union of a match, except an object's best default box.

    Returns:
        `(N, D)`, int64: the object's index in 0 … G-1, or -1 for background.
    """
    iou = box_iou(boxes, default_boxes).masked_fill(~valid.unsqueeze(-1), -1)
    best_iou, matched = iou.max(dim=1)
    matched = matched.masked_fill(best_iou < iou_thresh, -1)
    best_default_box = iou.argmax(dim=2)
    objects = torch.arange(boxes.shape[1], device=boxes.device).expand_as(best_default_box).masked_fill(~valid, -1)
    forced = torch.full_like(matched, -1).scatter_reduce(1, best_default_box, objects, "amax")
    return torch.where(forced >= 0, forced, matched)

"""Matching of default boxes to objects."""

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou

__all__ = ["match_default_boxes"]

# Pairs of an object and a default box that are compared at once, in about 1.6 GB: 240 objects in each of 32 images with
# SSD300's default boxes. More objects than that in an image take more blocks, and compilers compile anew.
_MOST_PAIRS = 2**26


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
    # Objects of all images together are within the limit.
    at_once = max(1, _MOST_PAIRS // max(1, len(boxes) * len(default_boxes)))
    best_iou = boxes.new_full((len(boxes), len(default_boxes)), -1)
    matched = torch.zeros_like(best_iou, dtype=torch.int64)
    best_default_boxes = []
    for k, block in enumerate(zip(boxes.split(at_once, dim=1), valid.split(at_once, dim=1), strict=True)):
        iou, index, of_objects = _best_overlaps(*block, default_boxes)
        matched = torch.where(iou > best_iou, index + k * at_once, matched)
        best_iou = torch.maximum(iou, best_iou)
        best_default_boxes.append(of_objects)
    best_default_box = torch.cat(best_default_boxes, dim=1)
    matched = matched.masked_fill(best_iou < iou_thresh, -1)
    objects = torch.arange(boxes.shape[1], device=boxes.device).expand_as(best_default_box).masked_fill(~valid, -1)
    forced = torch.full_like(matched, -1).scatter_reduce(1, best_default_box, objects, "amax")
    return torch.where(forced >= 0, forced, matched)


def _best_overlaps(boxes: Tensor, valid: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best overlap of each default box and its object, `(N, D)`, and each object's best box, `(N, G)`."""
    iou = box_iou(boxes, default_boxes).masked_fill(~valid.unsqueeze(-1), -1)
    return *iou.max(dim=1), iou.argmax(dim=2)

"""Matching of default boxes to objects."""

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou

__all__ = ["match_default_boxes"]

# Pairs of an object and a default box that are compared at once per image, in about 600 MB: 1921 objects with SSD300's
# default boxes. Smaller blocks do not give their memory back: with half as many pairs 200,000 objects took 9 GB.
_MOST_PAIRS = 2**24


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
    at_once = max(1, _MOST_PAIRS // len(default_boxes))
    blocks = zip(boxes.split(at_once, dim=1), valid.split(at_once, dim=1), strict=True)
    (best_iou, matched, best_default_box), *others = (_best_overlaps(*block, default_boxes) for block in blocks)
    for k, (iou, index, of_objects) in enumerate(others, start=1):
        matched = torch.where(iou > best_iou, index + k * at_once, matched)
        best_iou = torch.maximum(iou, best_iou)
        best_default_box = torch.cat([best_default_box, of_objects], dim=1)
    matched = matched.masked_fill(best_iou < iou_thresh, -1)
    objects = torch.arange(boxes.shape[1], device=boxes.device).expand_as(best_default_box).masked_fill(~valid, -1)
    forced = torch.full_like(matched, -1).scatter_reduce(1, best_default_box, objects, "amax")
    return torch.where(forced >= 0, forced, matched)


def _best_overlaps(boxes: Tensor, valid: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best overlap of each default box and its object, `(N, D)`, and each object's best box, `(N, G)`."""
    iou = box_iou(boxes, default_boxes).masked_fill(~valid.unsqueeze(-1), -1)
    return *iou.max(dim=1), iou.argmax(dim=2)

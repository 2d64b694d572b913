"""Which object each default box answers for."""

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou

__all__ = ["match_default_boxes"]


def match_default_boxes(boxes: Tensor, valid: Tensor, default_boxes: Tensor, iou_thresh: float) -> Tensor:
    """Matches default boxes to objects (section 2.2 of the paper, as torchvision's `SSDMatcher` does it).

    A default box gets the object that it overlaps most, if by at least `iou_thresh`. Besides, every object gets its
    best default box, however small their overlap; where two objects want the same one, the later has it.

    Args:
        boxes: Objects `(N, G, 4)`, xyxy, padded to the same number for all images.
        valid: `(N, G)`, False for the padding.
        default_boxes: `(D, 4)`, xyxy.
        iou_thresh: Least intersection over union of a match.

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

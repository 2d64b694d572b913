"""Losses on box offsets.

Each takes predicted offsets `(N, D, 4)`, target offsets `(N, D, 4)` and the default boxes `(D, 4)`, xyxy in pixels.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.detector.overlap import area_of, intersection_and_union

__all__ = ["BoxLoss", "BoxLossName", "ciou", "giou", "smooth_l1"]

BoxLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
BoxLossName = Literal["smooth_l1", "giou", "ciou"]

# torchvision's versions of these losses index by a mask of the boxes that intersect. That synchronises a GPU and breaks
# the graph of compilers.

# Keeps quotients finite for boxes without area.
_EPSILON = 1e-7


def smooth_l1(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:  # noqa: ARG001
    """Return each box's smooth L1 loss, summed over its offsets, `(N, D)`."""
    return F.smooth_l1_loss(offsets, target, reduction="none").sum(-1)


def giou(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:
    """Return one minus the generalised IoU of the decoded boxes, `(N, D)`.

    Rezatofighi et al., "Generalized Intersection over Union", algorithm 1. https://arxiv.org/abs/1902.09630
    """
    boxes, right = decode_boxes(offsets, default_boxes), decode_boxes(target, default_boxes)
    intersection, union = intersection_and_union(boxes, right)
    hull = area_of(_enclosing_sizes(boxes, right))
    return 1 - intersection / (union + _EPSILON) + (hull - union) / (hull + _EPSILON)


def ciou(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:
    """Return the complete IoU (CIoU) loss of the decoded boxes, `(N, D)`.

    Zheng et al., "Distance-IoU Loss", equations 8 to 11. https://arxiv.org/abs/1911.08287
    """
    boxes, right = decode_boxes(offsets, default_boxes), decode_boxes(target, default_boxes)
    intersection, union = intersection_and_union(boxes, right)
    iou = intersection / (union + _EPSILON)
    apart = 0.5 * (boxes[..., :2] + boxes[..., 2:] - right[..., :2] - right[..., 2:])
    distance = apart.square().sum(-1) / (_enclosing_sizes(boxes, right).square().sum(-1) + _EPSILON)
    ratios = 4 / math.pi**2 * (_angle(right) - _angle(boxes)).square()
    with torch.no_grad():
        weight = ratios / (1 - iou + ratios + _EPSILON)
    return 1 - iou + distance + weight * ratios


def _enclosing_sizes(boxes: Tensor, right: Tensor) -> Tensor:
    """Return (width, height), `(..., 2)`, of the smallest box around each pair of boxes."""
    top_left = torch.min(boxes[..., :2], right[..., :2])
    return torch.max(boxes[..., 2:], right[..., 2:]) - top_left


def _sizes(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _angle(boxes: Tensor) -> Tensor:
    """Return the angle of each box's diagonal to the vertical, `(...)`, in radians."""
    width, height = _sizes(boxes).unbind(-1)
    return torch.atan(width / height)

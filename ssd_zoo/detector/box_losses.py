"""Losses on box offsets."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.detector.boxes import decode_boxes

__all__ = ["BoxLoss", "BoxLossName", "ciou", "giou", "smooth_l1"]

BoxLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
BoxLossName = Literal["smooth_l1", "giou", "ciou"]

# Keeps quotients finite for boxes without area.
_EPSILON = 1e-7


def smooth_l1(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:  # noqa: ARG001
    """Sum smooth L1 losses of offsets, `(N, D, 4)` to `(N, D)`."""
    return F.smooth_l1_loss(offsets, target, reduction="none").sum(-1)


def giou(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:
    """Return one minus the generalised IoU, `(N, D, 4)` to `(N, D)`.

    Rezatofighi et al., "Generalized Intersection over Union", algorithm 1. https://arxiv.org/abs/1902.09630
    """
    boxes, right = decode_boxes(offsets, default_boxes), decode_boxes(target, default_boxes)
    iou, union = _paired_iou(boxes, right)
    hull = _area(_enclosing_sizes(boxes, right))
    return 1 - iou + (hull - union) / (hull + _EPSILON)


def ciou(offsets: Tensor, target: Tensor, default_boxes: Tensor) -> Tensor:
    """Return the complete IoU loss, `(N, D, 4)` to `(N, D)`.

    Zheng et al., "Distance-IoU Loss", equations 8 to 11. https://arxiv.org/abs/1911.08287
    """
    boxes, right = decode_boxes(offsets, default_boxes), decode_boxes(target, default_boxes)
    iou, _ = _paired_iou(boxes, right)
    apart = 0.5 * (boxes[..., :2] + boxes[..., 2:] - right[..., :2] - right[..., 2:])
    distance = apart.square().sum(-1) / (_enclosing_sizes(boxes, right).square().sum(-1) + _EPSILON)
    ratios = 4 / math.pi**2 * (_angle(right) - _angle(boxes)).square()
    with torch.no_grad():
        weight = ratios / (1 - iou + ratios + _EPSILON)
    return 1 - iou + distance + weight * ratios


# torchvision's versions of these losses index by a mask of the boxes that intersect. That synchronises a GPU and breaks
# the graph of compilers.
def _paired_iou(boxes: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the IoUs of paired boxes and the areas of their unions."""
    top_left = torch.max(boxes[..., :2], right[..., :2])
    bottom_right = torch.min(boxes[..., 2:], right[..., 2:])
    intersection = _area((bottom_right - top_left).clamp(min=0))
    union = _area(_sizes(boxes)) + _area(_sizes(right)) - intersection
    return intersection / (union + _EPSILON), union


def _enclosing_sizes(boxes: Tensor, right: Tensor) -> Tensor:
    top_left = torch.min(boxes[..., :2], right[..., :2])
    return torch.max(boxes[..., 2:], right[..., 2:]) - top_left


def _sizes(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _area(sizes: Tensor) -> Tensor:
    # The gradient of prod() searches for zeros, which synchronises a GPU.
    return sizes[..., 0] * sizes[..., 1]


def _angle(boxes: Tensor) -> Tensor:
    width, height = _sizes(boxes).unbind(-1)
    return torch.atan(width / height)

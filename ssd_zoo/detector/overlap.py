"""Overlap of boxes: areas, IoU, and detections matched to objects."""

import torch
from torch import Tensor

__all__ = ["area_of", "box_iou", "intersection_and_union", "match_detections"]


def area_of(sizes: Tensor) -> Tensor:
    """Return the areas `(...)` of boxes from their (width, height), `(..., 2)`."""
    # The gradient of prod() searches for zeros, which synchronises a GPU.
    return sizes[..., 0] * sizes[..., 1]


def intersection_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of intersection and union of pairs of boxes.

    Args:
        boxes: `(..., 4)`, xyxy.
        others: `(..., 4)`, xyxy, of a shape that broadcasts with that of `boxes`.

    Returns:
        Two tensors `(...)`, in square pixels; in float32 for boxes in half precision, whose areas would overflow.
    """
    boxes, others = (
        some.float() if some.dtype in (torch.float16, torch.bfloat16) else some for some in (boxes, others)
    )
    # Without names, these large tensors are freed as soon as they are used.
    sides = torch.min(boxes[..., 2:], others[..., 2:]) - torch.max(boxes[..., :2], others[..., :2])
    intersection = area_of(sides.clamp(min=0))
    area, other_area = (area_of(some[..., 2:] - some[..., :2]) for some in (boxes, others))
    return intersection, area + other_area - intersection


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of every box with every other.

    Args:
        boxes: `(..., G, 4)`, xyxy.
        others: `(D, 4)`, xyxy.

    Returns:
        `(..., G, D)`, between 0 and 1; NaN where neither box has an area.
    """
    intersection, union = intersection_and_union(boxes.unsqueeze(-2), others)
    return intersection / union


def match_detections(iou: Tensor, iou_thresh: float, *, ignored: Tensor | None = None, next_best: bool) -> Tensor:
    """Match detections to objects, greedily, the best detection first.

    A detection takes the object that it overlaps most, by at least `iou_thresh`. An object is taken once, but for
    objects that are ignored, which any number of detections may take.

    Args:
        iou: Overlap of detections, in falling order of score, and objects, `(n, G)`.
        iou_thresh: Least overlap of a match.
        ignored: `(G,)`, True for objects that are ignored; by default none is.
        next_best: Whether a detection whose object is taken may have the next one. Pascal VOC's rule forbids it.

    Returns:
        `(n,)`, int64: the object's index in 0 … G-1, or -1 if it takes none.
    """
    matched = torch.full((len(iou),), -1)
    if not iou.numel():
        return matched
    reusable = torch.zeros(iou.shape[1], dtype=torch.bool) if ignored is None else ignored
    free = torch.ones(iou.shape[1], dtype=torch.bool)
    for i in (iou.amax(1) >= iou_thresh).nonzero().squeeze(1).tolist():
        row = iou[i].masked_fill(~free, -1) if next_best else iou[i]
        k = int(row.argmax())
        if row[k] >= iou_thresh and free[k]:
            matched[i] = k
            free[k] = bool(reusable[k])
    return matched

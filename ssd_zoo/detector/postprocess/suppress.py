"""Greedy non-maximum suppression within classes."""

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["overlaps_of_class", "suppress_batch", "suppress_by_kernel", "suppress_in_rounds"]

# Coordinates are clamped to this number of pixels, so that groups can be shifted apart.
_FAR = 1e6
# Most boxes that the kernel compares at once; it needs one bit of memory per pair.
_MOST_BOXES = 2**15


def suppress_by_kernel(boxes: Tensor, groups: Tensor, nms_thresh: float) -> Tensor:
    """Apply greedy NMS within groups by torchvision's kernel.

    Args:
        boxes: `(n, 4)`, xyxy, in descending order of score within each group.
        groups: `(n,)`, such as classes.
        nms_thresh: Largest IoU of two kept boxes of a group.

    Returns:
        Indices of the kept boxes, ascending.
    """
    if len(boxes) == 0:
        return groups
    # Not every device has float64, which is used below.
    given = boxes.device
    where = given if boxes.is_cuda else torch.device("cpu")
    # A box that is not finite must not affect other boxes.
    boxes = boxes.detach().to(where).nan_to_num(0).clamp(-_FAR, _FAR).double()
    groups = groups.to(where)
    order = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=where)
    if len(boxes) > _MOST_BOXES:
        indices = [(groups == group).nonzero().squeeze(1) for group in groups.unique().tolist()]
        kept = [index[nms(boxes[index], order[index], nms_thresh)] for index in indices]
        return torch.cat(kept).sort().values.to(given)
    # One call serves all groups, shifted apart so that they do not overlap. float64 keeps the shift from rounding.
    apart = boxes.max() - boxes.min() + 1
    return nms(boxes + (groups * apart).unsqueeze(1), order, nms_thresh).to(given)


@torch.library.custom_op("ssd_zoo::suppress_batch", mutates_args=())
def suppress_batch(boxes: Tensor, labels: Tensor, eligible: Tensor, num_classes: int, nms_thresh: float) -> Tensor:  # noqa: ARG001
    """Apply greedy NMS within the classes of each image, as one operator for exporters.

    Args:
        boxes: `(N, K, 4)`, xyxy, in descending order of score.
        labels: `(N, K)`.
        eligible: `(N, K)`, False for candidates that do not take part.
        num_classes: Number of classes, background included; a runtime's own operator needs it.
        nms_thresh: Largest IoU of two kept boxes of a class.

    Returns:
        `(N, K)`, True for kept candidates.
    """
    images = torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
    # Ineligible boxes lose their area, so that they suppress nothing.
    boxes = boxes.masked_fill(~eligible.unsqueeze(-1), 0)
    index = suppress_by_kernel(boxes.flatten(0, 1), (labels * len(boxes) + images).flatten(), nms_thresh)
    return torch.zeros_like(eligible).flatten().index_fill(0, index, True).view_as(eligible) & eligible


@suppress_batch.register_fake
def _(boxes: Tensor, labels: Tensor, eligible: Tensor, num_classes: int, nms_thresh: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(eligible)


def overlaps_of_class(boxes: Tensor, labels: Tensor, nms_thresh: float) -> Tensor:
    """Return which candidates suppress which.

    Args:
        boxes: `(N, K, 4)`, xyxy, in descending order of score.
        labels: `(N, K)`.
        nms_thresh: Largest IoU of two kept boxes of a class.

    Returns:
        `(N, K, K)`, True where the column's candidate precedes the row's, has the same class, and overlaps it by more
        than the threshold.
    """
    x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(-1)
    a1, b1, a2, b2 = boxes.unsqueeze(1).unbind(-1)
    width = (torch.min(x2, a2) - torch.max(x1, a1)).clamp(min=0)
    intersection = width * (torch.min(y2, b2) - torch.max(y1, b1)).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - intersection
    position = torch.arange(labels.shape[1], device=labels.device)
    before = position.unsqueeze(1) > position
    return (intersection / union > nms_thresh) & (labels.unsqueeze(2) == labels.unsqueeze(1)) & before


def suppress_in_rounds(overlaps: Tensor, eligible: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Apply greedy NMS to all candidates at once, in rounds.

    In each round a candidate stays unless one that stayed in the previous round suppresses it. The first candidate is
    correct from the start, and each round corrects at least one more, usually nearly all. If a round changes nothing,
    the result is that of greedy NMS.

    Args:
        overlaps: `(N, K, K)` from `overlaps_of_class`.
        eligible: `(N, K)`, False for candidates that do not take part.
        rounds: Number of rounds.

    Returns:
        `(N, K)`, True for kept candidates, and `(N,)`, whether the last round changed nothing.
    """
    # Every runtime has fast matrix products. A positive sum of zeros and ones never rounds to zero, even in float16.
    dtype = torch.float16 if overlaps.is_cuda else torch.float32
    overlaps, stay = overlaps.to(dtype), eligible.to(dtype).unsqueeze(-1)
    kept = before = stay
    for _ in range(rounds):
        before = kept
        kept = (stay - overlaps @ before).relu()
    return kept.squeeze(-1) > 0, (kept == before).flatten(1).all(1)

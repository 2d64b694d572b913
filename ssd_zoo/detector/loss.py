"""The training objective: a classification and a box loss over matched default boxes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.detector.boxes import encode_boxes

__all__ = ["multibox_loss"]


def multibox_loss(
    raw: dict[str, Tensor],
    boxes: Tensor,
    labels: Tensor,
    matched: Tensor,
    default_boxes: Tensor,
    *,
    score_function: str = "softmax",
    positive_fraction: float = 0.25,
) -> dict[str, Tensor]:
    """Computes SSD's loss (equations 1 to 3 of the paper) with hard negative mining, for a whole batch at once.

    Both losses are sums over the batch, divided by its number of matched default boxes (at least 1).

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        boxes: Objects `(N, G, 4)`, xyxy in input pixels, padded.
        labels: Their classes `(N, G)`, int64.
        matched: `(N, D)`, the object of each default box or -1, from `match_default_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        score_function: `"softmax"` for cross-entropy, `"sigmoid"` for a binary cross-entropy summed over classes.
        positive_fraction: Share of matched boxes among those that the classification loss sees; 0.25 takes three
            negatives, the hardest of an image, for each positive.

    Returns:
        `bbox_regression` and `classification`, scalars.
    """
    positive = matched >= 0
    num_positive = positive.sum(dim=1, keepdim=True)
    normaliser = num_positive.sum().clamp(min=1)
    object_index = matched.clamp(min=0)

    target_labels = labels.gather(1, object_index).masked_fill(~positive, 0)
    losses = _classification_losses(raw["cls_logits"], target_labels, score_function)
    num_negative = num_positive * ((1 - positive_fraction) / positive_fraction)
    hardest_first = losses.masked_fill(positive, -torch.inf).sort(dim=1, descending=True).values
    rank = torch.arange(hardest_first.shape[1], device=losses.device)
    mined = (rank < num_negative) & hardest_first.isfinite()
    classification = losses.masked_fill(~positive, 0).sum() + hardest_first.masked_fill(~mined, 0).sum()

    matched_boxes = boxes.gather(1, object_index.unsqueeze(-1).expand(-1, -1, 4))
    # Where nothing is matched the target is the default box itself: padding could give infinite logarithms.
    matched_boxes = torch.where(positive.unsqueeze(-1), matched_boxes, default_boxes)
    offsets = encode_boxes(matched_boxes, default_boxes)
    box_losses = F.smooth_l1_loss(raw["bbox_regression"], offsets, reduction="none").sum(-1)
    return {
        "bbox_regression": box_losses.masked_fill(~positive, 0).sum() / normaliser,
        "classification": classification / normaliser,
    }


def _classification_losses(cls_logits: Tensor, labels: Tensor, score_function: str) -> Tensor:
    """Gives `(N, D)`, the classification loss of each default box by itself."""
    if score_function == "sigmoid":
        one_hot = F.one_hot(labels, cls_logits.shape[-1]).to(cls_logits.dtype)
        return F.binary_cross_entropy_with_logits(cls_logits, one_hot, reduction="none").sum(-1)
    return F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)

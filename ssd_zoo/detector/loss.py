"""SSD's loss: a classification and a box loss over default boxes.

Liu et al., "SSD: Single Shot MultiBox Detector", equations 1 to 3. https://arxiv.org/abs/1512.02325
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from ssd_zoo.detector.box_losses import BoxLoss, BoxLossName, ciou, giou, smooth_l1
from ssd_zoo.detector.boxes import encode_boxes
from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.detector.ranges import check_fraction

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = ["ClassificationLoss", "ClassificationLossName", "cross_entropy", "detector_losses", "focal", "multibox_loss"]

ClassificationLoss = Callable[[Tensor, Tensor, str], Tensor]
ClassificationLossName = Literal["cross_entropy", "focal"]


def detector_losses(
    model: "SSD", raw: dict[str, Tensor], boxes: Tensor, labels: Tensor, valid: Tensor
) -> dict[str, Tensor]:
    """Match default boxes to objects and compute a detector's losses.

    Args:
        model: Its default boxes and settings of the loss are used.
        raw: From `model.forward_raw`: `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        boxes: Objects `(N, G, 4)`, xyxy in input pixels, padded.
        labels: Their classes `(N, G)`, int64.
        valid: `(N, G)`, False for the padding and invalid objects.

    Returns:
        `bbox_regression` and `classification`, scalars.

    Raises:
        TypeError: If the model's `iou_thresh` is not a number.
        ValueError: If it is not between 0 and 1.
    """
    check_fraction("iou_thresh", model.iou_thresh, "an IoU")
    return multibox_loss(
        raw,
        boxes,
        labels,
        match_default_boxes(boxes, valid, model.default_boxes, model.iou_thresh),
        model.default_boxes,
        score_function=model.score_function,
        classification_loss=model.classification_loss,
        box_loss=model.box_loss,
        positive_fraction=model.positive_fraction,
        min_negatives=model.min_negatives,
    )


def multibox_loss(
    raw: dict[str, Tensor],
    boxes: Tensor,
    labels: Tensor,
    matched: Tensor,
    default_boxes: Tensor,
    *,
    score_function: str = "softmax",
    classification_loss: ClassificationLossName | ClassificationLoss = "cross_entropy",
    box_loss: BoxLossName | BoxLoss = "smooth_l1",
    positive_fraction: float = 0.25,
    min_negatives: int = 3,
) -> dict[str, Tensor]:
    """Compute SSD's losses of a batch.

    Both losses are sums over the batch, divided by its number of matched default boxes (at least 1).

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        boxes: Objects `(N, G, 4)`, xyxy in input pixels, padded.
        labels: Their classes `(N, G)`, int64.
        matched: `(N, D)`, int64, the index in G of the object of each default box or -1, from `match_default_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        score_function: `"softmax"` or `"sigmoid"`, which turns the logits into scores.
        classification_loss: `"cross_entropy"` with hard negative mining, or `"focal"`, which weighs all negatives. A
            function gets the logits, the labels `(N, D)` (0 if unmatched) and the score function. It returns `(N, D)`,
            which hard negative mining follows.
        box_loss: `"smooth_l1"` of offsets, `"giou"` or `"ciou"` of boxes. A function gets the predicted offsets
            `(N, D, 4)`, the target offsets `(N, D, 4)` and the default boxes, and returns `(N, D)`.
        positive_fraction: Share of matched boxes among the boxes that hard negative mining keeps. 0.25 keeps the three
            hardest negatives of an image for each positive.
        min_negatives: Least number of negatives per image. The default is the number that one positive brings, so that
            images with objects count as in torchvision. Images without objects then count too.

    Returns:
        `bbox_regression` and `classification`, scalars.
    """
    classify = classification_loss if callable(classification_loss) else _CLASSIFICATION_LOSSES[classification_loss]
    regress = box_loss if callable(box_loss) else _BOX_LOSSES[box_loss]
    positive = matched >= 0
    num_positive = positive.sum(dim=1, keepdim=True)
    normaliser = num_positive.sum().clamp(min=1)
    object_index = matched.clamp(min=0)

    target_labels = labels.gather(1, object_index).masked_fill(~positive, 0)
    losses = classify(raw["cls_logits"], target_labels, score_function)
    if classify is not focal:
        num_negative = (num_positive * ((1 - positive_fraction) / positive_fraction)).clamp(min=min_negatives)
        losses = _mine_hard_negatives(losses, positive, num_negative)

    matched_boxes = boxes.gather(1, object_index.unsqueeze(-1).expand(-1, -1, 4))
    # An unmatched default box is its own target, because padding could give infinite logarithms.
    matched_boxes = torch.where(positive.unsqueeze(-1), matched_boxes, default_boxes)
    offsets = encode_boxes(matched_boxes, default_boxes)
    box_losses = regress(raw["bbox_regression"], offsets, default_boxes)
    return {
        "bbox_regression": box_losses.masked_fill(~positive, 0).sum() / normaliser,
        "classification": losses.sum() / normaliser,
    }


def _mine_hard_negatives(losses: Tensor, positive: Tensor, num_negative: Tensor) -> Tensor:
    """Set losses of all but the hardest negatives to zero (section 2.2).

    Args:
        losses: `(N, D)`.
        positive: `(N, D)`, True for matched default boxes.
        num_negative: `(N, 1)`, how many negatives of each image keep their loss.
    """
    hardest_first = losses.detach().masked_fill(positive, -torch.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(hardest_first)
    rank.scatter_(1, hardest_first, torch.arange(rank.shape[1], device=rank.device).expand_as(rank))
    return losses.masked_fill(~positive & (rank >= num_negative), 0)


def cross_entropy(cls_logits: Tensor, labels: Tensor, score_function: str) -> Tensor:
    """Compute the cross-entropy of each default box.

    With a softmax it is over all classes, with a sigmoid the sum of each class's binary cross-entropy.

    Args:
        cls_logits: `(N, D, C)`.
        labels: `(N, D)`, int64, 0 for background.
        score_function: `"softmax"` or `"sigmoid"`.

    Returns:
        `(N, D)`.
    """
    if score_function == "sigmoid":
        one_hot = F.one_hot(labels, cls_logits.shape[-1]).to(cls_logits.dtype)
        return F.binary_cross_entropy_with_logits(cls_logits, one_hot, reduction="none").sum(-1)
    return F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def focal(cls_logits: Tensor, labels: Tensor, score_function: str, *, alpha: float = 0.25, gamma: float = 2) -> Tensor:
    """Compute the focal loss of each default box.

    With a sigmoid it is summed over the foreground classes, with a softmax it is that of the correct class.

    Lin et al., "Focal Loss for Dense Object Detection", equation 5. https://arxiv.org/abs/1708.02002

    Args:
        cls_logits: `(N, D, C)`.
        labels: `(N, D)`, int64, 0 for background.
        score_function: `"softmax"` or `"sigmoid"`.
        alpha: Weight of objects; background weighs `1 - alpha`.
        gamma: Exponent that reduces the weight of easy examples.

    Returns:
        `(N, D)`.
    """
    if score_function == "sigmoid":
        one_hot = F.one_hot(labels, cls_logits.shape[-1])[..., 1:].to(cls_logits.dtype)
        return sigmoid_focal_loss(cls_logits[..., 1:], one_hot, alpha=alpha, gamma=gamma).sum(-1)
    log_prob = cls_logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    weight = torch.where(labels > 0, alpha, 1 - alpha)
    return -weight * (1 - log_prob.exp()) ** gamma * log_prob


_CLASSIFICATION_LOSSES: dict[str, ClassificationLoss] = {"cross_entropy": cross_entropy, "focal": focal}
_BOX_LOSSES: dict[str, BoxLoss] = {"smooth_l1": smooth_l1, "giou": giou, "ciou": ciou}

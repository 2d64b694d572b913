"""Selection of a batch's best (box, class) pairs, in tensors."""

import torch
from torch import Tensor

from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.detector.postprocess.thresholds import Thresholds

__all__ = ["best_candidates", "is_eligible"]


def best_candidates(scored: dict[str, Tensor], default_boxes: Tensor, take: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best (box, class) pairs of each image.

    They lie within the `take` boxes whose best class scores highest. All other boxes are left out before sorting.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        take: Number of pairs per image, at most all.

    Returns:
        Scores `(N, take)` in descending order, labels `(N, take)`, from 1, and boxes `(N, take, 4)`, xyxy in input
        pixels. NaN scores become -1.
    """
    scores, offsets = scored["class_scores"], scored["bbox_regression"]
    num_foreground = scores.shape[-1]
    rows = scored["best"].nan_to_num(-1).topk(min(take, scores.shape[1]), dim=1, sorted=False).indices
    image = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1)
    scores, pairs = scores[image, rows].flatten(1).nan_to_num(-1).topk(take, dim=1)
    rows = rows.gather(1, pairs // num_foreground)
    offsets = offsets.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    return scores, pairs % num_foreground + 1, decode_boxes(offsets, default_boxes[rows])


def is_eligible(scores: Tensor, labels: Tensor, num_classes: int, thresholds: Thresholds) -> Tensor:
    """Return which candidates may become detections.

    They score above the threshold and are among the `topk_candidates` best of their class.

    Args:
        scores: `(N, K)`, in descending order.
        labels: `(N, K)`, int64, from 1.
        num_classes: Number of classes, background included.
        thresholds: Thresholds of post-processing.

    Returns:
        `(N, K)`, bool.
    """
    eligible, of_class = scores > thresholds.score_thresh, thresholds.topk_candidates
    if of_class is None or of_class >= labels.shape[1]:
        return eligible
    position = torch.arange(labels.shape[1], device=labels.device)
    # All keys differ, so any sort is stable. Exporters have no operator for a stable one.
    by_class = (labels * labels.shape[1] + position).argsort(dim=1)
    # A len would fix the number of images in an exported graph.
    counts = labels.new_zeros(labels.shape[0], num_classes).scatter_add(1, labels, torch.ones_like(labels))
    first = (counts.cumsum(1) - counts).gather(1, labels.gather(1, by_class))
    rank = torch.zeros_like(labels).scatter(1, by_class, position - first)
    return eligible & (rank < of_class)

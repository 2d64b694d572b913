"""Post-processing in tensors of fixed shapes."""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ssd_zoo.detector.postprocess.candidates import best_candidates, is_eligible
from ssd_zoo.detector.postprocess.suppress import suppress_batch, suppress_in_rounds
from ssd_zoo.detector.postprocess.thresholds import Thresholds

__all__ = ["FEW_ROUNDS", "MOST_CANDIDATES", "MOST_PAIRS", "few_candidates", "postprocess_fixed", "try_few_candidates"]

# Rounds of NMS over a few candidates.
FEW_ROUNDS = 16
# Most pairs of candidates of a batch that are compared at once; each takes about thirty bytes.
MOST_PAIRS = 2**26
# With more candidates per image, torchvision's kernel is faster than a matrix of all pairs.
MOST_CANDIDATES = 4096


def try_few_candidates(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> dict[str, Tensor]:
    """Add detections from few candidates to the scores of a batch.

    Few candidates suffice for most images; `exact` says for which.

    No step depends on values, so the function can be part of a compiled graph.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Thresholds of post-processing.

    Returns:
        `scored` with the keys of `postprocess_fixed`; `scored` alone if candidates exceed `MOST_CANDIDATES` or
        `MOST_PAIRS`.
    """
    take = few_candidates(thresholds)
    if take > MOST_CANDIDATES or len(scored["best"]) * take**2 > MOST_PAIRS:
        return scored
    return {**scored, **postprocess_fixed(scored, default_boxes, size, thresholds, candidates=take, rounds=FEW_ROUNDS)}


def few_candidates(thresholds: Thresholds) -> int:
    """Return how many best (box, class) pairs per image, of all classes together, to try first.

    It is twice `detections_per_img`, which suffices for most images. There may be fewer pairs.
    """
    return 2 * thresholds.detections_per_img


def postprocess_fixed(
    scored: dict[str, Tensor],
    default_boxes: Tensor,
    size: tuple[int, int],
    thresholds: Thresholds,
    *,
    candidates: int = 1000,
    rounds: int | None = 24,
) -> dict[str, Tensor]:
    """Return detections in tensors of fixed shapes, for compilers and exporters.

    NMS in rounds consists of matrix products, so a runtime needs no operator for NMS. Without rounds, NMS is one
    operator, `suppress_batch`, which `ssd_zoo.deploy` translates to the runtime's own.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Thresholds of post-processing.
        candidates: Number of best (box, class) pairs per image that enter NMS; at least `detections_per_img`, if there
            are as many.
        rounds: Rounds of NMS, see `suppress_in_rounds`; up to 14 suffice for photos. None for torchvision's kernel.

    Returns:
        `boxes (N, K, 4)`, xyxy in input pixels, `scores (N, K)` and `labels (N, K)`, int64, from 1, padded with zeros.
        K is `detections_per_img`, or the number of all pairs if that is less. `count (N,)` is the number of detections.
        `exact (N,)` is False if more candidates or rounds could change them.
    """
    available, most = scored["class_scores"][0].numel(), thresholds.detections_per_img
    take = min(max(candidates, most), available)
    scores, labels, boxes = best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    num_classes = scored["class_scores"].shape[-1] + 1
    eligible = is_eligible(scores, labels, num_classes, thresholds)
    compared = clipped if thresholds.clip_before_nms else boxes
    if rounds is None:
        kept = suppress_batch(compared, labels, eligible, num_classes, thresholds.nms_thresh)
        exact = torch.ones_like(kept[:, 0])
    else:
        kept, exact = suppress_in_rounds(compared, labels, eligible, thresholds.nms_thresh, most=most, rounds=rounds)
    if take < available:
        # There are enough detections, or no other candidate can become one.
        decided = (kept.sum(1) >= most) | (scores[:, -1] <= thresholds.score_thresh)
        of_classes = (thresholds.topk_candidates or available) * (num_classes - 1)
        if of_classes <= take:
            decided = decided | (eligible.sum(1) >= of_classes)
        exact = exact & decided

    kept = kept & (kept.cumsum(1) <= most)
    if not thresholds.clip_before_nms:
        kept = kept & (clipped[..., 2:] > clipped[..., :2]).all(-1)
    # Kept candidates come first, in descending order of score; all others count as -1, below any score.
    index = torch.where(kept, scores, -1.0).topk(min(most, take), dim=1).indices
    valid = kept.gather(1, index)
    padding = ~valid
    return {
        "boxes": clipped.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)).masked_fill(padding.unsqueeze(-1), 0),
        "scores": scores.gather(1, index).masked_fill(padding, 0),
        "labels": labels.gather(1, index).masked_fill(padding, 0),
        "count": valid.sum(1),
        "exact": exact,
    }

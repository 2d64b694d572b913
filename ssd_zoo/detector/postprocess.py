"""From raw output to detections: scores, the best candidates, non-maximum suppression.

The result is torchvision's: the `topk_candidates` best boxes of each class, NMS within each class, then the best
`detections_per_img` of all classes. The way there is another. Greedy NMS goes through candidates in falling order of
score and looks at nothing behind, so the best detections follow from the best candidates of all classes together, and
only as many of them are decoded and compared as it takes to find `detections_per_img` that remain.
"""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.detector.postprocess_cpu import postprocess_on_cpu
from ssd_zoo.detector.suppress import overlaps_of_class, suppress, suppress_in_rounds
from ssd_zoo.detector.thresholds import Thresholds

__all__ = ["postprocess_detections", "postprocess_fixed", "score_boxes"]

# Rounds of `postprocess_fixed`. Of random candidates, the worst case, NMS takes about ten.
_ROUNDS = 24


def score_boxes(raw: dict[str, Tensor], score_function: str) -> dict[str, Tensor]:
    """Turns logits into scores.

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each.

    Returns:
        `scores (N, D, C - 1)`, the background left out; `best (N, D)`, the greatest of each default box; and
        `bbox_regression` as it was.
    """
    logits = raw["cls_logits"]
    scores = (logits.sigmoid() if score_function == "sigmoid" else logits.softmax(-1))[..., 1:]
    return {"scores": scores, "best": scores.amax(-1), "bbox_regression": raw["bbox_regression"]}


def postprocess_detections(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> list[dict[str, Tensor]]:
    """Turns scores and offsets of a batch into detections.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which of them are detections.

    Returns:
        One dict an image, in falling order of score: `boxes (n, 4)`, xyxy in input pixels, `scores (n,)` and
        `labels (n,)`, int64. They have gradients if what is scored has.
    """
    has_gradients = any(value.requires_grad for value in scored.values())
    if scored["scores"].device.type == "cpu" and not has_gradients:
        return postprocess_on_cpu(scored, default_boxes, size, thresholds)
    detections = _postprocess_tensors(scored, default_boxes, size, thresholds)
    return detections if thresholds.clip_before_nms else [_clip(found, size) for found in detections]


def _postprocess_tensors(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> list[dict[str, Tensor]]:
    images, _, num_foreground = scored["scores"].shape
    available = scored["scores"][0].numel()
    most = thresholds.detections_per_img
    of_class = thresholds.topk_candidates
    most_eligible = available if of_class is None else of_class * num_foreground
    take = min(4 * most // 3, available)
    detections: list[dict[str, Tensor]] = [{}] * images
    pending = list(range(images))
    while pending:
        of_pending = scored if len(pending) == images else {key: value[pending] for key, value in scored.items()}
        scores, labels, boxes = _best_candidates(of_pending, default_boxes, take)
        if thresholds.clip_before_nms:
            boxes = clip_boxes_to_image(boxes, size)
        eligible = _eligible(scores, labels, thresholds)
        kept = suppress(boxes, labels, eligible, thresholds.nms_thresh)
        # NMS has seen every candidate where the scores end below the threshold, or each class has all that it may have.
        seen_all = (scores[:, -1] <= thresholds.score_thresh) | (eligible.sum(1) >= most_eligible)
        counts, seen_all = torch.stack([kept.sum(1), seen_all]).tolist()
        order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        undecided = []
        for row, (i, count) in enumerate(zip(pending, counts, strict=True)):
            if count < most and not seen_all[row] and take < available:
                undecided.append(i)
                continue
            index = order[row, :count]
            detections[i] = {"boxes": boxes[row, index], "scores": scores[row, index], "labels": labels[row, index]}
        pending, take = undecided, min(4 * take, available)
    return detections


def postprocess_fixed(
    scored: dict[str, Tensor],
    default_boxes: Tensor,
    size: tuple[int, int],
    thresholds: Thresholds,
    *,
    candidates: int = 1000,
) -> dict[str, Tensor]:
    """Does what `postprocess_detections` does in tensors of fixed shapes, which compilers and exporters need.

    NMS is written in matrix products, so no runtime has to know it.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which are detections; of an image `detections_per_img`, K.
        candidates: How many of the best (box, class) pairs of an image NMS looks at.

    Returns:
        `boxes (N, K, 4)`, `scores (N, K)`, `labels (N, K)`, padded with zeros; `count (N,)`, how many are detections;
        and `exact (N,)`, False where more candidates might have given more detections.
    """
    available, most = scored["scores"][0].numel(), thresholds.detections_per_img
    take = min(max(candidates, most), available)
    scores, labels, boxes = _best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    eligible = _eligible(scores, labels, thresholds)
    overlaps = overlaps_of_class(clipped if thresholds.clip_before_nms else boxes, labels, thresholds.nms_thresh)
    kept, settled = suppress_in_rounds(overlaps, eligible, _ROUNDS)
    enough = (kept.sum(1) >= most) | (scores[:, -1] <= thresholds.score_thresh)
    exact = settled & (enough if take < available else torch.ones_like(enough))

    kept = kept & (kept.cumsum(1) <= most)
    if not thresholds.clip_before_nms:
        kept = kept & (clipped[..., 2:] > clipped[..., :2]).all(-1)
    # The kept ones first, each in its place: their scores fall, and all others have less than any score.
    index = torch.where(kept, scores, -1.0).topk(min(most, take), dim=1).indices
    valid = kept.gather(1, index)
    return {
        "boxes": clipped.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)) * valid.unsqueeze(-1),
        "scores": scores.gather(1, index) * valid,
        "labels": labels.gather(1, index) * valid,
        "count": valid.sum(1),
        "exact": exact,
    }


def _best_candidates(scored: dict[str, Tensor], default_boxes: Tensor, take: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the scores `(N, take)`, labels `(N, take)` and boxes `(N, take, 4)` of the best (box, class) pairs.

    The `take` best pairs lie within the `take` boxes whose best class scores highest, so all others are left out
    before anything is sorted.
    """
    scores, offsets = scored["scores"], scored["bbox_regression"]
    num_foreground = scores.shape[-1]
    rows = scored["best"].topk(min(take, scores.shape[1]), dim=1, sorted=False).indices
    image = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1)
    scores, pairs = scores[image, rows].flatten(1).topk(take, dim=1)
    rows = rows.gather(1, pairs // num_foreground)
    offsets = offsets.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    return scores, pairs % num_foreground + 1, decode_boxes(offsets, default_boxes[rows])


def _eligible(scores: Tensor, labels: Tensor, thresholds: Thresholds) -> Tensor:
    """Gives `(N, K)`, True for candidates above the threshold and among the `topk_candidates` best of their class."""
    eligible, of_class = scores > thresholds.score_thresh, thresholds.topk_candidates
    if of_class is None or of_class >= labels.shape[1]:
        return eligible
    by_class = labels.argsort(dim=1, stable=True)
    grouped = labels.gather(1, by_class)
    position = torch.arange(labels.shape[1], device=labels.device)
    rank = torch.zeros_like(labels).scatter(1, by_class, position - torch.searchsorted(grouped, grouped))
    return eligible & (rank < of_class)


def _clip(found: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Clips the boxes of an image and leaves out those that have no area then."""
    boxes = clip_boxes_to_image(found["boxes"], size)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {key: value[has_area] for key, value in {**found, "boxes": boxes}.items()}

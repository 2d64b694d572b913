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
from ssd_zoo.detector.suppress import overlaps_of_class, suppress, suppress_in_rounds

__all__ = ["postprocess_detections", "postprocess_fixed"]

# Rounds of `postprocess_fixed`. Of random candidates, the worst case, NMS takes about ten.
_ROUNDS = 24


def postprocess_detections(
    raw: dict[str, Tensor],
    default_boxes: Tensor,
    size: tuple[int, int],
    *,
    score_function: str = "softmax",
    score_thresh: float = 0.01,
    nms_thresh: float = 0.45,
    detections_per_img: int = 200,
    topk_candidates: int | None = 400,
    clip_before_nms: bool = True,
) -> list[dict[str, Tensor]]:
    """Turns a batch of raw output into detections.

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each.
        score_thresh: Candidates must score more.
        nms_thresh: A box is dropped where it overlaps a better one of its class by a larger IoU.
        detections_per_img: Most detections of an image.
        topk_candidates: Most candidates of a class; None for all.
        clip_before_nms: Whether boxes are clipped to the image before NMS or after it. If after, boxes that have no
            area left are dropped and not replaced, as TensorFlow's detectors do.

    Returns:
        One dict an image, in falling order of score: `boxes (n, 4)`, xyxy in input pixels, `scores (n,)` and
        `labels (n,)`, int64.
    """
    images = len(raw["cls_logits"])
    all_scores, offsets = _foreground_scores(raw["cls_logits"], score_function), raw["bbox_regression"]
    available = all_scores.shape[1] * all_scores.shape[2]
    most_eligible = available if topk_candidates is None else topk_candidates * all_scores.shape[2]
    take = min(4 * detections_per_img // 3, available)
    detections: list[dict[str, Tensor]] = [{}] * images
    pending = list(range(images))
    while pending:
        of_pending = slice(None) if len(pending) == images else pending
        scores, labels, boxes = _best_candidates(all_scores[of_pending], offsets[of_pending], default_boxes, take)
        if clip_before_nms:
            boxes = clip_boxes_to_image(boxes, size)
        eligible = _eligible(scores, labels, score_thresh, topk_candidates)
        kept = suppress(boxes, labels, eligible, scores, nms_thresh)
        # NMS has seen every candidate where the scores end below the threshold, or each class has all that it may have.
        seen_all = (scores[:, -1] <= score_thresh) | (eligible.sum(1) >= most_eligible)
        counts, seen_all = torch.stack([kept.sum(1), seen_all]).tolist()
        order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :detections_per_img]
        undecided = []
        for row, (i, count) in enumerate(zip(pending, counts, strict=True)):
            if count < detections_per_img and not seen_all[row] and take < available:
                undecided.append(i)
                continue
            index = order[row, :count]
            detections[i] = {"boxes": boxes[row, index], "scores": scores[row, index], "labels": labels[row, index]}
        pending, take = undecided, min(4 * take, available)
    return detections if clip_before_nms else [_clip(found, size) for found in detections]


def postprocess_fixed(
    raw: dict[str, Tensor],
    default_boxes: Tensor,
    size: tuple[int, int],
    *,
    score_function: str = "softmax",
    score_thresh: float = 0.01,
    nms_thresh: float = 0.45,
    detections_per_img: int = 200,
    topk_candidates: int | None = 400,
    clip_before_nms: bool = True,
    candidates: int = 1000,
) -> dict[str, Tensor]:
    """Does what `postprocess_detections` does in tensors of fixed shapes, which compilers and exporters need.

    NMS is written in matrix products, so no runtime has to know it.

    Args:
        raw: As in `postprocess_detections`, and so are all arguments but the last.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        score_function: `"softmax"` or `"sigmoid"`.
        score_thresh: Candidates must score more.
        nms_thresh: A box is dropped where it overlaps a better one of its class by a larger IoU.
        detections_per_img: Detections of an image, K.
        topk_candidates: Most candidates of a class; None for all.
        clip_before_nms: Whether boxes are clipped to the image before NMS or after it.
        candidates: How many of the best (box, class) pairs of an image NMS looks at.

    Returns:
        `boxes (N, K, 4)`, `scores (N, K)`, `labels (N, K)`, padded with zeros; `count (N,)`, how many are detections;
        and `exact (N,)`, False where more candidates might have given more detections.
    """
    all_scores = _foreground_scores(raw["cls_logits"], score_function)
    available = all_scores.shape[1] * all_scores.shape[2]
    take = min(max(candidates, detections_per_img), available)
    scores, labels, boxes = _best_candidates(all_scores, raw["bbox_regression"], default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    eligible = _eligible(scores, labels, score_thresh, topk_candidates)
    overlaps = overlaps_of_class(clipped if clip_before_nms else boxes, labels, nms_thresh)
    kept, settled = suppress_in_rounds(overlaps, eligible, _ROUNDS)
    enough = (kept.sum(1) >= detections_per_img) | (scores[:, -1] <= score_thresh)
    exact = settled & (enough if take < available else torch.ones_like(enough))

    kept = kept & (kept.cumsum(1) <= detections_per_img)
    if not clip_before_nms:
        kept = kept & (clipped[..., 2:] > clipped[..., :2]).all(-1)
    # The kept ones first, each in its place: their scores fall, and all others have less than any score.
    index = torch.where(kept, scores, -1.0).topk(min(detections_per_img, take), dim=1).indices
    valid = kept.gather(1, index)
    return {
        "boxes": clipped.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)) * valid.unsqueeze(-1),
        "scores": scores.gather(1, index) * valid,
        "labels": labels.gather(1, index) * valid,
        "count": valid.sum(1),
        "exact": exact,
    }


def _foreground_scores(cls_logits: Tensor, score_function: str) -> Tensor:
    scores = cls_logits.sigmoid() if score_function == "sigmoid" else cls_logits.softmax(-1)
    return scores[..., 1:]


def _best_candidates(
    scores: Tensor, offsets: Tensor, default_boxes: Tensor, take: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the scores `(N, take)`, labels `(N, take)` and boxes `(N, take, 4)` of the best (box, class) pairs.

    The `take` best pairs lie within the `take` boxes whose best class scores highest, so all others are left out
    before anything is sorted.
    """
    num_foreground = scores.shape[-1]
    rows = scores.amax(-1).topk(min(take, scores.shape[1]), dim=1, sorted=False).indices
    image = torch.arange(scores.shape[0], device=scores.device).unsqueeze(1)
    scores, pairs = scores[image, rows].flatten(1).topk(take, dim=1)
    rows = rows.gather(1, pairs // num_foreground)
    offsets = offsets.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    return scores, pairs % num_foreground + 1, decode_boxes(offsets, default_boxes[rows])


def _eligible(scores: Tensor, labels: Tensor, score_thresh: float, topk_candidates: int | None) -> Tensor:
    """Gives `(N, K)`, True for candidates above the threshold and among the `topk_candidates` best of their class."""
    eligible = scores > score_thresh
    if topk_candidates is None or topk_candidates >= labels.shape[1]:
        return eligible
    by_class = labels.argsort(dim=1, stable=True)
    grouped = labels.gather(1, by_class)
    position = torch.arange(labels.shape[1], device=labels.device)
    rank = torch.zeros_like(labels).scatter(1, by_class, position - torch.searchsorted(grouped, grouped))
    return eligible & (rank < topk_candidates)


def _clip(found: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Clips the boxes of an image and leaves out those that have no area then."""
    boxes = clip_boxes_to_image(found["boxes"], size)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {key: value[has_area] for key, value in {**found, "boxes": boxes}.items()}

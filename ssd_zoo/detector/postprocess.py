"""From raw output to detections: scores, the best candidates, non-maximum suppression.

The result is torchvision's: the `topk_candidates` best boxes of each class, NMS within each class, then the best
`detections_per_img` of all classes. The way there is another. Greedy NMS goes through candidates in falling order of
score and looks at nothing behind, so the best detections follow from the best candidates of all classes together, and
only as many of them are scored, decoded and compared as it takes to find `detections_per_img` that remain.
"""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from ssd_zoo.detector.boxes import decode_boxes

__all__ = ["postprocess_detections"]


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
    num_default_boxes, num_foreground = raw["cls_logits"].shape[1], raw["cls_logits"].shape[2] - 1
    available = num_default_boxes * num_foreground
    take = min(4 * detections_per_img, available)
    while True:
        scores, labels, boxes = _best_candidates(raw, default_boxes, take, score_function)
        if clip_before_nms:
            boxes = clip_boxes_to_image(boxes, size)
        eligible = scores > score_thresh
        if topk_candidates is not None and topk_candidates < take:
            eligible &= _rank_in_class(labels) < topk_candidates
        kept = _suppress(boxes, scores, labels, eligible, nms_thresh)
        # An image is short of detections only if NMS has seen every candidate above the threshold.
        short = (kept.sum(1) < detections_per_img) & (scores[:, -1] > score_thresh)
        if take == available or not short.any():
            break
        take = min(4 * take, available)

    detections = []
    for i, chosen in enumerate(kept):
        index = chosen.nonzero().squeeze(1)[:detections_per_img]
        found = {"boxes": boxes[i, index], "scores": scores[i, index], "labels": labels[i, index]}
        if not clip_before_nms:
            found["boxes"] = clip_boxes_to_image(found["boxes"], size)
            has_area = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
            found = {key: value[has_area] for key, value in found.items()}
        detections.append(found)
    return detections


def _best_candidates(
    raw: dict[str, Tensor], default_boxes: Tensor, take: int, score_function: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the scores `(N, take)`, labels `(N, take)` and boxes `(N, take, 4)` of the best (box, class) pairs.

    The `take` best pairs lie within the `take` boxes whose best class scores highest, so all others are left out
    before anything is sorted.
    """
    cls_logits = raw["cls_logits"]
    best_of_box = cls_logits[..., 1:].amax(-1)
    if score_function == "softmax":
        best_of_box = best_of_box - cls_logits.logsumexp(-1)
    rows = best_of_box.topk(min(take, best_of_box.shape[1]), dim=1).indices
    logits = cls_logits.gather(1, rows.unsqueeze(-1).expand(-1, -1, cls_logits.shape[-1]))
    scores = logits.sigmoid() if score_function == "sigmoid" else logits.softmax(-1)
    scores, pairs = scores[..., 1:].flatten(1).topk(take, dim=1)
    num_foreground = cls_logits.shape[-1] - 1
    rows = rows.gather(1, pairs // num_foreground)
    offsets = raw["bbox_regression"].gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))
    return scores, pairs % num_foreground + 1, decode_boxes(offsets, default_boxes[rows])


def _rank_in_class(labels: Tensor) -> Tensor:
    """Counts, for each of the candidates `(N, K)` in falling order of score, those of its class before it."""
    by_class = labels.argsort(dim=1, stable=True)
    grouped = labels.gather(1, by_class)
    starts = torch.searchsorted(grouped, grouped)
    position = torch.arange(labels.shape[1], device=labels.device)
    return torch.empty_like(labels).scatter_(1, by_class, position - starts)


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, eligible: Tensor, nms_thresh: float) -> Tensor:
    """Gives `(N, K)`, True for the eligible candidates that greedy NMS within each class keeps.

    The kernel compares every kept box with all that follow, so one call an image costs less than one for the batch.
    Classes are kept apart by moving them apart, in float64, so that moving rounds nothing.
    """
    kept = torch.zeros_like(eligible)
    for i, candidates in enumerate(eligible):
        index = candidates.nonzero().squeeze(1)
        if len(index):
            of_image = boxes[i, index].double()
            stride = of_image.amax() - of_image.amin() + 1
            moved = of_image + (labels[i, index] * stride).unsqueeze(1)
            kept[i, index[nms(moved, scores[i, index].double(), nms_thresh)]] = True
    return kept

"""From raw output to detections: scores, the best candidates, non-maximum suppression.

The result is torchvision's: the `topk_candidates` best boxes of each class, NMS within each class, then the best
`detections_per_img` of all classes. The way there is another. Greedy NMS goes through candidates in falling order of
score and looks at nothing behind, so the best detections follow from the best candidates of all classes together, and
only as many of them are decoded and compared as it takes to find `detections_per_img` that remain.

That is done on the CPU, image by image, for all devices but CUDA's. On those a batch is tried at once, in fixed shapes,
and images for which the candidates did not suffice are tried again with more. Where compilers look, the first try is
part of their graph.
"""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.detector.postprocess_cpu import postprocess_on_cpu
from ssd_zoo.detector.suppress import overlaps_of_class, suppress_by_kernel, suppress_in_rounds
from ssd_zoo.detector.thresholds import Thresholds

__all__ = ["postprocess_detections", "postprocess_fixed", "score_boxes", "try_few_candidates"]

# Rounds of NMS over a few candidates, which mostly take up to ten.
_ROUNDS = 16
# Candidates of a batch up to which torchvision's kernel, which takes one after another, is faster than rounds.
_FEW_CANDIDATES = 2**13
# Pairs of candidates, of a batch, that are compared at once; they take some thirty bytes each.
_MOST_PAIRS = 2**26
# With more candidates of an image than these, it is faster not to compare all pairs.
_MOST_CANDIDATES = 4096


def score_boxes(raw: dict[str, Tensor], score_function: str) -> dict[str, Tensor]:
    """Turns logits into scores.

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each.

    Returns:
        `class_scores (N, D, C - 1)`, the background left out; `best (N, D)`, the greatest of each default box; and
        `bbox_regression` as it was.
    """
    logits = raw["cls_logits"]
    scores = (logits.sigmoid() if score_function == "sigmoid" else logits.softmax(-1))[..., 1:]
    return {"class_scores": scores, "best": scores.amax(-1), "bbox_regression": raw["bbox_regression"]}


def try_few_candidates(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> dict[str, Tensor]:
    """Goes on from scores as far as a graph can, without a look at values, which suffices for most images.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which of them are detections.

    Returns:
        What was scored, and `postprocess_fixed` of a few candidates; of large batches only what was scored.
    """
    take = _few(thresholds)
    if len(scored["best"]) * take**2 > _MOST_PAIRS:
        return scored
    return {**scored, **postprocess_fixed(scored, default_boxes, size, thresholds, candidates=take, rounds=_ROUNDS)}


def _few(thresholds: Thresholds) -> int:
    return 2 * thresholds.detections_per_img


def postprocess_detections(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds, scales: Tensor
) -> list[dict[str, Tensor]]:
    """Turns scores and offsets of a batch into detections.

    Args:
        scored: From `score_boxes` or `try_few_candidates`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which of them are detections.
        scales: `(N, 4)`, what boxes are multiplied by at the end.

    Returns:
        One dict an image, in falling order of score: `boxes (n, 4)`, xyxy, `scores (n,)` and `labels (n,)`, int64. They
        have gradients if what is scored has.
    """
    if default_boxes.is_cuda or any(value.requires_grad for value in scored.values()):
        return _postprocess_tensors(scored, default_boxes, size, thresholds, scales)
    on_cpu = {key: value.cpu() for key, value in scored.items()}
    detections = []
    for found, scale in zip(postprocess_on_cpu(on_cpu, default_boxes.cpu(), size, thresholds), scales, strict=True):
        found = {key: value.to(default_boxes.device) for key, value in found.items()}
        detections.append({**found, "boxes": found["boxes"] * scale})
    return detections


def _postprocess_tensors(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds, scales: Tensor
) -> list[dict[str, Tensor]]:
    images, available = len(scored["best"]), scored["class_scores"][0].numel()
    detections: list[dict[str, Tensor]] = [{}] * images
    take = min(_few(thresholds), available)
    if "exact" in scored:
        # A graph writes its next results over these.
        tried = {key: scored[key].clone() for key in ("boxes", "scores", "labels", "count", "exact")}
        detections, take = _decided(tried, scales), 4 * take
    # Where all have been looked at and nothing is decided, it were too few rounds.
    while take <= _MOST_CANDIDATES and take < 4 * available:
        pending = [i for i in range(images) if not detections[i]]
        at_once = max(1, _MOST_PAIRS // take**2)
        for some in (pending[start : start + at_once] for start in range(0, len(pending), at_once)):
            rounds = _ROUNDS if len(some) * take > _FEW_CANDIDATES else None
            found = postprocess_fixed(
                _rows(scored, some), default_boxes, size, thresholds, candidates=take, rounds=rounds
            )
            for i, of_image in zip(some, _decided(found, scales[some]), strict=True):
                detections[i] = of_image
        take *= 4
    for i in range(images):
        if not detections[i]:
            detections[i] = _postprocess_by_kernel(_rows(scored, [i]), default_boxes, size, thresholds)
            detections[i]["boxes"] = detections[i]["boxes"] * scales[i]
    return detections


def _rows(scored: dict[str, Tensor], images: list[int]) -> dict[str, Tensor]:
    values = {key: scored[key] for key in ("class_scores", "best", "bbox_regression")}
    return values if len(images) == len(values["best"]) else {key: value[images] for key, value in values.items()}


def _decided(found: dict[str, Tensor], scales: Tensor) -> list[dict[str, Tensor]]:
    """Gives the detections of each image from `postprocess_fixed`; none where more candidates might give more."""
    counts, exact = torch.stack([found["count"], found["exact"]]).tolist()
    detections = {**found, "boxes": found["boxes"] * scales.unsqueeze(1)}
    return [
        {key: detections[key][i, :count] for key in ("boxes", "scores", "labels")} if decided else {}
        for i, (count, decided) in enumerate(zip(counts, exact, strict=True))
    ]


def _postprocess_by_kernel(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> dict[str, Tensor]:
    """Looks at all candidates of one image above the threshold."""
    take = int((scored["class_scores"] > thresholds.score_thresh).sum())
    scores, labels, boxes = _best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    index = _eligible(scores, labels, thresholds)[0].nonzero().squeeze(1)
    compared = clipped if thresholds.clip_before_nms else boxes
    kept = index[suppress_by_kernel(compared[0, index], labels[0, index], thresholds.nms_thresh)]
    kept = kept[: thresholds.detections_per_img]
    if not thresholds.clip_before_nms:
        kept = kept[(clipped[0, kept, 2:] > clipped[0, kept, :2]).all(1)]
    return {"boxes": clipped[0, kept], "scores": scores[0, kept], "labels": labels[0, kept]}


def postprocess_fixed(
    scored: dict[str, Tensor],
    default_boxes: Tensor,
    size: tuple[int, int],
    thresholds: Thresholds,
    *,
    candidates: int = 1000,
    rounds: int | None = 24,
) -> dict[str, Tensor]:
    """Does what `postprocess_detections` does in tensors of fixed shapes, which compilers and exporters need.

    In rounds, NMS is written in matrix products, so no runtime has to know it.

    Args:
        scored: From `score_boxes`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which are detections; of an image `detections_per_img`, K.
        candidates: How many of the best (box, class) pairs of an image NMS looks at.
        rounds: Of NMS, see `suppress_in_rounds`; of random candidates, the worst case, it takes about ten. None for
            torchvision's kernel.

    Returns:
        `boxes (N, K, 4)`, `scores (N, K)`, `labels (N, K)`, padded with zeros; `count (N,)`, how many are detections;
        and `exact (N,)`, False where more candidates or rounds might have given others.
    """
    available, most = scored["class_scores"][0].numel(), thresholds.detections_per_img
    take = min(max(candidates, most), available)
    scores, labels, boxes = _best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    eligible = _eligible(scores, labels, thresholds)
    compared = clipped if thresholds.clip_before_nms else boxes
    if rounds is None:
        kept = _suppress_batch(compared, labels, eligible, thresholds.nms_thresh)
        exact = torch.ones_like(kept[:, 0])
    else:
        overlaps = overlaps_of_class(compared, labels, thresholds.nms_thresh)
        kept, exact = suppress_in_rounds(overlaps, eligible, rounds)
    if take < available:
        exact = exact & ((kept.sum(1) >= most) | (scores[:, -1] <= thresholds.score_thresh))

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


def _suppress_batch(boxes: Tensor, labels: Tensor, eligible: Tensor, nms_thresh: float) -> Tensor:
    """Does greedy NMS of a batch by the kernel; gives `(N, K)`, True for what is kept."""
    images = torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
    # A box without area suppresses nothing.
    boxes = boxes.masked_fill(~eligible.unsqueeze(-1), 0)
    index = suppress_by_kernel(boxes.flatten(0, 1), (labels * len(boxes) + images).flatten(), nms_thresh)
    return torch.zeros_like(eligible).flatten().index_fill(0, index, True).view_as(eligible) & eligible


def _best_candidates(scored: dict[str, Tensor], default_boxes: Tensor, take: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the scores `(N, take)`, labels `(N, take)` and boxes `(N, take, 4)` of the best (box, class) pairs.

    The `take` best pairs lie within the `take` boxes whose best class scores highest, so all others are left out
    before anything is sorted.
    """
    scores, offsets = scored["class_scores"], scored["bbox_regression"]
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

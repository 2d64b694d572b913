"""From raw output to detections: scores, the best candidates, non-maximum suppression.

The result is torchvision's: the `topk_candidates` best boxes of each class, NMS within each class, then the best
`detections_per_img` of all classes. The way there is another. Greedy NMS goes through candidates in falling order of
score and looks at nothing behind, so the best detections follow from the best candidates of all classes together, and
only as many of them are decoded and compared as it takes to find `detections_per_img` that remain.

That is done on the CPU, image by image, for all devices but CUDA's, unless detections shall have gradients. On CUDA's a
batch is tried at once, in fixed shapes, and images for which the candidates did not suffice are tried again with more.
Where compilers look, the first try is part of their graph.
"""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ssd_zoo.detector.postprocess.candidates import best_candidates, is_eligible
from ssd_zoo.detector.postprocess.cpu import postprocess_on_cpu
from ssd_zoo.detector.postprocess.fixed import (
    FEW_ROUNDS,
    MOST_CANDIDATES,
    MOST_PAIRS,
    few_candidates,
    postprocess_fixed,
)
from ssd_zoo.detector.postprocess.suppress import suppress_by_kernel
from ssd_zoo.detector.postprocess.thresholds import Thresholds

__all__ = ["postprocess_detections", "score_boxes"]

# Candidates of a batch up to which torchvision's kernel, which takes one after another, is faster than rounds.
_FEW_CANDIDATES = 2**13


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
    take = min(few_candidates(thresholds), available)
    if "exact" in scored:
        # A graph writes its next results over these.
        tried = {key: scored[key].clone() for key in ("boxes", "scores", "labels", "count", "exact")}
        detections, take = _decided(tried, scales), 4 * take
    # Four times as many as there are: all have been looked at, in too few rounds.
    while take <= MOST_CANDIDATES and take < 4 * available:
        pending = [i for i in range(images) if not detections[i]]
        at_once = max(1, MOST_PAIRS // take**2)
        for some in (pending[start : start + at_once] for start in range(0, len(pending), at_once)):
            rounds = FEW_ROUNDS if len(some) * take > _FEW_CANDIDATES else None
            found = postprocess_fixed(
                _rows(scored, some), default_boxes, size, thresholds, candidates=take, rounds=rounds
            )
            scales_of_some = scales if len(some) == images else scales[some]
            for i, of_image in zip(some, _decided(found, scales_of_some), strict=True):
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
    scores, labels, boxes = best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    index = is_eligible(scores, labels, thresholds)[0].nonzero().squeeze(1)
    compared = clipped if thresholds.clip_before_nms else boxes
    kept = index[suppress_by_kernel(compared[0, index], labels[0, index], thresholds.nms_thresh)]
    kept = kept[: thresholds.detections_per_img]
    if not thresholds.clip_before_nms:
        kept = kept[(clipped[0, kept, 2:] > clipped[0, kept, :2]).all(1)]
    return {"boxes": clipped[0, kept], "scores": scores[0, kept], "labels": labels[0, kept]}

"""Post-processing, from raw output to detections.

The result is torchvision's: the `topk_candidates` best boxes of each class, NMS within each class, then the best
`detections_per_img` of all classes. The order of computation differs. Greedy NMS visits candidates in descending order
of score, and each decision depends only on better candidates. So the best detections follow from the best candidates of
all classes together. Only as many candidates are decoded and compared as `detections_per_img` detections need.

On CUDA, and if detections need gradients, a whole batch is tried at once, in fixed shapes. Images that need more
candidates are tried again. In a compiled model, the first try is part of the graph. In all other cases images are
processed one by one on the CPU.
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

# Up to this many candidates of a batch, torchvision's sequential kernel is faster than NMS in rounds.
_FEW_CANDIDATES = 2**13


def score_boxes(raw: dict[str, Tensor], score_function: str) -> dict[str, Tensor]:
    """Convert logits to scores.

    Args:
        raw: The head's `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each.

    Returns:
        `class_scores (N, D, C - 1)`, without background, `best (N, D)`, the greatest score of each default box, and
        the unchanged `bbox_regression`.
    """
    logits = raw["cls_logits"]
    scores = (logits.sigmoid() if score_function == "sigmoid" else logits.softmax(-1))[..., 1:]
    return {"class_scores": scores, "best": scores.amax(-1), "bbox_regression": raw["bbox_regression"]}


def postprocess_detections(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds, scales: Tensor
) -> list[dict[str, Tensor]]:
    """Decode, filter, suppress and scale the detections of a batch.

    It runs on the CPU, image by image, unless the model is on CUDA or `scored` needs gradients.

    Args:
        scored: From `score_boxes`, with the head's offsets, or from `try_few_candidates`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Thresholds of post-processing.
        scales: `(N, 4)`, factors for xyxy from input pixels to the images' pixels.

    Returns:
        One dict per image, in descending order of score, on the device of `default_boxes`: `boxes (n, 4)`, xyxy in the
        image's pixels, `scores (n,)` and `labels (n,)`, int64, from 1. Boxes and scores have gradients if `scored` has.
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
    """Return a batch's detections, computed on its device; arguments as for `postprocess_detections`.

    Images that need more candidates are tried again with four times as many.
    """
    images, available = len(scored["best"]), scored["class_scores"][0].numel()
    detections: list[dict[str, Tensor]] = [{}] * images
    take = min(few_candidates(thresholds), available)
    if "exact" in scored:
        # The next replay of a graph overwrites these.
        tried = {key: scored[key].clone() for key in ("boxes", "scores", "labels", "count", "exact")}
        detections, take = _decided(tried, scales), 4 * take
    # Beyond this, the last try had all candidates and needed more rounds.
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
    """Select the scores and offsets of some of a batch's images."""
    values = {key: scored[key] for key in ("class_scores", "best", "bbox_regression")}
    return values if len(images) == len(values["best"]) else {key: value[images] for key, value in values.items()}


def _decided(found: dict[str, Tensor], scales: Tensor) -> list[dict[str, Tensor]]:
    """Return each image's detections; an empty dict if more candidates could change them.

    Args:
        found: From `postprocess_fixed`.
        scales: `(N, 4)`, factors from input pixels to the images' pixels.
    """
    counts, exact = torch.stack([found["count"], found["exact"]]).tolist()
    detections = {**found, "boxes": found["boxes"] * scales.unsqueeze(1)}
    return [
        {key: detections[key][i, :count] for key in ("boxes", "scores", "labels")} if decided else {}
        for i, (count, decided) in enumerate(zip(counts, exact, strict=True))
    ]


def _postprocess_by_kernel(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> dict[str, Tensor]:
    """Return one image's detections from all its candidates above the threshold.

    NMS is torchvision's kernel. `scored` holds a batch of one image.

    Returns:
        `boxes (n, 4)`, xyxy in input pixels, `scores (n,)` and `labels (n,)`.
    """
    take = int((scored["class_scores"] > thresholds.score_thresh).sum())
    scores, labels, boxes = best_candidates(scored, default_boxes, take)
    clipped = clip_boxes_to_image(boxes, size)
    num_classes = scored["class_scores"].shape[-1] + 1
    index = is_eligible(scores, labels, num_classes, thresholds)[0].nonzero().squeeze(1)
    compared = clipped if thresholds.clip_before_nms else boxes
    kept = index[suppress_by_kernel(compared[0, index], labels[0, index], thresholds.nms_thresh)]
    kept = kept[: thresholds.detections_per_img]
    if not thresholds.clip_before_nms:
        kept = kept[(clipped[0, kept, 2:] > clipped[0, kept, :2]).all(1)]
    return {"boxes": clipped[0, kept], "scores": scores[0, kept], "labels": labels[0, kept]}

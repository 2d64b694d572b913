"""Post-processing on a CPU, image by image and in numpy: with so few candidates it is the calls that take the time."""

import numpy as np
import torch
from torch import Tensor

from ssd_zoo.detector.boxes import CENTRE_WEIGHT, MAX_LOG_SCALE, SIZE_WEIGHT
from ssd_zoo.detector.postprocess.suppress import suppress_by_kernel
from ssd_zoo.detector.postprocess.thresholds import Thresholds

__all__ = ["decode_arrays", "postprocess_on_cpu", "suppress_arrays"]

Array = np.ndarray

# The share of all pairs of candidates up to which it is faster to compare those of one class alone.
_FEW_PAIRS = 0.1


def postprocess_on_cpu(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> list[dict[str, Tensor]]:
    """Finds the detections of a batch, for `postprocess_detections`.

    Args:
        scored: From `score_boxes`, without gradients.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Which are detections.

    Returns:
        One dict an image: `boxes (n, 4)`, xyxy in input pixels, `scores (n,)` and `labels (n,)`, in falling order of
        score.
    """
    arrays = (scored[key].numpy() for key in ("best", "class_scores", "bbox_regression"))
    limits = np.array([[size[1]], [size[0]]] * 2, dtype=np.float32)
    detections = []
    for best, scores, offsets in zip(*arrays, strict=True):
        found = _detect(best, scores, offsets, default_boxes.numpy(), limits, thresholds)
        detections.append({key: torch.from_numpy(array) for key, array in found.items()})
    return detections


def _detect(
    best: Array, scores: Array, offsets: Array, default_boxes: Array, limits: Array, thresholds: Thresholds
) -> dict[str, Array]:
    """Finds the detections of one image; looks at more candidates until it has enough."""
    most, of_class = thresholds.detections_per_img, thresholds.topk_candidates
    take = 4 * most // 3
    while True:
        rows, columns, seen_all = _best_candidates(best, scores, take, thresholds.score_thresh)
        if of_class is not None and np.bincount(columns, minlength=1).max() > of_class:
            by_class, rank = _rank_in_class(columns)
            allowed = np.sort(by_class[rank < of_class])
            rows, columns = rows[allowed], columns[allowed]
            seen_all |= len(columns) == of_class * scores.shape[1]
        boxes = decode_arrays(offsets[rows].T.copy(), default_boxes[rows].T.copy())
        clipped = np.minimum(np.maximum(boxes, 0), limits)
        kept = suppress_arrays(clipped if thresholds.clip_before_nms else boxes, columns, thresholds.nms_thresh)[:most]
        if len(kept) == most or seen_all:
            break
        take *= 4
    if not thresholds.clip_before_nms:
        kept = kept[(clipped[2:, kept] > clipped[:2, kept]).all(0)]
    return {
        "boxes": clipped[:, kept].T.copy(),
        "scores": scores[rows[kept], columns[kept]],
        "labels": columns[kept] + 1,
    }


def _best_candidates(best: Array, scores: Array, take: int, score_thresh: float) -> tuple[Array, Array, bool]:
    """Gives the boxes and the columns of the `take` best scores `(D, F)` above the threshold, and if these are all.

    They lie within the `take` boxes whose best class scores highest, and none is less than the least of those.
    """
    rows = np.flatnonzero(best > score_thresh)
    cut = len(rows) > take
    if cut:
        rows = rows[best[rows].argpartition(len(rows) - take)[-take:]]
    of_rows = scores[rows]
    pairs = np.flatnonzero(of_rows >= best[rows].min() if cut else of_rows > score_thresh)
    order = (-of_rows.ravel()[pairs]).argsort(kind="stable")[:take]
    row, column = np.divmod(pairs[order], scores.shape[1])
    return rows[row], column, not cut and len(pairs) <= take


def _rank_in_class(classes: Array) -> tuple[Array, Array]:
    """Gives the order of candidates by class, and in that order how many better ones of its class each has."""
    by_class = classes.argsort(kind="stable")
    counts = np.bincount(classes)
    return by_class, np.arange(len(classes)) - (counts.cumsum() - counts)[classes[by_class]]


def decode_arrays(offsets: Array, default_boxes: Array) -> Array:
    """Does what `decode_boxes` does, for `(4, n)` each."""
    low, high = default_boxes[:2], default_boxes[2:]
    sizes = high - low
    centres = offsets[:2] / CENTRE_WEIGHT * sizes + (low + 0.5 * sizes)
    half = 0.5 * (np.exp(np.minimum(offsets[2:] / SIZE_WEIGHT, MAX_LOG_SCALE)) * sizes)
    return np.concatenate([centres - half, centres + half])


def suppress_arrays(boxes: Array, classes: Array, nms_thresh: float) -> Array:
    """Does greedy non-maximum suppression within classes.

    torchvision's kernel compares each box that it keeps with all that follow. Where classes are many, most of that is
    in vain, and only pairs of one class are compared.

    Args:
        boxes: `(4, n)`, xyxy, in falling order of score.
        classes: `(n,)`.
        nms_thresh: Largest IoU of two boxes of a class that both stay.

    Returns:
        Indices of the boxes that are kept, ascending.
    """
    by_class, better = _rank_in_class(classes)
    pairs = better.sum()
    if pairs > _FEW_PAIRS * len(classes) ** 2:
        return suppress_by_kernel(torch.from_numpy(boxes.T), torch.from_numpy(classes), nms_thresh).numpy()
    # Each candidate with each better one of its class.
    position = np.arange(len(classes))
    second = position.repeat(better)
    first = np.arange(pairs) + (position - better.cumsum())[second]
    first, second = by_class[first], by_class[second]
    overlap = _overlap(boxes, first, second, nms_thresh)
    dropped: set[int] = set()
    # Whatever may drop the first of a pair has been seen by then.
    for i, j in zip(first[overlap].tolist(), second[overlap].tolist(), strict=True):
        if i not in dropped:
            dropped.add(j)
    kept = np.ones(len(classes), dtype=bool)
    kept[list(dropped)] = False
    return kept.nonzero()[0]


def _overlap(boxes: Array, first: Array, second: Array, nms_thresh: float) -> Array:
    """Tells which pairs of boxes have a larger IoU than the threshold."""
    x1, y1, x2, y2 = boxes
    intersection = np.minimum(x2[first], x2[second])
    intersection -= np.maximum(x1[first], x1[second])
    np.maximum(intersection, 0, out=intersection)
    height = np.minimum(y2[first], y2[second])
    height -= np.maximum(y1[first], y1[second])
    np.maximum(height, 0, out=height)
    intersection *= height
    area = (x2 - x1) * (y2 - y1)
    union = area[first]
    union += area[second]
    union -= intersection
    return intersection > nms_thresh * union

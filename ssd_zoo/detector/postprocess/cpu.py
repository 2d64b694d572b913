"""Post-processing on a CPU, image by image.

It uses numpy, because candidates are few and the overhead of calls takes most of the time.
"""

import numpy as np
import torch
from torch import Tensor

from ssd_zoo.detector.boxes import CENTRE_WEIGHT, MAX_LOG_SCALE, SIZE_WEIGHT
from ssd_zoo.detector.postprocess.suppress import suppress_by_kernel
from ssd_zoo.detector.postprocess.thresholds import Thresholds

__all__ = ["decode_arrays", "postprocess_on_cpu", "suppress_arrays"]

Array = np.ndarray

# If at most this share of all pairs is within a class, it is faster to compare only those.
_FEW_PAIRS = 0.05


def postprocess_on_cpu(
    scored: dict[str, Tensor], default_boxes: Tensor, size: tuple[int, int], thresholds: Thresholds
) -> list[dict[str, Tensor]]:
    """Return the detections of a batch on the CPU.

    Args:
        scored: From `score_boxes`, without gradients.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        size: (height, width) of the input.
        thresholds: Thresholds of post-processing.

    Returns:
        One dict per image: `boxes (n, 4)`, xyxy in input pixels, `scores (n,)` and `labels (n,)`, int64, from 1, in
        descending order of score.
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
    """Return the detections of one image.

    The number of candidates grows until there are enough detections.

    Args:
        best: `(D,)`, the greatest score of each box.
        scores: `(D, F)`, F foreground classes.
        offsets: `(D, 4)`.
        default_boxes: `(D, 4)`, xyxy in input pixels.
        limits: `(4, 1)`, width, height, width, height of the input, to which boxes are clipped.
        thresholds: Thresholds of post-processing.

    Returns:
        `boxes (n, 4)`, `scores (n,)` and `labels (n,)`, from 1, as `postprocess_on_cpu`.
    """
    most, of_class = thresholds.detections_per_img, thresholds.topk_candidates
    # SSDLite300 has 100 detections among 266 candidates in two of three photos.
    take = 8 * most // 3
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
        # Candidates with lower scores overlap less: the number that this share asks for usually suffices.
        take = min(4 * take, max(3 * take // 2, take * most // max(1, len(kept))))
    if not thresholds.clip_before_nms:
        kept = kept[(clipped[2:, kept] > clipped[:2, kept]).all(0)]
    return {
        "boxes": clipped[:, kept].T.copy(),
        "scores": scores[rows[kept], columns[kept]],
        "labels": columns[kept] + 1,
    }


def _best_candidates(best: Array, scores: Array, take: int, score_thresh: float) -> tuple[Array, Array, bool]:
    """Return the best (box, class) pairs above the threshold, and whether these are all.

    They lie within the `take` boxes whose best class scores highest. None scores less than the lowest best
    score of these boxes.

    Args:
        best: `(D,)`, the greatest score of each box.
        scores: `(D, F)`, F foreground classes.
        take: Most candidates.
        score_thresh: Scores of candidates must be greater.

    Returns:
        Rows and columns of the candidates in `scores`, best first, and whether no others are above the threshold.
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
    """Return candidates sorted by class, and their ranks in their class.

    Args:
        classes: `(n,)`, in descending order of score.

    Returns:
        Indices of the candidates, sorted by class, then by score; and in this order, how many candidates of its class
        are better.
    """
    by_class = classes.argsort(kind="stable")
    counts = np.bincount(classes)
    return by_class, np.arange(len(classes)) - (counts.cumsum() - counts)[classes[by_class]]


def decode_arrays(offsets: Array, default_boxes: Array) -> Array:
    """Decode offsets to boxes as `decode_boxes` does, but `(4, n)` each, xyxy in pixels."""
    low, high = default_boxes[:2], default_boxes[2:]
    sizes = high - low
    centres = offsets[:2] / CENTRE_WEIGHT * sizes + (low + 0.5 * sizes)
    half = 0.5 * (np.exp(np.minimum(offsets[2:] / SIZE_WEIGHT, MAX_LOG_SCALE)) * sizes)
    return np.concatenate([centres - half, centres + half])


def suppress_arrays(boxes: Array, classes: Array, nms_thresh: float) -> Array:
    """Apply greedy non-maximum suppression within classes.

    torchvision's kernel compares each kept box with all that follow, including those of other classes. With many
    classes it is faster to compare only pairs of one class.

    Args:
        boxes: `(4, n)`, xyxy, in descending order of score.
        classes: `(n,)`.
        nms_thresh: Largest IoU of two kept boxes of a class.

    Returns:
        Indices of the kept boxes, ascending.
    """
    counts = np.bincount(classes, minlength=1)
    pairs = (counts * (counts - 1)).sum() // 2
    if pairs > _FEW_PAIRS * len(classes) ** 2:
        return suppress_by_kernel(torch.from_numpy(boxes.T), torch.from_numpy(classes), nms_thresh).numpy()
    by_class, better = _rank_in_class(classes)
    # All pairs of a candidate and a better one of its class.
    position = np.arange(len(classes))
    second = position.repeat(better)
    first = np.arange(pairs) + (position - better.cumsum())[second]
    first, second = by_class[first], by_class[second]
    overlap = _overlap(boxes, first, second, nms_thresh)
    dropped: set[int] = set()
    # All pairs that can drop candidate i come before those in which it is the first.
    for i, j in zip(first[overlap].tolist(), second[overlap].tolist(), strict=True):
        if i not in dropped:
            dropped.add(j)
    kept = np.ones(len(classes), dtype=bool)
    kept[list(dropped)] = False
    return kept.nonzero()[0]


def _overlap(boxes: Array, first: Array, second: Array, nms_thresh: float) -> Array:
    """Return which pairs of boxes have a larger IoU than the threshold.

    Args:
        boxes: `(4, n)`, xyxy.
        first: `(p,)`, index of one box of each pair.
        second: `(p,)`, index of the other.
        nms_thresh: The threshold.

    Returns:
        `(p,)`, bool.
    """
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

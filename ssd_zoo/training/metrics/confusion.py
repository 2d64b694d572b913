"""Confusion matrix: which classes were found where objects of which class are."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.training.metrics.records import Record

__all__ = ["Judged", "confusion_matrix", "judge_record"]


class Judged(NamedTuple):
    """Detections of an image or frame, matched to its objects; all by index in the record.

    Attributes:
        found: Pairs of a detection and the object that it found, or -1, the best detection first. Detections of ignored
            objects are left out.
        missed: Objects that no detection found.
    """

    found: list[tuple[int, int]]
    missed: list[int]


def judge_record(
    record: Record, counted: Collection[int] | None = None, *, score_thresh: float = 0.5, iou_thresh: float = 0.5
) -> Judged:
    """Match the detections of an image or frame to its objects.

    Args:
        record: The image or frame.
        counted: See `confusion_matrix`.
        score_thresh: See `confusion_matrix`.
        iou_thresh: See `confusion_matrix`.
    """
    sure = (record.scores >= score_thresh).nonzero().squeeze(1)
    order = sure[record.scores[sure].argsort(descending=True, stable=True)]
    ignored = record.iscrowd | record.difficult
    if counted is not None:
        ignored = ignored | ~torch.isin(record.labels, torch.tensor(sorted(counted)))
    iou = box_iou(record.found_boxes[order], record.boxes)
    matched = match_detections(iou, iou_thresh, ignored=ignored, next_best=True).tolist()
    pairs = [(i, k) for i, k in zip(order.tolist(), matched, strict=True) if k < 0 or not ignored[k]]
    missed = set((~ignored).nonzero().squeeze(1).tolist()) - set(matched)
    return Judged(pairs, sorted(missed))


def confusion_matrix(
    records: Sequence[Record],
    num_classes: int,
    counted: Collection[int] | None = None,
    *,
    score_thresh: float = 0.5,
    iou_thresh: float = 0.5,
) -> Tensor:
    """Count detections by the class of the object that they overlap.

    Detections take, the best first, the free object that they overlap most, by at least `iou_thresh`. Crowds, difficult
    objects and objects of classes that are not counted are ignored, and so are detections of them.

    Args:
        records: One per image or frame.
        num_classes: Number of classes, background counted.
        counted: Labels of the classes to count; all by default.
        score_thresh: Least score of a detection that counts.
        iou_thresh: Least overlap.

    Returns:
        `(C, C)`, int64: objects of a class (rows) by the class found (columns). Column 0 holds the objects that were
        not found, row 0 the detections where no object is.
    """
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for record in records:
        found, missed = judge_record(record, counted, score_thresh=score_thresh, iou_thresh=iou_thresh)
        for i, k in found:
            matrix[0 if k < 0 else record.labels[k], record.found_labels[i]] += 1
        for k in missed:
            matrix[record.labels[k], 0] += 1
    return matrix

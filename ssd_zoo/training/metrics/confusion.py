"""Confusion of classes."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.training.metrics.records import Record

__all__ = ["confusion_matrix"]


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
        sure = record.scores >= score_thresh
        order = record.scores[sure].argsort(descending=True, stable=True)
        boxes, labels = record.found_boxes[sure][order], record.found_labels[sure][order]
        ignored = record.iscrowd | record.difficult
        if counted is not None:
            ignored = ignored | ~torch.isin(record.labels, torch.tensor(sorted(counted)))
        matched = match_detections(box_iou(boxes, record.boxes), iou_thresh, ignored=ignored, next_best=True).tolist()
        for label, k in zip(labels.tolist(), matched, strict=True):
            if k < 0:
                matrix[0, label] += 1
            elif not ignored[k]:
                matrix[record.labels[k], label] += 1
        for k in set((~ignored).nonzero().squeeze(1).tolist()) - set(matched):
            matrix[record.labels[k], 0] += 1
    return matrix

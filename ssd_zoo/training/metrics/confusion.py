"""Which classes a detector takes for which."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssd_zoo.training.metrics.records import Record

__all__ = ["confusion_matrix"]


def confusion_matrix(
    records: Sequence[Record], num_classes: int, *, score_thresh: float = 0.5, iou_thresh: float = 0.5
) -> Tensor:
    """Counts what was found where objects are, whatever their class.

    Detections take, the best first, the free object that they overlap most, by at least `iou_thresh`. Crowds and
    difficult objects are not counted, nor is what was found there.

    Args:
        records: One an image.
        num_classes: Number of classes, background counted.
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
        overlap = box_iou(boxes, record.boxes)
        ignored = record.iscrowd | record.difficult
        free = torch.ones(len(record.boxes), dtype=torch.bool)
        for label, ious in zip(labels.tolist(), overlap, strict=True):
            ious = ious.masked_fill(~free, 0)
            best = int(ious.argmax()) if len(ious) else -1
            if best < 0 or ious[best] < iou_thresh:
                matrix[0, label] += 1
            elif not ignored[best]:
                matrix[record.labels[best], label] += 1
                free[best] = False
        for label in record.labels[free & ~ignored].tolist():
            matrix[label, 0] += 1
    return matrix

"""Pascal VOC's average precision, by the rules of its development kit (`VOCevaldet.m`).

A detection is right if its IoU with an object of its class is at least .5 and no detection with a higher score has that
object. If its best object is a difficult one, the detection does not count. faster-coco-eval has only COCO's rules, in
which a detection may take its second best object.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.training.metrics.records import Record

__all__ = ["area_under", "eleven_points", "precision_recall", "voc_scores"]


def voc_scores(records: Sequence[Record], categories: Sequence[str], iou_thresh: float = 0.5) -> dict[str, list[float]]:
    """Compute average precision by VOC's two rules for classes with objects.

    Args:
        records: One an image.
        categories: Names of the classes, background first.
        iou_thresh: Least overlap of a right detection.

    Returns:
        By class name, without classes that have no objects, a list of two: the area under its curve of precision over
        recall, as VOC counts since 2010, and the mean of its precision at eleven recalls, as until 2009.
    """
    scores = {}
    for label, name in enumerate(categories):
        curve = precision_recall(records, label, iou_thresh) if label else None
        if curve is not None:
            scores[name] = [area_under(*curve), eleven_points(*curve)]
    return scores


def precision_recall(records: Sequence[Record], label: int, iou_thresh: float = 0.5) -> tuple[Tensor, Tensor] | None:
    """Compute a class's precision and recall at each of its n detections, by Pascal VOC's rule.

    Difficult objects and crowds do not count. Detections that match them are among the n, but repeat the figures before
    them, 0 at first.

    Args:
        records: Objects and detections of each image.
        label: The class.
        iou_thresh: Least overlap of a match.

    Returns:
        Both `(n,)`, in falling order of score; None if the class has no objects that count.
    """
    num_objects, scores, verdicts = 0, [], []
    for record in records:
        of_class = record.labels == label
        ignored = (record.difficult | record.iscrowd)[of_class]
        num_objects += int((~ignored).sum())
        found = record.found_labels == label
        order = record.scores[found].argsort(descending=True, stable=True)
        scores.append(record.scores[found][order])
        verdicts.append(_judge(record.found_boxes[found][order], record.boxes[of_class], ignored, iou_thresh))
    if num_objects == 0:
        return None
    order = torch.cat(scores).argsort(descending=True, stable=True)
    verdict = torch.cat(verdicts)[order]
    right, wrong = (verdict == 1).cumsum(0), (verdict == -1).cumsum(0)
    return right / (right + wrong).clamp(min=1), right / num_objects


def _judge(boxes: Tensor, objects: Tensor, ignored: Tensor, iou_thresh: float) -> Tensor:
    """Judge one class's detections in an image.

    Args:
        boxes: Detections `(n, 4)`, the best first.
        objects: `(G, 4)`.
        ignored: `(G,)`, True for objects that do not count.
        iou_thresh: Least overlap of a right detection.

    Returns:
        `(n,)`: 1 for right, -1 for wrong, 0 for detections that do not count.
    """
    matched = match_detections(box_iou(boxes, objects), iou_thresh, ignored=ignored, next_best=False)
    verdict = torch.where(matched >= 0, 1, -1)
    verdict[torch.isin(matched, ignored.nonzero())] = 0
    return verdict


def area_under(precision: Tensor, recall: Tensor) -> float:
    """Compute the area under the curve of precision over recall.

    Each precision is first raised to the best at the same or a higher recall.

    Both are `(n,)`, in falling order of score, as from `precision_recall`.
    """
    precision, recall = precision.double(), recall.double()
    envelope = torch.cat([precision, precision.new_zeros(1)]).flip(0).cummax(0).values.flip(0)[:-1]
    steps = recall.diff(prepend=recall.new_zeros(1))
    return float((steps * envelope).sum())


def eleven_points(precision: Tensor, recall: Tensor) -> float:
    """Average the precision at the recalls 0, .1, … 1.

    The precision at a recall is the best one there or at a higher recall, or 0. Arguments are those of `area_under`.
    """
    # Counted in tenths, as a sum of .1 falls short of what it stands for.
    at_least = [precision[recall * 10 >= point - 1e-6] for point in range(11)]
    return sum(float(values.max()) if len(values) else 0.0 for values in at_least) / 11

"""The worst mistakes of a detector, and pictures of them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssd_zoo.detector.overlap import box_iou
from ssd_zoo.training.metrics.confusion import judge_record
from ssd_zoo.training.metrics.records import Record
from ssd_zoo.training.plots import picture_of

__all__ = ["Kind", "Mistake", "draw_mistake", "worst_mistakes"]

Kind = Literal["missed", "wrong class", "background"]

# A detection with less overlap than that has nothing to do with an object.
_NOTHING = 0.1


class Mistake(NamedTuple):
    """One mistake.

    Attributes:
        kind: An object that was not found, or found as another class; or a detection where no object is.
        record: Index of the record.
        box: Of the object if it was missed, else of the detection; xyxy in pixels.
        label: Class of that box.
        score: Score of the detection; 1 for a missed object.
        text: What is wrong.
    """

    kind: Kind
    record: int
    box: Tensor
    label: int
    score: float
    text: str


def worst_mistakes(records: Sequence[Record], categories: Sequence[str], most: int = 6) -> list[Mistake]:
    """Return the worst mistakes of each kind, the kinds one after another.

    They are the largest objects that were missed, and the surest detections that are wrong.

    What is a mistake is judged as for `confusion_matrix`.

    Args:
        records: One per image or frame.
        categories: Names of the classes, background first.
        most: Most mistakes of a kind.
    """
    ranked: dict[Kind, list[tuple[float, Mistake]]] = {"missed": [], "wrong class": [], "background": []}
    for number, record in enumerate(records):
        found, missed = judge_record(record)
        for k in missed:
            box, label = record.boxes[k], int(record.labels[k])
            if not (box[2:] >= box[:2]).all() or not box.isfinite().all():
                continue  # Nothing can be shown.
            mistake = Mistake("missed", number, box, label, 1.0, f"{categories[label]} was not found")
            ranked["missed"].append((float(record.area[k]), mistake))
        for i, k in found:
            label, score = int(record.found_labels[i]), float(record.scores[i])
            if k >= 0 and record.labels[k] == label:
                continue
            kind: Kind = "background" if k < 0 else "wrong class"
            text = _no_object(record, i) if k < 0 else f"labelled {categories[int(record.labels[k])]}"
            text = f"{categories[label]} {score:.2f}, {text}"
            ranked[kind].append((score, Mistake(kind, number, record.found_boxes[i], label, score, text)))
    return [
        mistake
        for of_kind in ranked.values()
        for _, mistake in sorted(of_kind, key=lambda pair: pair[0], reverse=True)[:most]
    ]


def draw_mistake(image: Tensor, mistake: Mistake, categories: Sequence[str], side: int = 240) -> Image.Image:
    """Draw the box of a mistake with what is around it.

    Args:
        image: The whole image or frame of the record, `(C, H, W)`, between 0 and 1.
        mistake: The mistake.
        categories: Names of the classes, background first.
        side: Longest side of the picture in pixels.
    """
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = mistake.box.tolist()
    around = max(x2 - x1, y2 - y1, 48.0)
    left, top = (max(0, int((a + b) / 2 - around)) for a, b in ((x1, x2), (y1, y2)))
    left, top = min(left, width - 1), min(top, height - 1)
    part = image[:, top : top + round(2 * around), left : left + round(2 * around)]
    scale = side / max(part.shape[-2:])
    size = [max(1, round(length * scale)) for length in part.shape[-2:]]
    box = (mistake.box - torch.tensor([left, top, left, top])) * scale
    found = {"boxes": box.unsqueeze(0), "labels": torch.tensor([mistake.label])}
    if mistake.kind != "missed":
        found["scores"] = torch.tensor([mistake.score])
    return picture_of(F.resize(part, size, antialias=True), found, categories, score_thresh=0)


def _no_object(record: Record, detection: int) -> str:
    """Return words about where a wrong detection lies, as the end of a sentence."""
    if len(record.boxes) == 0:
        return "where nothing is labelled"
    overlap = box_iou(record.found_boxes[detection].unsqueeze(0), record.boxes)[0]
    best = int(overlap.nan_to_num(0).argmax())
    if overlap[best] < _NOTHING:
        return "where nothing is labelled"
    return "that another detection has found already" if overlap[best] >= 0.5 else "beside a labelled object"

"""Detections as rows of COCO's results format, and as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from torch import Tensor

from ssd_zoo.weights.categories import COCO_CATEGORIES

__all__ = ["ResultRow", "category_ids", "result_rows", "table"]


class ResultRow(TypedDict):
    """Detection in COCO's results format, with file and class names added.

    `bbox` is x, y, width and height in the image's pixels.
    """

    image_id: int
    file_name: str
    category_id: int
    category: str
    bbox: list[float]
    score: float


def category_ids(categories: Sequence[str]) -> list[int]:
    """Return COCO category ids by label, the background's (0) first.

    For COCO's 80 classes these are the official ids, which have gaps. Otherwise the ids are the labels.
    """
    if set(categories[1:]) == set(COCO_CATEGORIES[1:]) - {"N/A"}:
        return [0, *(COCO_CATEGORIES.index(name) for name in categories[1:])]
    return list(range(len(categories)))


def result_rows(
    detections: Mapping[str, Tensor], categories: Sequence[str], image_id: int, file: str | Path
) -> list[ResultRow]:
    """Convert detections to COCO's results format, with file and class names added.

    Coordinates are rounded to hundredths of a pixel, scores to five digits.
    """
    ids = category_ids(categories)
    rows = zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    return [
        {
            "image_id": image_id,
            "file_name": str(file),
            "category_id": ids[label],
            "category": categories[label],
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), label, score in rows
    ]


def table(title: str | Path, rows: Sequence[ResultRow], *, most: int | None = None) -> str:
    """Format an image's detections as a table.

    Args:
        title: What stands before the number of objects.
        rows: The detections.
        most: Most rows that are shown; None for all.
    """
    lines = [f"{title}: {len(rows) or 'no'} object{'' if len(rows) == 1 else 's'}"]
    width = max((len(row["category"]) for row in rows[:most]), default=0)
    for row in rows[:most]:
        x, y, box_width, box_height = (round(value) for value in row["bbox"])
        lines.append(f"  {row['category']:{width}}  {row['score']:.2f}  {box_width} × {box_height} at ({x}, {y})")
    if most is not None and len(rows) > most:
        lines.append(f"  … and {len(rows) - most} more")
    return "\n".join(lines) + "\n"

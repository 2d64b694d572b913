"""COCO's average precision, by faster-coco-eval."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.ops import box_convert

from ssd_zoo.data.coco import read_coco_json
from ssd_zoo.training.records import Record

__all__ = ["COCO_METRICS", "CocoScores", "score_records", "score_results"]

COCO_METRICS = (
    "AP",
    "AP50",
    "AP75",
    "APsmall",
    "APmedium",
    "APlarge",
    "AR1",
    "AR10",
    "AR100",
    "ARsmall",
    "ARmedium",
    "ARlarge",
)
"""COCO's twelve numbers in its own order."""


@dataclass
class CocoScores:
    """COCO's figures.

    Attributes:
        metrics: The twelve numbers by name; -1 where there are no such objects, as COCO has it.
        per_class: AP, AP50, AP75 and the number of objects of each class that occurs.
        precision: `(10, 101, K)`, over the IoU thresholds .5 to .95, the recalls 0 to 1, and the classes; -1 where
            there are no objects.
        classes: Names of the K classes.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: np.ndarray
    classes: list[str]


def score_records(records: Sequence[Record], categories: Sequence[str]) -> CocoScores:
    """Scores detections by COCO's rules.

    Args:
        records: One an image.
        categories: Names of the classes, background first.

    Raises:
        ImportError: If faster-coco-eval is missing.
    """
    truth = [
        {"image_id": i, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for i, record in enumerate(records)
        for box, label, area, crowd in zip(
            box_convert(record.boxes, "xyxy", "xywh").tolist(),
            record.labels.tolist(),
            record.area.tolist(),
            record.iscrowd.int().tolist(),
            strict=True,
        )
    ]
    found = [
        {"image_id": i, "category_id": label, "bbox": box, "score": score}
        for i, record in enumerate(records)
        for box, label, score in zip(
            box_convert(record.found_boxes, "xyxy", "xywh").tolist(),
            record.found_labels.tolist(),
            record.scores.tolist(),
            strict=True,
        )
    ]
    names = {label: name for label, name in enumerate(categories) if label > 0}
    return _score(range(len(records)), names, truth, found)


def score_results(annotations: str | Path, results: str | Path) -> tuple[CocoScores, int]:
    """Scores a file of results against a file of annotations, both in COCO's formats, and counts the images.

    Args:
        annotations: JSON with `images`, `annotations` and `categories`.
        results: JSON list of `image_id`, `category_id`, `bbox` and `score`.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or results are of images that the annotations do not have.
    """
    content = read_coco_json(Path(annotations))
    found = _read_results(Path(results))
    image_ids = [image["id"] for image in content["images"]]
    strange = {row["image_id"] for row in found} - set(image_ids)
    if strange:
        raise ValueError(f"{results} has results of the image {min(strange)}, which {annotations} does not have.")
    truth = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": entry["bbox"],
            "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
            "iscrowd": int(entry.get("iscrowd", 0)),
        }
        for entry in content["annotations"]
    ]
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    return _score(image_ids, names, truth, found), len(image_ids)


def _read_results(file: Path) -> list[dict[str, Any]]:
    import json

    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno} is no JSON: {error.msg}.") from error
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and needed <= row.keys() for row in rows):
        raise ValueError(f"{file} must be a list of results with {', '.join(sorted(needed))}.")
    return [{key: row[key] for key in needed} for row in rows]


def _score(
    image_ids: Sequence[int],
    names: Mapping[int, str],
    truth: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
) -> CocoScores:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError('Evaluation needs faster-coco-eval: pip install "ssd_zoo[evaluate]".') from error
    images = [{"id": image_id} for image_id in image_ids]
    categories = [{"id": category_id, "name": name} for category_id, name in names.items()]
    detections = [{**row, "area": row["bbox"][2] * row["bbox"][3]} for row in found]
    with contextlib.redirect_stdout(io.StringIO()):
        coco, results = (
            COCO({"images": images, "categories": categories, "annotations": list(_numbered(rows))})
            for rows in (truth, detections)
        )
        judge = COCOeval_faster(coco, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # All areas, at most 100 detections.
    precision = judge.eval["precision"][:, :, :, 0, -1]
    classes = [names[category_id] for category_id in judge.params.catIds]
    counts = [sum(not row["iscrowd"] for row in truth if row["category_id"] == i) for i in judge.params.catIds]
    per_class = {
        name: {
            "AP": _mean(precision[:, :, k]),
            "AP50": _mean(precision[0, :, k]),
            "AP75": _mean(precision[5, :, k]),
            "objects": counts[k],
        }
        for k, name in enumerate(classes)
        if counts[k]
    }
    metrics = {name: float(value) for name, value in zip(COCO_METRICS, judge.stats, strict=True)}
    return CocoScores(metrics, per_class, precision, classes)


def _numbered(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Numbers rows from 1: the judge takes the id 0 for "not matched", and files have ids that occur twice."""
    for number, row in enumerate(rows, start=1):
        yield {**row, "id": number}


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0

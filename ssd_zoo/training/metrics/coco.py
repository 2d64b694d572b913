"""COCO's average precision, by faster-coco-eval."""

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.ops import box_convert

from ssd_zoo.data.formats.coco import read_coco_json
from ssd_zoo.training.metrics.records import Record
from ssd_zoo.weights.categories import list_names, match_classes
from ssd_zoo.weights.outside import JSON, listing, number, parse_json, quote, read_text, whole

__all__ = ["COCO_METRICS", "CocoScores", "score_records", "score_results"]

_LARGEST, _FARTHEST = 2**32, 1e15

Row = dict[str, Any]
"""An entry of annotations or results, whose values are checked where they are read."""

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
        per_class: AP, AP50, AP75 and the number of objects of each class that is counted and occurs.
        precision: `(10, 101, K)`, over the IoU thresholds .5 to .95, the recalls 0 to 1, and the classes; -1 where
            there are no objects or the class is not counted.
        classes: Names of the K classes.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: np.ndarray
    classes: list[str]


def score_records(
    records: Sequence[Record], categories: Sequence[str], counted: Collection[int] | None = None
) -> CocoScores:
    """Score detections by COCO's rules.

    Difficult objects (Pascal VOC) count as crowds: missing them costs nothing, nor does finding them.

    The label 0 is never scored.

    Args:
        records: One an image.
        categories: Names of the classes, background first.
        counted: Labels of the classes that the averages are over; all by default.

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
            (record.iscrowd | record.difficult).int().tolist(),
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
    return _score(range(len(records)), names, truth, found, counted)


def score_results(annotations: str | Path, results: str | Path) -> tuple[CocoScores, int, list[str], list[str]]:
    """Score a file of results against annotations, in COCO's formats.

    Args:
        annotations: JSON with `images`, `annotations` and `categories`.
        results: JSON list of `image_id`, `category_id`, `bbox` and `score`; where a row has a text `category`, it
            counts, and not the id.

    Returns:
        The scores, the number of images, the annotations' classes that results with names lack, and the classes that
        the annotations lack.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or has boxes of images or categories that the annotations do not
            have. The message names the file and the entry, counted from 0.
    """
    content = read_coco_json(Path(annotations))
    image_ids = _distinct(content["images"], "id", (int, float, str), f"{annotations}: images")
    category_ids = _distinct(content["categories"], "id", (int, float), f"{annotations}: categories")
    names = _distinct(content["categories"], "name", (str,), f"{annotations}: categories")
    known = {"image_id": dict.fromkeys(image_ids), "category_id": dict.fromkeys(category_ids)}
    truth = [
        _checked_annotation(entry, known, f"{annotations}: annotations[{i}]")
        for i, entry in enumerate(content["annotations"])
    ]
    rows = _read_results(Path(results))
    ids = _ids_by_name(rows, dict(zip(names, category_ids, strict=True)), results)
    found: list[Row] = []
    lacking: dict[str, None] = {}
    for i, entry in enumerate(rows):
        name = _class_name(entry)
        if name is None or name in ids:
            found.append(_checked_result(entry, known, f"{results}: [{i}]", None if name is None else ids[name]))
        else:
            lacking[name] = None
    scores = _score(image_ids, dict(zip(category_ids, names, strict=True)), truth, found)
    present = {row["category_id"] for row in found}
    missing = [name for name, i in zip(names, category_ids, strict=True) if ids and i not in present]
    return scores, len(image_ids), missing, list(lacking)


def _class_name(entry: object) -> str | None:
    name = entry.get("category") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def _ids_by_name(rows: Sequence[object], ids: Mapping[str, int], results: str | Path) -> dict[str, int]:
    """Return the annotations' category id for each class name in results.

    Args:
        rows: The results.
        ids: The annotations' ids by name.
        results: Name of the results' file, for messages.

    Raises:
        ValueError: If results name classes, and the annotations have none of them.
    """
    theirs = list(dict.fromkeys(name for name in map(_class_name, rows) if name is not None))
    matched = match_classes(["", *theirs], ["", *ids])
    if theirs and not matched:
        raise ValueError(
            f"{results} names none of the annotations' classes: it has {list_names(theirs, 20)}; the annotations have "
            f"{list_names(list(ids), 20)}."
        )
    known = list(ids.values())
    return {theirs[label - 1]: known[other - 1] for label, other in matched.items()}


def _read_results(file: Path) -> list[JSON]:
    rows = parse_json(read_text(file, limit=_LARGEST), file, constants=True)
    if not isinstance(rows, list):
        raise ValueError(f"{file} must be a list of results with image_id, category_id, bbox and score.")
    return rows


def _distinct(entries: Sequence[object], key: str, types: tuple[type, ...], place: str) -> list[Any]:
    """Return the values of a key, which must be distinct and of one type.

    Args:
        entries: The mappings.
        key: The key.
        types: The allowed types.
        place: File and list, for messages.

    Raises:
        ValueError: If a value is missing, of another type, or occurs twice.
    """
    values: dict[Any, None] = {}
    for i, entry in enumerate(entries):
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, types) or isinstance(value, bool):
            kind = "text" if types == (str,) else "number or a text" if str in types else "number"
            raise ValueError(f"{place}[{i}] needs the {key}, a {kind}, got {quote(entry)}.")
        if value in values:
            raise ValueError(f"{place}[{i}] has the {key} {quote(value)}, which an entry before it has too.")
        first = next(iter(values), value)
        if isinstance(value, str) != isinstance(first, str):
            raise ValueError(
                f"{place}[{i}] and those before it must have {key}s of one type, got {quote(first)} and {quote(value)}."
            )
        values[value] = None
    return list(values)


def _checked_annotation(entry: object, known: Mapping[str, Mapping[object, None]], place: str) -> Row:
    """Return a checked entry of annotations, with its `area` (else its box's) and `iscrowd` (else 0).

    Raises:
        ValueError: If a value is invalid; the message begins with the place.
    """
    row = _checked_entry(entry, known, place)
    area = row["bbox"][2] * row["bbox"][3]
    crowd = whole(row.pop("iscrowd", 0), f"{place} iscrowd", low=0, high=1)
    return {**row, "area": number(row.get("area", area), f"{place} area", low=0), "iscrowd": crowd}


def _checked_result(
    entry: object, known: Mapping[str, Mapping[object, None]], place: str, category_id: int | None
) -> Row:
    """Return a checked entry of results.

    Args:
        entry: The entry.
        known: See `_checked_entry`.
        place: See `_checked_entry`.
        category_id: Id of the category that the entry names; None if it names none and its own id counts.
    """
    if isinstance(entry, dict) and category_id is not None:
        entry = {**entry, "category_id": category_id}
    row = _checked_entry(entry, known, place)
    return {**row, "score": number(row.get("score"), f"{place} score")}


def _checked_entry(entry: object, known: Mapping[str, Mapping[object, None]], place: str) -> Row:
    """Check an entry's ids and box; return it without unknown keys.

    Args:
        entry: Of annotations or results.
        known: The values that `image_id` and `category_id` may have.
        place: File and index, for messages.

    Raises:
        ValueError: If one is missing or invalid; the message begins with the place.
    """
    if not isinstance(entry, dict) or not {*known, "bbox"} <= entry.keys():
        raise ValueError(f"{place} needs {', '.join(known)} and bbox, got {quote(entry)}.")
    for key, ids in known.items():
        if isinstance(entry[key], bool | dict | list) or entry[key] not in ids:
            few = ", ".join(map(quote, islice(ids, 10))) + (", …" if len(ids) > 10 else "")
            raise ValueError(
                f"{place} has the {key} {quote(entry[key])}, which the annotations do not have; they have {few}."
            )
    box = listing(entry["bbox"], f"{place} bbox of x, y, width and height", shortest=4, longest=4)
    for value, low in zip(box, (-_FARTHEST, -_FARTHEST, 0, 0), strict=True):
        number(value, f"{place} bbox of x, y, width and height", low=low, high=_FARTHEST)
    return {key: entry[key] for key in (*known, "bbox", "area", "iscrowd", "score") if key in entry}


def _score(
    image_ids: Sequence[int],
    names: Mapping[int, str],
    truth: Sequence[Row],
    found: Sequence[Row],
    counted: Collection[int] | None = None,
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
        # COCO's averages skip what is -1.
        left_out = [k for k, i in enumerate(judge.params.catIds) if counted is not None and i not in counted]
        judge.eval["precision"][:, :, left_out] = judge.eval["recall"][:, left_out] = -1
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
        if counts[k] and k not in left_out
    }
    metrics = {name: float(value) for name, value in zip(COCO_METRICS, judge.stats, strict=True)}
    return CocoScores(metrics, per_class, precision, classes)


def _numbered(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield rows with new ids from 1.

    faster-coco-eval takes the id 0 for "not matched", and ids in files may occur twice.
    """
    for i, row in enumerate(rows, start=1):
        yield {**row, "id": i}


def _mean(precision: np.ndarray) -> float:
    """Return the mean of precisions that are known, -1 if none is; -1 stands for unknown."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0

"""Read annotations in COCO's format, one JSON file per split."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from ssd_zoo.data.annotations import Annotations, LabelledImage, LabelledObject

__all__ = ["coco_split", "find_coco", "line_of_annotation", "read_coco", "read_coco_json"]

# The group matches the split in names such as instances_train2017 and train_coco.
_AFFIXED_SPLIT = re.compile(
    r"^(?:(?:instances|annotations|coco|labels)_)*(.*?)(?:[_-]?20\d\d)?(?:_(?:instances|annotations|coco|labels))*$"
)


def coco_split(file: Path) -> str:
    """Return the split of a JSON file.

    `instances_train.json` belongs to `train`, `valid/_annotations.coco.json` to `valid`.
    """
    if file.name == "_annotations.coco.json":
        return file.parent.name
    return file.stem.removeprefix("instances_").removeprefix("annotations_")


def find_coco(folder: Path) -> dict[str, Path]:
    """Find the annotation files of a folder, by split.

    They lie in the folder itself, in `annotations/`, or in a subfolder per split, as in exports of Roboflow.

    Returns:
        Files by split, as named by `coco_split`.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob("*/_annot*.json")])
    found = {coco_split(file): file for file in files}
    return {name: file for name, file in found.items() if _looks_like_coco(file)}


def _looks_like_coco(file: Path) -> bool:
    content = file.read_bytes()
    return all(key in content for key in (b'"images"', b'"annotations"', b'"categories"'))


def read_coco_json(file: Path) -> dict[str, Any]:
    """Load an annotation file and check its top-level lists.

    Raises:
        ValueError: If the file is not JSON, or lacks a list of `images`, `annotations` or `categories`.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno} is not JSON: {error.msg}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}.") from error
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise ValueError(f"{file} is not in COCO's format: it has no list of {', '.join(missing)}.")
    return content


def read_coco(file: Path, categories: Sequence[str] | None = None) -> Annotations:
    """Read annotations in COCO's format, and locate the images near the file.

    Args:
        file: The JSON file.
        categories: Class names, background first; by default the file's, in the order of their ids.

    Raises:
        ValueError: If an entry is invalid. The message names file and line.
        FileNotFoundError: If no image is found.
    """
    content = read_coco_json(file)
    problems: list[str] = []
    names, labels, ids = _categories(content["categories"], categories, file)
    entries: dict[int, tuple[dict[str, Any], list[LabelledObject]]] = {}
    for i, image in enumerate(content["images"]):
        if reason := _bad_image(image):
            line = line_of_annotation(file, i, "images")
            raise ValueError(f"{file}:{line}: the image {reason}: {image!r:.200}")
        if image["id"] in entries:
            line = line_of_annotation(file, i, "images")
            problems.append(f"{file}:{line}: image id {image['id']} occurs twice; the first counts")
        else:
            entries[image["id"]] = (image, [])
    seen: set[Any] = set()
    for i, annotation in enumerate(content["annotations"]):
        try:
            _check_annotation(annotation)
            image_id, thing = annotation["image_id"], _object(annotation, labels, i)
        except (KeyError, ValueError) as error:
            line = line_of_annotation(file, i)
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{file}:{line}: the annotation {what}: {annotation!r:.200}") from error
        if image_id not in entries:
            problems.append(f"{file}:{line_of_annotation(file, i)}: image_id {image_id} does not match an image")
        elif annotation.get("id", object()) in seen:
            problems.append(f"{file}:{line_of_annotation(file, i)}: annotation id {annotation['id']} occurs twice")
        else:
            entries[image_id][1].append(thing)
        if "id" in annotation:
            seen.add(annotation["id"])
    folder = _image_folder(file, [image["file_name"] for image, _ in entries.values()])
    images = [
        LabelledImage(folder / image["file_name"], int(image["id"]), _size(image), file, tuple(objects))
        for image, objects in entries.values()
    ]
    return Annotations(images, names, ids, problems, line_of_annotation)


def _categories(
    entries: list[dict[str, Any]], asked: Sequence[str] | None, file: Path
) -> tuple[list[str], dict[int, int], list[int]]:
    """Return class names, labels by category id, and category ids by label."""
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_number(entry.get("id")) or not isinstance(entry.get("name"), str):
            line = line_of_annotation(file, i, "categories")
            raise ValueError(
                f"{file}:{line}: the category needs a number as its id and a text as its name: {entry!r:.200}"
            )
    by_id = {entry["id"]: entry["name"] for entry in sorted(entries, key=lambda entry: entry["id"])}
    if len(by_id) < len(entries) or len(set(by_id.values())) < len(by_id):
        raise ValueError(f"{file}: two categories share an id or a name.")
    names = ["background", *by_id.values()] if asked is None else list(asked)
    labels = {category_id: names.index(name, 1) for category_id, name in by_id.items() if name in names[1:]}
    ids = {label: category_id for category_id, label in labels.items()}
    free = (i for i in count(max(by_id, default=0) + 1))
    return names, labels, [0, *(ids[label] if label in ids else next(free) for label in range(1, len(names)))]


def _object(annotation: dict[str, Any], labels: dict[int, int], i: int) -> LabelledObject:
    if annotation["category_id"] not in labels:
        raise ValueError(f"has the category_id {annotation['category_id']!r}, which is not among the categories")
    x, y, width, height = _numbers(annotation["bbox"], 4, "four numbers, x, y, width and height, as its bbox")
    [area] = _numbers([annotation.get("area", width * height)], 1, "a number as its area, or no area")
    label, iscrowd = labels[annotation["category_id"]], bool(annotation.get("iscrowd", 0))
    return LabelledObject((x, y, x + width, y + height), label, area, iscrowd, False, i)


def _numbers(values: Any, length: int, what: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != length:
        raise ValueError(f"needs {what}")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_annotation(annotation: Any) -> None:
    if not isinstance(annotation, dict):
        raise ValueError("needs image_id, category_id and bbox")
    for key in ("image_id", "category_id", "id"):
        if not isinstance(annotation.get(key, 0), int | float | str):
            raise ValueError(f"needs a number as its {key}")
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise ValueError("needs 0 or 1 as its iscrowd, or no iscrowd")


def _bad_image(image: Any) -> str | None:
    """Return the error in an image's entry, or None."""
    if not isinstance(image, dict) or not {"id", "file_name"} <= image.keys():
        return "needs id and file_name"
    try:
        int(image["id"])
    except (TypeError, ValueError):
        return "needs a number as its id"
    if not isinstance(image["file_name"], str):
        return "needs a text as its file_name"
    size = _size(image)
    if size is not None and not all(map(_is_number, size)):
        return "needs numbers as its height and width, or neither"
    return None


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    return (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None


def _image_folder(file: Path, names: list[str]) -> Path:
    """Find the folder that image names are relative to.

    It is the first candidate that contains one of the first 20 images. Folders of other splits are not candidates.
    """
    split = coco_split(file)
    own = dict.fromkeys([split, _AFFIXED_SPLIT.sub(r"\1", split)])
    below = ["images", *own, *(f"images/{name}" for name in own)]
    folders = [parent / name for parent in (file.parent, file.parent.parent) for name in ("", *below)]
    for name in names[:20]:
        for folder in folders:
            if (folder / name).is_file():
                return folder
    if not names:
        return file.parent
    raise FileNotFoundError(
        f"{file}: its images, {names[0]} and so on, are not in {file.parent} or {file.parent.parent}, nor in their "
        f"folders {', '.join(below)}."
    )


def line_of_annotation(file: Path, index: int, key: str = "annotations") -> int:
    """Return the line number of a list entry, counted from 1."""
    text, starts = _entries(file, key)
    return text.count("\n", 0, starts[index]) + 1


@lru_cache(maxsize=2)
def _entries(file: Path, key: str) -> tuple[str, list[int]]:
    """Return a file's text and the start offsets of a list's entries.

    Python's `json.loads` reports no positions.
    """
    text = file.read_text(encoding="utf-8")
    decode = json.JSONDecoder().raw_decode
    at = _next(text, 0, "{")
    while True:
        name, at = decode(text, at)
        at = _next(text, at, ":")
        if name == key:
            break
        at = _next(text, decode(text, at)[1], ",")
    at, starts = _next(text, at, "["), []
    while text[at] != "]":
        starts.append(at)
        at = _next(text, decode(text, at)[1], ",")
    return text, starts


def _next(text: str, at: int, separator: str) -> int:
    """Skip whitespace and an optional separator; return the new offset."""
    return re.compile(rf"\s*{re.escape(separator)}?\s*").match(text, at).end()  # type: ignore[union-attr]

"""Read data sets in memory.

These are data sets of Hugging Face and supervision, torchvision's `CocoDetection`, and pairs of image and target. The
packages are not imported: the kind of a data set is recognised by its attributes.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import convert_bounding_box_format

from ssd_zoo.data.annotations import Box, Item, Records, Thing, check_class_names
from ssd_zoo.data.formats.coco import records_of_coco
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.data.formats.hugging_face import HuggingFace, read_hugging_face
from ssd_zoo.data.images import tensor_of, upright_size
from ssd_zoo.weights.outside import JSON

__all__ = ["read_memory"]


class _Detections(Protocol):
    """The part of supervision's `Detections` that is used here."""

    xyxy: ArrayLike
    class_id: ArrayLike | None


@runtime_checkable
class _Supervision(Protocol):
    """The part of supervision's `DetectionDataset` that is used here."""

    classes: list[str]
    image_paths: list[str]
    annotations: dict[str, _Detections]


class _Index(Protocol):
    """The part of pycocotools' `COCO` that is used here."""

    dataset: dict[str, list[JSON]]


@runtime_checkable
class _CocoDetection(Protocol):
    """The part of torchvision's `CocoDetection` that is used here."""

    root: str | Path
    coco: _Index


@runtime_checkable
class _Pairs(Protocol):
    """A data set of pairs of image and target."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


def read_memory(source: object, names: list[str] | None, split: str | None = None) -> tuple[str, Records]:
    """Read a data set in memory.

    Args:
        source: The data set.
        names: Class names without background, for Hugging Face data sets and pairs that have none.
        split: Name of the split, if `source` is a mapping of data sets; otherwise ignored.

    Returns:
        Name of its kind, and the records.

    Raises:
        TypeError: If it is none that is known.
        ValueError: If there are no class names, the split is not clear, or an item is invalid.
    """
    if isinstance(source, Mapping):
        return read_memory(_split_of(source, split), names)
    if isinstance(source, HuggingFace):
        return "Hugging Face data set", read_hugging_face(source, names)
    if hasattr(source, "features") and not hasattr(source, "__len__"):
        raise TypeError("The data set is a stream, without length; load it with streaming=False, or take a list of it.")
    if isinstance(source, _Supervision):
        return "supervision's DetectionDataset", _supervision(source)
    if isinstance(source, _CocoDetection):
        root = Path(source.root)
        lists = {key: source.coco.dataset.get(key, []) for key in ("images", "annotations", "categories")}
        return "torchvision's CocoDetection", records_of_coco(lists, root, lambda name: root / name)
    if isinstance(source, _Pairs):
        return "pairs of image and target", _pairs(source, names)
    raise TypeError(
        "Expected a folder, an annotation file, a Hugging Face data set with objects, supervision's DetectionDataset, "
        f"torchvision's CocoDetection, or pairs of image and target, got {type(source).__name__}."
    )


def _split_of(sources: Mapping[object, object], split: str | None) -> object:
    """Return a split of a mapping of data sets, such as Hugging Face's `DatasetDict`; its only one if `split` is None.

    Raises:
        ValueError: If there is no such split, or it is not clear.
    """
    names = list(map(str, sources))
    chosen = names[0] if split is None and len(names) == 1 else find_split(names, split or "")
    if chosen is None:
        raise ValueError(f"The data set has the splits {', '.join(names)}; choose one by split=…, got {split!r}.")
    return sources[chosen]


def _supervision(source: _Supervision) -> Records:
    names = check_class_names(source.classes, "classes")
    records = Records(names=names)
    for path in source.image_paths:
        found = source.annotations[path]
        labels = np.asarray([] if found.class_id is None else found.class_id, int).tolist()
        boxes = [_box(row) for row in np.asarray(found.xyxy, float).reshape(-1, 4).tolist()]
        if len(boxes) != len(labels):
            raise ValueError(f"{path} has {len(boxes)} boxes and {len(labels)} classes.")
        things = [Thing(names[label], box, i) for i, (label, box) in enumerate(zip(labels, boxes, strict=True))]
        records.items.append(Item(Path(path), Path(path), things))
    return records


def _pairs(source: _Pairs, names: list[str] | None) -> Records:
    """Read targets as torchvision's detectors take them: `boxes (G, 4)`, xyxy, and `labels (G,)`, from 1.

    `area (G,)`, `iscrowd (G,)`, `difficult (G,)` and `image_id` are optional. The first invalid item is a ValueError.
    """
    if names is None:
        raise ValueError("Pairs of image and target need the names of classes: pass categories=['background', …].")
    records = Records(names=names)
    for i in range(len(source)):
        pair = source[i]
        if not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[1], Mapping):
            parts = f" of {', '.join(type(part).__name__ for part in pair)}" if isinstance(pair, tuple | list) else ""
            raise ValueError(
                f"Item {i} must be a pair of image and target, a dict of boxes and labels, got {type(pair).__name__}"
                f"{parts}."
            )
        image, target = pair
        if missing := [key for key in ("boxes", "labels") if key not in target]:
            raise ValueError(f"Item {i}: the target lacks {' and '.join(missing)}; it has {', '.join(target)}.")
        boxes = [_box(row) for row in np.asarray(_corners(target["boxes"]), float).reshape(-1, 4).tolist()]
        labels = np.asarray(target["labels"], int).reshape(-1).tolist()
        if len(labels) != len(boxes) or not all(1 <= label <= len(names) for label in labels):
            raise ValueError(f"Item {i} must have a label from 1 to {len(names)} for each box, got {labels}.")
        more = [_column(target, key, len(boxes), i) for key in ("area", "iscrowd", "difficult")]
        things = [
            Thing(names[label - 1], box, k, area, bool(crowd), bool(difficult))
            for k, (label, box, area, crowd, difficult) in enumerate(zip(labels, boxes, *more, strict=True))
        ]
        place, known = Path(f"item {i}"), target.get("image_id")
        image_id = int(known) if isinstance(known, int | np.integer | Tensor) else None
        load = partial(_load_pair, source, i)
        records.items.append(Item(place, place, things, _size(image, target["boxes"]), image_id, load))
    if len({item.image_id for item in records.items}) < len(records.items):
        records.items = [item._replace(image_id=None) for item in records.items]
    return records


def _corners(boxes: ArrayLike) -> ArrayLike:
    """Convert `tv_tensors.BoundingBoxes` to xyxy; other boxes are xyxy already."""
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        return convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    return boxes


def _column(target: Mapping[str, ArrayLike], key: str, number: int, i: int) -> list[float | None]:
    """Return a target's values of a key, one per object; None for each if it lacks the key.

    Args:
        target: The target.
        key: The key.
        number: Number of its objects.
        i: Index of the item, for messages.

    Raises:
        ValueError: If the number of values differs.
    """
    if key not in target:
        return [None] * number
    values: list[float | None] = np.asarray(target[key], float).reshape(-1).tolist()
    if len(values) != number:
        raise ValueError(f"Item {i} must have a value of {key} for each of its {number} boxes, got {len(values)}.")
    return values


def _box(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _size(image: object, boxes: object) -> tuple[int, int] | None:
    """Return an image's (height, width): the boxes' `canvas_size`, or else the image's own; None if it has none."""
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        height, width = boxes.canvas_size
        return height, width
    if isinstance(image, Image.Image):
        return upright_size(image)
    return (int(image.shape[-2]), int(image.shape[-1])) if isinstance(image, Tensor) else None


def _load_pair(source: _Pairs, index: int) -> Tensor:
    pair = source[index]
    return tensor_of(pair[0] if isinstance(pair, Sequence) else pair, f"Item {index}")

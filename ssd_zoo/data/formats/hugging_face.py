"""Read Hugging Face data sets with a column `objects`.

The package `datasets` is not imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from ssd_zoo.data.annotations import Box, Item, Records, Thing, check_class_names
from ssd_zoo.data.images import tensor_of, upright_size
from ssd_zoo.weights.outside import quote

__all__ = ["HuggingFace", "read_hugging_face"]

_IMAGES = ("image", "img", "picture", "photo")
_CLASSES = ("category", "categories", "label", "labels", "category_id", "name")
_BOXES = ("bbox", "bboxes", "box", "boxes")


@runtime_checkable
class HuggingFace(Protocol):
    """The part of `datasets.Dataset` that is used here."""

    features: Mapping[str, object]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, object]: ...


def read_hugging_face(source: HuggingFace, names: list[str] | None) -> Records:
    """Read a Hugging Face data set's columns of images and `objects`.

    A row's `objects` is a mapping of lists of boxes and of classes, or a list of mappings with a box and a class each.
    Boxes are x, y, width and height, or corners if only these fit the images. Classes are texts or numbers from 0.

    Args:
        source: The data set.
        names: Class names without background, where classes are numbers and the features do not name them.

    Raises:
        ValueError: If a column or the names are missing, or a row is invalid. The message names it.
    """
    picture, (box, label) = _image_column(source.features), _columns(source.features)
    listed = _class_names(source.features, label)
    names = names if listed is None else check_class_names(listed, "features")
    records = Records(names=names)
    for i in range(len(source)):
        row, place = _row(source, i), Path(f"row {i}")
        pairs = zip(_objects(row, box, label, i), _areas_and_crowds(row["objects"]), strict=False)
        things = [Thing(_name(of, names, i), _box(at, i), k, *more) for k, ((at, of), more) in enumerate(pairs)]
        image = row[picture]
        if not isinstance(image, Image.Image | Tensor):
            raise ValueError(f"Row {i}: {picture} must be an image, got {type(image).__name__}; see with_format(None).")
        size = upright_size(image) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
        records.items.append(Item(place, place, things, (size[0], size[1]), load=partial(_load, source, picture, i)))
    if names is None:
        records.names = sorted(records.counted())
    if not _are_corners(records.items):
        records.items = [
            item._replace(things=[thing._replace(box=_from_xywh(thing.box)) for thing in item.things])
            for item in records.items
        ]
    return records


def _image_column(features: Mapping[str, object]) -> str:
    column = next((name for name in _IMAGES if name in features), None)
    if column is None:
        raise ValueError(f"The data set needs a column image, got {list(features)}; rename it by rename_column.")
    return column


def _inner(feature: object) -> object:
    """Return the feature within a list."""
    if isinstance(feature, Sequence) and not isinstance(feature, str) and feature:
        return feature[0]
    return getattr(feature, "feature", feature)


def _columns(features: Mapping[str, object]) -> tuple[str, str]:
    """Return the keys of boxes and of classes within `objects`.

    Raises:
        ValueError: If they are missing.
    """
    inner = _inner(features.get("objects"))
    if not isinstance(inner, Mapping):
        raise ValueError(f"The data set needs a column objects with bbox and category, got {list(features)}.")
    box, label = (next((key for key in keys if key in inner), None) for keys in (_BOXES, _CLASSES))
    if box is None or label is None:
        raise ValueError(f"The column objects needs bbox and category or label, got {list(inner)}.")
    return box, label


def _class_names(features: Mapping[str, object], label: str) -> list[str] | None:
    """Return the class names that a `ClassLabel` of the objects lists; None without one."""
    inner = _inner(features["objects"])
    feature = inner[label] if isinstance(inner, Mapping) else None
    names = getattr(_inner(feature), "names", None)
    return list(names) if names else None


def _objects(row: Mapping[str, object], box: str, label: str, i: int) -> list[tuple[object, object]]:
    objects = row["objects"]
    if objects is None:
        return []
    if isinstance(objects, Mapping):
        boxes, labels = ([] if objects[key] is None else list(objects[key]) for key in (box, label))
        if len(boxes) != len(labels):
            raise ValueError(f"Row {i} has {len(boxes)} boxes and {len(labels)} classes.")
        return list(zip(boxes, labels, strict=True))
    if not isinstance(objects, Sequence) or not all(isinstance(entry, Mapping) for entry in objects):
        raise ValueError(f"Row {i}: objects must be a mapping of lists or a list of mappings, got {quote(objects)}.")
    return [(entry[box], entry[label]) for entry in objects]


def _areas_and_crowds(objects: object) -> Iterator[tuple[float | None, bool]]:
    """Yield COCO's `area` (None if absent) and `iscrowd` of each object of a row.

    For objects in lists it goes on without end, with None and False after the last one.
    """
    if isinstance(objects, Sequence):
        yield from ((_number(entry.get("area")), bool(entry.get("iscrowd"))) for entry in objects)
        return
    columns = objects if isinstance(objects, Mapping) else {}
    areas, crowds = (columns.get(key) for key in ("area", "iscrowd"))
    for k in count():
        area, crowd = (
            column[k] if isinstance(column, Sequence | np.ndarray | Tensor) and k < len(column) else None
            for column in (areas, crowds)
        )
        yield _number(area), bool(crowd)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float | np.generic | Tensor) else None


def _name(label: object, names: list[str] | None, i: int) -> str:
    if isinstance(label, str):
        return label
    number = label.item() if isinstance(label, Tensor | np.generic) else label
    if names is None:
        raise ValueError("The feature of classes is no ClassLabel; pass their names, categories=['background', …].")
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise ValueError(f"Row {i} has the class {quote(number)}, and there are {len(names)}, counted from 0.")
    return names[number]


def _box(values: object, i: int) -> Box:
    numbers = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    if not isinstance(numbers, Sequence) or len(numbers) != 4 or not all(isinstance(x, int | float) for x in numbers):
        raise ValueError(f"Row {i}: a box must be four numbers, got {quote(numbers)}.")
    x1, y1, x2, y2 = map(float, numbers)
    return x1, y1, x2, y2


def _are_corners(items: Sequence[Item]) -> bool:
    """Return whether boxes are surely corners, not x, y, width and height.

    More boxes must fit their images when read as corners. A box fits if it ends at most a twentieth of a side beyond
    the image. Nine of ten boxes must fit.
    """
    rows = [(*thing.box, *item.size) for item in items for thing in item.things if item.size is not None]
    as_corners = sum(x1 <= x2 <= 1.05 * w + 1 and y1 <= y2 <= 1.05 * h + 1 for x1, y1, x2, y2, h, w in rows)
    as_sides = sum(x + dx <= 1.05 * w + 1 and y + dy <= 1.05 * h + 1 for x, y, dx, dy, h, w in rows)
    return as_corners > as_sides and 10 * as_corners >= 9 * len(rows)


def _from_xywh(box: Box) -> Box:
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def _load(source: HuggingFace, column: str, index: int) -> Tensor:
    return tensor_of(_row(source, index)[column], f"Row {index}")


def _row(source: HuggingFace, index: int) -> Mapping[str, object]:
    try:
        return source[index]
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow raises them
        raise ValueError(f"Row {index} can't be read: {str(error) or type(error).__name__}") from error

"""Read data sets in memory.

They are those of Hugging Face, supervision's, torchvision's `CocoDetection`, and pairs of image and target. The
packages are not imported; a data set is known by what it has.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssd_zoo.data.annotations import Box, Item, Records, Thing, check_class_names
from ssd_zoo.data.formats.coco import records_of_coco
from ssd_zoo.weights.outside import JSON

__all__ = ["read_memory"]


class _Detections(Protocol):
    xyxy: ArrayLike
    class_id: ArrayLike | None


@runtime_checkable
class _Supervision(Protocol):
    classes: list[str]
    image_paths: list[str]
    annotations: dict[str, _Detections]


class _Index(Protocol):
    dataset: dict[str, list[JSON]]


@runtime_checkable
class _CocoDetection(Protocol):
    root: str | Path
    coco: _Index


@runtime_checkable
class _Pairs(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


@runtime_checkable
class _HuggingFace(_Pairs, Protocol):
    features: Mapping[str, object]


def read_memory(source: object, names: list[str] | None) -> tuple[str, Records]:
    """Read a data set in memory.

    Args:
        source: The data set.
        names: Class names without background, where the data set has none.

    Returns:
        Name of its kind, and the records.

    Raises:
        TypeError: If it is none that is known.
        ValueError: If there are no class names, or an item is invalid.
    """
    if isinstance(source, _HuggingFace):
        return "Hugging Face data set", _hugging_face(source, names)
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
    """Read targets as torchvision's detectors take them: `boxes (G, 4)`, xyxy, and `labels (G,)`, from 1."""
    if names is None:
        raise ValueError("Pairs of image and target need the names of classes: pass categories=['background', …].")
    records = Records(names=names)
    for i in range(len(source)):
        pair = source[i]
        if not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[1], Mapping):
            raise ValueError(f"Item {i} must be a pair of image and target, got {type(pair).__name__}.")
        image, target = pair
        boxes = [_box(row) for row in np.asarray(target["boxes"], float).reshape(-1, 4).tolist()]
        labels = np.asarray(target["labels"], int).reshape(-1).tolist()
        if len(labels) != len(boxes) or not all(1 <= label <= len(names) for label in labels):
            raise ValueError(f"Item {i} must have a label from 1 to {len(names)} for each box, got {labels}.")
        things = [Thing(names[label - 1], box, k) for k, (label, box) in enumerate(zip(labels, boxes, strict=True))]
        place = Path(f"item {i}")
        records.items.append(Item(place, place, things, _size(image), load=partial(_load_pair, source, i)))
    return records


def _hugging_face(source: _HuggingFace, names: list[str] | None) -> Records:
    """Read a column `objects` with `bbox` and `category` or `label`, lists of equal lengths for each image."""
    key, listed = _classes(source.features)
    names = names if listed is None else check_class_names(listed, "features")
    if names is None:
        raise ValueError("The feature of classes is no ClassLabel; pass their names, categories=['background', …].")
    records = Records(names=names)
    for i in range(len(source)):
        row = source[i]
        if not isinstance(row, Mapping):
            raise ValueError(f"Row {i} must be a mapping with image and objects, got {type(row).__name__}.")
        labels, objects, place = row["objects"][key], row["objects"], Path(f"row {i}")
        things = [
            Thing(names[int(label)], _box(box), k)
            for k, (label, box) in enumerate(zip(labels, objects["bbox"], strict=True))
        ]
        records.items.append(Item(place, place, things, _size(row["image"]), load=partial(_load_row, source, i)))
    if not _are_corners(records.items):
        records.items = [
            item._replace(things=[thing._replace(box=_from_xywh(thing.box)) for thing in item.things])
            for item in records.items
        ]
    return records


def _classes(features: Mapping[str, object]) -> tuple[str, list[str] | None]:
    """Return the key of the classes within `objects`, and their names from ClassLabel."""
    objects = features.get("objects")
    inner = getattr(objects, "feature", objects)
    if not isinstance(inner, Mapping) or "bbox" not in inner:
        raise ValueError(f"The data set needs a column objects with bbox and category, got {list(features)}.")
    key = next((key for key in ("category", "categories", "label", "labels", "category_id") if key in inner), None)
    if key is None:
        raise ValueError(f"The column objects needs category or label, got {list(inner)}.")
    label = getattr(inner[key], "feature", inner[key])
    if isinstance(label, Sequence) and not isinstance(label, str) and label:
        label = label[0]
    listed = getattr(label, "names", None)
    return key, list(listed) if listed else None


def _are_corners(items: Sequence[Item]) -> bool:
    """Check for boxes that are corners by a sure sign: all fit as such, and one does not as x, y, width and height."""
    rows = [(thing.box, item.size) for item in items for thing in item.things if item.size is not None]
    fit = all(x1 <= x2 <= size[1] + 1 and y1 <= y2 <= size[0] + 1 for (x1, y1, x2, y2), size in rows)
    return fit and any(x + w > size[1] + 1 or y + h > size[0] + 1 for (x, y, w, h), size in rows)


def _from_xywh(box: Box) -> Box:
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def _box(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _size(image: object) -> tuple[int, int] | None:
    """Return (height, width)."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return (int(image.shape[-2]), int(image.shape[-1])) if isinstance(image, Tensor) else None


def _load_pair(source: _Pairs, index: int) -> Tensor:
    pair = source[index]
    return _pixels(pair[0] if isinstance(pair, Sequence) else pair, index)


def _load_row(source: _Pairs, index: int) -> Tensor:
    row = source[index]
    return _pixels(row["image"] if isinstance(row, Mapping) else row, index)


def _pixels(image: object, index: int) -> Tensor:
    """Return an image as RGB, uint8 `(3, H, W)`."""
    if isinstance(image, Image.Image):
        return F.pil_to_tensor(image.convert("RGB"))
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] in (1, 3):
        pixels = F.to_dtype(image.as_subclass(Tensor), torch.uint8, scale=True)
        return pixels.expand(3, -1, -1)
    what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
    raise ValueError(f"Item {index}: the image must be Pillow's or a tensor (3, H, W), got {what}.")

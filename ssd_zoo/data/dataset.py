"""Open data sets of annotated images."""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision import tv_tensors

from ssd_zoo.data.annotations import Annotations, LabelledImage, Records, assemble, no_object, number_of
from ssd_zoo.data.formats import recognise
from ssd_zoo.data.formats.folders import canonical_split, find_split
from ssd_zoo.data.formats.in_memory import read_memory
from ssd_zoo.data.formats.tree import merge_counts
from ssd_zoo.data.images import MAX_PIXELS
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.categories import check_names

__all__ = ["DetectionDataset", "open_dataset", "splits"]

Target = dict[str, Any]
_log = logging.getLogger("ssd_zoo")


class DetectionDataset(torch.utils.data.Dataset[tuple[Any, Target]]):
    """Data set of images and targets for detectors of torchvision's interface.

    An item is a pair of image and target. The image is a `tv_tensors.Image`, RGB, uint8 `(3, H, W)`. The target is a
    dict of (G objects):

    * `boxes`: `tv_tensors.BoundingBoxes (G, 4)`, xyxy in pixels, with the values of the file. They may be invalid;
      `inspect_dataset` finds those.
    * `labels (G,)`, int64, from 1, `area (G,)`, float32, `iscrowd (G,)`, int64, and `difficult (G,)`, bool.
    * `image_id`, int.

    Args:
        annotations: The annotations, as `open_dataset` reads them.
        transforms: Function of image and target that returns the item.

    Attributes:
        annotations: The annotations of all images.
        categories: Class names, background first.
        category_ids: The format's own class id, by label.
        images: One `LabelledImage` per item.
    """

    def __init__(self, annotations: Annotations, transforms: Callable[..., Any] | None = None) -> None:
        self.annotations = annotations
        self.transforms = transforms

    @property
    def categories(self) -> list[str]:
        return self.annotations.categories

    @property
    def category_ids(self) -> list[int]:
        return self.annotations.category_ids

    @property
    def images(self) -> list[LabelledImage]:
        return self.annotations.images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Target]:
        image = tv_tensors.Image(self.images[index].read())
        target = self.target(index, (image.shape[-2], image.shape[-1]))
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def target(self, index: int, size: tuple[int, int]) -> Target:
        """Return an item's target, as described above, without reading the image.

        Args:
            index: Index of the item.
            size: (height, width) of the image in pixels.
        """
        entry = self.images[index]
        boxes = torch.tensor([thing.box for thing in entry.objects], dtype=torch.float32).reshape(-1, 4)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([thing.label for thing in entry.objects], dtype=torch.int64),
            "image_id": entry.image_id,
            "area": torch.tensor([thing.area for thing in entry.objects], dtype=torch.float32),
            "iscrowd": torch.tensor([thing.iscrowd for thing in entry.objects], dtype=torch.int64),
            "difficult": torch.tensor([thing.difficult for thing in entry.objects], dtype=torch.bool),
        }

    def with_transforms(self, transforms: Callable[..., Any] | None) -> "DetectionDataset":
        """Return a copy with other transforms."""
        return DetectionDataset(self.annotations, transforms)

    def with_images(self, images: Sequence[LabelledImage]) -> "DetectionDataset":
        """Return a copy with other images, for example a subset."""
        return DetectionDataset(dataclasses.replace(self.annotations, images=list(images)), self.transforms)

    def __repr__(self) -> str:
        objects = sum(len(image.objects) for image in self.images)
        return f"DetectionDataset({len(self)} images, {objects} objects, categories={self.categories})"


@with_near_keywords
def splits(path: str | Path, *, layout: str | None = None) -> list[str]:
    """List the splits of a data set.

    Args:
        path: The folder or file, as for `open_dataset`.
        layout: As for `open_dataset`.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the layout is not recognised.
    """
    return list(recognise(Path(path), layout).splits)


@with_near_keywords
def open_dataset(
    path: str | Path | object,
    split: str | None = None,
    *,
    categories: Sequence[str] | None = None,
    transforms: Callable[..., Any] | None = None,
    layout: str | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> DetectionDataset:
    """Open a data set of annotated images; its layout is detected.

    The layouts are those of Pascal VOC, COCO, YOLO, LabelMe, CVAT, KITTI, WIDER FACE and tables; the page "Your data"
    shows each. `dataset.annotations` says which was recognised, and lists problems and unused files.

    Args:
        path: The folder, or an annotation file such as `data.yaml` or `instances_train.json`. Or a data set in memory:
            a Hugging Face data set with a column `objects`, supervision's `DetectionDataset`, torchvision's
            `CocoDetection`, or pairs of image and target. Or several of them by the name of the split.
        split: Name of the split, such as `"train"`; optional if there is only one. `"val"` finds `valid` and `val2017`.
        categories: Class names, background first; by default those of the data set. Labels are indices into this list,
            matched by name.
        transforms: Function of image and target, such as `DetectionPresetTrain`.
        layout: `"voc"`, `"coco"`, `"yolo"` and so on, for a folder with labels in several layouts.
        max_pixels: Largest number of pixels of an image, checked before it is decoded; None for no limit.

    Raises:
        FileNotFoundError: If path or images are missing.
        TypeError: If an object is not a data set that is known, or `categories` is not a list of names.
        ValueError: If no layout or several are recognised, the split does not exist, nothing is usable, or `categories`
            does not begin with the background. The message names file and line.

    Example:
        >>> from ssd_zoo.data import open_dataset
        >>> open_dataset("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: There is no nowhere.
    """
    categories = None if categories is None else check_names(categories)
    given = None if categories is None else categories[1:]
    if not isinstance(path, str | os.PathLike):
        kind, records = read_memory(path, given, split)
        _check_not_empty(records, "The data set")
        return DetectionDataset(assemble(records, records.names or [], categories, kind, max_pixels), transforms)
    path = Path(path)
    found = recognise(path, layout, given)
    names = list(found.splits)
    if split is None and len(names) > 1:
        raise ValueError(
            f"{path} has the splits {', '.join(names)}; choose one by split={names[0]!r} (--split {names[0]})."
        )
    chosen = names[0] if split is None else find_split(names, split)
    if chosen is None:
        have = "all images in one: leave out the split" if names == ["all"] else ", ".join(names)
        if names == ["all"] and canonical_split(split or "") == "val":
            have += ", or take a part by ssd_zoo.data.divide.divide (--val-fraction)"
        raise ValueError(f"{path} has no split {split!r}; it has {have}. {' '.join(found.notes[:1])}".strip())
    records = found.splits[chosen]()
    _check_not_empty(records, f"The split {chosen!r} of {path}")
    classes = found.names or records.names
    if classes is None:
        others = [read() for name, read in found.splits.items() if name != chosen]
        classes = merge_counts([records, *others])
    records.notes += found.notes
    annotations = assemble(records, classes, categories, f"{found.name}: {found.why}", max_pixels)
    if annotations.problems:
        problems = annotations.problems
        _log.warning("%s can't be used, the first: %s", number_of(len(problems), "label"), problems[0])
    return DetectionDataset(annotations, transforms)


def _check_not_empty(records: Records, what: str) -> None:
    if not records.items:
        raise no_object(records.problems) if records.problems else ValueError(f"{what} has no images.")

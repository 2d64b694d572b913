"""Open data sets of annotated images in COCO's, VOC's or YOLO's layout."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision import tv_tensors

from ssd_zoo.data.annotations import Annotations, LabelledImage
from ssd_zoo.data.coco import coco_split, find_coco, read_coco
from ssd_zoo.data.images import read_image
from ssd_zoo.data.voc import find_voc, read_voc
from ssd_zoo.data.yolo import find_yolo, read_yolo
from ssd_zoo.weights.categories import check_names

__all__ = ["DetectionDataset", "open_dataset", "splits"]

Target = dict[str, Any]


class DetectionDataset(torch.utils.data.Dataset[tuple[Any, Target]]):
    """Data set of images and targets for detectors of torchvision's interface.

    An item is a pair of image and target. The image is a `tv_tensors.Image`, RGB, uint8 `(3, H, W)`. The target is a
    dict:

    * `boxes`: `tv_tensors.BoundingBoxes (G, 4)`, xyxy in pixels, with the values of the file. They may be invalid;
      `inspect_dataset` finds those.
    * `labels (G,)`, int64, from 1, `area (G,)`, float32, `iscrowd (G,)`, int64, and `difficult (G,)`, bool.
    * `image_id`, int.

    Args:
        annotations: Result of `read_coco`, `read_voc` or `read_yolo`.
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
        image = tv_tensors.Image(read_image(self.images[index].file))
        target = self.target(index, (image.shape[-2], image.shape[-1]))
        return (image, target) if self.transforms is None else self.transforms(image, target)

    def target(self, index: int, size: tuple[int, int]) -> Target:
        """Return an item's target without reading the image.

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


Layout = Literal["coco", "voc", "yolo"]


def splits(path: str | Path) -> list[str]:
    """List the splits of a data set.

    Args:
        path: The folder or file, as for `open_dataset`.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the layout is not recognised.
    """
    return list(_find(Path(path))[1])


def open_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    categories: Sequence[str] | None = None,
    transforms: Callable[..., Any] | None = None,
) -> DetectionDataset:
    """Open a data set of annotated images; its layout is detected.

    * COCO: a JSON file, or a folder with such files (`instances_train.json`) in itself or in `annotations/`. The images
      lie beside the file, in `images/`, or in a folder with the split's name.
    * Pascal VOC: a folder with `JPEGImages`, `Annotations` and splits in `ImageSets/Main`.
    * YOLO: a `data.yaml`, its folder, or a folder with `images` and `labels`. Both may have a subfolder per split.

    Args:
        path: The folder or file.
        split: Name of the split, such as `"train"`; optional if there is only one.
        categories: Class names, background first; by default those of the data set. Labels are indices into this list,
            matched by name.
        transforms: Function of image and target, such as `DetectionPresetTrain`.

    Raises:
        FileNotFoundError: If path or images are missing.
        TypeError: If `categories` is not a list of names.
        ValueError: If the layout is not recognised, the split does not exist, annotations are invalid, or `categories`
            does not begin with the background. The message names file and line.

    Example:
        >>> from ssd_zoo.data import open_dataset
        >>> open_dataset("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: There is no nowhere.
    """
    path = Path(path)
    categories = None if categories is None else check_names(categories)
    layout, found, names = _find(path)
    if split is None and len(found) > 1:
        raise ValueError(f"{path} has the splits {', '.join(found)}; say which: open_dataset({str(path)!r}, 'train').")
    if split is not None and split not in found:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(found)}.")
    source = found[split or next(iter(found))]
    if layout == "coco":
        annotations = read_coco(source, categories)
    elif layout == "voc":
        annotations = read_voc(path, source, categories)
    else:
        annotations = read_yolo(source, names, categories)
    return DetectionDataset(annotations, transforms)


def _find(path: Path) -> tuple[Layout, dict[str, Any], list[str] | None]:
    """Return the layout, the sources by split, and YOLO's class names."""
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    if path.is_file():
        if path.suffix == ".json":
            return "coco", {coco_split(path): path}, None
        if path.suffix in (".yaml", ".yml"):
            return "yolo", *find_yolo(path)
        raise ValueError(f"{path} is neither a JSON file in COCO's format nor a YAML file of YOLO's layout.")
    if (path / "Annotations").is_dir() and (found := find_voc(path)):
        return "voc", found, None
    if coco := find_coco(path):
        return "coco", coco, None
    yolo, names = find_yolo(path)
    if yolo:
        return "yolo", yolo, names
    raise ValueError(
        f"{path} has no known layout: COCO (a JSON file with images, annotations and categories), Pascal VOC "
        "(Annotations, JPEGImages, ImageSets/Main) or YOLO (data.yaml, or images and labels)."
    )

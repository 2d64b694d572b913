"""Annotation records that the readers of all formats return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Annotations", "LabelledImage", "LabelledObject", "check_categories"]

Box = tuple[float, float, float, float]


class LabelledObject(NamedTuple):
    """Annotated object, with the values of its annotation file.

    Attributes:
        box: xyxy in the image's pixels; it may be invalid.
        label: Index into the categories, from 1.
        area: Area in square pixels; in COCO's format usually that of the outline, otherwise of the box.
        iscrowd: Whether the box encloses a group of objects (COCO).
        difficult: Whether evaluation ignores the object (Pascal VOC).
        entry: Position in the annotation file: line number, or index into COCO's list of annotations.
    """

    box: Box
    label: int
    area: float
    iscrowd: bool = False
    difficult: bool = False
    entry: int = 0


class LabelledImage(NamedTuple):
    """Image of a data set, with its annotated objects.

    Attributes:
        file: Path of the image.
        image_id: COCO's id, or a running number from 1.
        size: (height, width) in pixels as annotated; None if unknown.
        source: The annotation file.
        objects: The annotated objects.
    """

    file: Path
    image_id: int
    size: tuple[int, int] | None
    source: Path
    objects: tuple[LabelledObject, ...]


# Workers that are spawned receive it by name, so it is no lambda.
def _entry_is_line(_: Path, entry: int) -> int:
    return entry


@dataclass
class Annotations:
    """Annotations of one split.

    Attributes:
        images: The images, in the order of the split.
        categories: Names of the classes, background first.
        category_ids: The format's own class id, by label.
        problems: Messages about unusable entries, with file and line where known.
        line: Function from an annotation file and an object's `entry` to the line number.
    """

    images: list[LabelledImage]
    categories: list[str]
    category_ids: list[int]
    problems: list[str] = field(default_factory=list)
    line: Callable[[Path, int], int] = _entry_is_line


def check_categories(categories: Sequence[str], known: Sequence[str]) -> list[str]:
    """Validate class names that a user passes for a data set.

    Args:
        categories: The user's names, background first.
        known: Names of the classes in the annotations.

    Raises:
        ValueError: If names are duplicated, fewer than two, or lack a class of the data set.
    """
    names = list(categories)
    if isinstance(categories, str) or len(set(names)) < len(names) or len(names) < 2:
        raise ValueError(f"categories must be a list of different names, background first, got {categories!r}.")
    if missing := [name for name in known if name not in names[1:]]:
        raise ValueError(f"The data set has objects of {', '.join(missing)}, which categories {names} lacks.")
    return names

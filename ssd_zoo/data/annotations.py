"""What every format of annotations is read into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Annotations", "LabelledImage", "LabelledObject", "check_categories"]

Box = tuple[float, float, float, float]


class LabelledObject(NamedTuple):
    """One object as its file gives it.

    Attributes:
        box: xyxy in the image's pixels; it may be invalid.
        label: Index into the categories, from 1.
        area: In square pixels; COCO's is that of the outline.
        iscrowd: Whether the box holds a crowd (COCO).
        difficult: Whether evaluation leaves it out (Pascal VOC).
        entry: Where it stands in its source: the line, or the place in COCO's list of annotations.
    """

    box: Box
    label: int
    area: float
    iscrowd: bool = False
    difficult: bool = False
    entry: int = 0


class LabelledImage(NamedTuple):
    """One image of a data set.

    Attributes:
        file: The picture.
        image_id: COCO's id, or a running number from 1.
        size: (height, width) that the annotations were made for, if they tell.
        source: The file of annotations.
        objects: What was labelled.
    """

    file: Path
    image_id: int
    size: tuple[int, int] | None
    source: Path
    objects: tuple[LabelledObject, ...]


@dataclass
class Annotations:
    """The annotations of one split.

    Attributes:
        images: The images in the order of their file.
        categories: Names of the classes, background first.
        category_ids: Per label the id that the format has for it.
        problems: Entries that could not be used, each with file and line.
        line: Gives the line of an object's `entry` in a source.
    """

    images: list[LabelledImage]
    categories: list[str]
    category_ids: list[int]
    problems: list[str] = field(default_factory=list)
    line: Callable[[Path, int], int] = lambda _, entry: entry


def check_categories(categories: Sequence[str], known: Sequence[str]) -> list[str]:
    """Checks the names that a user gives a data set, background first.

    Raises:
        ValueError: If names occur twice, the background is missing, or a class that the data set has is missing.
    """
    names = list(categories)
    if isinstance(categories, str) or len(set(names)) < len(names) or len(names) < 2:
        raise ValueError(f"categories must be a list of different names, background first, got {categories!r}.")
    if missing := [name for name in known if name not in names[1:]]:
        raise ValueError(f"The data set has objects of {', '.join(missing)}, which categories {names} lacks.")
    return names

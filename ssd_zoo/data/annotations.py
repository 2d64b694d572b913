"""Annotation records, and their assembly into a checked split."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ssd_zoo.data.images import MAX_PIXELS, image_size, read_image
from ssd_zoo.weights.categories import find_twice, is_background, is_one_line, list_names
from ssd_zoo.weights.outside import quote, text

__all__ = [
    "Annotations",
    "Box",
    "Item",
    "LabelledImage",
    "LabelledObject",
    "Records",
    "SIZE_OF_UNREADABLE",
    "Thing",
    "are_fractions",
    "around_turned",
    "assemble",
    "check_class_names",
    "check_units",
    "nearest",
    "no_object",
    "number_of",
    "some",
]

Box = tuple[float, float, float, float]

# Pixels; no image is larger, and float32 still holds whole numbers exactly.
_FARTHEST = 1e6


SIZE_OF_UNREADABLE = (100, 100)
"""Stands for the size of an image that can't be read; boxes in fractions are kept, so that they count as lost."""


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
        size: (height, width) in pixels as annotated, unchecked; None if unknown.
        source: The annotation file.
        objects: The annotated objects.
        load: Function that returns the pixels of an image that has no file; None to read `file`.
        max_pixels: Largest number of pixels that is read from the file; None for no limit.
    """

    file: Path
    image_id: int
    size: tuple[int, int] | None
    source: Path
    objects: tuple[LabelledObject, ...]
    load: Callable[[], Tensor] | None = None
    max_pixels: int | None = MAX_PIXELS

    def read(self) -> Tensor:
        """Return the pixels, RGB, uint8 `(3, H, W)`; see `read_image`, also for errors."""
        return read_image(self.file, max_pixels=self.max_pixels) if self.load is None else self.load()

    def read_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels, from the file's header, or without a file from `size` or the pixels."""
        if self.load is None:
            return image_size(self.file, max_pixels=self.max_pixels)
        height, width = self.size or self.load().shape[-2:]
        return height, width


def own_line(file: Path, entry: int) -> int:
    """Return an object's `entry` as its line number.

    It is the `line` of `Annotations` for formats whose entries are lines.
    """
    del file
    return entry


@dataclass
class Annotations:
    """Annotations of one split.

    Attributes:
        images: The images, in the order of the split.
        categories: Names of the classes, background first.
        category_ids: The format's own class id, by label, the background's first.
        problems: Messages about entries that were left out, with file and line where known.
        line: Function from an annotation file and an object's `entry` to the line number.
        layout: The recognised layout, and how it was recognised.
        notes: Messages about files that were not found or not used.
    """

    images: list[LabelledImage]
    categories: list[str]
    category_ids: list[int]
    problems: list[str] = field(default_factory=list)
    line: Callable[[Path, int], int] = own_line
    layout: str = ""
    notes: list[str] = field(default_factory=list)


class Thing(NamedTuple):
    """An annotated object like `LabelledObject`, with its class by name; its area is None if the file has none."""

    name: str
    box: Box
    entry: int = 0
    area: float | None = None
    iscrowd: bool = False
    difficult: bool = False


class Item(NamedTuple):
    """Image as a reader finds it; see `LabelledImage`."""

    file: Path
    source: Path
    things: list[Thing]
    size: tuple[int, int] | None = None
    image_id: int | None = None
    load: Callable[[], Tensor] | None = None


@dataclass
class Records:
    """What a reader finds in one split.

    Attributes:
        items: The images.
        names: Class names in order, without background; None if the format lists none.
        ids: The format's own class ids, by name.
        names_source: File that lists the names.
        problems: Messages about entries that were left out.
        notes: Messages about files that were not found or not used.
        line: As in `Annotations`.
    """

    items: list[Item] = field(default_factory=list)
    names: list[str] | None = None
    ids: dict[str, int] = field(default_factory=dict)
    names_source: Path | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    line: Callable[[Path, int], int] = own_line

    def counted(self) -> Counter[str]:
        """Return the number of objects by class name."""
        return Counter(thing.name for item in self.items for thing in item.things)


def number_of(number: int, what: str) -> str:
    """Return a number with its noun, as in `2 images`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def some(files: Sequence[object], what: str, most: int = 3) -> str:
    """Return a count with at most `most` examples, as in `2 images (a.jpg, b.jpg)`."""
    return f"{number_of(len(files), what)} ({list_names(list(map(str, files)), most)})"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence that proposes the most similar class name.

    It begins with a space, and is empty if no name is similar.
    """
    by_spelling = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, n=1)
    return f" It may be {by_spelling[close[0]]!r}: write a class in one way in all files." if close else ""


def around_turned(cx: float, cy: float, width: float, height: float, angle: float) -> Box:
    """Return the upright box, xyxy, around a rotated box.

    Args:
        cx: x of its centre.
        cy: y of its centre.
        width: Its width before the rotation.
        height: Its height likewise.
        angle: Angle of the rotation about the centre, in radians.
    """
    across, down = abs(math.cos(angle)), abs(math.sin(angle))
    half_width, half_height = (width * across + height * down) / 2, (width * down + height * across) / 2
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def check_class_names(names: Iterable[object], source: object) -> list[str]:
    """Check class names that a data set lists.

    Returns:
        The names without surrounding spaces.

    Raises:
        ValueError: If a name is not a text, is empty, has line breaks or control codes, or occurs twice. The message
            names the source.
    """
    checked = [text(name, f"{source}: class {i}, counted from 0,").strip() for i, name in enumerate(names)]
    if strange := [name for name in checked if not is_one_line(name)]:
        raise ValueError(f"{source}: a class is named {quote(strange[0])}; a name has no line breaks or control codes.")
    if "" in checked:
        raise ValueError(f"{source}: class {checked.index('')}, counted from 0, has an empty name; name or remove it.")
    if twice := find_twice(checked):
        raise ValueError(f"{source}: two classes share the name {quote(twice[0])}; rename one.")
    return checked


def assemble(
    records: Records,
    found: Sequence[str],
    asked: Sequence[str] | None,
    layout: str,
    max_pixels: int | None = MAX_PIXELS,
) -> Annotations:
    """Turn a reader's records into annotations with labels.

    Boxes that are not finite or far too large, and second entries of an image, are left out, with a message in
    `problems`.

    Args:
        records: The records.
        found: The data set's class names, without background.
        asked: Class names that labels refer to, background first; by default the found ones.
        layout: Description of the layout.
        max_pixels: As for `open_dataset`.

    Raises:
        ValueError: If class names are invalid, objects have a class that is not asked for, nothing is usable, or all
            boxes are in another unit.
    """
    categories = list(asked) if asked is not None else ["background", *_without_background(records, found)]
    labels = {name: label for label, name in enumerate(categories) if label}
    problems, images, seen = list(records.problems), list[LabelledImage](), dict[Path, Item]()
    for number, item in enumerate(records.items, start=1):
        if item.load is None and seen.setdefault(item.file, item) is not item:
            problems.append(f"{item.source}: {item.file} has two entries; the first is taken")
            continue
        objects = []
        for thing in item.things:
            if thing.name not in labels:
                place = f"{item.source}:{records.line(item.source, thing.entry)}"
                raise ValueError(
                    f"{place}: the data set has objects of {quote(thing.name)}, which is not among the categories "
                    f"{list_names(categories[1:], 20)}.{nearest(thing.name, categories[1:])}"
                )
            x1, y1, x2, y2 = thing.box
            if not all(math.isfinite(value) and abs(value) <= _FARTHEST for value in thing.box):
                place = f"{item.source}:{records.line(item.source, thing.entry)}"
                problems.append(f"{place}: the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is not finite or far too large")
                continue
            area = (x2 - x1) * (y2 - y1) if thing.area is None else thing.area
            objects.append(LabelledObject(thing.box, labels[thing.name], area, *thing[4:], entry=thing.entry))
        image_id = number if item.image_id is None else item.image_id
        images.append(LabelledImage(item.file, image_id, item.size, item.source, tuple(objects), item.load, max_pixels))
    check_units([(thing.box, image.source) for image in images for thing in image.objects])
    if problems and not any(image.objects for image in images):
        raise no_object(problems)
    ids = _ids(records.ids, categories)
    return Annotations(images, categories, ids, problems, records.line, layout, records.notes)


def no_object(problems: Sequence[str]) -> ValueError:
    """Return the error of a data set without a readable object.

    It lists the first five problems.
    """
    first = "".join(f"\n  {problem:.300}" for problem in problems[:5])
    return ValueError(f"No object can be read, {number_of(len(problems), 'problem')}:{first}")


def _without_background(records: Records, names: Sequence[str]) -> list[str]:
    """Return the names without the background's; raise ValueError if it has objects or a name occurs twice."""
    if twice := find_twice(names):
        raise ValueError(
            f"{records.names_source or records.items[0].source}: two classes share the name {quote(twice[0])}, with "
            "other spaces around it or another encoding of its accents; write it in one way."
        )
    counted = records.counted()
    for name in filter(is_background, names):
        if counted[name]:
            raise ValueError(
                f"{records.names_source or records.items[0].source}: {counted[name]} objects have the class "
                f"{quote(name)}, the name of what is not an object; rename the class or remove these objects."
            )
    return [name for name in names if not is_background(name)]


def _ids(known: dict[str, int], categories: Sequence[str]) -> list[int]:
    """Return the format's class ids in the order of the labels.

    Classes that have none there get the next free numbers. The background gets 0.

    Args:
        known: The format's ids by name.
        categories: Names of the classes, background first.
    """
    free = count(max(known.values(), default=0) + 1)
    return [0, *(known[name] if name in known else next(free) for name in categories[1:])]


def are_fractions(boxes: Iterable[Box]) -> bool:
    """Return whether all boxes look like fractions of their images.

    No value is a pixel's: all lie between -1 and 2, and not all are whole. The limit is 2 because fractions of corners
    that were taken for x, y, width and height end below it.
    """
    values = [value for box in boxes for value in box]
    return all(-1 < value < 2 for value in values) and any(value % 1 for value in values)


def check_units(boxes: Sequence[tuple[Box, Path]]) -> None:
    """Raise ValueError if all boxes look like fractions of the image.

    Args:
        boxes: Each box with the file that it is from.
    """
    if are_fractions(box for box, _ in boxes):
        raise ValueError(
            f"{boxes[0][1]}: all {len(boxes)} boxes lie in the first 2 pixels, as fractions of the image do, where "
            "pixels are expected; multiply them by the image's width and height."
        )

"""Find and read each image's labels in YOLO's format."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ssd_zoo.data.annotations import SIZE_OF_UNREADABLE, Box, Item, Records, Thing, some
from ssd_zoo.data.formats.folders import IMAGE_FOLDERS, LABEL_FOLDERS, bare, canonical_split, holds
from ssd_zoo.data.formats.tree import in_any_case
from ssd_zoo.data.images import find_images, image_endings, size_if_readable
from ssd_zoo.weights.outside import parse_number, quote, read_text, whole

__all__ = ["Source", "is_yolo", "labels_file", "locate", "read_split"]

Source = tuple[Path, list[Path]]
"""Folder of a data set, and what holds its images: folders, lists, or the images themselves."""

_LINE = re.compile(r"\d+(?:\.0*)?(?: [-+.\deE]+){4,}")


def is_yolo(file: Path) -> bool:
    """Return whether a file begins with a class and four numbers.

    True for a file that is not text, whose reading reports it; False for an empty one.
    """
    try:
        lines = read_text(file).splitlines()
    except ValueError:
        return True  # Reading reports it.
    return bool(_LINE.fullmatch(" ".join(_words(next((line for line in lines if line.strip()), "")))))


def locate(folder: Path, root: str, entry: str) -> Path | None:
    """Find a path that may have been written on another machine.

    It is the path as written, or its longest end that exists below the folder; None if there is none.

    Args:
        folder: Folder of the data set's file.
        root: The root folder that the file names.
        entry: The path to find.
    """
    entry, root = entry.replace("\\", "/"), root.replace("\\", "/")
    candidates = [folder / root / entry, folder / entry]
    for parts in (Path(root, entry).parts, Path(entry).parts):
        candidates += [folder.joinpath(*parts[i:]) for i in range(1, len(parts))]
    places = (in_any_case(place, folder) for place in candidates if entry)
    return next((place for place in places if place.exists() and not _is_of_system(place)), None)


def _is_of_system(place: Path) -> bool:
    """Return whether a path is the file system's root, or a folder such as /proc.

    The latter has links to all other folders.
    """
    parts = Path(os.path.abspath(place)).parts
    return os.name == "posix" and (len(parts) == 1 or parts[1] in ("proc", "sys"))


def labels_file(image: Path, root: Path) -> Path:
    """Return the path of an image's labels, which may not exist.

    The labels lie beside the image, or in a folder `labels` where the image's path has `images`. Names with a split
    count too, such as `train_images` and `train_labels`.

    Args:
        image: Path of the image.
        root: Root of the data set.
    """
    is_below = image.is_relative_to(root)
    swapped, others, parts = [], [], list((image.relative_to(root) if is_below else image).parts)
    for i in range(len(parts) - 2, -1, -1):
        above, rest = root.joinpath(*parts[:i]), parts[i + 1 :]
        if parts[i].lower() in ("images", "jpegimages"):
            swapped.append(above.joinpath("labels", *rest).with_suffix(".txt"))
        if is_below and holds(parts[i], IMAGE_FOLDERS) and above.is_dir():
            name = _label_folder(above, parts[i], above.stat().st_mtime_ns)
            others.append(above.joinpath(name, *rest).with_suffix(".txt"))
    beside = image.with_suffix(".txt")
    candidates = [*swapped, beside, *others, image.parent / "labels" / beside.name, root / "labels" / beside.name]
    exact = next((file for file in candidates if file.is_file()), None)
    return exact or next((found for file in candidates if (found := in_any_case(file, root)).is_file()), candidates[0])


@lru_cache(maxsize=64)
def _label_folder(above: Path, images: str, changed: int) -> str:
    """Return the name of the folder of labels that belongs to a folder of images.

    Their names differ only in the word for the kind, as in `train_images` and `train_labels`.

    Args:
        above: The folder that holds both.
        images: Name of the folder of images.
        changed: Time of the last change, a part of the cache's key.
    """
    del changed  # It is part of the cache's key.
    alike = []
    with contextlib.suppress(OSError):  # A folder that may be entered, but not listed.
        names = [path.name for path in above.iterdir() if holds(path.name, LABEL_FOLDERS) and path.is_dir()]
        alike = [name for name in names if bare((name,)) == bare((images,))]
    return min(alike, key=lambda name: (name != "labels", "label" not in name.lower(), name), default="labels")


def read_split(
    sources: Sequence[Source], names: list[str] | None, names_source: Path | None, others: Sequence[Source] = ()
) -> Records:
    """Read the annotations of one split.

    An image without a file of labels has no objects. Invalid lines, and labels that several images claim, are left out,
    with a message in `problems`.

    Args:
        sources: Where the images of the split are.
        names: Class names without background.
        names_source: File that lists the names.
        others: Where the images of other splits are; labels of images in two splits are a problem.

    Raises:
        ValueError: If there are no class names, no image has labels, or most boxes are in pixels.
    """
    records = Records(names=names, names_source=names_source)
    records.ids = {name: i for i, name in enumerate(names or [])}
    files = [(file, root) for root, places in sources for place in places for file in _images_of(place, root)]
    numbers = Counter(file for file, _ in files)
    records.problems += [f"{file} occurs twice" for file, number in numbers.items() if number > 1]
    owners: dict[Path, Path] = {}
    without: list[Path] = []
    twins: list[Path] = []
    far = 0
    for file, root in dict(files).items():
        labels = labels_file(file, root)
        owner = owners.setdefault(labels, file)
        if not labels.is_file():
            without.append(file)
            records.items.append(Item(file, labels, [], size_if_readable(file)))
        elif owner.parent != file.parent:
            records.problems.append(f"{labels} would be the labels of {owner} and of {file}; only the first has them")
        elif owner != file:
            twins.append(file)
        else:
            item, beyond = _item(file, labels, names, records.problems)
            records.items += [] if item is None else [item]
            far += beyond
    _check(records, without, far)
    for labels, file in _of_two_splits(owners, others).items():
        records.problems.append(f"{labels} would be the labels of {owners[labels]} and of {file}, of another split")
        records.items = [item for item in records.items if item.source != labels]
    records.notes += [f"{some(twins, 'image')} with another image of the same name, left out"] if twins else []
    records.notes += _unused({labels: image for labels, image in owners.items() if labels.is_file()})
    return records


def _of_two_splits(owners: Mapping[Path, Path], others: Sequence[Source]) -> dict[Path, Path]:
    """Return, by file of labels, images of other splits that share it with one of this split.

    Args:
        owners: The image of each file of labels in this split.
        others: Where the images of other splits are.
    """

    def is_outside_splits(labels: Path, image: Path) -> bool:
        image_splits, own = (set(map(canonical_split, path.parts)) for path in (image.parent, labels.parent))
        return labels.is_file() and not image_splits <= own

    shared = {labels: os.path.realpath(image) for labels, image in owners.items() if is_outside_splits(labels, image)}
    found: dict[Path, Path] = {}
    for root, place in [(root, place) for root, places in others for place in places] if shared else []:
        with contextlib.suppress(OSError, ValueError):  # Reading that split reports it.
            found |= {labels_file(file, root): file for file in _images_of(place, root)}
    both = sorted(found.keys() & shared)
    return {labels: found[labels] for labels in both if os.path.realpath(found[labels]) != shared[labels]}


def _images_of(source: Path, root: Path) -> list[Path]:
    """Return the images of a source: a folder, a text file that lists them, or one image."""
    if source.is_dir():
        return find_images([source])
    if source.suffix.lower() != ".txt":
        return [source]
    lines = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    found = [locate(source.parent, "", line) or locate(root, "", line) for line in lines]
    return [file or source.parent / line for file, line in zip(found, lines, strict=True)]


def _item(file: Path, labels: Path, names: list[str] | None, problems: list[str]) -> tuple[Item | None, int]:
    """Read an image's labels.

    Returns:
        The image; None if its labels are not text. Then the number of lines whose numbers are too large for fractions.

    Raises:
        ValueError: If there are labels, but no class names. Invalid lines are added to `problems` instead.
    """
    try:
        lines = read_text(labels).splitlines()
    except ValueError as error:
        problems.append(str(error).rstrip("."))
        return None, 0
    if names is None and any(line.strip() for line in lines):
        raise ValueError(
            "Data in YOLO's layout needs the names of its classes: put them into data.yaml or classes.txt, or pass "
            "categories=['background', …] (--categories)."
        )
    size, far = size_if_readable(file), 0
    things: list[Thing] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                index, values = _numbers(line, len(names or []))
                things.append(Thing((names or [])[index], _box(values, size or SIZE_OF_UNREADABLE), number))
            except ValueError as error:
                far += isinstance(error, _TooFarError)
                problems.append(f"{labels}:{number}: {str(error).rstrip('.')}")
    return Item(file, labels, things, size), far


def _check(records: Records, without: list[Path], far: int) -> None:
    """Raise ValueError if no image has labels or most boxes are in pixels; note images without labels.

    Args:
        records: The records of a split.
        without: Images without a file of labels.
        far: Number of lines whose numbers are too large for fractions.
    """
    if len(without) == len(records.items):
        looked = records.items[0] if records.items else None
        where = f", such as {looked.source} of {looked.file}" if looked else ""
        raise ValueError(f"No image has a file of labels{where}; in YOLO's layout they lie in labels/ or beside it.")
    if far > sum(len(item.things) for item in records.items):
        raise ValueError(
            f"{records.problems[-1].partition(': ')[0]}: {far} boxes are not fractions of the image, but pixels; "
            "divide x and width by the image's width, y and height by its height."
        )
    if without:
        records.notes.append(f"{some(without, 'image')} without a file of labels, taken as without objects")


def _unused(used: Mapping[Path, Path]) -> list[str]:
    """Return a note about files of labels without an image, in the folders of the used ones."""
    folders, endings = {image.parent for image in used.values()}, image_endings()
    stems = {file.stem for folder in folders for file in folder.iterdir() if file.suffix.lower() in endings}
    texts = [file for folder in {file.parent for file in used} for file in folder.glob("[!.]*.[tT][xX][tT]")]
    rest = sorted(file for file in texts if file not in used and file.stem not in stems and is_yolo(file))
    return [f"{some(rest, 'file')} of labels without an image"] if rest else []


def _words(line: str) -> list[str]:
    """Return the words of a line, between blanks, commas or semicolons; a decimal comma becomes a point."""
    parts = re.split(r"\s*;\s*|,\s+|\s+", line.strip(" \t,;"))
    return [part.replace(",", ".") for part in parts] if len(parts) > 1 else parts[0].split(",")


def _is_inside(x: float, y: float, w: float, h: float) -> bool:
    """Return whether a box in fractions lies within the image, up to rounding."""
    return min(x - w / 2, y - h / 2) > -0.01 and max(x + w / 2, y + h / 2) < 1.01


_OUTLINE = "the numbers of an outline must be fractions of the image"
_NO_OUTLINE = "remove confidences and numbers of tracks, if these are some"


class _TooFarError(ValueError):
    """Error of numbers that are too large for fractions of an image."""


def _numbers(line: str, num_classes: int) -> tuple[int, list[float]]:
    words = _words(line)
    index, *values = (parse_number(word, "each value") for word in words)
    if not index.is_integer() or not 0 <= index < num_classes:
        raise ValueError(f"class {index:g} is not among the {num_classes} classes, counted from 0")
    if len(values) < 4 or len(values) == 5 or len(values) % 2:
        raise ValueError(f"expected class, x, y, width and height, or an outline, got {quote(line)}")
    # A confidence and a number after a box make three points; points are written as fractions.
    if len(values) == 6 and words[-1].isdigit() and "." in words[1] and _is_inside(*values[:4]):
        raise ValueError(f"{_OUTLINE}, got {quote(values)}; {_NO_OUTLINE}")
    return whole(index, "class"), values


def _box(values: list[float], size: tuple[int, int]) -> Box:
    """Return the box, xyxy in pixels, of a line's fractions.

    Args:
        values: x and y of the centre, width and height; or the points of an outline or an oriented box.
        size: (height, width) of the image.

    Raises:
        ValueError: If values are not fractions of the image: `_TooFarError` for a value below -1 or above 2 among the
            first four.
    """
    height, width = size
    if any(not -1 <= value <= 2 for value in values[:4]):
        raise _TooFarError(f"expected fractions of the image, from 0 to 1, got {quote(values)}")
    if len(values) == 4:
        x, y, w, h = values
        return ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    if any(not -0.5 <= value <= 1.5 for value in values):
        raise ValueError(f"{_OUTLINE}, got {quote(values)}; {_NO_OUTLINE}")
    xs, ys = values[::2], values[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height

"""Annotations in YOLO's layout: beside each folder `images` a folder `labels` with one text file an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_zoo.data.annotations import Annotations, LabelledImage, LabelledObject
from ssd_zoo.data.images import find_images, image_size

__all__ = ["find_yolo", "read_yolo"]

Split = tuple[list[Path], list[str] | None]


def find_yolo(path: Path) -> tuple[dict[str, list[Path]], list[str] | None]:
    """Lists the splits of a `data.yaml`, or of a folder that has one, or that holds `images` and `labels`.

    Args:
        path: The YAML file or the folder.

    Returns:
        Per split the folders, lists or images that it is made of; and the names of the classes, background first,
        if they are told.

    Raises:
        ValueError: If the YAML file can't be understood.
    """
    if path.is_file():
        return _of_yaml(path)
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (path / name).is_file():
            return _of_yaml(path / name)
    names = path / "classes.txt"
    categories = ["background", *names.read_text(encoding="utf-8").split("\n")] if names.is_file() else None
    images = path / "images"
    below = {folder.name: [folder] for folder in sorted(images.iterdir()) if folder.is_dir()} if images.is_dir() else {}
    if not below and images.is_dir() and (path / "labels").is_dir():
        below = {"all": [images]}
    if not below:
        below = {folder.parent.name: [folder] for folder in sorted(path.glob("*/images"))
                 if (folder.parent / "labels").is_dir()}  # fmt: skip
    return below, [name.strip() for name in categories if name.strip()] if categories else None


def _of_yaml(file: Path) -> tuple[dict[str, list[Path]], list[str]]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"{file}:{mark.line + 1 if mark else 1} is no YAML: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"{file}: names must be numbered from 0 without gaps, got {sorted(names)}.")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} has no list of names, so it describes no data set in YOLO's layout.")
    root = file.parent / str(content.get("path") or "")
    splits = {}
    for split in ("train", "val", "test"):
        entries = content.get(split)
        if entries:
            splits[split] = [
                _locate(root, str(entry)) for entry in ([entries] if isinstance(entries, str) else entries)
            ]
    return splits, ["background", *map(str, names)]


def _locate(root: Path, entry: str) -> Path:
    # Exports of Roboflow write ../train/images for train/images.
    stripped = entry.removeprefix("../")
    return root / stripped if not (root / entry).exists() and (root / stripped).exists() else root / entry


def read_yolo(sources: Sequence[Path], categories: Sequence[str] | None) -> Annotations:
    """Reads one split. An image without a file of labels has no objects.

    Args:
        sources: Folders of images, text files that list images, or images.
        categories: Names of the classes, background first: YOLO's class 0 is label 1.

    Raises:
        ValueError: If the names are missing, or a line can't be understood. The message names file and line.
        FileNotFoundError: If there are no images.
    """
    if categories is None:
        raise ValueError(
            "Data in YOLO's layout needs the names of its classes: put them into data.yaml or classes.txt, or pass "
            "categories=['background', …]."
        )
    files = [file for source in sources for file in _images(source)]
    problems = (
        [f"{file} occurs twice" for file in {file for file in files if files.count(file) > 1}]
        if len(set(files)) < len(files)
        else []
    )
    images = []
    for i, file in enumerate(dict.fromkeys(files), start=1):
        labels = _labels_file(file)
        try:
            size = image_size(file)
        except (ValueError, OSError):
            size = None  # The report on the data set says so.
        images.append(LabelledImage(file, i, size, labels, _objects(labels, size, len(categories))))
    return Annotations(images, list(categories), [0, *range(len(categories) - 1)], problems)


def _images(source: Path) -> list[Path]:
    if source.suffix != ".txt":
        return find_images([source])
    if not source.is_file():
        raise FileNotFoundError(f"There is no list of images {source}.")
    return [source.parent / line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]


def _labels_file(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(file: Path, size: tuple[int, int] | None, num_classes: int) -> tuple[LabelledObject, ...]:
    if size is None or not file.is_file():
        return ()
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(_object(line, size, num_classes, file, i) for i, line in enumerate(lines, start=1) if line.strip())


def _object(line: str, size: tuple[int, int], num_classes: int, file: Path, number: int) -> LabelledObject:
    height, width = size
    try:
        index, *values = (float(word) for word in line.split())
    except ValueError:
        raise ValueError(f"{file}:{number}: expected numbers, got {line!r}.") from None
    if not index.is_integer() or not 0 <= index < num_classes - 1:
        raise ValueError(
            f"{file}:{number}: class {index:g} is not among the {num_classes - 1} classes, counted from 0."
        )
    box: Any
    if len(values) == 4:
        x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    elif len(values) >= 6 and len(values) % 2 == 0:
        # An outline: x, y, x, y, …
        xs, ys = values[::2], values[1::2]
        box = (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    else:
        raise ValueError(f"{file}:{number}: expected class, x, y, width and height, or an outline, got {line!r}.")
    return LabelledObject(box, int(index) + 1, (box[2] - box[0]) * (box[3] - box[1]), entry=number)

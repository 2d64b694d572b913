"""Read annotations in YOLO's layout.

Beside each folder `images` lies a folder `labels` with one text file per image.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from ssd_zoo.data.annotations import Annotations, Box, LabelledImage, LabelledObject
from ssd_zoo.data.images import find_images, image_endings, image_size

__all__ = ["find_yolo", "read_yolo"]

Split = tuple[list[Path], list[str] | None]


def find_yolo(path: Path) -> tuple[dict[str, list[Path]], list[str] | None]:
    """Find the splits and class names of a data set.

    Args:
        path: A `data.yaml`, its folder, or a folder with `images` and `labels`.

    Returns:
        The sources (folders, lists or images) by split, and the class names, background first, or None if unknown.

    Raises:
        ValueError: If the YAML file is invalid, or images lie both in `images` and in its subfolders.
    """
    if path.is_file():
        return _of_yaml(path)
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (path / name).is_file():
            return _of_yaml(path / name)
    names = path / "classes.txt"
    categories = ["background", *_read(names).split("\n")] if names.is_file() else None
    images = path / "images"
    below = _folders_of(images) if images.is_dir() else {}
    if not below and images.is_dir() and (path / "labels").is_dir():
        below = {"all": [images]}
    if not below:
        below = {folder.parent.name: [folder] for folder in sorted(path.glob("*/images"))
                 if (folder.parent / "labels").is_dir() and not folder.parent.name.startswith(".")}  # fmt: skip
    return below, [name.strip() for name in categories if name.strip()] if categories else None


def _folders_of(images: Path) -> dict[str, list[Path]]:
    """Return subfolders by name, unless the folder itself holds images."""
    entries = [entry for entry in sorted(images.iterdir()) if not entry.name.startswith(".")]
    below = [entry for entry in entries if entry.is_dir()]
    endings = image_endings()
    if below and any(entry.suffix.lower() in endings and entry.is_file() for entry in entries):
        if deeper := [file for file in find_images([images]) if file.parent != images]:
            raise ValueError(
                f"{images} holds images both directly and in subfolders, such as {deeper[0]}, so its splits are not "
                "clear; move the images into a folder a split, or all into one, or list them in a data.yaml."
            )
        return {}
    return {folder.name: [folder] for folder in below}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not written in UTF-8: {error}; save it as UTF-8.") from error


def _of_yaml(file: Path) -> tuple[dict[str, list[Path]], list[str]]:
    import yaml

    try:
        content = yaml.safe_load(_read(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"{file}:{mark.line + 1 if mark else 1} is not YAML: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"{file}: names must be numbered from 0 without gaps, got {list(names)}.")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} has no list of names, so it is not a data set in YOLO's layout.")
    if no_text := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int | float)]:
        raise ValueError(
            f"{file}: YAML reads some names not as text but as {no_text}; quote them, as in ['yes', 'no']."
        )
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"{file}: two classes share a name: {names}.")
    if content.get("nc", len(names)) != len(names):
        raise ValueError(
            f"{file}: nc is {content['nc']}, but there are {len(names)} names; correct it or leave it out."
        )
    if "kpt_shape" in content:
        raise ValueError(
            f"{file} has kpt_shape: its labels hold the keypoints of poses, which would be taken for outlines. Cut "
            "each line after class, x, y, width and height, and leave kpt_shape out."
        )
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
    # Exports of Roboflow list `../train/images` where `train/images` is meant.
    stripped = entry.removeprefix("../")
    return root / stripped if not (root / entry).exists() and (root / stripped).exists() else root / entry


def read_yolo(sources: Sequence[Path], names: Sequence[str] | None, asked: Sequence[str] | None = None) -> Annotations:
    """Read the annotations of one split.

    An image without a label file has no objects.

    Args:
        sources: Folders of images, text files that list images, or images.
        names: The data set's class names, background first, or None if unknown. YOLO's class 0 is `names[1]`.
        asked: Class names that labels refer to, background first; by default `names`.

    Raises:
        ValueError: If class names are missing, an object's class is not among `asked`, or a line is invalid. The
            message names file and line.
        FileNotFoundError: If no image is found.
    """
    categories = list(asked or names or [])
    if not categories:
        raise ValueError(
            "Data in YOLO's layout needs the names of its classes: put them into data.yaml or classes.txt, or pass "
            "categories=['background', …]."
        )
    names = names or categories
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
            size = None  # `inspect_dataset` reports the unreadable image.
        images.append(LabelledImage(file, i, size, labels, _objects(labels, size, names, categories)))
    return Annotations(images, categories, _class_numbers(names, categories), problems)


def _class_numbers(names: Sequence[str], categories: Sequence[str]) -> list[int]:
    """Return YOLO's class number by label.

    Classes that the data set lacks get the next free numbers.
    """
    free = count(len(names) - 1)
    return [0, *(names.index(name, 1) - 1 if name in names[1:] else next(free) for name in categories[1:])]


def _images(source: Path) -> list[Path]:
    if source.suffix != ".txt":
        return find_images([source])
    if not source.is_file():
        raise FileNotFoundError(f"There is no list of images {source}.")
    return [source.parent / line.strip() for line in _read(source).splitlines() if line.strip()]


def _labels_file(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(
    file: Path, size: tuple[int, int] | None, names: Sequence[str], categories: Sequence[str]
) -> tuple[LabelledObject, ...]:
    if size is None or not file.is_file():
        return ()
    lines = _read(file).splitlines()
    labels = [categories.index(name, 1) if name in categories[1:] else None for name in names[1:]]
    objects = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            index, box = _class_and_box(line, size, len(labels), f"{file}:{number}")
            label = labels[index]
            if label is None:
                raise ValueError(
                    f"{file}:{number}: class {index} is {names[index + 1]}, which is not among the categories "
                    f"{', '.join(categories[1:])}."
                )
            objects.append(LabelledObject(box, label, (box[2] - box[0]) * (box[3] - box[1]), entry=number))
    return tuple(objects)


def _class_and_box(line: str, size: tuple[int, int], num_classes: int, place: str) -> tuple[int, Box]:
    height, width = size
    try:
        index, *values = (float(word) for word in line.split())
    except ValueError:
        raise ValueError(f"{place}: expected numbers, got {line!r}.") from None
    if not index.is_integer() or not 0 <= index < num_classes:
        raise ValueError(f"{place}: class {index:g} is not among the {num_classes} classes, counted from 0.")
    if len(values) == 4:
        x, y, w, h = values
        return int(index), ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    if len(values) >= 6 and len(values) % 2 == 0:
        # A polygon: x, y, x, y, …
        xs, ys = values[::2], values[1::2]
        return int(index), (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    raise ValueError(f"{place}: expected class, x, y, width and height, or an outline, got {line!r}.")

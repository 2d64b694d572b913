"""Read annotations in YOLO's format: one text file per image, with boxes as fractions of the image.

A `data.yaml` or darknet's `obj.data` says where images and class names are, or the folders do.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ssd_zoo.data.annotations import Box, Item, Records, Thing, check_class_names, some
from ssd_zoo.data.formats.tree import File, Layout, Tree, by_split, canonical_split, in_any_case, unused_images
from ssd_zoo.data.images import find_images, image_size
from ssd_zoo.weights.outside import JSON, listing, mapping, parse_number, parse_yaml, quote, read_text, whole

__all__ = ["find"]

_NAMES_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "predefined_classes.txt", "names.txt")
_NO_LABELS = {*_NAMES_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "labelmap.txt"}
_LINE = re.compile(r"\s*\d+(?:\s+[-+.\deE]+){4,}\s*")
_SNIFFED = 50

Problems = list[str]
Source = tuple[Path, list[Path]]


def find(tree: Tree) -> Layout | None:
    """Recognise YOLO's text files, and their splits.

    Splits are those of a `data.yaml` or `obj.data`, or folders such as `images/train` or `train/images`.

    Raises:
        ValueError: If the YAML file is invalid, or images lie both in folders of splits and outside.
    """
    yamls = [file.path for suffix in (".yaml", ".yml") for file in tree.files(suffix) if not file.folder]
    if yamls := [file for file in yamls if tree.file or _has_names(file)]:
        if len(yamls) > 1 and yamls[0].stem != "data":
            raise ValueError(f"{' and '.join(map(str, yamls))} both describe a data set; open one of them.")
        return _of_yaml(yamls[0])
    for file in tree.files(".data"):
        if tree.file or "names" in _pairs(file.path):
            return _of_darknet(file.path)
    return _of_folders(tree) if tree.file is None else None


def _of_folders(tree: Tree) -> Layout | None:
    texts = [file for file in tree.files(".txt") if file.path.name.lower() not in _NO_LABELS]
    stems = {file.stem for file in texts}
    labelled = [image for image in tree.images if image.stem in stems and _labels_file(image.path, tree.root).is_file()]
    labels = [_labels_file(image.path, tree.root) for image in labelled[:_SNIFFED]]
    if not any(map(_is_yolo, labels)) and not _meant(tree, texts):
        return None
    folders = {image.folder for image in labelled} or {image.folder for image in tree.images}
    images = [image for image in tree.images if image.folder in folders]
    names_file = _names_file(tree)
    names = _read_names(names_file) if names_file else tree.names
    splits = {
        split: partial(_read, [(tree.root, [image.path for image in group])], names, names_file)
        for split, group in by_split(tree.root, images).items()
    }
    used = {_labels_file(image.path, tree.root) for image in images}
    unused = [file.path for file in texts if file.path not in used and _is_yolo(file.path)]
    notes = [f"{some(unused, 'file')} of labels without an image"] if unused else []
    notes += unused_images(tree, (image.path for image in images), "labels in their folder")
    why = f"text files of labels{f', class names in {names_file.name}' if names_file else ''}"
    return Layout("YOLO", why, splits, names, notes)


def _meant(tree: Tree, texts: Sequence[File]) -> bool:
    """Check for a data set whose labels are all missing or empty: it has names of classes, or a folder `labels`."""
    others = any(tree.files(suffix) for suffix in (".xml", ".json", ".csv"))
    listed = [file for suffix in (".txt", ".names") for file in tree.files(suffix)]
    named = any(file.path.name.lower() in _NAMES_FILES for file in listed)
    stems = {image.stem for image in tree.images}
    paired = [file.path for file in texts if file.stem in stems][:_SNIFFED]
    plain = all(_is_yolo(file) or not file.stat().st_size for file in paired)
    return bool(tree.images) and not others and (named or "labels" in map(str.lower, tree.folders)) and plain


def _is_yolo(file: Path) -> bool:
    """Check that the first line that is not blank has a class and at least four numbers."""
    try:
        lines = read_text(file).splitlines()
    except ValueError:
        return True  # Reading reports it.
    return bool(_LINE.fullmatch(next((line for line in lines if line.strip()), "")))


def _names_file(tree: Tree) -> Path | None:
    files = [file for suffix in (".txt", ".names", ".labels") for file in tree.files(suffix)]
    found = [file.path for name in _NAMES_FILES for file in files if file.path.name.lower() == name]
    if len({tuple(_read_names(file)) for file in found[:_SNIFFED]}) > 1:
        raise ValueError(f"{' and '.join(map(str, found))} list different names; remove or correct one.")
    return found[0] if found else None


def _read_names(file: Path) -> list[str]:
    return check_class_names(read_text(file).rstrip().split("\n"), file)


def _has_names(file: Path) -> bool:
    return re.search(r"^\s*[\"']?names[\"']?\s*:", read_text(file), re.M) is not None


def _of_yaml(file: Path) -> Layout:
    content = mapping(parse_yaml(read_text(file), file), f"{file}: its content")
    names = _yaml_names(content, file)
    if "kpt_shape" in content:
        raise ValueError(
            f"{file} has kpt_shape: its labels hold the keypoints of poses, which would be taken for outlines. Cut "
            "each line after class, x, y, width and height, and leave kpt_shape out."
        )
    root = str(content.get("path") or "")
    entries = {key: _entries(value, key, file) for key, value in content.items() if canonical_split(key) and value}
    if not entries and (in_folders := _of_folders(Tree(file.parent, names))):
        return in_folders
    return _located(file, root, entries, names, f"{file.name} with names and splits")


_SPLITS = ("train", "val", "valid", "validation", "test")


def _yaml_names(content: dict[str, JSON], file: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(map(str, range(len(names)))):
            raise ValueError(f"{file}: names must be numbered from 0 without gaps, got {quote(list(names))}.")
        names = [names[str(i)] for i in range(len(names))]
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    names = listing(names, f"{file}: names", shortest=1, longest=100_000)
    if wrong := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int | float)]:
        raise ValueError(f"{file}: YAML reads some names not as text but as {quote(wrong)}; quote them, as in ['yes'].")
    if content.get("nc") is not None and content["nc"] != len(names):
        raise ValueError(
            f"{file}: nc is {quote(content['nc'])}, but there are {len(names)} names; correct it or leave it out."
        )
    return check_class_names(map(str, names), file)


def _entries(value: JSON, split: str, file: Path) -> list[str]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{file}: {split} must be a folder, a list of images, or several, got {quote(value)}.")
    return [entry for entry in entries if isinstance(entry, str)]


def _of_darknet(file: Path) -> Layout:
    """Read darknet's file of `key = value` lines, as CVAT exports it."""
    pairs = _pairs(file)
    names_file = _locate(file.parent, "", pairs.get("names", ""))
    if names_file is None or not names_file.is_file():
        raise ValueError(f"{file}: there is no file of names {pairs.get('names', '')!r} in {file.parent}.")
    entries = {split: [pairs[split]] for split in _SPLITS if pairs.get(split)}
    why = f"darknet's {file.name}, class names in {names_file.name}"
    return _located(file, "", entries, _read_names(names_file), why)


def _pairs(file: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in read_text(file).splitlines())
    return {key.strip(): value.strip() for key, sign, value in lines if sign}


def _located(file: Path, root: str, entries: dict[str, list[str]], names: list[str], why: str) -> Layout:
    splits, notes = {}, []
    for split, sources in entries.items():
        places = [(source, _locate(file.parent, root, source)) for source in sources]
        if missing := [source for source, place in places if place is None]:
            notes.append(f"{file} names {split}: {missing[0]}, which does not exist below {file.parent}")
        else:
            found = [(file.parent, [place]) for _, place in places if place]
            splits[split] = partial(_read, found, names, file)
    if not splits:
        raise FileNotFoundError(f"{file} has no split whose images exist. {'; '.join(notes)}".rstrip())
    return Layout("YOLO", why, splits, names, notes)


def _locate(folder: Path, root: str, entry: str) -> Path | None:
    """Find a path that may be of another machine: as written, or its longest end that exists below the folder."""
    entry, root = entry.replace("\\", "/"), root.replace("\\", "/")
    candidates = [folder / root / entry, folder / entry]
    for parts in (Path(root, entry).parts, Path(entry).parts):
        candidates += [folder.joinpath(*parts[i:]) for i in range(1, len(parts))]
    return next((place for place in candidates if entry and place.exists()), None)


def _read(sources: Sequence[Source], names: list[str] | None, names_source: Path | None) -> Records:
    """Read the annotations of one split; an image without a file of labels has no objects.

    Raises:
        ValueError: If there are no class names, no image has labels, or most boxes are in pixels.
    """
    records = Records(names=names, names_source=names_source)
    records.ids = {name: i for i, name in enumerate(names or [])}
    files = [(file, root) for root, places in sources for place in places for file in _images(place, root)]
    numbers = Counter(file for file, _ in files)
    records.problems += [f"{file} occurs twice" for file, number in numbers.items() if number > 1]
    without, far = [], 0
    owners: dict[Path, Path] = {}
    for file, root in dict(files).items():
        labels = _labels_file(file, root)
        try:
            size = image_size(file)
        except (ValueError, OSError):
            size = None  # `inspect_dataset` reports the unreadable image.
        things: list[Thing] = []
        owner = owners.setdefault(labels, file)
        if owner.parent != file.parent:
            records.problems.append(f"{labels} would be the labels of {owner} and of {file}; only the first has them")
            continue
        if not labels.is_file():
            without.append(file)
        elif size is not None:
            try:
                lines = read_text(labels).splitlines()
            except ValueError as error:
                records.problems.append(str(error).rstrip("."))
                continue
            things, beyond = _things(labels, lines, size, names, records.problems)
            far += beyond
        records.items.append(Item(file, labels, things, size))
    _check(records, without, far)
    return records


def _check(records: Records, without: list[Path], far: int) -> None:
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


def _images(source: Path, root: Path) -> list[Path]:
    if source.is_dir():
        return find_images([source])
    if source.suffix.lower() != ".txt":
        return [source]
    lines = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    found = [_locate(source.parent, "", line) or _locate(root, "", line) for line in lines]
    return [file or source.parent / line for file, line in zip(found, lines, strict=True)]


def _labels_file(image: Path, root: Path) -> Path:
    """Return the file of labels of an image; it may not exist.

    It lies in `labels`, where the image's path below the root has `images`, or beside the image.
    """
    inside = image.relative_to(root) if image.is_relative_to(root) else image
    swapped, parts = [], list(inside.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() in ("images", "jpegimages"):
            swapped.append(root.joinpath(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt"))
    beside = image.with_suffix(".txt")
    candidates = [*swapped, beside, image.parent / "labels" / beside.name, root / "labels" / beside.name]
    exact = next((file for file in candidates if file.is_file()), None)
    return exact or next((found for file in candidates if (found := in_any_case(file, root)).is_file()), candidates[0])


def _things(
    file: Path, lines: Sequence[str], size: tuple[int, int], names: list[str] | None, problems: Problems
) -> tuple[list[Thing], int]:
    """Return the objects, and the number of lines whose numbers are too large for fractions."""
    things, far = [], 0
    if names is None and any(line.strip() for line in lines):
        raise ValueError(
            "Data in YOLO's layout needs the names of its classes: put them into data.yaml or classes.txt, or pass "
            "categories=['background', …] (--categories)."
        )
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                index, values = _numbers(line, len(names or []))
                box = _box(values, size)
            except _TooFarError as error:
                far += 1
                problems.append(f"{file}:{number}: {error}")
            except ValueError as error:
                problems.append(f"{file}:{number}: {str(error).rstrip('.')}")
            else:
                things.append(Thing((names or [])[index], box, number))
    return things, far


class _TooFarError(ValueError):
    """Raised for numbers that are no fractions of an image."""


def _numbers(line: str, num_classes: int) -> tuple[int, list[float]]:
    index, *values = (parse_number(word, "each value") for word in line.split())
    if not index.is_integer() or not 0 <= index < num_classes:
        raise ValueError(f"class {index:g} is not among the {num_classes} classes, counted from 0")
    if len(values) < 4 or len(values) == 5 or len(values) % 2:
        raise ValueError(f"expected class, x, y, width and height, or an outline, got {quote(line)}")
    return whole(index, "class"), values


def _box(values: list[float], size: tuple[int, int]) -> Box:
    """Return the box of x, y, width and height, or around the points of an outline or an oriented box."""
    height, width = size
    if any(not -1 <= value <= 2 for value in values[:4]):
        raise _TooFarError(f"expected fractions of the image, from 0 to 1, got {quote(values)}")
    if len(values) == 4:
        x, y, w, h = values
        return ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    if any(not -0.5 <= value <= 1.5 for value in values):
        raise ValueError(
            f"the numbers of an outline must be fractions of the image, got {quote(values)}; remove confidences and "
            "numbers of tracks, if these are some"
        )
    xs, ys = values[::2], values[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height

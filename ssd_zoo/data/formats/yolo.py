"""Read annotations in YOLO's text files: boxes as fractions of images.

A `data.yaml` or darknet's `obj.data` says where images and class names are, or the folders do.
"""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from ssd_zoo.data.annotations import Records, check_class_names, some
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.split_lists import by_split
from ssd_zoo.data.formats.tree import File, Layout, Tree, unused_images
from ssd_zoo.data.formats.yolo_labels import Source, is_yolo, labels_file, locate, read_split
from ssd_zoo.weights.outside import JSON, listing, mapping, parse_yaml, quote, read_text

__all__ = ["find"]

_NAMES_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "predefined_classes.txt", "names.txt")
_NO_LABELS = {*_NAMES_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "labelmap.txt"}
_SNIFFED = 50
_SPLITS = ("train", "val", "valid", "validation", "test")


def find(tree: Tree) -> Layout | None:
    """Recognise YOLO's text files, and their splits.

    Splits are those of a `data.yaml` or `obj.data`, or folders such as `images/train` or `train/images`.

    None if there is none of these, nor labels.

    Raises:
        ValueError: If the YAML file is invalid, there are several, or images lie both in folders of splits and outside.
    """
    yamls = [file for suffix in (".yaml", ".yml") for file in tree.files(suffix)]
    yamls = [file for file in yamls if tree.file or (len(file.folder) < 3 and _describes(file))]
    if yamls:
        upper = [file.path for file in yamls if len(file.folder) == min(len(file.folder) for file in yamls)]
        if len(upper) > 1 and (upper[0].stem != "data" or len({file.parent for file in upper}) > 1):
            raise ValueError(f"{' and '.join(map(str, upper))} all describe data sets; open one of them.")
        return _of_yaml(upper[0], tree)
    for file in tree.files(".data"):
        if tree.file or "names" in _pairs(file.path):
            return _of_darknet(file.path, tree)
    return _of_folders(tree) if tree.file is None else None


def _of_folders(tree: Tree) -> Layout | None:
    """Recognise YOLO's text files in a data set without `data.yaml` or `obj.data`; None if there are none."""
    texts = [file for file in tree.files(".txt") if file.path.name.lower() not in _NO_LABELS]
    stems = {file.stem for file in texts}
    labelled = [image for image in tree.images if image.stem in stems and labels_file(image.path, tree.root).is_file()]
    labels = [labels_file(image.path, tree.root) for image in labelled[:_SNIFFED]]
    if not any(map(is_yolo, labels)) and not _is_empty_yolo(tree, texts):
        return None
    folders = {image.folder for image in labelled} or {image.folder for image in tree.images}
    images = [image for image in tree.images if image.folder in folders]
    names_file = _names_file(tree)
    names = _read_names(names_file) if names_file else tree.names
    used = {labels_file(image.path, tree.root).parent for image in images}
    unused = [file.path for file in texts if file.path.parent not in used and is_yolo(file.path)]
    notes = [f"{some(unused, 'file')} of labels without an image"] if unused else []
    notes += unused_images(tree, (image.path for image in images), "labels in their folder")
    groups = by_split(tree, images, {image: image for image in images}, notes)
    found = {split: [(tree.root, [image.path for image in group])] for split, group in groups.items()}
    splits = {split: partial(_read_among, split, found, names, names_file) for split in found}
    why = f"text files of labels{f', class names in {names_file.name}' if names_file else ''}"
    return Layout("YOLO", why, splits, names, notes)


def _read_among(
    split: str, found: dict[str, list[Source]], names: list[str] | None, names_file: Path | None
) -> Records:
    """Read one of several splits.

    Args:
        split: Its name.
        found: Where each split's images are.
        names: Class names, without background.
        names_file: File that lists them.
    """
    others = [source for other, sources in found.items() if other != split for source in sources]
    return read_split(found[split], names, names_file, others)


def _is_empty_yolo(tree: Tree, texts: Sequence[File]) -> bool:
    """Return whether a data set without any box is YOLO's.

    It has a list of class names or a folder `labels`, and no annotations of other formats.
    """
    others = any(tree.files(suffix) for suffix in (".xml", ".json", ".csv"))
    listed = [file for suffix in (".txt", ".names") for file in tree.files(suffix)]
    named = any(file.path.name.lower() in _NAMES_FILES for file in listed)
    stems = {image.stem for image in tree.images}
    paired = [file.path for file in texts if file.stem in stems][:_SNIFFED]
    plain = all(is_yolo(file) or not file.stat().st_size for file in paired)
    return bool(tree.images) and not others and (named or "labels" in map(str.lower, tree.folders)) and plain


def _names_file(tree: Tree) -> Path | None:
    files = [file for suffix in (".txt", ".names", ".labels") for file in tree.files(suffix)]
    found = [file.path for name in _NAMES_FILES for file in files if file.path.name.lower() == name]
    if len({tuple(_read_names(file)) for file in found[:_SNIFFED]}) > 1:
        raise ValueError(f"{' and '.join(map(str, found))} list different names; remove or correct one.")
    return found[0] if found else None


def _read_names(file: Path) -> list[str]:
    return check_class_names(read_text(file).rstrip().split("\n"), file)


def _describes(file: File) -> bool:
    """Return whether a YAML file looks like a data set's: a key `names` at any depth, found without parsing.

    In a folder below the root it needs at least one split's key too, such as `train`, because other tools have files
    with `names`.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not text, or too long.
    """
    content = read_text(file.path)
    keys = ["names", *(["|".join(_SPLITS)] if file.folder else [])]
    return all(re.search(rf"(?:^|[{{,])\s*[\"']?({key})[\"']?\s*:", content, re.M) for key in keys)


def _of_yaml(file: Path, tree: Tree) -> Layout:
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
    return _layout_of_entries(tree, file, root, entries, names, f"{file.name} with names and splits")


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
    """Return the folders, lists or images that a `data.yaml` names for a split.

    Raises:
        ValueError: If it is neither a text nor a list of texts.
    """
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{file}: {split} must be a folder, a list of images, or several, got {quote(value)}.")
    return [entry for entry in entries if isinstance(entry, str)]


def _of_darknet(file: Path, tree: Tree) -> Layout:
    """Read darknet's file of `key = value` lines, as CVAT exports it.

    Raises:
        ValueError: If the file of names is missing.
    """
    pairs = _pairs(file)
    names_file = locate(file.parent, "", pairs.get("names", ""))
    if names_file is None or not names_file.is_file():
        raise ValueError(f"{file}: there is no file of names {pairs.get('names', '')!r} in {file.parent}.")
    entries = {split: [pairs[split]] for split in _SPLITS if pairs.get(split)}
    why = f"darknet's {file.name}, class names in {names_file.name}"
    return _layout_of_entries(tree, file, "", entries, _read_names(names_file), why)


def _pairs(file: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in read_text(file).splitlines())
    return {key.strip(): value.strip() for key, sign, value in lines if sign}


def _refuse_part(told: str) -> Records:
    """Raise FileNotFoundError for a split of which a source is missing.

    Otherwise the rest alone would be trained on in silence.

    Args:
        told: Beginning of the message, which names the missing source.
    """
    raise FileNotFoundError(f"{told}; other images of the split do. Put it there, or take it out of the list.")


def _layout_of_entries(
    tree: Tree, file: Path, root: str, entries: dict[str, list[str]], names: list[str], why: str
) -> Layout:
    """Return the layout of a data set whose images a file names.

    Args:
        tree: The data set.
        file: The file.
        root: The root folder that the file names.
        entries: Folders, lists or images by split, as the file has them.
        names: Class names, without background.
        why: How the layout was recognised.

    Raises:
        FileNotFoundError: If no split has images. A split of which a part is missing raises it when it is read.
    """
    notes, found = list[str](), dict[str, list[Source]]()
    splits: dict[str, Callable[[], Records]] = {}
    for split, sources in entries.items():
        places = [(source, locate(file.parent, root, source)) for source in sources]
        if missing := [source for source, place in places if place is None]:
            told = f"{file} names {split}: {missing[0]}, which does not exist below {file.parent}"
            if len(missing) == len(places):
                notes.append(told)
            else:
                splits[split] = partial(_refuse_part, told)
        else:
            found[split] = [(file.parent, [place]) for _, place in places if place]
            splits[split] = partial(_read_among, split, found, names, file)
    if not splits:
        raise FileNotFoundError(f"{file} has no split whose images exist. {'; '.join(notes)}".rstrip())
    if tree.file is None:
        used = [place for sources in found.values() for _, places in sources for place in places]
        with contextlib.suppress(ValueError):  # Reading the split of that list reports it.
            notes += unused_images(tree, _images_in(tree, used), f"a split in {file.name} that has them")
    return Layout("YOLO", why, splits, names, notes)


def _images_in(tree: Tree, places: Sequence[Path]) -> list[Path]:
    """Return the images of a data set at given places.

    A place is a folder, a text file that lists images, or an image.
    """
    real = cache(os.path.realpath)
    folders = {real(place) for place in places if place.is_dir()}
    inside = {
        path for path in {real(x.path.parent) for x in tree.images} if folders & {path, *map(str, Path(path).parents)}
    }
    listed = [place for place in places if not place.is_dir()]
    lists = (read_text(x).splitlines() if x.suffix.lower() == ".txt" else [str(x)] for x in listed)
    lines = [line.strip().replace("\\", "/") for lines in lists for line in lines]
    named = [image for line in lines for image in tree.images_named(line, Path(line).parts[:-1])]
    return [*named, *(x.path for x in tree.images if real(x.path.parent) in inside)]

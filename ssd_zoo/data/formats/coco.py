"""Read annotations in COCO's format, one JSON file per split."""

import mmap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ssd_zoo.data.annotations import Item, Records, Thing, check_class_names
from ssd_zoo.data.formats.coco_boxes import box_of, check_corners
from ssd_zoo.data.formats.coco_files import LARGEST, image_finder, line_of_annotation, split_of_stem
from ssd_zoo.data.formats.folders import LABEL_FOLDERS, canonical_split
from ssd_zoo.data.formats.labelme import is_labelme
from ssd_zoo.data.formats.tree import File, Layout, Tree, unused_images
from ssd_zoo.weights.outside import JSON, number, parse_json, quote, read_text, text, whole

__all__ = ["find", "read_coco", "read_coco_json", "records_of_coco"]

Entry = dict[str, JSON]

_KEYS = ("images", "annotations", "categories")


def find(tree: Tree) -> Layout | None:
    """Recognise JSON files in COCO's format; each is a split. None if there is none.

    They lie in the folder itself or in its subfolders, as `annotations/instances_train.json` or
    `train/_annotations.coco.json` do.

    Raises:
        ValueError: If two files are the same split.
    """
    if tree.file is None:
        files = [file for file in tree.files(".json") if len(file.folder) < 4 and _looks_like_coco(file.path)]
    else:
        files = tree.files(".json") if not is_labelme(tree.file) else []
    splits: dict[str, File] = {}
    for file in sorted(files, key=lambda file: ("keypoints" in file.stem, file.path)):
        name = _split(file)
        if name in splits and "keypoints" in file.stem:
            name = file.stem  # COCO's own folder has a file instances_… and one person_keypoints_… for each split.
        if name in splits:
            raise ValueError(
                f"{splits[name].path} and {file.path} are both the split {name!r}; open one of the files, or move one "
                "to another folder."
            )
        splits[name] = file
    if not splits:
        return None
    why = "JSON files with images, annotations and categories" if tree.file is None else "a JSON file"
    return Layout(
        "COCO", why, {name: partial(_read, file, tree, name, alone=len(splits) == 1) for name, file in splits.items()}
    )


def _read(file: File, tree: Tree, split: str, *, alone: bool) -> Records:
    """Read a split; add a note about images that its file does not list.

    Images that may belong to another split are left out of the note.
    """
    records = read_coco(file.path)
    if tree.file is None:
        own = canonical_split(split)
        folders = {image.folder for image in tree.images}
        mine = {folder for folder in folders if alone or own in {canonical_split(part) for part in folder} - {None}}
        others = (image.path for image in tree.images if image.folder not in mine)
        used = (item.file for item in records.items)
        records.notes += unused_images(tree, [*used, *others], f"an entry in {file.path.name}")
    return records


def _split(file: File) -> str:
    """Return the name of a file's split.

    It is the file's name without words such as `instances`; else the innermost folder that is not one of labels; else
    `all`. So `train` for `instances_train.json`, `train.json` and `train/_annotations.coco.json`.
    """
    stem = split_of_stem(file.stem)
    folders = [part for part in file.folder if part.lower() not in LABEL_FOLDERS]
    return stem or (folders[-1] if folders else "all")


def _looks_like_coco(file: Path) -> bool:
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        encodings = "utf-8", "utf-16-le", "utf-16-be"
        return any(all(content.find(f'"{key}"'.encode(name)) >= 0 for key in _KEYS) for name in encodings)


def read_coco_json(file: Path) -> dict[str, list[JSON]]:
    """Load an annotation file and check its top-level lists.

    Raises:
        ValueError: If the file is not JSON, or lacks a list of `images`, `annotations` or `categories`.
    """
    content = parse_json(read_text(file, limit=LARGEST), file, constants=True)
    lists = {key: content.get(key) for key in _KEYS} if isinstance(content, dict) else {}
    missing = [key for key in _KEYS if not isinstance(lists.get(key), list)]
    if missing:
        raise ValueError(f"{file} is not in COCO's format: it has no list of {', '.join(missing)}.")
    return {key: value for key, value in lists.items() if isinstance(value, list)}


def read_coco(file: Path) -> Records:
    """Read a split in COCO's format; locate its images beside the file or in folders nearby.

    Invalid images and annotations are left out, with a message in `problems`. An image that is missing stays; reading
    it fails later.

    Raises:
        ValueError: If the file is not in COCO's format, a category is invalid, or the boxes are surely corners.
        FileNotFoundError: If none of the first 20 images is found.
    """
    content = read_coco_json(file)
    names = [entry["file_name"] for entry in _mappings(content["images"]) if isinstance(entry.get("file_name"), str)]
    return records_of_coco(content, file, image_finder(file, [str(name) for name in names]))


def records_of_coco(content: dict[str, list[JSON]], file: Path, find_image: Callable[[str], Path]) -> Records:
    """Read the lists of images, annotations and categories of COCO's format.

    Invalid images and annotations are left out, with a message in `problems`.

    Args:
        content: The lists, by key.
        file: The file that they are of.
        find_image: Function from an image's name to its path.

    Raises:
        ValueError: If a category is invalid, or the boxes are surely corners.
    """
    records = Records(line=line_of_annotation, names_source=file)
    used = Counter(str(entry["category_id"]) for entry in _mappings(content["annotations"]) if "category_id" in entry)
    by_id = _categories(content["categories"], used, file)
    records.names, records.ids = list(by_id.values()), {name: int(key) for key, name in by_id.items()}
    images = _images(content["images"], file, records.problems)
    things: dict[str, list[Thing]] = defaultdict(list)
    seen: set[str] = set()
    for i, annotation in enumerate(content["annotations"]):
        try:
            entry = _present(annotation, "needs image_id, category_id and bbox")
            key = _key(entry, "image_id")
            if key not in images:
                raise ValueError(f"has the image_id {quote(entry['image_id'])}, which does not match an image")
            own = _key(entry, "id") if "id" in entry else None
            if own in seen:
                raise ValueError(f"has the id {own}, which occurs twice")
            things[key].append(_thing(entry, by_id, i))
            if own is not None:
                seen.add(own)
        except ValueError as error:
            line = line_of_annotation(file, i)
            records.problems.append(f"{file}:{line}: the annotation {str(error).rstrip('.')}: {quote(annotation)}")
    numbered = all(key.isdecimal() for key in images)
    records.items = [
        Item(find_image(name), file, things[key], size, int(key) if numbered else i)
        for i, (key, (name, size)) in enumerate(images.items(), start=1)
    ]
    check_corners(records.items, content["annotations"], file)
    return records


def _mappings(entries: Iterable[JSON]) -> Iterator[Entry]:
    return (entry for entry in entries if isinstance(entry, dict))


def _present(entry: JSON, needs: str) -> Entry:
    """Return an entry without its nulls, which mean that a value is absent.

    Args:
        entry: An entry of a list in the file.
        needs: Message of the ValueError for an entry that is not a mapping.
    """
    if not isinstance(entry, dict):
        raise ValueError(needs)
    return {key: value for key, value in entry.items() if value is not None}


def _key(entry: Entry, name: str) -> str:
    """Return an id as a text, so that 1 and "1" are the same.

    Raises:
        ValueError: If the entry has no such id, or it is not a text or a whole number.
    """
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"needs a number as its {name}")
    if isinstance(value, float):
        value = whole(value, f"needs a whole {name}: it")
    return str(value).strip() if not str(value).strip().isdecimal() else str(int(value))


def _categories(entries: Sequence[JSON], used: Counter[str], file: Path) -> dict[str, str]:
    """Return class names by id, in the order of the ids.

    A class that is only the parent of others (their `supercategory`) and has no objects is left out.

    Args:
        entries: The list of categories.
        used: Number of objects by class id.
        file: The file, for messages.

    Raises:
        ValueError: If a category is invalid, or two share an id or a name.
    """
    found: dict[int, Entry] = {}
    for i, value in enumerate(entries):
        entry = value if isinstance(value, dict) else {}
        try:
            key = whole(int(_key(entry, "id")), "its id")
            text(entry.get("name"), "its name")
        except ValueError as error:
            line = line_of_annotation(file, i, "categories")
            raise ValueError(
                f"{file}:{line}: the category needs a number as its id and a text as its name: {quote(value)}"
            ) from error
        if key in found:
            raise ValueError(f"{file}:{line_of_annotation(file, i, 'categories')}: two categories share the id {key}.")
        found[key] = entry
    parents = {str(entry.get("supercategory")) for entry in found.values()}
    kept = {
        key: entry
        for key, entry in sorted(found.items())
        if used[str(key)] or entry.get("supercategory") not in (None, "", "none") or entry["name"] not in parents
    }
    return dict(zip(map(str, kept), check_class_names((entry["name"] for entry in kept.values()), file), strict=True))


def _images(entries: Sequence[JSON], file: Path, problems: list[str]) -> dict[str, tuple[str, tuple[int, int] | None]]:
    """Return name and (height, width) of the images by id; the size is None if the file lacks it.

    Invalid entries are left out, with a message added to `problems`.
    """
    images: dict[str, tuple[str, tuple[int, int] | None]] = {}
    for i, value in enumerate(entries):
        try:
            entry = _present(value, "needs id and file_name")
            key, name = _key(entry, "id"), text(entry.get("file_name"), "needs a text as its file_name: it")
            sides = [whole(entry.get(side, 0), f"needs a number as its {side}: it", low=0) for side in _SIDES]
            if key in images:
                raise ValueError(f"has the id {key}, which occurs twice; the first counts")
            images[key] = name, (sides[0], sides[1]) if min(sides) else None
        except ValueError as error:
            line = line_of_annotation(file, i, "images")
            problems.append(f"{file}:{line}: the image {str(error).rstrip('.')}: {quote(value)}")
    return images


_SIDES = ("height", "width")


def _thing(entry: Entry, names: dict[str, str], i: int) -> Thing:
    category = _key(entry, "category_id")
    if category not in names:
        raise ValueError(f"has the category_id {quote(entry['category_id'])}, which is not among the categories")
    x1, y1, x2, y2 = box_of(entry)
    area = number(entry["area"], "needs a number as its area, or no area: it") if "area" in entry else None
    written = entry.get("iscrowd", False)
    iscrowd = written if isinstance(written, bool) else whole(written, "needs 0 or 1 as its iscrowd: it", low=0, high=1)
    return Thing(names[category], (x1, y1, x2, y2), i, area, bool(iscrowd))

"""Find the images of a COCO file, and entries' line numbers."""

import contextlib
import json
import os
import re
from functools import lru_cache, partial
from pathlib import Path

from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import in_any_case, parent_of
from ssd_zoo.weights.outside import read_text

__all__ = ["LARGEST", "image_finder", "line_of_annotation", "split_of_stem"]

LARGEST = 2**32
"""Most bytes of a file in COCO's format."""

# Words around the split's name, as in instances_train2017 and train_coco.
_WORDS = r"(?:instances|annotations?|coco|labels|person_keypoints|result)"
_AFFIXES = re.compile(rf"^_*(?:{_WORDS}(?:[._]|$))*(.*?)(?:[._]{_WORDS})*$")
_FOLDERS = ("images", "data")


def split_of_stem(stem: str) -> str:
    """Return the name of the split in a file's name.

    For example `train2017` for `instances_train2017`. It may be empty.
    """
    return _AFFIXES.sub(r"\1", stem)


def image_finder(file: Path, names: list[str]) -> "partial[Path]":
    """Return a function that finds images by their COCO names.

    Images are looked for beside the file and in folders nearby, but not in those of other splits. Paths of Windows and
    of other machines lose folders from the left until a file is found. The function returns a path that may not exist.

    Args:
        file: The COCO file.
        names: Names of its images, of which the first 20 decide on the folder.

    Raises:
        FileNotFoundError: If none of these is found.
    """
    split = split_of_stem(file.stem) or file.absolute().parent.name
    own = dict.fromkeys([split, re.sub(r"[_-]?20\d\d$", "", split)])
    below = [*_FOLDERS, *own, *(f"{folder}/{name}" for folder in _FOLDERS for name in own)]
    parents = (file.parent, parent_of(file.parent))
    folders = [in_any_case(parent / name, parent) for parent in parents for name in ("", *below)]
    kind = canonical_split(split)
    for parent in parents if kind else ():
        with contextlib.suppress(PermissionError):  # A folder above may be one that nobody lists.
            folders += sorted(x for x in parent.iterdir() if canonical_split(x.name) == kind and x.is_dir())
    first = [_parts(name) for name in names[:20]]
    for cut in range(max(map(len, first), default=0)):
        for parts in first:
            for folder in folders:
                if cut < len(parts) and in_any_case(folder.joinpath(*parts[cut:]), folder).is_file():
                    return partial(_image_path, folder, cut, len(parts) - cut)
    if names:
        raise FileNotFoundError(
            f"{file}: its images, {names[0]:.200} and so on, are not in {parents[0]} or {parents[1]}, nor in their "
            f"folders {', '.join(below)}."
        )
    return partial(_image_path, file.parent, 0, 1)


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of an image's path; Label Studio's `…?d=path` is one of `path`."""
    return Path(re.sub(r"^.*\?d=", "", name).replace("\\", "/")).parts


def _image_path(folder: Path, cut: int, length: int, name: str) -> Path:
    """Return the path of an image, found in the way of the first one.

    Args:
        folder: The folder in which the first image was found.
        cut: Number of parts that its name lost from the left.
        length: Number of parts that it kept, which is tried next.
        name: The image's name in the COCO file.
    """
    parts = _parts(name)
    path = in_any_case(folder.joinpath(*parts[min(cut, len(parts) - 1) :]), folder)
    return path if path.is_file() else in_any_case(folder.joinpath(*parts[-length:]), folder)


def line_of_annotation(file: Path, index: int, key: str = "annotations") -> int:
    """Return an entry's line number in a JSON file.

    Lines are counted from 1. It is 1 if the entry can't be found, as when the file has changed.

    Args:
        file: The file.
        index: Index of the entry in the list.
        key: Key of the list.
    """
    try:
        stat = os.stat(file)
        content, starts = _entries(file, key, stat.st_mtime_ns, stat.st_size)
        return content.count("\n", 0, starts[index]) + 1
    except (OSError, ValueError, IndexError, RecursionError):
        return 1


@lru_cache(maxsize=2)
def _entries(file: Path, key: str, changed: int, size: int) -> tuple[str, list[int]]:
    """Return a file's text and the start offsets of a list's entries.

    Python's `json.loads` reports no positions.
    """
    del changed, size  # They are part of the cache's key.
    content = read_text(file, limit=LARGEST)
    decode = json.JSONDecoder().raw_decode
    at = _next(content, 0, "{")
    while True:
        name, at = decode(content, at)
        at = _next(content, at, ":")
        if name == key:
            break
        at = _next(content, decode(content, at)[1], ",")
    at, starts = _next(content, at, "["), []
    while content[at] != "]":
        starts.append(at)
        at = _next(content, decode(content, at)[1], ",")
    return content, starts


def _next(content: str, at: int, separator: str) -> int:
    """Skip whitespace and an optional separator; return the new offset."""
    match = re.compile(rf"\s*{re.escape(separator)}?\s*").match(content, at)
    return match.end() if match else at

"""Files of a data set by kind and split, paired with labels."""

import contextlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.data.annotations import Item, Records, some
from ssd_zoo.data.formats.folders import IMAGE_FOLDERS, LABEL_FOLDERS, are_apart, bare, canonical_split, holds
from ssd_zoo.data.images import image_endings, is_hidden

__all__ = [
    "File",
    "Layout",
    "Tree",
    "in_any_case",
    "merge_counts",
    "none_or_many",
    "pair",
    "parent_of",
    "read_each",
    "unused_images",
]

_DEEPEST = 8


class File(NamedTuple):
    """A file below the root of a data set.

    Attributes:
        path: Its path, as on disk.
        folder: Names of its folders below the root, from the top; empty in the root.
        stem: Its name without the ending, accents composed (NFC).
        suffix: The ending with its dot, in lower case.
    """

    path: Path
    folder: tuple[str, ...]
    stem: str
    suffix: str


@dataclass
class Layout:
    """Recognised layout of a data set.

    Attributes:
        name: Name of the layout.
        why: How it was recognised.
        splits: By name of the split, a function that reads it.
        names: Class names without background; None to take those of all splits.
        notes: Messages about files that were not found or not used.
    """

    name: str
    why: str
    splits: Mapping[str, Callable[[], Records]]
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


class Tree:
    """Files below a folder, or around a single annotation file.

    Hidden names are skipped. A folder that links lead to is listed once, by its real path where that is below the root.

    `names` are the user's class names without background, `file` is the annotation file or None, `root` the folder
    searched, to 8 folders deep, and `images` are the images below it.
    """

    def __init__(self, path: Path, names: list[str] | None = None) -> None:
        self.names = names  # Class names of the user, without background, for formats that have none.
        self.file = path if path.is_file() else None
        beside = path.parent if self.file else path
        name = beside.absolute().name
        self.root = beside
        if self.file and holds(name, LABEL_FOLDERS):
            kind = name.lower() in LABEL_FOLDERS  # Another folder, such as `cat_labels`, may hold images.
            self.root = parent_of(beside) if kind or not Tree(beside).images else beside

    def files(self, suffix: str) -> list[File]:
        """Return the annotation files with an ending, dot and lower case, such as `".xml"`.

        Around a single file only that file is returned.
        """
        if self.file is not None:
            return [_file(self.file, ())] if self.file.suffix.lower() == suffix else []
        return self._walked.files.get(suffix, [])

    @cached_property
    def images(self) -> list[File]:
        endings = image_endings()
        return sorted(file for suffix in self._walked.files.keys() & endings for file in self._walked.files[suffix])

    def image_named(self, name: str, folder: tuple[str, ...] = ()) -> Path | None:
        """Return the only image that `images_named` finds; None if there is none or several.

        `folder` only leaves out images of other splits.
        """
        images = self.images_named(name, folder)
        return images[0] if len(images) == 1 else None

    def images_named(self, name: str, folder: tuple[str, ...] = ()) -> list[Path]:
        """Return the images whose paths share the longest end with a path; empty if none does.

        The ending may be in another case.

        Args:
            name: The path, as an annotation file has it.
            folder: Folders of the annotation file. If they name a split, images of other splits are left out, unless
                the shared end names a split itself.
        """
        parts = Path(name.replace("\\", "/")).parts
        for i in range(len(parts)):
            end = "/".join(parts[i:])
            if images := self._ends.get(end) or self._folded.get(_lower_ending(end)):
                told = any(map(canonical_split, parts[i:-1]))
                return [image.path for image in images if told or not are_apart(image.folder, folder)]
        return []

    @cached_property
    def _ends(self) -> dict[str, list[File]]:
        """Images by each end of their paths: `a/b/c.jpg` is listed under itself, `b/c.jpg` and `c.jpg`."""
        ends: dict[str, list[File]] = defaultdict(list)
        for image in self.images:
            parts = (*image.folder, image.path.name)
            for i in range(len(parts)):
                ends["/".join(parts[i:])].append(image)
        return ends

    @cached_property
    def _folded(self) -> dict[str, list[File]]:
        """The same as `_ends`, with the extension in lower case."""
        folded: dict[str, list[File]] = defaultdict(list)
        for end, images in self._ends.items():
            folded[_lower_ending(end)] += images
        return folded

    @property
    def contents(self) -> str:
        """The numbers of files by ending, such as `2 .jpg, 1 .txt`."""
        return ", ".join(
            f"{len(files)} {suffix or 'without ending'}" for suffix, files in sorted(self._walked.files.items())
        )

    @property
    def folders(self) -> set[str]:
        """The names of all folders, those without files too."""
        return self._walked.folders

    @property
    def left_out(self) -> list[str]:
        """Messages about folders that can't be read or are listed already."""
        return self._walked.left_out

    @cached_property
    def _walked(self) -> "_Walk":
        return _walk(self.root)


class _Walk(NamedTuple):
    """Files by ending (dot and lower case), names of folders, and messages about folders that were left out."""

    files: dict[str, list[File]]
    folders: set[str]
    left_out: list[str]


def _walk(root: Path) -> _Walk:
    result = _Walk(defaultdict(list), set(), [])
    seen: dict[str, str] = {}
    todo = [str(root)]

    def failed(error: OSError) -> None:
        result.left_out.append(f"a folder can't be read: {error}")

    for top in todo:
        for folder, folders, names in os.walk(top, onerror=failed):
            parts, real = Path(folder).relative_to(root).parts, os.path.realpath(folder)
            if real in seen:
                result.left_out.append(f"{folder} is a link to {seen[real]}, with the same files")
                folders.clear()
                continue
            seen[real] = folder
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            result.folders.update(folders)
            todo += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            for name in sorted(name for name in names if not is_hidden(name)):
                file = _file(Path(folder, name), parts)
                result.files[file.suffix].append(file)
            if len(parts) == _DEEPEST and folders:
                result.left_out.append(f"{folder} is {_DEEPEST} folders deep, and what lies in its folders is left out")
                folders.clear()
    return result


def _lower_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return _composed(f"{stem}{dot}{ending.lower()}")


def _composed(name: str) -> str:
    """Return a name with each accent composed with its letter (Unicode NFC).

    In zips of macOS they are apart.
    """
    return unicodedata.normalize("NFC", name)


def _file(path: Path, folder: tuple[str, ...]) -> File:
    return File(path, folder, _composed(path.stem), path.suffix.lower())


def parent_of(folder: Path) -> Path:
    """Return the folder above, also of `.` and `..`, whose `Path.parent` is wrong."""
    return folder.parent if folder.name not in ("", "..") else folder / ".."


def pair(labels: Iterable[File], images: Iterable[File], named: Callable[[Path], str]) -> dict[File, File]:
    """Find the image of each annotation file, by its name without ending.

    An image in the same folder comes first. Then comes one in a folder that differs only by words such as `images`
    and `labels`; of several, that with more words for images, such as `dogs_images` and not `dogs`. Last comes the only
    image of that name, if it is not of another split and no other annotation file may claim it.

    Args:
        labels: The annotation files.
        images: The images.
        named: Function that reads the image's name from an annotation file. It is called if the file's own name finds
            no image, or several.

    Returns:
        Images by annotation file; files without an image are left out.
    """
    by_stem: dict[str, list[File]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    pairs: dict[File, File] = {}
    far: dict[File, list[File]] = defaultdict(list)
    for label in labels:
        candidates = by_stem.get(label.stem, [])
        if not candidates:
            told = Path(named(label.path).replace("\\", "/"))
            candidates = [image for image in by_stem.get(told.stem, []) if image.path.name == told.name]
        same = [image for image in candidates if image.folder == label.folder]
        alike = [image for image in candidates if bare(image.folder) == bare(label.folder)]
        kinds = [sum(holds(part, IMAGE_FOLDERS) for part in image.folder) for image in alike]
        alike = [image for image, number in zip(alike, kinds, strict=True) if number == max(kinds)]
        if best := same or alike:
            told_name = named(label.path) if len(best) > 1 else ""
            pairs[label] = next((image for image in best if image.path.name == told_name), best[0])
        elif len(candidates) == 1 and not are_apart(candidates[0].folder, label.folder):
            far[candidates[0]].append(label)
    taken = set(pairs.values())
    pairs |= {labels[0]: image for image, labels in far.items() if len(labels) == 1 and image not in taken}
    return pairs


def none_or_many(name: str, images: Sequence[Path]) -> str:
    """Return the message about a name that finds no image, or several."""
    several = f"there are {len(images)} images {name!r:.100}: open each folder alone"
    return several if images else f"there is no image {name!r:.100}"


def in_any_case(file: Path, root: Path) -> Path:
    """Find an existing file or folder by a path in another case.

    Case may differ in the folders below the root and in the file's ending, not in its name. If there is none, the path
    is returned with the cases that were found.
    """
    if file.exists() or not file.is_relative_to(root):
        return file
    found = root
    for part in file.relative_to(root).parts:
        names = _names(found, found.stat().st_mtime_ns) if found.is_dir() else {}
        other = names.get(_composed(f"{part.lower()}/")) or names.get(_lower_ending(part), part)
        found /= part if (found / part).exists() else other
    return found


@lru_cache(maxsize=64)
def _names(folder: Path, changed: int) -> dict[str, str]:
    """Return the names in a folder, by their spelling with folders and endings in lower case."""
    del changed  # It is part of the cache's key.
    with contextlib.suppress(PermissionError):  # A folder that may be entered, but not listed.
        return {
            _composed(f"{path.name.lower()}/") if path.is_dir() else _lower_ending(path.name): path.name
            for path in folder.iterdir()
        }
    return {}


def read_each(files: Iterable[File], pairs: dict[File, File], read: Callable[[Path, Path, list[str]], Item]) -> Records:
    """Read annotation files that have one image each; collect their problems.

    A file without an image, or that raises ValueError, is left out, with a message in `problems`.

    Args:
        files: The annotation files.
        pairs: Their images, as `pair` finds them.
        read: Function of an annotation file, its image, and the list of problems.
    """
    records = Records()
    for file in files:
        if file not in pairs:
            records.problems.append(f"{file.path}: there is no image {file.stem}.* beside it or in a folder of images")
            continue
        try:
            records.items.append(read(file.path, pairs[file].path, records.problems))
        except ValueError as error:
            records.problems.append(str(error).rstrip("."))
    return records


def unused_images(tree: Tree, used: Iterable[Path], what: str) -> list[str]:
    """Return a note, in a list, about images that no annotation uses.

    The list is empty if there are none. An image counts as used if a used one links to it.

    Args:
        tree: The data set.
        used: Paths of the used images.
        what: What the others lack, for the note.
    """
    taken = set(used)
    rest = [image.path for image in tree.images if image.path not in taken]
    linked = {os.path.realpath(path) for path in taken if path.is_symlink()} if rest else set()
    rest = [path for path in rest if os.path.realpath(path) not in linked] if linked else rest
    return [f"{some(rest, 'image')} without {what}, left out"] if rest else []


def merge_counts(records: Iterable[Records]) -> list[str]:
    """Return the names of all classes that have objects, sorted."""
    total: Counter[str] = Counter()
    for record in records:
        total += record.counted()
    return sorted(total)

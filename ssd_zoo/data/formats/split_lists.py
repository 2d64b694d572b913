"""Group files by split: by lists such as `train.txt`, or by folders."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ssd_zoo.data.annotations import some
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import File, Tree
from ssd_zoo.weights.outside import read_text

__all__ = ["by_split"]


def by_split(tree: Tree, files: Iterable[File], pairs: Mapping[File, File], notes: list[str]) -> dict[str, list[File]]:
    """Group files by split, which folders or lists of images tell.

    Lists such as `train.txt` decide if files lie outside folders of splits, or if several lists divide one folder. With
    neither lists nor such folders, all files are the split `all`.

    Args:
        tree: The data set.
        files: Its images, or its annotation files.
        pairs: The image of each file. A file without one goes to the training split, which reports it.
        notes: Messages about files that were not found or not used are added.

    Raises:
        ValueError: If there are no lists, and some files lie in such folders and others do not.
    """
    groups = dict[str, list[File]]()
    for file in files:
        groups.setdefault(next((part for part in file.folder if canonical_split(part)), "all"), []).append(file)
    found, missing = _lists(tree)
    told = ", ".join(f"{name}.txt" for name in found)
    if found and ("all" in groups or len(groups) == 1 < len(found)):
        every = [file for group in groups.values() for file in group]
        groups = {name: [file for file in every if file in pairs and pairs[file].path in found[name]] for name in found}
        groups[next(filter(_is_train, found))] += [file for file in every if file not in pairs]
        rest = sorted(set(every).difference(*groups.values()))
        notes += [f"{some([file.path for file in rest], 'file')} in none of {told}, left out"] if rest else []
        notes += missing
    elif found:
        notes.append(f"{told} not read, because folders are named as splits: {', '.join(sorted(groups))}")
    elif len(groups) == 1:
        lists = _files_of_lists(tree)
        if {canonical_split(file.stem) for file in lists} - set(map(canonical_split, groups)):
            notes.append(
                f"{some([file.path for file in lists], 'file')} may list the images of splits, and all images are one "
                "split; lists are read if there is a train.txt and the lines are paths of images"
            )
    if "all" in groups and len(groups) > 1:
        raise ValueError(
            f"{tree.root} has the splits {', '.join(sorted(set(groups) - {'all'}))} as folders, and "
            f"{some([file.path for file in groups['all']], 'labelled file')} outside them; move each file into the "
            "folder of a split."
        )
    return dict(sorted(groups.items()))


def _files_of_lists(tree: Tree) -> list[File]:
    """Return the text files that are named as splits, from the uppermost folders that have any.

    A file with the name of an image is its label, and left out.
    """
    stems = {image.stem for image in tree.images}
    files = [file for file in tree.files(".txt") if canonical_split(file.stem) and file.stem not in stems]
    depth = min((len(file.folder) for file in files), default=0)
    return [file for file in files if len(file.folder) == depth]


def _lists(tree: Tree) -> tuple[dict[str, set[Path]], list[str]]:
    """Read the lists of images by split, with notes about lines without an image.

    The lists lie in one folder, and most of their lines name an image. Without a list for training none is read,
    because the training images may be all those that no list names.
    """
    lists, notes = dict[str, set[Path]](), list[str]()
    files = _files_of_lists(tree)
    if len({file.folder for file in files}) != 1 or not any(_is_train(file.stem) for file in files):
        return lists, notes
    for file in files:
        try:
            lines = [line.strip() for line in read_text(file.path).splitlines() if line.strip()]
        except ValueError as error:
            notes.append(f"{str(error).rstrip('.')}, left out")
            continue
        images = [_image(tree, line) for line in lines]
        missing = [line for line, image in zip(lines, images, strict=True) if image is None]
        if len(missing) * 2 < len(lines):
            lists[file.stem] = set(filter(None, images))
        if missing:
            notes.append(f"{file.path} has {some(missing, 'line')} without an image here")
    return (lists, notes) if any(map(_is_train, lists)) else ({}, [])


def _is_train(name: str) -> bool:
    return canonical_split(name) == "train"


def _image(tree: Tree, line: str) -> Path | None:
    """Return the image that a line names, None if none; the path of its labels may follow on the line."""
    for name in (line.replace("\\", "/"), line.replace("\\", "/").split()[0]):
        if image := tree.image_named(name, Path(name).parts[:-1]):
            return image
    return None

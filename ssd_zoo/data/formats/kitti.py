"""Read annotations in KITTI's text files, one per image, of 15 columns."""

import re
from functools import partial
from pathlib import Path

from ssd_zoo.data.annotations import Item, Thing
from ssd_zoo.data.formats.split_lists import by_split
from ssd_zoo.data.formats.tree import Layout, Tree, pair, read_each, unused_images
from ssd_zoo.weights.outside import parse_number, quote, read_start, read_text

__all__ = ["find"]

_SNIFFED = 50
# A class name, which may have blanks, and 14 numbers, or 15 with a score.
_LINE = re.compile(r"([^\W\d]\S*(?:\s+[^\W\d]\S*)*)((?:\s+[-+.\deE]+){14,15})\s*")
# Regions whose objects nobody labelled.
_IGNORED = "dontcare"


def find(tree: Tree) -> Layout | None:
    """Recognise text files of a class name and 14 numbers; None if there is none among the first 50.

    Splits are folders such as `training/`. Regions `DontCare` and scores are ignored.
    """
    files = tree.files(".txt") if tree.file is None else []
    if not any(_is_kitti(file.path) for file in files[:_SNIFFED]):
        return None
    pairs = pair(files, tree.images, lambda _: "")
    files = [file for file in files if file in pairs or _is_kitti(file.path)]
    notes = unused_images(tree, (image.path for image in pairs.values()), "a text file")
    groups = by_split(tree, files, pairs, notes)
    splits = {name: partial(read_each, group, pairs, _item) for name, group in groups.items()}
    return Layout("KITTI", "text files with a class name and 14 numbers a line", splits, notes=notes)


def _is_kitti(file: Path) -> bool:
    return _LINE.fullmatch(read_start(file, 1000).partition("\n")[0].strip()) is not None


def _item(file: Path, image: Path, problems: list[str]) -> Item:
    things = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.split() or line.split()[0].lower() == _IGNORED:
            continue
        try:
            if match := _LINE.fullmatch(line.strip()):
                name, numbers = " ".join(match[1].split()), match[2].split()
            else:
                name, *numbers = line.split()
            if len(numbers) not in (14, 15):
                raise ValueError(f"expected a class name and 14 numbers, got {quote(line)}")
            x1, y1, x2, y2 = (parse_number(word, "a side of the box") for word in numbers[3:7])
            things.append(Thing(name, (x1, y1, x2, y2), number))
        except ValueError as error:
            problems.append(f"{file}:{number}: {str(error).rstrip('.')}")
    return Item(image, file, things)

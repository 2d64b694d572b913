"""Read annotations in WIDER FACE's text files of images and their faces."""

import re
from functools import partial
from pathlib import Path

from ssd_zoo.data.annotations import Item, Records, Thing
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import Layout, Tree, none_or_many, unused_images
from ssd_zoo.weights.outside import parse_number, quote, read_start, read_text

__all__ = ["find"]

_LARGEST = 2**30
_NAME = "face"
_START = r"\S[^\n]*\.\w+[ \t]*\n[ \t]*"
_HEAD = re.compile(rf"(?:{_START}0[ \t]*\n\s*)*{_START}\d+[ \t]*\n[ \t]*-?\d+(?:[ \t]+-?\d+){{9}}[ \t]*(?:\n|$)")


def find(tree: Tree) -> Layout | None:
    """Recognise text files such as `wider_face_train_bbx_gt.txt`; each is a split. None if there is none."""
    files = [file for file in tree.files(".txt") if _is_wider_face(file.path)]
    if not files:
        return None
    splits = {canonical_split(file.stem) or file.stem: partial(_read, file.path, tree) for file in files}
    lines = {(file.stem, line.strip()) for file in files for line in read_text(file.path, limit=_LARGEST).splitlines()}
    listed = (tree.image_named(line, (stem,)) for stem, line in lines if Path(line).suffix)
    notes = unused_images(tree, (image for image in listed if image), "a place in a list")
    return Layout("WIDER FACE", "text files with numbers of faces", splits, [_NAME], notes)


def _is_wider_face(file: Path) -> bool:
    return _HEAD.match(read_start(file, 2000).replace("\r", "")) is not None


def _read(file: Path, tree: Tree) -> Records:
    """Read boxes as x, y, width and height; faces that are marked invalid are difficult.

    Other invalid rows, and images that are not found, are left out, with a message in `problems`.

    Raises:
        ValueError: If a number of faces is missing, so that what follows is not clear.
    """
    records = Records(names=[_NAME])
    lines = read_text(file, limit=_LARGEST).splitlines()
    at = 0
    while at < len(lines):
        name, start = lines[at].strip(), at
        at += 1
        if not name:
            continue
        written = lines[at].strip() if at < len(lines) else ""
        if not written.isdecimal() or len(written) > 9:
            raise ValueError(f"{file}:{at + 1}: expected the number of faces of {name!r:.100}, got {quote(written)}.")
        # An image without faces is followed by a row of zeros, which some files lack.
        none = int(written) == 0 and (at + 1 == len(lines) or len(lines[at + 1].split()) != 10)
        rows = range(at + 1, min(at + 1 + (0 if none else max(int(written), 1)), len(lines)))
        at = rows.stop
        if len(rows) < int(written):
            records.problems.append(f"{file}:{start + 2}: {written} faces are announced, and {len(rows)} rows follow")
        elif int(written) == 0 and rows and set(lines[rows.start].split()) != {"0"}:
            records.problems.append(
                f"{file}:{rows.start + 1}: no face is announced, but a box follows: {lines[rows.start]:.100}"
            )
        images = tree.images_named(name, (file.stem,))
        if len(images) != 1:
            records.problems.append(f"{file}:{start + 1}: {none_or_many(name, images)}")
            continue
        things = []
        for row in rows if int(written) else []:
            try:
                things.append(_thing(lines[row], row + 1))
            except ValueError as error:
                records.problems.append(f"{file}:{row + 1}: {str(error).rstrip('.')}")
        records.items.append(Item(images[0], file, things))
    return records


def _thing(line: str, number: int) -> Thing:
    values = [parse_number(word, "each value") for word in line.split()]
    if len(values) != 10:
        raise ValueError(f"expected x, y, width, height and six marks, got {quote(line)}")
    x, y, width, height = values[:4]
    return Thing(_NAME, (x, y, x + width, y + height), number, difficult=values[7] == 1)

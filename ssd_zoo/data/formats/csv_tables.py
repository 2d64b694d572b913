"""Read annotations in CSV files with a row per box.

TensorFlow's tutorials, RetinaNet and Open Images have such tables.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssd_zoo.data.annotations import SIZE_OF_UNREADABLE, Box, Item, Records, Thing, are_fractions
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import File, Layout, Tree, none_or_many, unused_images
from ssd_zoo.data.images import size_if_readable
from ssd_zoo.weights.outside import parse_number, quote, read_start, read_text

__all__ = ["find"]

_LARGEST = 2**32
# Names of columns without case and underscores.
_COLUMNS = {
    "image": ("filename", "imageid", "imagepath", "image", "imagename", "path", "file", "img"),
    "name": ("class", "label", "classname", "labelname", "category", "name"),
    "x1": ("xmin", "x1", "left"),
    "y1": ("ymin", "y1", "top"),
    "x2": ("xmax", "x2", "right"),
    "y2": ("ymax", "y2", "bottom"),
}
# `isgroupof` marks boxes around groups of objects in Open Images.
_MORE = {"width": ("width", "imagewidth"), "height": ("height", "imageheight"), "group": ("isgroupof", "iscrowd")}
_YES = ("1", "1.0", "true")
_SEPARATORS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
# RetinaNet's files have no header.
_RETINANET = ("image", "x1", "y1", "x2", "y2", "name")


class _Table(NamedTuple):
    """A CSV file: its columns' numbers by meaning, the index of the first row of boxes, and the separator of cells."""

    file: File
    columns: dict[str, int]
    start: int
    separator: str


def find(tree: Tree) -> Layout | None:
    """Recognise CSV files of image, class and corners; each is a split. None if there is none.

    Raises:
        ValueError: If two files are the same split.
    """
    tables = [table for file in tree.files(".csv") if (table := _table(file))]
    if not tables:
        return None
    files = (file.path for file in tree.files(".csv")) if tree.file is None else tree.file.parent.glob("*.csv")
    spoken = {name: words for file in files for name, words in _descriptions(file)}
    splits: dict[str, _Table] = {}
    for table in tables:
        name = _split(table.file, alone=len(tables) == 1)
        if name in splits:
            raise ValueError(f"{splits[name].file.path} and {table.file.path} are both the split {name!r}; open one.")
        splits[name] = table
    readers = {name: partial(_read, table, tree, spoken, alone=len(tables) == 1) for name, table in splits.items()}
    return Layout("table", "CSV files with columns of image, class and corners", readers)


def _split(file: File, *, alone: bool) -> str:
    folder = next((part for part in file.folder if canonical_split(part)), None)
    words = file.stem.lower().replace("-", "_").split("_")
    word = next((word for word in words if canonical_split(word)), None)
    return folder or word or ("all" if alone else file.stem)


def _rows(file: Path, separator: str = ",") -> Iterator[list[str]]:
    rows = csv.reader(read_text(file, limit=_LARGEST).splitlines(), delimiter=separator)
    try:
        yield from rows
    except csv.Error as error:
        raise ValueError(f"{file}:{rows.line_num} is not CSV: {error}.") from error


def _table(file: File) -> _Table | None:
    """Recognise a table of boxes by its first lines; None for other files."""
    lines = read_start(file.path, 4096).replace("\0", "").splitlines()
    for separator in _SEPARATORS:
        row = next(csv.reader(lines[:1], delimiter=separator), [])
        header = [cell.strip().lower().replace("_", "") for cell in row]
        columns = {
            key: header.index(next(word for word in words if word in header))
            for key, words in _COLUMNS.items()
            if set(words) & set(header)
        }
        if len(columns) == len(_COLUMNS):
            # The last of the lines may be cut off.
            columns["name"] = _column_of_names(header, csv.reader(lines[1:-1] or lines[1:], delimiter=separator))
            more = {key: header.index(word) for key, words in _MORE.items() for word in words if word in header}
            return _Table(file, columns | more, 1, separator)
        if len(row) == 6 and (all(_is_number(cell, separator) for cell in row[1:5]) or not any(row[1:])) and row[0]:
            return _Table(file, {key: i for i, key in enumerate(_RETINANET)}, 0, separator)
    return None


def _column_of_names(header: list[str], rows: Iterable[list[str]]) -> int:
    """Return the column of class names.

    Of several, such as `class` with 2 and `label` with dog, it is the first that does not hold numbers.
    """
    columns = [header.index(word) for word in _COLUMNS["name"] if word in header]
    full = [row for row in rows if len(row) >= len(header)]
    return next((i for i in columns if not all(row[i].strip().isdigit() for row in full)), columns[0])


def _number(cell: str, what: str, separator: str) -> float:
    """Parse a number, which may have a decimal comma.

    Raises:
        ValueError: If it is not a number, or its comma may separate thousands.
    """
    if separator == "," and re.fullmatch(r"[1-9]\d{0,2},\d{3}", cell):
        raise ValueError(f"{what}, {quote(cell)}, may be a fraction or thousands; write a point or no comma")
    return parse_number(cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell, what)


def _is_number(cell: str, separator: str) -> bool:
    try:
        _number(cell, "the cell", separator)
    except ValueError:
        return False
    return True


def _descriptions(file: Path) -> Iterator[tuple[str, str]]:
    """Yield Open Images' codes of classes with their names, such as `/m/01g317` and `Person`.

    They stand in `class-descriptions-boxable.csv`, or in FiftyOne's `classes.csv`. In files of other names only codes
    that begin with "/" count.
    """
    if "class" in file.name:
        any_code = "class-descriptions" in file.name
        yield from ((row[0], row[1]) for row in _rows(file) if len(row) == 2 and (any_code or row[0].startswith("/")))


def _read(table: _Table, tree: Tree, spoken: dict[str, str], *, alone: bool) -> Records:
    file = table.file.path
    records = Records()
    rows: dict[str, list[tuple[int, list[str]]]] = {}
    for number, row in enumerate(_rows(file, table.separator), start=1):
        if number <= table.start or not any(row):
            continue
        if len(row) <= max(table.columns.values()):
            records.problems.append(f"{file}:{number}: the row has {len(row)} columns, too few")
        else:
            rows.setdefault(row[table.columns["image"]].strip(), []).append((number, row))
    stems: dict[str, list[str]] = {}
    for one in tree.images:
        stems.setdefault(one.stem, []).append(one.path.name)
    corners = [row[table.columns[key]] for group in rows.values() for _, row in group for key in _RETINANET[1:5]]
    commas = any(_DECIMAL_COMMA.fullmatch(cell.strip()) for cell in corners)
    taken: dict[Path, str] = {}
    for name, group in rows.items():
        images = _images_of(table, tree, name, stems)
        if len(images) != 1:
            records.problems.append(f"{file}:{group[0][0]}: {none_or_many(name, images)}")
            continue
        [image] = images
        if image in taken:
            records.problems.append(f"{file}:{group[0][0]}: {name!r:.100} and {taken[image]!r:.100} are one image")
            continue
        taken[image] = name
        things = []
        for number, row in group:
            try:
                cells = [row[table.columns[key]].strip() for key in _RETINANET[1:]]
                if commas and (cell := next((cell for cell in cells[:4] if "." in cell), None)):
                    raise ValueError(f"a corner, {quote(cell)}, has a point, and others have decimal commas; use one")
                crowd = "group" in table.columns and row[table.columns["group"]].strip().lower() in _YES
                things += [one._replace(iscrowd=crowd) for one in _things(cells, number, spoken, table.separator)]
            except ValueError as error:
                records.problems.append(f"{file}:{number}: {str(error).rstrip('.')}")
        records.items.append(Item(image, file, things, _size(table, group[0][1])))
    # As Open Images has them.
    if are_fractions(thing.box for item in records.items for thing in item.things):
        records.items = [_scaled(item) for item in records.items]
    if alone:  # If there are several tables, the others may have the other images.
        records.notes += unused_images(tree, (item.file for item in records.items), f"a row in {file.name}")
    return records


def _images_of(table: _Table, tree: Tree, name: str, stems: dict[str, list[str]]) -> list[Path]:
    """Return the images that a row may name; of several, those of the table's split.

    The name may lack its ending. `stems` holds the files' names by the name without ending.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    near = (*table.file.folder, _split(table.file, alone=False))
    files = [str(path), *dict.fromkeys(str(path.with_name(file)) for file in stems.get(path.name, ()))]
    found = [tree.images_named("/".join([*table.file.folder, file]), near) for file in files if path.name]
    return min(filter(None, found), key=len, default=[])


def _size(table: _Table, row: Sequence[str]) -> tuple[int, int] | None:
    """Return an image's (height, width) in pixels; None where the table does not tell it."""
    if not {"width", "height"} <= table.columns.keys():
        return None
    try:
        height, width = (_number(row[table.columns[key]], "the size", table.separator) for key in ("height", "width"))
    except ValueError:
        return None
    return round(height), round(width)


def _things(cells: Sequence[str], number: int, spoken: dict[str, str], separator: str) -> list[Thing]:
    """Return a row's object in a list, which is empty for a row without a box.

    RetinaNet has such rows for images without objects.

    Args:
        cells: The four corners and the class.
        number: Number of the line.
        spoken: Names of the classes by Open Images' code.
        separator: Separator of the table's cells.

    Raises:
        ValueError: If a corner is not a number, or the class is empty.
    """
    if not any(cells):
        return []
    x1, y1, x2, y2 = (_number(cell, "a corner", separator) for cell in cells[:4])
    if not cells[4]:
        raise ValueError("the class is empty")
    return [Thing(spoken.get(cells[4], cells[4]), (x1, y1, x2, y2), number)]


def _scaled(item: Item) -> Item:
    """Convert an image's boxes from fractions to pixels; an unreadable image counts as `SIZE_OF_UNREADABLE`."""
    size = size_if_readable(item.file)
    height, width = size or SIZE_OF_UNREADABLE

    def scale(box: Box) -> Box:
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    return item._replace(things=[thing._replace(box=scale(thing.box)) for thing in item.things], size=size or item.size)

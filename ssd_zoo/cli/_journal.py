"""Keep the results of many images while they are found, so that a killed command can go on."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple, TypedDict, cast

from typing_extensions import NotRequired

from ssd_zoo.weights.files import replacing
from ssd_zoo.weights.outside import listing, mapping, number, parse_json, text

__all__ = ["Found", "Journal", "JournalRow", "changed", "refuse_journal"]

Header = Mapping[str, object]
_BEGINNING = b'{"ssd_zoo"'


class Found(TypedDict):
    """A detection. `bbox` is x, y, width and height in the image's pixels."""

    category_id: int
    category: str
    bbox: list[float]
    score: float


class JournalRow(TypedDict):
    """Result of one image: its detections, or why it failed."""

    file_name: str
    changed: list[int]
    detections: NotRequired[list[Found]]
    error: NotRequired[str]


class _Place(NamedTuple):
    """Where a row stands in the file, and what decides whether its image is done."""

    start: int
    length: int
    changed: list[int]
    failed: bool


class Journal:
    """File of JSON Lines: one line with the options, then one line an image.

    A line is written at once, when its image is done. What a kill cut off is removed when the file is opened again.
    Memory holds the places of the lines, not their content.

    Args:
        file: Path of the file.
        header: What the results depend on. With other values the journal starts anew.

    Attributes:
        note: What was found: how many images are done, or why the journal starts anew.

    Raises:
        OSError: If the journal can't be read or written.
        ValueError: If a file that is not a journal has its name.
    """

    def __init__(self, file: Path, header: Header) -> None:
        self.file, self.note = file, ""
        self._places: dict[str, _Place] = {}
        self._first = f"{json.dumps(header)}\n".encode()
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as stream:
                differ = self._differences(stream.readline(), json.loads(self._first))
                if differ:
                    self.note = f"{file} is of another command ({', '.join(differ)}); starting anew."
                else:
                    self._find_rows(stream)
                    self.note = f"{file} has the results of {len(self._places)} images; going on."
        self.arrange(self._places)

    def _differences(self, line: bytes, header: Header) -> list[str]:
        if not line.endswith(b"\n") and line.startswith(_BEGINNING):
            return ["it was cut off"]
        try:
            old = parse_json(line.decode(errors="replace"), self.file)
        except ValueError:
            old = None
        if not isinstance(old, dict) or "ssd_zoo" not in old:
            raise ValueError(f"{self.file} is in the way: it is not a journal of ssd-zoo detect. Move it elsewhere.")
        return [f"{key} was {old.get(key)!s:.100}" for key, value in header.items() if old.get(key) != value]

    def _find_rows(self, stream: IO[bytes]) -> None:
        start = stream.tell()
        for line in stream:
            row = _row(line.decode(errors="replace")) if line.endswith(b"\n") else None
            if row is not None:
                self._places[row["file_name"]] = _Place(start, len(line), row["changed"], "error" in row)
            start += len(line)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the images that have rows."""
        return iter(self._places)

    def arrange(self, names: Iterable[str]) -> None:
        """Keep the rows of these images alone, in this order."""
        places: dict[str, _Place] = {}
        with replacing(self.file) as new:
            new.write(self._first)
            for name, line in self._lines(names):
                places[name] = self._places[name]._replace(start=new.tell(), length=len(line))
                new.write(line)
        self._places = places

    def _lines(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        names = list(names)
        if not names:
            return
        with self.file.open("rb") as old:
            for name in names:
                old.seek(self._places[name].start)
                yield name, old.read(self._places[name].length)

    def rows(self, names: Iterable[str]) -> Iterator[JournalRow]:
        """Read the rows of images, in the order of their names."""
        for _, line in self._lines(names):
            yield json.loads(line)

    def add(self, row: JournalRow) -> None:
        """Append the result of an image."""
        line = f"{json.dumps(row)}\n".encode()
        with self.file.open("ab", buffering=0) as stream:
            place = _Place(stream.tell(), len(line), row["changed"], "error" in row)
            if stream.write(line) != len(line):
                raise OSError(f"{self.file} can't be written: the disk may be full.")
        self._places[row["file_name"]] = place

    def is_done(self, file: Path | str) -> bool:
        """Check whether a file has detections and has not changed since; of other sources that is not known."""
        place = self._places.get(str(file)) if isinstance(file, Path) else None
        return place is not None and not place.failed and place.changed == changed(file)

    def drop(self, files: Iterable[Path | str]) -> None:
        """Remove the rows of files that are done again."""
        again = {str(file) for file in files} & self._places.keys()
        if again:
            self.arrange([name for name in self._places if name not in again])

    def remove(self) -> None:
        """Delete the journal."""
        self.file.unlink(missing_ok=True)


def refuse_journal(file: Path) -> None:
    """Raise ValueError if a file holds the results of images, which others would replace."""
    if file.is_file():
        with file.open("rb") as stream:
            if stream.read(len(_BEGINNING)) == _BEGINNING:
                raise ValueError(f"{file} is in the way: it holds the results of images. Move it elsewhere.")


def changed(file: Path | str) -> list[int]:
    """Return size and time of change of a file; zeros if it is gone, or is an address."""
    try:
        status = os.stat(file)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _row(line: str) -> JournalRow | None:
    """Read a row; one that is damaged does not count."""
    try:
        row = mapping(parse_json(line, "the row"), "the row")
        text(row.get("file_name"), "file_name")
        listing(row.get("changed"), "changed", shortest=2, longest=2)
        for one in listing(row.get("detections", []), "detections"):
            found = mapping(one, "a detection")
            box = listing(found.get("bbox"), "bbox", shortest=4, longest=4)
            for value in (*box, *(found.get(name) for name in ("score", "category_id"))):
                number(value, "a number")
            if found.keys() != Found.__annotations__.keys():
                return None
    except ValueError:
        return None
    return cast(JournalRow, row)

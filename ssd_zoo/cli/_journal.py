"""Keep results while they are found, so that a killed command resumes."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypedDict, TypeVar, cast

from typing_extensions import NotRequired

from ssd_zoo.cli._output import is_kept
from ssd_zoo.data.annotations import number_of
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction.facts import model_facts
from ssd_zoo.weights.files import replacing
from ssd_zoo.weights.outside import listing, mapping, number, parse_json, text

__all__ = ["Found", "FrameRow", "Journal", "JournalRow", "TrackedFound", "changed", "open_journal"]

Header = Mapping[str, object]
Source = TypeVar("Source", bound=Path | str | int)
_BEGINNING = b'{"ssd_zoo"'
# What the journal of videos has in its header, and that of images has not.
_OF_VIDEOS = "track"


class Found(TypedDict):
    """A detection. `bbox` is x, y, width and height in the image's pixels."""

    category_id: int
    category: str
    bbox: list[float]
    score: float


class TrackedFound(Found):
    """A detection in a video."""

    track_id: NotRequired[int]


class FrameRow(TypedDict):
    """Detections in one frame of a video. `time` is in seconds."""

    video: str
    frame: int
    time: float
    detections: list[TrackedFound]


class JournalRow(TypedDict):
    """Result of one image: its detections, or why it failed.

    For a video it follows the rows of the frames, and `frames` is their number.
    """

    file_name: str
    changed: list[int]
    detections: NotRequired[list[Found]]
    frames: NotRequired[int]
    error: NotRequired[str]


class _Place(NamedTuple):
    """A row of the journal: its place in the file, and the state of its image or video.

    `start` and `length` are bytes and include the frames' rows. `changed` is what `changed` returned before detection.
    """

    start: int
    length: int
    changed: list[int]
    failed: bool


class Journal:
    """Results of a command as JSON Lines, from which it can resume.

    The first line holds the options. Then follows a line per image. Videos have a line per frame, and one at their end.
    A line is written as soon as its image or frame is done. If the command was killed, an incomplete line and the
    frames of an incomplete video are removed when the file is opened again. Memory holds the places of images and
    videos in the file, not their content.

    Args:
        file: Path of the file.
        header: What the results depend on. With other values the journal starts anew.

    Attributes:
        note: Sentence on what the file held: how many images or videos are done, or why the journal starts anew.

    Raises:
        OSError: If the journal can't be read or written.
        ValueError: If a file that is not a journal, or is one of videos instead of images, has its name.
    """

    def __init__(self, file: Path, header: Header) -> None:
        self.file, self.note = file, ""
        self._places: dict[str, _Place] = {}
        self._first, self._end = f"{json.dumps(header)}\n".encode(), 0
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as stream:
                differ = self._differences(stream.readline(), json.loads(self._first))
                if differ:
                    self.note = f"{file} is of another command ({', '.join(differ)}); starting anew."
                else:
                    frames = self._find_rows(stream)
                    self.note = f"{file} has the results of {_number(len(self._places), header)}; going on."
                    if frames:
                        self.note += f" A video of which it has {frames} frames starts anew."
        self.arrange(self._places)

    def _differences(self, line: bytes, header: Header) -> list[str]:
        """Return words about what differs between the file's first line and a header."""
        if not line.endswith(b"\n") and line.startswith(_BEGINNING):
            return ["it was cut off"]
        try:
            old = parse_json(line.decode(errors="replace"), self.file)
        except ValueError:
            old = None
        if not isinstance(old, dict) or "ssd_zoo" not in old:
            raise ValueError(f"{self.file} is in the way: it is not a journal of ssd-zoo detect. Move it elsewhere.")
        if (_OF_VIDEOS in old) != (_OF_VIDEOS in header):
            what = "videos" if _OF_VIDEOS in old else "images"
            raise ValueError(f"{self.file} is in the way: it holds the results of {what}. Move it elsewhere.")
        differ = [key for key, value in header.items() if old.get(key) != value]
        return [f"{key} was {old[key]!s:.100}" if key in old else f"{key} is not told" for key in differ]

    def _find_rows(self, stream: IO[bytes]) -> int:
        """Note the places of all rows; return the number of frames of a video that had not ended."""
        start = first = stream.tell()
        frames = 0
        for line in stream:
            if not line.endswith(b"\n"):
                break
            end = start + len(line)
            row = _row(line.decode(errors="replace"))
            if row is not None and "frame" in row:
                frames += 1
            else:
                # If a line of a frame is damaged, the number does not match, and the video counts as not done.
                if row is not None and row.get("frames", 0) == frames:
                    self._places[row["file_name"]] = _Place(first, end - first, row["changed"], "error" in row)
                first, frames = end, 0
            start = end
        return frames

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the images or videos that have rows."""
        return iter(self._places)

    def arrange(self, names: Iterable[str]) -> None:
        """Rewrite the file with only the rows of these images or videos, in this order."""
        places: dict[str, _Place] = {}
        with replacing(self.file) as new:
            new.write(self._first)
            self._end = new.tell()
            for name, line in self._lines(names):
                start = places[name].start if name in places else self._end
                self._end += new.write(line)
                places[name] = self._places[name]._replace(start=start, length=self._end - start)
        self._places = places

    def _lines(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the lines of images or videos, each with the name, in the order of the names."""
        names = list(names)
        if not names:
            return
        with self.file.open("rb") as old:
            for name in names:
                place = self._places[name]
                rest = old.seek(place.start) + place.length
                while old.tell() < rest and (line := old.readline()):
                    yield name, line

    def rows(self, names: Iterable[str]) -> Iterator[JournalRow]:
        """Read the rows of images or videos, those of frames included, in the order of the names."""
        for _, line in self._lines(names):
            yield json.loads(line)

    def frames(self, names: Iterable[str]) -> Iterator[FrameRow]:
        """Read the rows of frames in the order of the videos' names."""
        for row in self.rows(names):
            if "frame" in row:
                yield cast(FrameRow, row)

    def write(self, row: FrameRow) -> None:
        """Append a frame's result; the row of its video comes later."""
        self._append(row)

    def add(self, row: JournalRow) -> None:
        """Append the result of an image or of a whole video."""
        end = self._append(row)
        self._places[row["file_name"]] = _Place(self._end, end - self._end, row["changed"], "error" in row)
        self._end = end

    def _append(self, row: Mapping[str, object]) -> int:
        """Append a line; return where it ends."""
        line = f"{json.dumps(row)}\n".encode()
        with self.file.open("ab", buffering=0) as stream:
            start = stream.tell()
            if stream.write(line) != len(line):
                stream.truncate(start)
                raise OSError(f"{self.file} can't be written: the disk may be full.")
            return stream.tell()

    def is_done(self, file: object) -> bool:
        """Return whether a file's result is in the journal and still valid.

        It is False if detection failed, or if the file's size or time of change differs from before detection. A result
        without objects counts. It is False for all that is not a `Path`, such as addresses.
        """
        place = self._places.get(str(file)) if isinstance(file, Path) else None
        return place is not None and not place.failed and place.changed == changed(file)

    def drop(self, files: Iterable[object]) -> None:
        """Remove the rows of files in which the command will detect again."""
        again = {str(file) for file in files} & self._places.keys()
        if again:
            self.arrange([name for name in self._places if name not in again])

    def remove(self) -> None:
        """Delete the journal."""
        self.file.unlink(missing_ok=True)


def _number(number: int, header: Header) -> str:
    return number_of(number, "video" if _OF_VIDEOS in header else "image")


def open_journal(
    model: SSD, args: argparse.Namespace, sources: Sequence[Source], targets: Mapping[Source, Path], **more: object
) -> tuple[Journal | None, Sequence[Source]]:
    """Open the journal of a command, and say in a line what it holds.

    It is the file of results itself if that is JSON Lines, else a file beside it until the results are whole.

    Args:
        model: The detector.
        args: The command's arguments.
        sources: Its images or videos.
        targets: The annotated picture or video of each, where one is asked for.
        **more: What its results depend on beyond the model, the classes and the folder of pictures.

    Returns:
        The journal, without what has to be done again; None if there is no file of results, or it is a stream.
        The sources that are not done.
    """
    target = next((file for file in (args.json, args.parquet, args.csv) if file is not None and is_kept(file)), None)
    if target is None:
        return None, sources
    header = {
        **model_facts(model, args.model),
        "classes": args.classes,
        "output": None if args.output is None else str(args.output),
        **more,
    }
    journal = Journal(target if target.suffix.lower() == ".jsonl" else target.with_name(f"{target.name}.jsonl"), header)
    todo = [
        source
        for source in sources
        if not journal.is_done(source) or (source in targets and not targets[source].is_file())
    ]
    note = journal.note if todo else f"{journal.file} has the results of {_number(len(sources), header)}; all is done."
    if note:
        print(f"ssd-zoo: {note}", file=sys.stderr)
    journal.drop(todo)
    return journal, todo


def changed(file: object) -> list[int]:
    """Return the size in bytes and the time of the last change (ns) of a file.

    For a folder they are the sum and the latest of its files. Zeros if it is gone, or not a path.
    """
    if not isinstance(file, Path):
        return [0, 0]
    try:
        entries = os.scandir(file) if file.is_dir() else ()
        found = [os.stat(file), *(entry.stat(follow_symlinks=False) for entry in entries)]
    except OSError:
        return [0, 0]
    return [sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)]


def _row(line: str) -> JournalRow | None:
    """Read a row of the journal; None if it is damaged."""
    try:
        row = mapping(parse_json(line, "the row"), "the row")
        if "frame" not in row:
            # What stands for bytes of a name that are not UTF-8 is not a text.
            name = row.get("file_name")
            text(os.fsencode(name).decode(errors="replace") if isinstance(name, str) else name, "file_name")
            listing(row.get("changed"), "changed", shortest=2, longest=2)
        for one in listing(row.get("detections", []), "detections"):
            found = mapping(one, "a detection")
            box = listing(found.get("bbox"), "bbox", shortest=4, longest=4)
            for value in (*box, *(found.get(name) for name in ("score", "category_id"))):
                number(value, "a number")
            if found.keys() - {"track_id"} != Found.__annotations__.keys():
                return None
    except ValueError:
        return None
    return cast(JournalRow, row)

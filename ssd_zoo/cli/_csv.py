"""Write results as CSV for spreadsheets, with a row per object."""

import codecs
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from ssd_zoo.cli._journal import FrameRow, JournalRow, TrackedFound
from ssd_zoo.weights.files import replacing

__all__ = ["write_csv"]

_OF_VIDEOS = ("frame", "time", "track")


def write_csv(rows: Iterable[JournalRow], file: Path, *, of_videos: bool) -> None:
    """Write results to a CSV file, atomically.

    An image or frame without objects has a row without a class. One that failed has its reason under `error`.

    Args:
        rows: Rows of a journal; those of frames come before that of their video.
        file: Path of the file. It begins with a byte order mark, by which Excel recognises UTF-8.
        of_videos: Whether there are columns for frame, time and track.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """
    places = _OF_VIDEOS if of_videos else ()
    with replacing(file) as stream:
        # File names may have bytes that are not UTF-8.
        text = codecs.getwriter("utf-8-sig")(stream, "backslashreplace")
        writer = csv.DictWriter(text, ["file", *places, "class", "score", "x1", "y1", "x2", "y2", "error"])
        writer.writeheader()
        for row in rows:
            writer.writerows(_lines(row))


def _lines(row: JournalRow) -> Iterator[dict[str, object]]:
    """Yield the lines of an image, a frame or a video; none of a video that was read to its end."""
    if "frame" in row:
        frame = cast(FrameRow, row)
        place: dict[str, object] = {"file": frame["video"], "frame": frame["frame"], "time": frame["time"]}
    else:
        place = {"file": row["file_name"], "error": row.get("error", "")}
    found = cast(list[TrackedFound], row.get("detections", []))
    for one in found:
        x, y, width, height = one["bbox"]
        corners = {"x1": x, "y1": y, "x2": round(x + width, 2), "y2": round(y + height, 2)}
        track = {"track": one["track_id"]} if "track_id" in one else {}
        yield {**place, **track, "class": one["category"], "score": one["score"], **corners}
    if not found and ("detections" in row or "error" in row):
        yield place

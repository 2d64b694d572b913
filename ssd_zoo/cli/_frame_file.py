"""Write videos' detections as JSON or JSON Lines, frame by frame."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from torch import Tensor

from ssd_zoo.cli._journal import FrameRow, TrackedFound
from ssd_zoo.cli._output import opened
from ssd_zoo.data import Frame
from ssd_zoo.prediction.results import result_rows

__all__ = ["Detections", "FrameFile", "frame_row"]

Detections = dict[str, Tensor]
# What comes before the first object, between two, after the last one, and instead of all.
_LIST, _LINES = ("[\n", ",\n", "\n]\n", "[]\n"), ("", "\n", "\n", "")


def frame_row(video: str, frame: Frame, found: Detections, categories: Sequence[str]) -> FrameRow:
    """Return a frame's detections as a row of JSON Lines.

    `bbox` is x, y, width and height in the frame's pixels. Detections without a track have no `track_id`.
    """
    rows = result_rows(found, categories, frame.number, video)
    tracks = found["track_ids"].tolist() if "track_ids" in found else [-1] * len(rows)
    detections: list[TrackedFound] = []
    for row, track in zip(rows, tracks, strict=True):
        one: TrackedFound = {
            "category_id": row["category_id"],
            "category": row["category"],
            "bbox": row["bbox"],
            "score": row["score"],
        }
        detections.append({**one, "track_id": track} if track >= 0 else one)
    return {"video": video, "frame": frame.number, "time": round(frame.time, 3), "detections": detections}


class FrameFile:
    """File of videos' detections: a JSON list of frames, or JSON Lines.

    It is written during detection. The list is closed at the end of the with-statement, also if another part failed.

    Args:
        file: Path of the file, JSON Lines if it ends with `.jsonl` (in any letter case); `-` is the standard output.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """

    def __init__(self, file: Path) -> None:
        self._open, self._failed = ExitStack(), False
        before, self._between, self._end, self._nothing = _LINES if file.suffix.lower() == ".jsonl" else _LIST
        self._before_next, self._empty = before, True
        self._stream = self._open.enter_context(opened(file))

    def write(self, row: FrameRow) -> None:
        """Append a frame's object."""
        self._write(self._before_next + json.dumps(row))
        self._before_next, self._empty = self._between, False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text.encode())
        except OSError as error:
            self._failed = True
            self._open.__exit__(type(error), error, error.__traceback__)
            raise

    def __enter__(self) -> "FrameFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._failed:
            self._write(self._nothing if self._empty else self._end)
            self._open.close()

"""Write the detections of videos as JSON, frame by frame."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from torch import Tensor

from ssd_zoo.cli._output import opened
from ssd_zoo.data import Frame
from ssd_zoo.prediction.results import result_rows

__all__ = ["Detections", "FrameFile"]

Detections = dict[str, Tensor]


class FrameFile:
    """JSON list with one object per frame, written during detection.

    The list is completed on exit, also after an error of another kind.

    Args:
        file: Path of the file; `-` is the standard output.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """

    def __init__(self, file: Path) -> None:
        self._open, self._before_next, self._failed = ExitStack(), "[\n", False
        self._stream = self._open.enter_context(opened(file))

    def write(self, video: str, frame: Frame, found: Detections, categories: Sequence[str]) -> None:
        """Append a frame's object."""
        rows = result_rows(found, categories, frame.number, video)
        tracks = found["track_ids"].tolist() if "track_ids" in found else [-1] * len(rows)
        detections = [
            {key: row[key] for key in ("category_id", "category", "bbox", "score")}
            | ({"track_id": track} if track >= 0 else {})
            for row, track in zip(rows, tracks, strict=True)
        ]
        content = {"video": video, "frame": frame.number, "time": round(frame.time, 3), "detections": detections}
        self._write(self._before_next + json.dumps(content))
        self._before_next = ",\n"

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
            self._write("[]\n" if self._before_next == "[\n" else "\n]\n")
            self._open.close()

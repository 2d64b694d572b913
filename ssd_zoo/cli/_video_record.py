"""The results of one video: tracks, summary, annotated video and JSON."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssd_zoo.cli._frame_file import Detections, FrameFile, frame_row
from ssd_zoo.cli._journal import Journal
from ssd_zoo.data import Frame, Video, VideoWriter, draw_detections
from ssd_zoo.detector.ssd import SSD

if TYPE_CHECKING:
    from ssd_zoo.video import Tracker

__all__ = ["Noted", "VideoRecord"]

Noted = tuple[Frame, Detections]
"""A frame and its detections, with tracks."""


class VideoRecord:
    """Outputs of the detections in one video.

    At the end of the with-statement the annotated video is closed.

    Args:
        model: The detector.
        video: The video.
        chosen: Filter of a frame's detections.
        track: Score from which tracks start; None to track nothing.
        picture_file: Path of the annotated video to write; None for none.
        frame_file: Journal or JSON file to write detections to; None for none.

    Attributes:
        writer: The annotated video; None without one.
        frames: Number of frames that are written.
        late: Number of frames that were left out because newer ones had come.
    """

    def __init__(
        self,
        model: SSD,
        video: Video,
        chosen: Callable[[Detections], Detections] = lambda found: found,
        track: float | None = None,
        picture_file: Path | None = None,
        frame_file: Journal | FrameFile | None = None,
    ) -> None:
        self.video, self.late = video, 0
        self.writer: VideoWriter | None = None
        self._size: tuple[int, int] | None = None
        self._chosen, self._frame_file, self._categories = chosen, frame_file, model.categories
        self._tracker = None if track is None else _tracker(video, track)
        self._open, self._picture_file = ExitStack(), picture_file
        self.frames, self._frames_with = 0, Counter[str]()

    def __enter__(self) -> "VideoRecord":
        if self._picture_file is not None:
            self.writer = self._open.enter_context(VideoWriter(self._picture_file, fps=self.video.fps))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def note(self, frame: Frame, found: Detections) -> Noted:
        """Filter and track a frame's detections; frames must come in their order."""
        found = self._chosen(found)
        if self._tracker is not None:
            found["track_ids"] = self._tracker.update(found, frame.time)
        return frame, found

    def draw(self, noted: Noted) -> Noted:
        """Draw detections on a frame, if there is an annotated video; otherwise return it unchanged."""
        frame, found = noted
        if self.writer is None:
            return noted
        drawn = draw_detections(frame.pixels, found, self._categories)
        # Streams may change their size, and the frames of a folder may differ; a file has one size.
        self._size = self._size or drawn.size
        drawn = drawn if drawn.size == self._size else drawn.resize(self._size)
        return frame._replace(pixels=torch.from_numpy(np.array(drawn)).permute(2, 0, 1)), found

    def write(self, noted: Noted) -> None:
        """Write a frame that is drawn, and its detections.

        Raises:
            OSError: If the annotated video or the JSON file can't be written.
        """
        frame, found = noted
        if self.writer is not None:
            self.writer.write(frame.pixels, time=frame.time, duration=frame.duration)
        if self._frame_file is not None:
            self._frame_file.write(frame_row(self.video.name, frame, found, self._categories))
        self.frames += 1
        self._frames_with.update({self._categories[label] for label in found["labels"].tolist()})

    def summary(self) -> str:
        """Return a line with the number of frames, and of those in which each class was found."""
        parts = [f"{category} in {count}" for category, count in self._frames_with.most_common()] or ["no objects"]
        if self._tracker is not None:
            parts.append(f"{len(self._tracker)} track{'' if len(self._tracker) == 1 else 's'}")
        if self.late:
            parts.insert(0, f"{self.late} late one{'' if self.late == 1 else 's'} left out")
        return f"{self.video.name}: {self.frames} frame{'' if self.frames == 1 else 's'}, {', '.join(parts)}"


def _tracker(video: Video, score_thresh: float) -> "Tracker":
    # It imports training, for metrics; photos need neither.
    from ssd_zoo.video import Tracker

    return Tracker(fps=video.fps, score_thresh=score_thresh)

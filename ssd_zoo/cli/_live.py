"""Detect in several cameras at once, in batches of their newest frames."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import torch

from ssd_zoo.cli._frame_file import Detections
from ssd_zoo.cli._video_record import Noted, VideoRecord
from ssd_zoo.data import Frame
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction.pipeline import take_ahead

__all__ = ["detect_live"]

State = dict[str, torch.Tensor]


def detect_live(model: SSD, records: Sequence[VideoRecord]) -> list[tuple[str, str | None]]:
    """Detect in live videos until all of them end, or until Ctrl-C.

    A frame that still waits when the next one of its camera comes is left out, and counted. Each camera has a thread
    that decodes, one thread detects, and the caller's draws, encodes and writes.

    Returns:
        Of each video its summary in one line, and the error if it broke off, or None.

    Raises:
        OSError: If an annotated video or the JSON file can't be written.
    """
    streams = _Streams(records)
    with ExitStack() as stack:
        stack.callback(streams.stop)
        for record in records:
            stack.enter_context(record)
        # Without the streams' end, detecting would wait for another frame.
        ahead = take_ahead(_detect(model, records, streams), ahead=2 * len(records), stop=streams.stop)
        found = stack.enter_context(closing(ahead))
        try:
            for record, noted in found:
                record.write(record.draw(noted))
        except KeyboardInterrupt:  # The regular end of cameras.
            pass
    for record, late in zip(records, streams.late, strict=True):
        record.late = late
    return [(record.summary(), failure) for record, failure in zip(records, streams.failures, strict=True)]


def _detect(model: SSD, records: Sequence[VideoRecord], streams: "_Streams") -> Iterator[tuple[VideoRecord, Noted]]:
    """Detect in the newest frames of all streams."""
    states = _States(model)
    for newest in streams:
        found = states.detect([i for i, _ in newest], [frame.pixels for _, frame in newest])
        for (i, frame), one in zip(newest, found, strict=True):
            yield records[i], records[i].note(frame, one)


class _States:
    """A model's state of each stream."""

    def __init__(self, model: SSD) -> None:
        self._model, self._of_stream, self._first = model, dict[int, State](), None

    @torch.inference_mode()
    def detect(self, streams: Sequence[int], frames: Sequence[torch.Tensor]) -> list[Detections]:
        """Detect in the next frame of some streams.

        `frames` are `(in_chans, H, W)`, one for each of the `streams` (indices). Detections are on the CPU.
        """
        from ssd_zoo.video import reset_streams

        state = None
        if self._of_stream:
            known = next(iter(self._of_stream.values()))
            rows = [self._of_stream.get(i) or reset_streams(known, [0]) for i in streams]
            state = {key: torch.cat([row[key] for row in rows]) for key in known}
        device = self._model.default_boxes.device
        found, state = self._model.step([frame.to(device) for frame in frames], state)
        for row, i in enumerate(streams):
            self._of_stream[i] = {key: value[row : row + 1] for key, value in state.items()}
        return [{key: value.cpu() for key, value in one.items() if key != "frame_index"} for one in found]


class _Streams:
    """The newest frames of streams, each read by a thread.

    Iteration waits for new frames, and yields those of all streams that have one, with the streams' indices.

    Attributes:
        late: Number of frames that were left out, by stream.
        failures: Why each stream broke off, or None.
    """

    def __init__(self, records: Sequence[VideoRecord]) -> None:
        self.late = [0] * len(records)
        self.failures: list[str | None] = [None] * len(records)
        self._newest: dict[int, Frame] = {}
        self._running, self._stopped = len(records), False
        self._changed = threading.Condition()
        for i, record in enumerate(records):
            threading.Thread(target=self._read, args=(i, record), daemon=True).start()

    def _read(self, i: int, record: VideoRecord) -> None:
        try:
            for frame in record.video.with_times():
                with self._changed:
                    if self._stopped:
                        break
                    self.late[i] += i in self._newest
                    self._newest[i] = frame
                    self._changed.notify()
        except (ValueError, OSError) as error:
            self.failures[i] = str(error)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def __iter__(self) -> Iterator[list[tuple[int, Frame]]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or not self._running or self._stopped)
                newest, self._newest = sorted(self._newest.items()), {}
            if not newest or self._stopped:
                return
            yield newest

    def stop(self) -> None:
        """End the threads and the iteration."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

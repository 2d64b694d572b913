"""Write videos."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, cast

import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.data.video import MISSING
from ssd_zoo.data.video_decoding import error_reason
from ssd_zoo.weights.files import replacing

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["VideoWriter"]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi", ".ts": "mpegts"}
# Frames of 25, 30, 24 and 30000/1001 Hz last a whole number of such ticks.
_TICKS = 60_000


class VideoWriter:
    """Video file for writing frames, encoded by PyAV as H.264, or as MPEG-4 if x264 is missing.

    The extension, in any letter case, determines the container format: .mp4, .m4v, .mov, .mkv, .avi or .ts. The file is
    there once it is closed; until then, and if it can't be written, an older file stays.

    It is a context manager that closes the file, also after an error.

    Args:
        file: Path of the file.
        fps: Frames per second, for frames without a time.

    Raises:
        ImportError: If PyAV is not installed.
        ValueError: If the extension is another one.
        OSError: If the file can't be written. The message names it.
    """

    def __init__(self, file: str | Path, *, fps: float) -> None:
        if find_spec("av") is None:
            raise ImportError(MISSING)
        import av

        self._path, self._fps = Path(file), fps
        kind = _FORMATS.get(self._path.suffix.lower())
        if kind is None:
            raise ValueError(f"{file} can't be written as a video: its extension must be {', '.join(_FORMATS)}.")
        self._open, self._failed = contextlib.ExitStack(), False
        try:
            self._output = _Output(self._open.enter_context(replacing(self._path)))
        except OSError as error:
            raise OSError(f"{file} can't be written: {error_reason(error)}.") from error
        self._container = av.open(self._output, mode="w", format=kind)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        rate = Fraction(fps).limit_denominator(1001 * 60)
        # bf=0: no frame refers to later ones, so the last packet is the last frame. crf=18 looks lossless in x264.
        options = {"bf": "0", "crf": "18"}
        self._stream = cast("VideoStream", self._container.add_stream(codec, rate=rate, options=options))
        self._stream.pix_fmt = "yuv420p"
        # AVI has one duration for all frames.
        self._tick = 1 / rate if kind == "avi" else Fraction(1, _TICKS)
        self._stream.codec_context.time_base = self._stream.time_base = self._tick
        self._size: tuple[int, int] | None = None
        self._written = 0
        self._last, self._duration = -1, 1

    def write(self, frame: Tensor, *, time: float | None = None, duration: float | None = None) -> None:
        """Append a frame.

        Args:
            frame: RGB, uint8 `(3, H, W)`, all of one size. Odd sides become even: the last row or column is repeated.
            time: When it is shown, in seconds; by default frames follow each other at `fps`.
            duration: For how many seconds it is shown if it is the last frame.

        Raises:
            OSError: If the file can't be written. An older file stays.
            ValueError: If the frame has another size than those before.
        """
        import av

        if self._size is None:
            self._size = (frame.shape[-2], frame.shape[-1])
            self._stream.height, self._stream.width = (side + side % 2 for side in self._size)
        if frame.shape[-2:] != self._size:
            (height, width), (other, wide) = self._size, frame.shape[-2:]
            raise ValueError(
                f"{self._path} has frames of {height} × {width} pixels, and this one has {other} × {wide}. "
                "Resize it, or write it to another file."
            )
        # The pixel format yuv420p halves the resolution of colours, so sides must be even.
        pads = (0, self._stream.width - self._size[1], 0, self._stream.height - self._size[0])
        padded = F.pad(frame.unsqueeze(0).float(), pads, mode="replicate")[0].byte() if any(pads) else frame
        picture = av.VideoFrame.from_ndarray(padded.permute(1, 2, 0).contiguous().cpu().numpy(), format="rgb24")
        shown = self._written / self._fps if time is None else time
        self._last = picture.pts = max(round(shown / self._tick), self._last + 1)
        picture.time_base = self._tick
        self._duration = max(1, round((duration or 1 / self._fps) / self._tick))
        self._written += 1
        with self._failing():
            self._mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write buffered frames, and put the file in its place.

        Without any frame an older file stays.

        Raises:
            OSError: If the file can't be written. An older file stays.
        """
        if self._failed:
            return
        if self._size is None:
            self._discard(EOFError("no frame was written"))
            return
        with self._failing():
            self._mux(self._stream.encode())
            self._container.close()
            self._output.check()
            self._open.close()

    def _mux(self, packets: "Sequence[Packet[VideoStream]]") -> None:
        for packet in packets:
            packet.duration = self._duration if packet.pts == self._last else packet.duration
            self._container.mux(packet)
        self._output.check()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Within a with-statement, turn errors into an OSError that names the file.

        The unfinished video is deleted.
        """
        import av

        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            self._discard(error)
            raise OSError(f"{self._path} can't be written: {error_reason(error)}.") from error

    def _discard(self, error: Exception) -> None:
        import av

        self._failed = True
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        with contextlib.suppress(OSError, type(error)):
            self._open.__exit__(type(error), error, error.__traceback__)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Output:
    """File that FFmpeg writes to; errors are kept, and raised by `check`.

    An error while FFmpeg writes, as on a full disk, would crash the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.name = file, file.name
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._try(lambda: self._file.write(data) and self._file.flush()) or len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._try(lambda: self._file.seek(offset, whence)) or 0

    def tell(self) -> int:
        return self._try(self._file.tell) or 0

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _try(self, call: Callable[[], int | None]) -> int | None:
        try:
            return call() if self._error is None else None
        except OSError as error:
            self._error = error
            return None

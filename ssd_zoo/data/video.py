"""Read and write videos: files, folders of frames, cameras."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.data.images import find_images, read_image

__all__ = ["Video", "VideoWriter", "frame_files", "open_camera", "open_video", "read_clip"]

_MISSING = 'Videos need PyAV or torchcodec: pip install "ssd_zoo[video]".'


@dataclass(frozen=True)
class Video:
    """Video as an iterable of frames, each RGB, uint8 `(3, H, W)`.

    Each iteration starts at the first frame. Iteration over a broken or truncated file yields the readable frames, then
    raises a ValueError with the reason.

    Attributes:
        name: Name in messages.
        fps: Frames per second.
        length: Approximate number of frames; None if unknown.
        frames: Function that opens the source and returns an iterator of its frames.
    """

    name: str
    fps: float
    length: int | None
    frames: Callable[[], Iterator[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the frames from the first."""
        return self.frames()


def open_video(source: str | Path, *, fps: float = 25.0) -> Video:
    """Open a video file, or a folder of frames.

    Files are read by PyAV, or by torchcodec if PyAV is not installed. All images of a folder are frames, in the order
    of the numbers in their names.

    Args:
        source: The file or the folder.
        fps: Frames per second of a folder.

    Raises:
        FileNotFoundError: If the file does not exist, or the folder holds no image.
        ValueError: If the file is not a readable video. The message names the file.
        ImportError: If neither PyAV nor torchcodec is installed.
    """
    path = Path(source)
    if path.is_dir():
        files = frame_files(path)
        return Video(str(source), fps, len(files), lambda: (read_image(file) for file in files))
    if not path.exists():
        raise FileNotFoundError(f"{source} is not a file or folder.")
    if find_spec("av") is not None:
        return _open_by_av(path)
    if find_spec("torchcodec") is not None:
        return _open_by_torchcodec(path)
    raise ImportError(_MISSING)


def frame_files(folder: Path) -> list[Path]:
    """List the frames of a folder, in the order of the numbers in their names."""
    return sorted(find_images([folder]), key=_by_numbers)


def open_camera(index: int = 0) -> Video:
    """Open a camera as a video without end.

    Args:
        index: Number of the camera, from 0.

    Raises:
        ValueError: If the camera does not exist or can't be opened.
        ImportError: If PyAV is not installed.
    """
    systems = {"linux": (f"/dev/video{index}", "v4l2"), "darwin": (str(index), "avfoundation")}
    file, kind = systems.get(sys.platform, (f"video={index}", "dshow"))
    return _open_by_av(Path(file), name=f"camera {index}", kind=kind)


def read_clip(source: str | Path | Video, frames: Sequence[int] | None = None) -> Tensor:
    """Read a video, or selected frames of it, into memory.

    Args:
        source: A file, a folder of frames, or a `Video`.
        frames: Indices of the frames from 0, in any order; by default all.

    Returns:
        RGB, uint8 `(T, 3, H, W)`.

    Raises:
        ValueError: If a frame does not exist, or the video can't be read.
    """
    video = source if isinstance(source, Video) else open_video(source)
    if frames is None:
        return torch.stack(list(video))
    wanted, found = set(frames), {}
    for i, frame in enumerate(video):
        if i in wanted:
            found[i] = frame
            if len(found) == len(wanted):
                break
    missing = wanted - found.keys()
    if missing or not wanted:
        raise ValueError(f"{video.name} has no frame {min(missing, default='')}.")
    return torch.stack([found[i] for i in frames])


class VideoWriter:
    """Video file for writing frames, encoded by PyAV.

    The extension determines the container format.

    Args:
        file: Path of the file.
        fps: Frames per second.

    Raises:
        ImportError: If PyAV is not installed.
        OSError: If the file can't be written.
    """

    def __init__(self, file: str | Path, *, fps: float) -> None:
        av = _import_av()
        try:
            self._container = av.open(str(file), mode="w")
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"{file} can't be written: {_reason(error)}.") from error
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001 * 60))
        self._stream.pix_fmt = "yuv420p"
        self._size: tuple[int, int] | None = None

    def write(self, frame: Tensor) -> None:
        """Append a frame.

        Args:
            frame: RGB, uint8 `(3, H, W)`. Frames are resized to the size of the first.
        """
        av = _import_av()
        if self._size is None:
            self._size = (frame.shape[-2], frame.shape[-1])
            self._stream.height, self._stream.width = (side + side % 2 for side in self._size)
        if frame.shape[-2:] != self._size:
            frame = F.interpolate(frame.unsqueeze(0).float(), self._size, mode="bilinear")[0].round().byte()
        # The pixel format yuv420p halves the resolution of colours, so sides must be even.
        pads = (0, self._stream.width - self._size[1], 0, self._stream.height - self._size[0])
        padded = F.pad(frame.unsqueeze(0).float(), pads, mode="replicate")[0].byte() if any(pads) else frame
        picture = av.VideoFrame.from_ndarray(padded.permute(1, 2, 0).contiguous().cpu().numpy(), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write buffered frames and close the file."""
        if self._size is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", file.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _open_by_av(path: Path, *, name: str | None = None, kind: str | None = None) -> Video:
    av = _import_av()
    name = name or str(path)
    try:
        with av.open(str(path), format=kind) as container:
            if not container.streams.video:
                raise ValueError(f"{name} holds no video.")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 25)
            seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
            length = stream.frames or round(seconds * fps) or None
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{name} is not a readable video: {_reason(error)}.") from error
    return Video(name, fps, None if kind else length, lambda: _frames_by_av(path, name, kind))


def _frames_by_av(path: Path, name: str, kind: str | None) -> Iterator[Tensor]:
    av = _import_av()
    given, broken, end = 0, "", 0.0
    with av.open(str(path), format=kind) as container, contextlib.ExitStack() as leaving:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        # Without the flush, closing early may deadlock: PyAV 16 waits for its threads while holding a lock they need.
        leaving.callback(stream.codec_context.flush_buffers)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                for frame in packet.decode():
                    if packet.is_corrupt or frame.is_corrupt:
                        broken = broken or f"the picture of frame {given} is damaged"
                    end = max(end, frame.time or 0.0)
                    given += 1
                    yield _upright(frame)
            except av.FFmpegError as error:
                broken = broken or _reason(error)
                if packet is None or isinstance(error, av.EOFError):
                    break
        missing = float(stream.duration * stream.time_base) - end if stream.duration and not kind else 0.0
    if not broken and missing > 0.25 + 2 / float(stream.average_rate or 25):
        broken = f"it lacks the last {missing:.1f} seconds"
    if broken:
        raise ValueError(f"{name} is broken or cut off, {given} frames could be read: {broken}.")


def _upright(frame: Any) -> Tensor:
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    # Phones store rotated frames, with the rotation as metadata.
    return torch.rot90(pixels, round(getattr(frame, "rotation", 0) / 90), (1, 2))


def _open_by_torchcodec(path: Path) -> Video:
    from torchcodec.decoders import VideoDecoder

    try:
        metadata = VideoDecoder(str(path)).metadata
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            raise ImportError(f"torchcodec finds no FFmpeg that it can use. {_MISSING}") from error
        raise ValueError(f"{path} is not a readable video: {_reason(error)}.") from error

    def frames() -> Iterator[Tensor]:
        decoder, i = VideoDecoder(str(path)), 0
        try:
            for i in range(len(decoder)):
                yield decoder[i]
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{path} is broken or cut off, {i} frames could be read: {_reason(error).splitlines()[0]}."
            ) from error

    return Video(str(path), metadata.average_fps or 25.0, metadata.num_frames, frames)

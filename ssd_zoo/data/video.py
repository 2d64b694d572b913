"""Read videos: files, addresses, folders of frames, cameras."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssd_zoo.data.images import MAX_PIXELS, find_images, read_image
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.outside import near_paths

__all__ = ["MISSING", "Frame", "Video", "frame_files", "is_address", "open_camera", "open_video", "read_clip"]

MISSING = 'Videos need PyAV or torchcodec: pip install "ssd_zoo[video]".'


class Frame(NamedTuple):
    """Frame of a video.

    Attributes:
        number: Number of the frame, from 0. Frames that a folder has, but that fail to be read, are counted.
        time: When it is shown, in seconds from the video's start.
        duration: For how many seconds it is shown; None if unknown.
        pixels: RGB, uint8 `(3, H, W)`.
    """

    number: int
    time: float
    duration: float | None
    pixels: Tensor


@dataclass(frozen=True)
class Video:
    """Video as an iterable of frames, each RGB, uint8 `(3, H, W)`.

    Each iteration starts at the first frame. Iteration over a broken or truncated file yields the readable frames, then
    raises a ValueError with the reason.

    Attributes:
        name: Name in messages.
        fps: Frames per second, on average.
        length: Approximate number of frames; None if unknown.
        frames: Function that opens the source and returns an iterator of its frames.
        timed: The same with number and time of each frame; by default frames follow each other at `fps`.
    """

    name: str
    fps: float
    length: int | None
    frames: Callable[[], Iterator[Tensor]]
    timed: Callable[[], Iterator[Frame]] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the frames from the first."""
        return self.frames()

    def with_times(self) -> Iterator[Frame]:
        """Iterate over the frames from the first, with number and time."""
        if self.timed is not None:
            return self.timed()
        return (Frame(i, i / self.fps, 1 / self.fps, frame) for i, frame in enumerate(self.frames()))


def timed_video(name: str, fps: float, length: int | None, timed: Callable[[], Iterator[Frame]]) -> Video:
    """Make a `Video` from a function that returns frames with their times.

    Arguments are the attributes of `Video`.
    """
    return Video(name, fps, length, lambda: (frame.pixels for frame in timed()), timed)


@with_near_keywords
def open_video(source: str | Path, *, fps: float = 25.0, max_pixels: int | None = MAX_PIXELS) -> Video:
    """Open a video file, an address, or a folder of frames.

    Files are read by PyAV, or by torchcodec if PyAV is not installed. All images of a folder are frames, in the order
    of the numbers in their names. Those that can't be read are left out, and named by the error at the end.

    Args:
        source: The file, the folder, or an address such as `https://…` or `rtsp://…`.
        fps: Frames per second of a folder; files have their own.
        max_pixels: Largest number of pixels of a frame; None for no limit.

    Raises:
        FileNotFoundError: If the file does not exist, or the folder holds no image.
        ValueError: If the file is not a readable video, or its frames are too large. The message names the file. A
            break in the file is an error only when its frames are read.
        ImportError: If neither PyAV nor torchcodec is installed.
    """
    from ssd_zoo.data.video_decoding import open_by_av, open_by_torchcodec

    if is_address(source):
        # Streams over the network may fall silent, so they get a timeout. torchcodec seeks, which cameras don't allow.
        if find_spec("av") is None and str(source).startswith("http"):
            return open_by_torchcodec(str(source), max_pixels)
        return open_by_av(str(source), str(source), timeout=30, max_pixels=max_pixels)
    path = Path(source)
    if path.is_dir():
        files = frame_files(path)
        return timed_video(str(source), fps, len(files), lambda: _frames_of_folder(path, files, fps, max_pixels))
    if not path.exists():
        raise FileNotFoundError(f"{source} is not a file or folder.{near_paths(path)}")
    if find_spec("av") is not None:
        # Without the protocol, FFmpeg takes what stands before a colon in a name for one.
        return open_by_av(f"file:{path}", str(path), max_pixels=max_pixels)
    return open_by_torchcodec(str(path), max_pixels)


def is_address(source: str | Path) -> bool:
    """Check whether a source is an address, such as `rtsp://…`."""
    return isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def frame_files(folder: Path) -> list[Path]:
    """List a folder's frames, sorted by the numbers in their names.

    Raises:
        FileNotFoundError: If the folder holds no image.
    """
    return sorted(find_images([folder]), key=_by_numbers)


@with_near_keywords
def open_camera(index: int = 0) -> Video:
    """Open a camera as a video without end.

    Args:
        index: Number of the camera, from 0.

    Raises:
        ValueError: If the camera does not exist or can't be opened.
        ImportError: If PyAV is not installed.
    """
    from ssd_zoo.data.video_decoding import open_by_av

    systems = {"linux": (f"/dev/video{index}", "v4l2"), "darwin": (str(index), "avfoundation")}
    file, kind = systems.get(sys.platform, (f"video={index}", "dshow"))
    return open_by_av(file, f"camera {index}", kind=kind)


@with_near_keywords
def read_clip(source: str | Path | Video, frames: Sequence[int] | None = None) -> Tensor:
    """Read a video, or selected frames of it, into memory.

    Args:
        source: A file, a folder of frames, or a `Video`.
        frames: Numbers of the frames from 0, in any order; by default all.

    Returns:
        RGB, uint8 `(T, 3, H, W)`, in the order of `frames`.

    Raises:
        FileNotFoundError: If the file does not exist, or the folder holds no image.
        ValueError: If a frame does not exist, none is asked for, or the video can't be read.
    """
    video = source if isinstance(source, Video) else open_video(source)
    if frames is None:
        return torch.stack(list(video))
    wanted, found = set(frames), {}
    for frame in video.with_times():
        if frame.number in wanted:
            found[frame.number] = frame.pixels
            if len(found) == len(wanted):
                break
    missing = wanted - found.keys()
    if missing or not wanted:
        raise ValueError(f"{video.name} has no frame {min(missing, default='')}.")
    return torch.stack([found[i] for i in frames])


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", file.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _frames_of_folder(folder: Path, files: Sequence[Path], fps: float, max_pixels: int | None) -> Iterator[Frame]:
    failures = []
    for i, file in enumerate(files):
        try:
            pixels = read_image(file, max_pixels=max_pixels)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            continue
        yield Frame(i, i / fps, 1 / fps, pixels)
    if failures:
        more = f" (and {len(failures) - 3} more)" if len(failures) > 3 else ""
        raise ValueError(f"{folder}: {len(failures)} of {len(files)} frames failed: {' '.join(failures[:3])}{more}")

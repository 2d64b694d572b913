"""Decode videos by PyAV or torchcodec, with the time of each frame."""

import contextlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ssd_zoo.data.video import MISSING, Frame, Video, timed_video

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from typing_extensions import Buffer

__all__ = ["error_reason", "open_by_av", "open_by_torchcodec"]

# Containers whose headers tell when a stream ends (mov is MP4, too), or when the last of all streams ends. FFmpeg's
# lengths of others are estimates.
_ENDS_OF_STREAMS, _END_OF_ALL = ("mov", "avi", "gif"), "matroska"


def error_reason(error: Exception) -> str:
    """Return an error's reason, without the name of a file."""
    reason = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return reason.splitlines()[0].rstrip(". ")


def open_by_av(
    address: str,
    name: str,
    *,
    kind: str | None = None,
    timeout: float | None = None,
    max_pixels: int | None = None,
) -> Video:
    """Open a video by PyAV.

    Without an average rate in the file, 25 frames per second are assumed. A device has no length.

    Args:
        address: What FFmpeg opens.
        name: Name in messages.
        kind: FFmpeg's name of a device's kind; by default it is no device.
        timeout: Seconds to wait for the network.
        max_pixels: Largest number of pixels of a frame; None for no limit.

    Raises:
        ValueError: If the video can't be read, or its frames are too large. The message names it.
        ImportError: If PyAV is not installed.
    """
    if find_spec("av") is None:
        raise ImportError(MISSING)
    with _opened(address, name, kind, timeout) as (container, stream):
        _check_size(name, stream.codec_context.width, stream.codec_context.height, max_pixels)
        fps = float(stream.average_rate or 25)
        seconds = _seconds(stream.duration, stream.time_base) or (container.duration or 0) / 1_000_000
        length = stream.frames or round(seconds * fps) or None
    return timed_video(
        name, fps, None if kind else length, lambda: _frames_by_av(address, name, kind, timeout, max_pixels)
    )


def _check_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"{name} can't be read: its frames have {width} × {height} pixels, and {max_pixels} are allowed; make it "
            "smaller, or allow more by max_pixels (--max-pixels)."
        )


@contextlib.contextmanager
def _opened(
    address: str, name: str, kind: str | None, timeout: float | None
) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    import av

    options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
    try:
        with av.open(address, format=kind, timeout=timeout, options=options) as container:
            yield container, _video_stream(container, name)
    except (av.FFmpegError, OSError) as error:
        if kind and isinstance(error, FileNotFoundError):
            raise ValueError(f"There is no {name}.") from error
        raise ValueError(f"{name} is not a readable video: {error_reason(error)}.") from error


def _video_stream(container: "InputContainer", name: str) -> "VideoStream":
    from av.stream import Disposition

    # The cover picture of a song is a stream of one picture.
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise ValueError(f"{name} holds no video.")
    if streams[0].codec_context is None:
        raise ValueError(f"{name} is in a video format that FFmpeg does not know; convert it to H.264.")
    return streams[0]


def _frames_by_av(
    address: str, name: str, kind: str | None, timeout: float | None, max_pixels: int | None
) -> Iterator[Frame]:
    import av

    number, time, last, broken = 0, 0.0, -1.0, ""
    with _opened(address, name, kind, timeout) as (container, stream), contextlib.ExitStack() as leaving:
        stream.thread_type = "AUTO"
        # Without the flush, closing early may deadlock: PyAV 16 waits for its threads while holding a lock they need.
        leaving.callback(stream.codec_context.flush_buffers)
        packets, start = container.demux(), stream.start_time
        step, ends = 1 / float(stream.average_rate or 25), {stream.index: 0.0}
        # Where packets do not tell their duration, the last frame's is a guess.
        tolerance = 0.25 + 2 * step
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.pts is not None:
                    end = _seconds(packet.pts + (packet.duration or 0), packet.time_base)
                    ends[packet.stream_index] = max(ends.get(packet.stream_index, 0.0), end)
                if packet.stream_index != stream.index:
                    continue
                if packet.duration:
                    tolerance = 0.05 + 1.5 * step
                for frame in packet.decode():
                    if not isinstance(frame, av.VideoFrame):
                        continue
                    _check_size(name, frame.width, frame.height, max_pixels)
                    if packet.is_corrupt or frame.is_corrupt:
                        broken = broken or f"the picture of frame {number} is damaged"
                    if frame.pts is None:
                        # A camera's first frame may have no time; the first that has one follows on it.
                        start = None if number == 0 else start
                    else:
                        begins = frame.pts - round(time / (frame.time_base or 1))
                        start = begins if start is None else start
                        shown = max(0.0, _seconds(frame.pts - start, frame.time_base))
                        # Times never go back. In joined files they begin anew, and the second follows on the first.
                        start = begins if shown < last - 1 else start
                        time = shown if shown > last else last + step / 10
                    last = time
                    yield Frame(number, time, _seconds(frame.duration, frame.time_base) or None, _upright(frame))
                    number, time = number + 1, time + step
            except av.FFmpegError as error:
                broken = broken or error_reason(error)
                if packet is None or isinstance(error, av.EOFError):
                    break
        missing = 0.0 if kind else _missing(container, stream, ends)
    if not broken and missing > tolerance:
        broken = f"it lacks the last {missing:.1f} seconds"
    if broken:
        raise ValueError(f"{name} is broken or cut off, {number} frames could be read: {broken}.")


def _missing(container: "InputContainer", stream: "VideoStream", ends: dict[int, float]) -> float:
    """Return how many seconds the data end before the duration in the header; 0 for formats without a reliable one.

    Args:
        container: The open file.
        stream: Its stream of pictures.
        ends: Where the data of each stream ended, in seconds, by index of the stream.
    """
    kind = container.format.name
    if stream.duration and kind.startswith(_ENDS_OF_STREAMS):
        return _seconds((stream.start_time or 0) + stream.duration, stream.time_base) - ends[stream.index]
    if container.duration and kind.startswith(_END_OF_ALL):
        return container.duration / 1_000_000 - max(ends.values())
    return 0.0


def _seconds(ticks: int | None, time_base: Fraction | None) -> float:
    return float(ticks * time_base) if ticks and time_base else 0.0


def _upright(frame: "av.VideoFrame") -> Tensor:
    """Turn and mirror a frame as its display matrix says.

    Phones store frames as their sensor lies.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y). FFmpeg, libavutil/display.h.
    """
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    try:
        matrix = cast("Buffer | None", frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        # PyAV does not know some kinds of data, such as EXIF of MJPEG, and then reads none; the angle it still tells.
        return pixels.rot90(round(frame.rotation / 90), (1, 2))
    if matrix is None:
        return pixels
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        along_x, along_y = a, d
    else:
        pixels, along_x, along_y = pixels.transpose(1, 2), c, b
    mirrored = [axis for axis, sign in ((1, along_y), (2, along_x)) if sign < 0]
    return pixels.flip(mirrored)


def open_by_torchcodec(address: str, max_pixels: int | None) -> Video:
    """Open a video by torchcodec.

    It can't mirror frames, nor tell that a Matroska file is cut off.

    Raises:
        ValueError: If the video can't be read, or its frames have more than `max_pixels` pixels.
        ImportError: If torchcodec, or the FFmpeg that it needs, is not installed.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise ImportError(MISSING) from error
    try:
        metadata = VideoDecoder(address).metadata
    except (RuntimeError, ValueError) as error:
        if "libtorchcodec" in str(error):
            raise ImportError(f"torchcodec finds no FFmpeg that it can use. {MISSING}") from error
        raise ValueError(f"{address} is not a readable video: {error_reason(error)}.") from error
    _check_size(address, metadata.width or 0, metadata.height or 0, max_pixels)
    fps = metadata.average_fps or 25.0

    def frames() -> Iterator[Frame]:
        decoder, i = VideoDecoder(address), 0
        start, end = metadata.begin_stream_seconds or 0.0, 0.0
        try:
            for i in range(len(decoder)):
                frame = decoder.get_frame_at(i)
                end = frame.pts_seconds - start + (frame.duration_seconds or 0)
                yield Frame(i, frame.pts_seconds - start, frame.duration_seconds or None, frame.data)
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{address} is broken or cut off, {i} frames could be read: {error_reason(error)}."
            ) from error
        missing = (metadata.duration_seconds_from_header or 0) - end
        if missing > 0.05 + 1.5 / fps:
            read = f"{i + 1} frames could be read"
            raise ValueError(f"{address} is broken or cut off, {read}: it lacks the last {missing:.1f} seconds.")

    return timed_video(address, fps, metadata.num_frames, frames)

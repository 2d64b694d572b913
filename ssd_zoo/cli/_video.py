"""Detect in videos frame by frame, with memory independent of their length."""

import argparse
import glob
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.cli._frame_file import Detections, FrameFile
from ssd_zoo.cli._output import is_standard_output, unused
from ssd_zoo.cli._track import Tracker
from ssd_zoo.data import Frame, Video, VideoWriter, draw_detections, image_endings, open_camera, open_video
from ssd_zoo.data.video import is_address
from ssd_zoo.data.web import file_name, is_image_address
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.video import detect_stream

__all__ = ["Source", "detect_video", "find_videos", "run_videos"]

_ENDINGS = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
            ".webm", ".wmv")  # fmt: skip
Source = Path | str | int
"""A file or folder, an address, or the number of a camera."""


def find_videos(sources: Sequence[str], *, frames: bool) -> list[Source]:
    """Find the videos among the sources.

    Args:
        sources: Files, folders, glob patterns, addresses, and numbers of cameras.
        frames: Whether folders are videos, too. Files are recognised by their extension, and GIFs by having several
            frames; addresses without an extension by what their server says.

    Raises:
        FileNotFoundError: If a video does not exist.
        ValueError: If videos are mixed with other sources, or `frames` is set and a source is not a video.
    """
    videos: list[Source] = []
    others: list[str] = []
    for source in sources:
        paths = [Path(source)] if Path(source).exists() else sorted(map(Path, glob.glob(source, recursive=True)))
        if not paths and is_address(source):
            (others if is_image_address(source, image_endings()) else videos).append(source)
            continue
        if not paths and source.isdecimal():
            videos.append(int(source))
            continue
        found = [
            path for path in paths if path.suffix.lower() in _ENDINGS or (frames and path.is_dir()) or _moves(path)
        ]
        videos += found
        if not paths and Path(source).suffix.lower() in _ENDINGS:
            raise FileNotFoundError(f"{source} is not a file or folder, nor a pattern that matches a file.")
        if len(found) < max(1, len(paths)):
            others.append(source)
    if others and not frames and all(isinstance(video, Path) and _moves(video) for video in videos):
        return []  # Among pictures, a GIF's first frame is one.
    if others and (videos or frames):
        reason = f"{videos[0]} is one: detect in images separately" if videos else "--frames takes folders and videos"
        raise ValueError(f"{others[0]} is not a video, but {reason}.")
    return list(dict.fromkeys(videos))


def _moves(file: Path) -> bool:
    """Check for a GIF of several frames."""
    if file.suffix.lower() != ".gif" or not file.is_file():
        return False
    try:
        with Image.open(file, formats=["GIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError):
        return False  # Reading reports it.


def run_videos(
    model: SSD, videos: Sequence[Source], args: argparse.Namespace, chosen: Callable[[Detections], Detections]
) -> int:
    """Detect in videos one after another.

    Returns:
        The exit code: 0, or 1 if a video could not be read completely, or an annotated video not written.
    """
    targets = {} if args.output is None else _video_files(videos, args.output)
    # With the JSON on the standard output, the summaries would break it.
    summaries = sys.stderr if is_standard_output(args.json) else sys.stdout
    failures = []
    with ExitStack() as stack:
        frame_file = None if args.json is None else stack.enter_context(FrameFile(args.json))
        for source in videos:
            try:
                summary, failure = detect_video(
                    model,
                    _open(source, args.max_pixels),
                    chosen=chosen,
                    batch_size=args.batch_size or 1,
                    track=args.track,
                    picture_file=targets.get(source),
                    frame_file=frame_file,
                    quiet=args.quiet,
                )
                if not args.quiet:
                    print(summary, file=summaries)
            except (ValueError, OSError) as error:
                failure = str(error)
            failures += [failure] if failure else []
    for failure in failures:
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _open(source: Source, max_pixels: int | None) -> Video:
    return open_camera(source) if isinstance(source, int) else open_video(source, max_pixels=max_pixels)


def detect_video(
    model: SSD,
    video: Video,
    *,
    chosen: Callable[[Detections], Detections] = lambda found: found,
    batch_size: int = 1,
    track: bool = False,
    picture_file: Path | None = None,
    frame_file: FrameFile | None = None,
    quiet: bool = False,
) -> tuple[str, str | None]:
    """Detect in a video and write the results during detection.

    Args:
        model: A detector of images or of clips.
        video: The video.
        chosen: Filter of a frame's detections.
        batch_size: Number of frames per batch.
        track: Whether to track objects.
        picture_file: Path of the annotated video to write.
        frame_file: JSON file to write detections to.
        quiet: Whether to hide the progress bar.

    Returns:
        A summary in one line, and the error if not all frames could be read, or None.

    Raises:
        OSError: If the annotated video or the JSON file can't be written.
    """
    tracker = Tracker(fps=video.fps, score_thresh=max(model.score_thresh, 0.5)) if track else None
    frames_with: Counter[str] = Counter()
    count, failure = 0, None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(picture_file, fps=video.fps)) if picture_file else None
        hidden = quiet or not sys.stderr.isatty()
        progress = stack.enter_context(tqdm(total=video.length, unit="frame", desc=video.name, disable=hidden))
        try:
            for frame, found in _detect(model, video, batch_size):
                found = chosen(found)
                if tracker is not None:
                    found["track_ids"] = tracker.update(found, frame.time)
                frames_with.update({model.categories[label] for label in found["labels"].tolist()})
                if writer is not None:
                    picture = torch.from_numpy(np.array(draw_detections(frame.pixels, found, model.categories)))
                    writer.write(picture.permute(2, 0, 1), time=frame.time, duration=frame.duration)
                if frame_file is not None:
                    frame_file.write(video.name, frame, found, model.categories)
                count += 1
                progress.update()
        except ValueError as error:
            failure = str(error)
        except KeyboardInterrupt:
            if video.length is not None:  # Interrupting is the regular end of a camera's video.
                raise
    return _summary(video.name, count, frames_with, tracker), failure


def _detect(model: SSD, video: Video, batch_size: int) -> Iterator[tuple[Frame, Detections]]:
    """Detect in a video; give each frame with its time."""
    waiting: deque[Frame] = deque()

    def pixels() -> Iterator[Tensor]:
        for frame in video.with_times():
            waiting.append(frame)
            yield frame.pixels

    for _, found in detect_stream(model, pixels(), batch_size=batch_size):
        yield waiting.popleft(), found


def _summary(name: str, frames: int, frames_with: Counter[str], tracker: Tracker | None) -> str:
    parts = [f"{category} in {count}" for category, count in frames_with.most_common()] or ["no objects"]
    if tracker is not None:
        parts.append(f"{len(tracker)} track{'' if len(tracker) == 1 else 's'}")
    return f"{name}: {frames} frame{'' if frames == 1 else 's'}, {', '.join(parts)}"


def _video_files(sources: Sequence[Source], output: Path) -> dict[Source, Path]:
    """Choose distinct paths of the annotated videos in one folder."""
    files: dict[Source, Path] = {}
    for source in sources:
        file = unused(output / f"{_name(source)}.mp4", files.values())
        if isinstance(source, Path) and file.resolve() == source.resolve():
            raise ValueError(f"--output {output} would overwrite {source}, an input; choose another folder.")
        files[source] = file
    return files


def _name(source: Source) -> str:
    if isinstance(source, int):
        return f"camera{source}"
    if isinstance(source, str):
        return file_name(source)
    return source.stem or source.resolve().name

"""Detect in videos frame by frame, with memory independent of their length."""

import argparse
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.cli._output import check_targets, is_stream, result_rows
from ssd_zoo.cli._track import Tracker
from ssd_zoo.data import Video, VideoWriter, draw_detections, open_camera, open_video
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.video import detect_stream

__all__ = ["FrameFile", "detect_video", "find_videos", "run_videos"]

_ENDINGS = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
            ".webm", ".wmv")  # fmt: skip
Detections = dict[str, Tensor]


def find_videos(sources: Sequence[str], *, frames: bool) -> list[Path]:
    """Find the videos among the sources.

    Args:
        sources: Files, folders and glob patterns.
        frames: Whether folders are videos, too. Files are recognised by their extension.

    Raises:
        FileNotFoundError: If a video does not exist.
        ValueError: If videos are mixed with other sources, or `frames` is set and a source is not a video.
    """
    videos: list[Path] = []
    others: list[str] = []
    for source in sources:
        paths = [Path(source)] if Path(source).exists() else sorted(map(Path, glob.glob(source, recursive=True)))
        found = [path for path in paths if path.suffix.lower() in _ENDINGS or (frames and path.is_dir())]
        videos += found
        if not paths and Path(source).suffix.lower() in _ENDINGS:
            raise FileNotFoundError(f"{source} is not a file or folder, nor a pattern that matches a file.")
        if len(found) < max(1, len(paths)):
            others.append(source)
    if others and (videos or frames):
        reason = f"{videos[0]} is one: detect in images separately" if videos else "--frames takes folders and videos"
        raise ValueError(f"{others[0]} is not a video, but {reason}.")
    return list(dict.fromkeys(videos))


def run_videos(
    model: SSD, videos: Sequence[Path], args: argparse.Namespace, chosen: Callable[[Detections], Detections]
) -> int:
    """Detect in videos one after another, or in a camera.

    Returns:
        The exit code: 0, or 1 if a video could not be read completely.
    """
    check_targets(args.output, args.json)
    targets = {} if args.output is None else _video_files(videos or [Path(f"camera{args.camera}")], args.output)
    failures = []
    with ExitStack() as stack:
        frame_file = None if args.json is None else stack.enter_context(FrameFile(args.json))
        for source in videos or [Path(f"camera{args.camera}")]:
            try:
                video = open_video(source) if videos else open_camera(args.camera)
                summary, failure = detect_video(
                    model,
                    video,
                    chosen=chosen,
                    batch_size=args.batch_size,
                    track=args.track,
                    picture_file=targets.get(source),
                    frame_file=frame_file,
                    quiet=args.quiet,
                )
                if not args.quiet:
                    print(summary)
            except (ValueError, OSError) as error:
                failure = str(error)
            failures += [failure] if failure else []
    for failure in failures:
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    return 1 if failures else 0


def detect_video(
    model: SSD,
    video: Video,
    *,
    chosen: Callable[[Detections], Detections] = lambda found: found,
    batch_size: int = 1,
    track: bool = False,
    picture_file: Path | None = None,
    frame_file: "FrameFile | None" = None,
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
    """
    tracker = Tracker(fps=video.fps, score_thresh=max(model.score_thresh, 0.5)) if track else None
    frames_with: Counter[str] = Counter()
    number, failure = -1, None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(picture_file, fps=video.fps)) if picture_file else None
        hidden = quiet or not sys.stderr.isatty()
        progress = stack.enter_context(tqdm(total=video.length, unit="frame", desc=video.name, disable=hidden))
        try:
            for number, (frame, found) in enumerate(detect_stream(model, video, batch_size=batch_size)):
                found = chosen(found)
                if tracker is not None:
                    found["track_ids"] = tracker.update(found)
                frames_with.update({model.categories[label] for label in found["labels"].tolist()})
                if writer is not None:
                    picture = np.array(draw_detections(frame, found, model.categories))
                    writer.write(torch.from_numpy(picture).permute(2, 0, 1))
                if frame_file is not None:
                    frame_file.write(_describe(video, number, found, model.categories))
                progress.update()
        except ValueError as error:
            failure = str(error)
        except KeyboardInterrupt:
            if video.length is not None:  # Interrupting is the regular end of a camera's video.
                raise
    return _summary(video.name, number + 1, frames_with, tracker), failure


def _summary(name: str, frames: int, frames_with: Counter[str], tracker: Tracker | None) -> str:
    parts = [f"{category} in {count}" for category, count in frames_with.most_common()] or ["no objects"]
    if tracker is not None:
        parts.append(f"{len(tracker)} track{'' if len(tracker) == 1 else 's'}")
    return f"{name}: {frames} frame{'' if frames == 1 else 's'}, {', '.join(parts)}"


def _describe(video: Video, number: int, found: Detections, categories: Sequence[str]) -> dict[str, Any]:
    rows = result_rows(found, categories, number, Path(video.name))
    tracks = found["track_ids"].tolist() if "track_ids" in found else [-1] * len(rows)
    for row, track in zip(rows, tracks, strict=True):
        del row["image_id"], row["file_name"]
        if track >= 0:
            row["track_id"] = track
    return {"video": video.name, "frame": number, "time": round(number / video.fps, 3), "detections": rows}


def _video_files(sources: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Choose distinct paths of the annotated videos in one folder."""
    files: dict[Path, Path] = {}
    for source in sources:
        name = source.stem or source.resolve().name
        file = next(
            file
            for i in range(len(sources) + 1)
            if (file := output / (f"{name}.mp4" if i == 0 else f"{name}_{i}.mp4")) not in files.values()
        )
        if file.resolve() == source.resolve():
            raise ValueError(f"--output {output} would overwrite {source}, an input; choose another folder.")
        files[source] = file
    return files


class FrameFile:
    """JSON list with one object per frame, written during detection.

    The list is completed on exit, also after an error.

    Args:
        file: Path of the file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._before_next = file, "[\n"
        self._unfinished = file if is_stream(file) else file.with_name(f".{file.name}.{os.getpid()}")
        self._stream = self._unfinished.open("w", encoding="utf-8")

    def write(self, frame: dict[str, Any]) -> None:
        """Append a frame's object."""
        self._stream.write(self._before_next + json.dumps(frame))
        self._before_next = ",\n"

    def __enter__(self) -> "FrameFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.write("[]\n" if self._before_next == "[\n" else "\n]\n")
        self._stream.close()
        if self._unfinished != self._file:
            self._unfinished.replace(self._file)

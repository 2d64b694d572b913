"""Detect in videos frame by frame, with memory independent of their length."""

import argparse
import glob
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from operator import attrgetter
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._csv import write_csv
from ssd_zoo.cli._frame_file import Detections, FrameFile
from ssd_zoo.cli._journal import Journal, JournalRow, changed, open_journal
from ssd_zoo.cli._live import detect_live
from ssd_zoo.cli._output import is_standard_output, refuse_inputs, unused
from ssd_zoo.cli._video_record import VideoRecord
from ssd_zoo.data import Frame, Video, image_endings, open_camera, open_video
from ssd_zoo.data.images import VIDEO_ENDINGS
from ssd_zoo.data.video import is_address
from ssd_zoo.data.web import file_name, is_image_address
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction.pipeline import detect_ahead, map_ahead, take_ahead
from ssd_zoo.weights.outside import near_paths

__all__ = ["Source", "detect_video", "find_videos", "run_videos"]

Source = Path | str | int
"""A file or folder, an address, or the number of a camera."""


def find_videos(sources: Sequence[str], *, frames: bool) -> list[Source]:
    """Find the videos among the sources.

    Args:
        sources: Files, folders, glob patterns, addresses, and numbers of cameras.
        frames: Whether folders are videos, too. Files are recognised by their extension, and GIFs by having several
            frames; addresses without an extension by what their server says.

    Returns:
        The videos without duplicates, in the order given; empty if the sources are images.

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
            path for path in paths if path.suffix.lower() in VIDEO_ENDINGS or (frames and path.is_dir()) or _moves(path)
        ]
        videos += found
        if not paths and Path(source).suffix.lower() in VIDEO_ENDINGS:
            raise FileNotFoundError(
                f"{source} is not a file or folder, nor a pattern that matches a file.{near_paths(source)}"
            )
        if len(found) < max(1, len(paths)):
            others.append(source)
    if others and not frames and all(isinstance(video, Path) and _moves(video) for video in videos):
        return []  # Among pictures, a GIF's first frame is one.
    if others and (videos or frames):
        reason = f"{videos[0]} is one: detect in images separately" if videos else "--frames takes folders and videos"
        raise ValueError(f"{others[0]} is not a video, but {reason}.")
    return list(dict.fromkeys(videos))


def _moves(file: Path) -> bool:
    """Return whether a file is a GIF of several frames."""
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
    """Detect in videos one after another; in several at once if all are live.

    With a file for results that is not a stream, those of each frame are kept in a journal. The same command goes on
    with the videos that are not done. Others begin again: those that failed or changed, addresses and cameras.

    Args:
        model: The detector.
        videos: Files, folders of frames, addresses and numbers of cameras.
        args: The command's arguments.
        chosen: Filter of a frame's detections.

    Returns:
        The exit code: 0, or 1 if a video could not be read completely, or its results not written.

    Raises:
        OSError: If the journal can't be read or written.
        ValueError: If a file that is not this command's journal has its name.
    """
    targets = {} if args.output is None else _video_files(videos, args.output)
    start = max(0.5, model.score_thresh) if args.track_thresh is None else args.track_thresh
    track = start if args.track else None
    # With the JSON on the standard output, the summaries would break it.
    summaries = sys.stderr if is_standard_output(args.json) else sys.stdout
    failures: list[str] = []
    journal, todo = open_journal(model, args, videos, targets, track=track, fps=args.fps)
    with ExitStack() as stack:
        frame_file: Journal | FrameFile | None = journal
        if journal is None and args.json is not None:
            frame_file = stack.enter_context(FrameFile(args.json))
        together = len(videos) > 1 and all(map(_is_live, videos))
        for sources in [todo] if together else [[video] for video in todo]:
            records: list[VideoRecord] = []
            # Before a file is read: what replaces it later is done again.
            stamps = [changed(source) for source in sources]
            results: Sequence[tuple[str | None, str | None]]
            try:
                records += [
                    VideoRecord(model, _open(source, args), chosen, track, targets.get(source), frame_file)
                    for source in sources
                ]
                if together:
                    results = detect_live(model, records)
                else:
                    results = [
                        detect_video(
                            model,
                            records[0],
                            batch_size=args.batch_size or 1,
                            callers=args.callers,
                            quiet=args.quiet,
                        )
                    ]
                failures += [failure for _, failure in results if failure]
            except (ValueError, OSError) as error:
                failures.append(str(error))
                results = [(None, str(error))] * len(sources)
            for i, (summary, failure) in enumerate(results):
                if summary is not None and not args.quiet:
                    print(summary, file=summaries)
                if journal is not None:
                    frames = records[i].frames if records else 0
                    row: JournalRow = {"file_name": str(sources[i]), "changed": stamps[i], "frames": frames}
                    journal.add(row if failure is None else {**row, "error": failure})
    for failure in failures:
        complain(failure)
    if journal is not None:
        _finish(journal, videos, args, failed=bool(failures))
    return 1 if failures else 0


def _finish(journal: Journal, videos: Sequence[Source], args: argparse.Namespace, *, failed: bool) -> None:
    """Write the files of results from the journal, in the order of the videos.

    The journal itself is removed, unless it is the file of results or a video failed.
    """
    names = [str(video) for video in videos]
    if journal.file == args.json:
        journal.arrange(names)
    elif args.json is not None:
        with FrameFile(args.json) as whole:
            for row in journal.frames(names):
                whole.write(row)
    if args.csv is not None:
        write_csv(journal.rows(names), args.csv, of_videos=True)
    if journal.file != args.json and not failed:
        journal.remove()


def _open(source: Source, args: argparse.Namespace) -> Video:
    if isinstance(source, int):
        return open_camera(source)
    return open_video(source, fps=args.fps, max_pixels=args.max_pixels)


def _is_live(source: Source) -> bool:
    """Return whether a source is a camera or the address of a live stream."""
    return isinstance(source, int) or (
        isinstance(source, str) and source.startswith(("rtsp:", "rtmp:", "srt:", "udp:"))
    )


def detect_video(
    model: SSD, record: VideoRecord, *, batch_size: int = 1, callers: int = 1, quiet: bool = False
) -> tuple[str, str | None]:
    """Detect in a video and write the results during detection.

    Decoding, detecting, drawing and encoding each have a thread.

    Args:
        model: A detector of images or of clips.
        record: The video, and where its results go.
        batch_size: Number of frames per batch.
        callers: Threads that call the model at once, each for other frames; more than 1 for exported files of images.
        quiet: Whether to hide the progress bar.

    Returns:
        A summary in one line, and the error if not all frames could be read, or None.

    Raises:
        OSError: If the annotated video or the JSON file can't be written.
    """
    video, failure = record.video, None
    hidden = quiet or not sys.stderr.isatty()
    with record, tqdm(total=video.length, unit="frame", desc=video.name, disable=hidden) as progress:
        frames = take_ahead(video.with_times(), ahead=batch_size + 2)
        if callers > 1:
            found = _detect_at_once(model, frames, batch_size, callers)
        else:
            found = take_ahead(_detect(model, frames, batch_size), ahead=batch_size + 2)
        noted = (record.note(frame, one) for frame, one in found)
        pictures = map_ahead(record.draw, noted, threads=1, ahead=3) if record.writer else noted
        try:
            with closing(frames), closing(found), closing(pictures):
                for frame in pictures:
                    record.write(frame)
                    progress.update()
        except ValueError as error:
            failure = str(error)
        except KeyboardInterrupt:
            if video.length is not None:  # Interrupting is the regular end of a camera's video.
                raise
    return record.summary(), failure


def _detect(model: SSD, frames: Iterable[Frame], batch_size: int) -> Iterator[tuple[Frame, Detections]]:
    """Detect in a video; yield each frame with its detections."""
    # It imports training, for metrics; photos need neither.
    from ssd_zoo.video import detect_stream

    waiting: deque[Frame] = deque()

    def pixels() -> Iterator[Tensor]:
        for frame in frames:
            waiting.append(frame)
            yield frame.pixels

    for _, found in detect_stream(model, pixels(), batch_size=batch_size):
        yield waiting.popleft(), found


def _detect_at_once(
    model: SSD, frames: Iterable[Frame], batch_size: int, callers: int
) -> Generator[tuple[Frame, Detections], None, None]:
    """Detect in several frames at once, each alone."""
    seen = detect_ahead(model, frames, attrgetter("pixels"), batch_size=batch_size, workers=1, callers=callers)
    with closing(seen):
        for one in seen:
            yield one.source, one.found


def _video_files(sources: Sequence[Source], output: Path) -> dict[Source, Path]:
    """Choose distinct paths of the annotated videos in one folder.

    Raises:
        ValueError: If one would overwrite a video.
    """
    files: dict[Source, Path] = {}
    for source in sources:
        files[source] = unused(output / f"{_name(source)}.mp4", files.values())
    refuse_inputs(f"--output {output}", files.values(), [source for source in sources if isinstance(source, Path)])
    return files


def _name(source: Source) -> str:
    if isinstance(source, int):
        return f"camera{source}"
    if isinstance(source, str):
        return file_name(source)
    return source.stem or source.resolve().name

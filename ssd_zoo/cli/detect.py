"""Detect objects in images, videos or a camera's pictures.

The default model detects the 80 classes of COCO, with weights included in the package.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ssd_zoo.cli._images import find_files, run_images
from ssd_zoo.cli._models import DEFAULT_MODEL, add_tiles, set_tiles
from ssd_zoo.cli._output import check_outputs, holding, is_kept, is_standard_output, picture_files
from ssd_zoo.cli._parquet import check_parquet
from ssd_zoo.cli._values import above_zero, add_max_pixels, count, fraction, name_list, positive
from ssd_zoo.cli._video import Source, find_videos, run_videos
from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import propose
from ssd_zoo.prediction import open_detector, pick_device
from ssd_zoo.prediction.facts import model_files
from ssd_zoo.prediction.opening import pick_thresh
from ssd_zoo.prediction.pipeline import pick_batch_size
from ssd_zoo.weights.categories import match_classes, object_classes

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "detect"
"""Page of the documentation."""
EXAMPLES = (
    'ssd-zoo detect photos "holiday/*.jpg" --output found --json found.json',
    "ssd-zoo detect https://example.org/photo.jpg --model ssd512_vgg16d",
    "ssd-zoo detect street.mp4 --track --output found",
    "ssd-zoo detect - < photo.jpg",
)
"""Commands for the help."""
# From this number of images on, several threads call an exported model. More threads than this need too much memory.
_MANY, _MOST_CALLERS = 16, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "images",
        nargs="*",
        metavar="SOURCE",
        help="images, folders of images, videos, glob patterns, addresses (https://…, rtsp://…), "
        "- for an image on the standard input, 0 for a camera",
    )
    parser.add_argument("--camera", type=count, metavar="N", help="detect in the pictures of camera N, counted from 0")
    parser.add_argument("--frames", action="store_true", help="treat a folder of images as the frames of a video")
    parser.add_argument("--fps", type=above_zero, metavar="N", help="frames per second of such a folder (default: 25)")
    parser.add_argument("--track", action="store_true", help="track objects in videos with ByteTrack")
    parser.add_argument("--track-thresh", type=fraction, metavar="S",
                        help="score above which tracks start (default: 0.5, or --score-thresh if higher)")  # fmt: skip
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME",
                        help="saved or exported model, or a name from ssd-zoo list (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--score-thresh", type=fraction, metavar="S",
                        help="least score (default: 0.5, or the model's own if that is higher)")  # fmt: skip
    parser.add_argument("--classes", metavar="NAME,NAME", help="show only these classes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if available, else cpu)")
    what = "images or frames per batch (default: 1; for images on a GPU 16)"
    parser.add_argument("--batch-size", type=positive, metavar="N", help=what)
    what = "threads that read images, write pictures and call an exported file (default: torch's threads)"
    parser.add_argument("--workers", type=positive, metavar="N", help=what)
    what = "decode large JPEGs at a half, quarter or eighth of their size, if the model makes them smaller all the same"
    parser.add_argument("--reduce", action="store_true", help=what)
    add_tiles(parser)
    add_max_pixels(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for annotated images or videos")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="file for results: COCO's format for images, a list of frames for videos, JSON Lines if it ends with "
        ".jsonl; - is the standard output",
    )
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="Parquet file for results of images")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="CSV file for spreadsheets, with a row per object")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")


def run(args: argparse.Namespace) -> int:
    """Detect in the sources and write the results.

    Returns:
        The exit code: 0, or 1 if an image or video could not be read, or a picture not written.
    """
    if bool(args.images) == (args.camera is not None):
        raise ValueError("Name images or videos to detect in, or --camera 0.")
    videos = find_videos(args.images, frames=args.frames) if args.camera is None else [args.camera]
    if args.track and not videos:
        raise ValueError("--track follows objects through videos; for a folder of frames add --frames.")
    files = [] if videos else find_files(args.images)
    pictures = picture_files(files, args.output) if files and args.output is not None else {}
    inputs = [source for source in (*files, *videos) if isinstance(source, Path)]
    inputs += [file for name in (args.model, args.weights) if name for file in model_files(name)]
    check_outputs(args.output, json=args.json, parquet=args.parquet, csv=args.csv, inputs=inputs)
    if args.parquet is not None and videos:
        raise ValueError("--parquet is for images; --json and --csv write the detections of videos.")
    check_parquet(args.parquet)
    if args.reduce and (videos or args.output is not None):
        raise ValueError("--reduce is for the results of images alone: leave out --output and videos.")
    if args.fps is not None and not args.frames:
        raise ValueError("--fps is for a folder of frames: add --frames.")
    args.fps = args.fps or 25.0
    if args.track_thresh is not None and not args.track:
        raise ValueError("--track-thresh is for tracks: add --track.")
    if videos and args.csv is not None and is_standard_output(args.json):
        raise ValueError("--json - writes each frame at once, --csv needs a file until the end: leave one of them out.")
    results = (args.json, args.parquet, args.csv)
    try:
        with holding(args.output, *results):
            return _detect(args, files, videos, pictures)
    except KeyboardInterrupt as interrupt:
        # A single video starts anew, and so do addresses.
        paths = [source for source in (*files, *videos) if isinstance(source, Path)]
        if len(paths) > 1 and any(file is not None and is_kept(file) for file in results):
            raise KeyboardInterrupt("the same command goes on with what is not done") from interrupt
        raise


def _detect(
    args: argparse.Namespace, files: Sequence[Path | str], videos: Sequence[Source], pictures: dict[Path | str, Path]
) -> int:
    args.workers = args.workers or torch.get_num_threads()
    # Threads that each detect in an image make more images per second than one whose work is divided among threads.
    # Frames of a live source come one by one.
    many = len(files) >= _MANY or (videos and all(isinstance(video, Path) for video in videos))
    args.callers = min(args.workers, _MOST_CALLERS) if many and is_exported(args.model) else 1
    model = _build(args)
    if videos and args.callers > 1 and (model.tile is not None or cast(ExportedDetector, model).description.state):
        # Each frame depends on those before, so all threads compute one. Tiles of frames are refused there.
        args.callers = 1
        model = _build(args)
    classes = _class_indices(args.classes, model.categories)
    if videos:
        return run_videos(model, videos, args, lambda found: _only(classes, found))
    args.batch_size = args.batch_size or pick_batch_size(model)
    return run_images(model, files, pictures, args, lambda found: _only(classes, found))


def _build(args: argparse.Namespace) -> SSD:
    device = pick_device(args.device)
    threads = None if args.callers == 1 else 1
    model = open_detector(args.model, args.weights, threads=threads, callers=args.callers, progress=not args.quiet)
    model.score_thresh = pick_thresh(model, args.score_thresh)
    set_tiles(model, args)
    # An exported detector has all that detecting needs.
    return cast(SSD, model.to(device))


def _class_indices(names: str | None, categories: Sequence[str]) -> Tensor | None:
    """Return the labels of classes, which are matched by `match_classes`."""
    if names is None:
        return None
    wanted = name_list(names) or [names]
    # One by one, so that two spellings of a class may both be given.
    matched = [match_classes(["background", name], categories) for name in wanted]
    for name, found in zip(wanted, matched, strict=True):
        if not found:
            raise ValueError(f"The model has no class {name!r}. {propose(name, object_classes(categories))}")
    return torch.tensor([found[1] for found in matched])


def _only(classes: Tensor | None, detections: dict[str, Tensor]) -> dict[str, Tensor]:
    if classes is None:
        return detections
    chosen = torch.isin(detections["labels"], classes)
    return {key: value[chosen] for key, value in detections.items()}

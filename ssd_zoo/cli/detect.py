"""Detect objects in images, videos or a camera's pictures.

The default model detects the 80 classes of COCO, with weights included in the package.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.cli._models import open_detector, pick_device
from ssd_zoo.cli._output import (
    check_targets,
    image_ids,
    picture_files,
    result_rows,
    save_picture,
    table,
    write_json,
)
from ssd_zoo.cli._values import count, fraction, positive
from ssd_zoo.cli._video import find_videos, run_videos
from ssd_zoo.data import draw_detections, find_images, read_image
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import propose

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("images", nargs="*", metavar="SOURCE", help="images, folders of images, videos, glob patterns")
    parser.add_argument("--camera", type=count, metavar="N", help="detect in the pictures of camera N, counted from 0")
    parser.add_argument("--frames", action="store_true", help="treat a folder of images as the frames of a video")
    parser.add_argument("--track", action="store_true", help="track objects in videos with ByteTrack")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", metavar="NAME",
                        help="saved or exported model, or a name from ssd-zoo list (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--score-thresh", type=fraction, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--classes", metavar="NAME,NAME", help="show only these classes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if available, else cpu)")
    parser.add_argument(
        "--batch-size", type=positive, default=1, help="images or frames per batch (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for annotated images or videos")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="file for results: COCO's format for images, a list of frames for videos",
    )
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")


def run(args: argparse.Namespace) -> int:
    """Detect in the sources and write the results.

    Returns:
        The exit code: 0, or 1 if an image or video could not be read, or a picture not written.
    """
    if bool(args.images) == (args.camera is not None):
        raise ValueError("Name images or videos to detect in, or --camera 0.")
    videos = find_videos(args.images, frames=args.frames)
    if videos or args.camera is not None:
        model = _build(args)
        classes = _class_indices(args.classes, model.categories)
        return run_videos(model, videos, args, lambda found: _only(classes, found))
    if args.track:
        raise ValueError("--track follows objects through videos; for a folder of frames add --frames.")
    files = find_images(args.images)
    pictures = {} if args.output is None else picture_files(files, args.output)
    check_targets(args.output, args.json)
    model = _build(args)
    classes = _class_indices(args.classes, model.categories)
    ids = image_ids(files)
    failures: dict[Path, str] = {}
    results: list[dict[str, Any]] = []
    progress = tqdm(total=len(files), unit="image", disable=args.quiet or len(files) < 2 or not sys.stderr.isatty())
    with progress:
        for batch in _batches(files, args.batch_size, failures, progress):
            for (file, image), found in zip(batch, _detect(model, [image for _, image in batch]), strict=True):
                found = _only(classes, found)
                rows = result_rows(found, model.categories, ids[file], file)
                results += rows
                if not args.quiet:
                    progress.write(table(file, rows), end="")
                if pictures:
                    try:
                        save_picture(draw_detections(image, found, model.categories), pictures[file])
                    except OSError as error:
                        failures[file] = str(error)
            progress.update(len(batch))
    if args.json is not None:
        write_json(results, args.json)
    for failure in failures.values():
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    if failures:
        print(f"ssd-zoo: {len(failures)} of {len(files)} images failed", file=sys.stderr)
    return 1 if failures else 0


def _build(args: argparse.Namespace) -> SSD:
    device = pick_device(args.device)
    model = open_detector(args.model, args.weights, score_thresh=args.score_thresh, progress=not args.quiet)
    # An exported detector has all that detecting needs.
    return cast(SSD, model.to(device))


def _class_indices(names: str | None, categories: Sequence[str]) -> Tensor | None:
    if names is None:
        return None
    known = [category for category in categories[1:] if category != "N/A"]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ValueError(f"The model has no class {name!r}. {propose(name, known)}")
    return torch.tensor([categories.index(name) for name in wanted])


def _only(classes: Tensor | None, detections: dict[str, Tensor]) -> dict[str, Tensor]:
    if classes is None:
        return detections
    chosen = torch.isin(detections["labels"], classes)
    return {key: value[chosen] for key, value in detections.items()}


def _batches(
    files: Sequence[Path], batch_size: int, failures: dict[Path, str], progress: tqdm
) -> Iterator[list[tuple[Path, Tensor]]]:
    batch: list[tuple[Path, Tensor]] = []
    for file in files:
        try:
            batch.append((file, read_image(file)))
        except (ValueError, OSError) as error:
            failures[file] = str(error)
            progress.update()
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def _detect(model: SSD, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    detections = model([image.to(model.default_boxes.device) for image in images])
    return [{key: value.cpu() for key, value in found.items()} for found in detections]

"""Detects objects in images and shows what was found.

Without --model and --weights it finds persons, with the weights that ship with ssd_zoo.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.data import draw_detections, find_images, read_image
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._registry import get_model, get_model_weights, list_models, propose

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or glob patterns")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", choices=list_models(), metavar="NAME",
                        help="see ssd-zoo list (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME", help="weights of the model (default: its DEFAULT)")
    parser.add_argument("--score-thresh", type=_fraction, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--classes", metavar="NAME,NAME", help="show only these classes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    parser.add_argument("--batch-size", type=_positive, default=1, help="images at once (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write annotated pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write results in COCO's format")
    parser.add_argument("--quiet", action="store_true", help="print neither table nor progress")


def run(args: argparse.Namespace) -> int:
    """Detects, prints, draws and writes. The result is 1 if an image could not be read or written."""
    files = find_images(args.images)
    model = _build(args)
    classes = _class_indices(args.classes, model.categories)
    image_ids = _image_ids(files)
    failures: list[str] = []
    results: list[dict[str, Any]] = []
    progress = tqdm(total=len(files), unit="image", disable=args.quiet or len(files) < 2 or not sys.stderr.isatty())
    with progress:
        for batch in _batches(files, args.batch_size, failures, progress):
            detections = _detect(model, [image for _, image in batch], args.device)
            for (file, image), found in zip(batch, detections, strict=True):
                if classes is not None:
                    chosen = torch.isin(found["labels"], classes)
                    found = {key: value[chosen] for key, value in found.items()}
                rows = _results(found, model.categories, image_ids[file], file)
                results += rows
                if not args.quiet:
                    progress.write(_table(file, rows), end="")
                if args.output is not None:
                    _write_picture(draw_detections(image, found, model.categories), args.output, file, args.images)
            progress.update(len(batch))
    if args.json is not None:
        _write_json(results, args.json)
    for failure in failures:
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    if failures:
        print(f"ssd-zoo: {len(failures)} of {len(files)} images failed", file=sys.stderr)
    return 1 if failures else 0

"""Measure a model, or a file of results, on labelled images.

Classes are matched by name: COCO's "airplane" is VOC's "aeroplane". The averages are over the classes that model and
data both have, and one line tells the others.

A model is one of ours or of torchvision's detectors by name, or a folder that was saved. With --annotations and
--results nothing is detected: a file of results is scored against a file of annotations, both in COCO's formats.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ssd_zoo.cli._models import load_model, pick_device
from ssd_zoo.cli._output import check_targets
from ssd_zoo.cli._values import count, name_list, positive, with_background
from ssd_zoo.data import inspect_dataset, open_dataset, usable

if TYPE_CHECKING:
    from ssd_zoo.training import Evaluation

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="folder or file of labelled images")
    parser.add_argument("--split", metavar="NAME", help="which part of it (default: the only one)")
    parser.add_argument("--categories", metavar="NAME,NAME",
                        help="names of the classes (background optional), where the data has none")  # fmt: skip
    parser.add_argument("--model", metavar="NAME", help="a model's name or a saved model")
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--all-classes", action="store_true",
                        help="count classes that the model lacks as AP 0 (default: leave them out)")  # fmt: skip
    parser.add_argument("--on-invalid", choices=("raise", "drop"), default="raise",
                        help="what to do about boxes and images that can't be used (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch-size", type=positive, default=8, help="images at once (default: %(default)s)")
    parser.add_argument("--workers", type=count, default=0, help="processes that read images (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="annotations in COCO's format")
    parser.add_argument("--results", type=Path, metavar="FILE", help="results in COCO's format")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write plots")
    parser.add_argument("--quiet", action="store_true", help="print neither table nor progress")


def run(args: argparse.Namespace) -> int:
    """Measures, prints, writes. The result is 1 if an optional package is missing."""
    from ssd_zoo.training import evaluate_results, plot_confusion, plot_precision_recall

    of_files = args.annotations is not None or args.results is not None
    if of_files == (args.data is not None):
        raise ValueError("Give either DATA and --model, or --annotations and --results.")
    if of_files and (args.annotations is None or args.results is None):
        raise ValueError("A file of results needs both --annotations and --results.")
    check_targets(args.output, args.json)
    try:
        evaluation = evaluate_results(args.annotations, args.results) if of_files else _evaluate(args)
        if os.environ.get("RANK", "0") != "0":
            return 0
        if args.output is not None:
            plot_precision_recall(evaluation, args.output / "precision_recall.png")
            if evaluation.confusion is not None:
                plot_confusion(evaluation, args.output / "confusion.png")
    except ImportError as error:
        print(f"ssd-zoo: {error}", file=sys.stderr)
        return 1
    if args.json is not None:
        evaluation.write_json(args.json)
    if not args.quiet:
        print(evaluation)
    return 0


def _evaluate(args: argparse.Namespace) -> "Evaluation":
    from ssd_zoo.training import evaluate, keep_memory

    if args.model is None:
        raise ValueError("--model is missing: a model's name or a saved model.")
    device = _device(args.device)
    given = with_background(name_list(args.categories)) if args.categories else None
    dataset = open_dataset(args.data, args.split, categories=given)
    # Only a whole image tells whether it is cut off. Where that is an error, reading it for the detector will say so.
    report = inspect_dataset(dataset, read_images=args.on_invalid == "drop")
    if report.problems and args.on_invalid == "drop" and not args.quiet:
        print("\n".join(f"problem: {problem}" for problem in report.problems[:20]), file=sys.stderr)
    model, categories = load_model(args.model, args.weights, progress=not args.quiet)
    with keep_memory():
        return evaluate(
            model.eval().to(device),
            usable(dataset, report, args.on_invalid),
            model_categories=categories,
            batch_size=args.batch_size,
            num_workers=args.workers,
            progress=not args.quiet,
            all_classes=args.all_classes,
        )


def _device(name: str | None) -> torch.device:
    """Gives the device asked for, or of several processes each its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return pick_device(name)
    from accelerate import PartialState

    own = PartialState(cpu=name == "cpu").device
    pick_device(name)
    return own

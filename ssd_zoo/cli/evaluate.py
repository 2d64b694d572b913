"""Evaluate a model, or a file of results, on annotated images or videos.

Classes are matched by name, COCO's "airplane" with VOC's "aeroplane". Metrics are averaged over the classes of both
model and data; the other classes are listed. Of videos, boxes are measured frame by frame, and where objects have
tracks, tubes too.

The model is a name of ssd_zoo or of torchvision's detectors, or a saved or exported model. With --annotations and
--results a file of results is evaluated without a model; both files are in COCO's formats.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ssd_zoo.cli._data import Data, add_data_options, classes_of, hold_back, open_held_back, open_labelled, splits_of
from ssd_zoo.cli._models import DEFAULT_MODEL, add_tiles, set_tiles
from ssd_zoo.cli._output import check_outputs, is_standard_output, opened
from ssd_zoo.cli._values import count, fraction, name_list, positive, with_background
from ssd_zoo.data import VideoDataset, inspect_dataset, usable
from ssd_zoo.data.inspection import group_problems
from ssd_zoo.prediction.facts import model_files
from ssd_zoo.prediction.opening import load_model, pick_device

if TYPE_CHECKING:
    from ssd_zoo.training import Evaluation

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "evaluate"
"""Page of the documentation."""
EXAMPLES = (
    "ssd-zoo evaluate cells --split test --model runs/cells/best --output plots",
    "ssd-zoo evaluate --annotations instances.json --results results.json",
)
"""Commands for the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "data", nargs="?", type=Path, metavar="DATA", help="folder or file of annotated images or videos"
    )
    parser.add_argument("--split", metavar="NAME",
                        help="split of the data; val, where there is none, is what train holds back "
                        "(default: the only one)")  # fmt: skip
    add_data_options(parser)
    what = "evaluate only the images that train holds back by --val-fraction F and its --seed"
    parser.add_argument("--val-fraction", type=fraction, metavar="F", help=what)
    parser.add_argument("--seed", type=count, default=0, help="seed of the choice (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME",
                        help="name of a model, or a saved or exported one (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--model-categories", metavar="NAME,NAME",
                        help="what the data calls the model's classes, in the model's order")  # fmt: skip
    parser.add_argument("--score-thresh", type=fraction, metavar="S",
                        help="count only detections that score more (default: all that AP counts)")  # fmt: skip
    parser.add_argument("--all-classes", action="store_true",
                        help="count classes unknown to the model as AP 0 (default: exclude them)")  # fmt: skip
    parser.add_argument("--on-invalid", choices=("raise", "drop"),
                        help="stop at invalid boxes and images, or drop them (default: drop up to 1 %%)")  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive, default=8, help="images or frames per batch (default: %(default)s)"
    )
    add_tiles(parser)
    parser.add_argument("--workers", type=count, default=0, help="processes that load images (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if available, else cpu)")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="annotations in COCO's format")
    parser.add_argument("--results", type=Path, metavar="FILE", help="results in COCO's format")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the metrics; - is the standard output")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for plots")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")


def run(args: argparse.Namespace) -> int:
    """Evaluate, and write metrics and plots.

    Returns:
        The exit code, 0.
    """
    from ssd_zoo.training import evaluate_results, plot_confusion, plot_precision_recall

    of_files = args.annotations is not None or args.results is not None
    if of_files == (args.data is not None):
        raise ValueError("Give either DATA, or --annotations and --results.")
    if of_files and (args.annotations is None or args.results is None):
        raise ValueError("A file of results needs both --annotations and --results.")
    if of_files and (args.score_thresh is not None or args.model_categories):
        raise ValueError("--score-thresh and --model-categories are for models, not for --results.")
    if args.quiet and args.json is None and args.output is None:
        raise ValueError("Nothing is asked for: leave out --quiet, or give --json or --output.")
    inputs = [Path(file) for file in (args.data, args.annotations, args.results) if file is not None]
    check_outputs(args.output, json=args.json, inputs=[*inputs, *model_files(args.model)])
    evaluation = evaluate_results(args.annotations, args.results) if of_files else _evaluate(args)
    if os.environ.get("RANK", "0") != "0":
        return 0
    if args.output is not None:
        plot_precision_recall(evaluation, args.output / "precision_recall.png")
        if evaluation.confusion is not None:
            plot_confusion(evaluation, args.output / "confusion.png")
    if args.json is not None:
        with opened(args.json) as stream:
            stream.write(evaluation.to_json().encode())
    if not args.quiet:
        print(evaluation, file=sys.stderr if is_standard_output(args.json) else sys.stdout)
    return 0


def _evaluate(args: argparse.Namespace) -> "Evaluation":
    from ssd_zoo.training import evaluate, keep_memory
    from ssd_zoo.training.evaluate import check_model_categories

    device = _device(args.device)
    dataset, held_back = _open(args)
    # Finding truncated images requires decoding all. With "raise" the evaluation's own reading finds them.
    report = inspect_dataset(dataset, read_images=args.on_invalid == "drop")
    if not args.quiet:
        print(report.layout, *(f"note: {note}" for note in report.notes), sep="\n", file=sys.stderr)
        problems = group_problems(report.problems)[0]
        print("".join(f"problem: {problem}\n" for problem in problems), end="", file=sys.stderr)
    model, categories = load_model(args.model, args.weights, progress=not args.quiet)
    dataset = usable(dataset, report, args.on_invalid)
    if held_back and not args.quiet:
        _compare_with_run(args, dataset)
    set_tiles(model, args)
    if args.model_categories:
        given = with_background(name_list(args.model_categories))
        check_model_categories(given, categories)
        categories = given
    with keep_memory():
        return evaluate(
            model.eval().to(device),
            dataset,
            model_categories=categories,
            batch_size=args.batch_size,
            num_workers=args.workers,
            progress=not args.quiet,
            all_classes=args.all_classes,
            score_thresh=args.score_thresh,
        )


def _open(args: argparse.Namespace) -> tuple[Data, bool]:
    """Open the split to evaluate on; return whether it is what `train` holds back, too.

    If validation data are asked for and there is no such split, they are the images that `train` holds back.
    """
    names = splits_of(args.data, args.layout)
    held_back = open_held_back(args, names)
    if held_back is not None:
        return held_back, True
    dataset = open_labelled(args, args.data, args.split, classes_of(args))
    divides = names == ["all"] and not args.quiet and hold_back(dataset, None, args.seed)[1] is not None
    if divides and _checkpoint_of(args.model) is not None:
        print("note: these are all images; --split val takes those that train holds back", file=sys.stderr)
    return dataset, False


def _checkpoint_of(model: str) -> Path | None:
    """Return the checkpoint of the run that a saved model belongs to; None if it is of none."""
    file = Path(model).absolute().parent / "checkpoint.pt"
    return file if Path(model).is_dir() and file.is_file() else None


def _compare_with_run(args: argparse.Namespace, held_back: Data) -> None:
    """Print a note if the run that the model is of held other images back."""
    from ssd_zoo.training.batches import describe_data
    from ssd_zoo.training.run_state import read_run_state

    file = _checkpoint_of(args.model)
    if file is None or isinstance(held_back, VideoDataset):
        return
    try:
        settings = read_run_state(file)["settings"]
    except (ValueError, OSError):  # The model is whole, whatever else lies there.
        return
    of_run = settings.get("validation data")
    if of_run != describe_data(held_back):
        what = "no images" if of_run is None else f"other images (its --seed is {settings.get('seed')})"
        print(
            f"note: {file.parent} held back {what}, so some of these may be images that it was trained on",
            file=sys.stderr,
        )


def _device(name: str | None) -> torch.device:
    """Return the requested device, or with several processes the process's own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return pick_device(name)
    from accelerate import PartialState

    own = PartialState(cpu=name == "cpu").device
    pick_device(name)
    return own

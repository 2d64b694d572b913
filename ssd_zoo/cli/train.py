"""Fine-tune a model on annotated images or videos.

DATA is a folder or file of labelled images, in a layout such as Pascal VOC, COCO, YOLO, LabelMe or CSV, or of videos,
in that of clips.json, MOTChallenge or CVAT. Several are joined, and their classes by name. For training on several
GPUs or machines, start the command with `accelerate launch -m ssd_zoo` or `torchrun -m ssd_zoo`.
"""

import argparse
import inspect
import os
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._data import add_data_options, splits_of, splits_of_videos, validation_split
from ssd_zoo.cli._models import DEFAULT_MODEL, add_tiles
from ssd_zoo.cli._prepare import Splits, build_for, fit_options, open_sets, prepared, print_plan, usable_part
from ssd_zoo.cli._values import amount, count, fraction, positive, size, zero_is_none
from ssd_zoo.data.formats import canonical_split
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.data.presets import Augmentation
from ssd_zoo.data.video_layouts import check_decoder
from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.prediction.opening import check_model
from ssd_zoo.training.fit import MixedPrecision, fit
from ssd_zoo.training.optimizers import OptimizerName, ScheduleName
from ssd_zoo.training.plan import Choice, plan_table
from ssd_zoo.training.ready import BatchNormMode, obstacles, raise_together
from ssd_zoo.training.recipes import RECIPES

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "finetune"
"""Page of the documentation."""
EXAMPLES = (
    "ssd-zoo train cells --output runs/cells",
    "ssd-zoo train cells --output runs/cells --minutes 30 --plan",
    "ssd-zoo train cells --output runs/b0 --backbone efficientnet_b0",
)
"""Commands for the help."""

# Builders of any timm backbone; --backbone alone takes the first.
_OF_TIMM = ("ssdlite_timm", "ssd_timm")
_OF_FIT = {name: item for name, item in inspect.signature(fit).parameters.items() if name != "model"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    data = parser.add_argument_group("data")
    data.add_argument("data", type=Path, nargs="+", metavar="DATA",
                      help="folders or files of annotated images or videos, which are joined")  # fmt: skip
    data.add_argument("--train-split", metavar="NAME", help="split to train on (default: train, or the only one)")
    data.add_argument("--val-split", metavar="NAME", help="split for validation (default: val, valid or validation)")
    add_data_options(data)
    data.add_argument("--val-fraction", type=fraction, metavar="F",
                      help="part of the training images for validation, if the data has no split for it "
                      "(default: 15 %%, of 60 images or more)")  # fmt: skip
    data.add_argument("--on-invalid", choices=("raise", "drop"),
                      help="stop at invalid boxes and images, or drop them (default: drop up to 1 %%)")  # fmt: skip
    data.add_argument("--cache", action="store_true", help="keep decoded images in memory")
    data.add_argument("--cache-longest", type=positive, metavar="PX",
                      help="longest side of cached training images; implies --cache")  # fmt: skip
    data.add_argument("--clip-length", type=positive, default=8, metavar="FRAMES",
                      help="frames per clip, of videos (default: %(default)s)")  # fmt: skip
    data.add_argument("--clip-stride", type=positive, default=1, metavar="FRAMES",
                      help="step between frames of a clip in training (default: %(default)s)")  # fmt: skip
    _add_of_fit(data, "num_workers", flag="--workers", type=count, help="processes that load images")

    model = parser.add_argument_group("model")
    model.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME",
                       help="a saved model, or a name from ssd-zoo list (default: %(default)s)")  # fmt: skip
    model.add_argument(
        "--weights",
        metavar="NAME",
        help="initial weights: a name, a saved model, or scratch (default: the model's DEFAULT)",
    )
    model.add_argument("--backbone", metavar="NAME",
                       help=f"timm model for {_OF_TIMM[0]}, or for --model {_OF_TIMM[1]}")  # fmt: skip
    model.add_argument("--size", type=size, metavar="S|HxW", help="input size (default: by the objects' sizes)")
    model.add_argument("--finest-stride", type=int, choices=(8, 16),
                       help=f"of the feature maps of {DEFAULT_MODEL} (default: by the objects' sizes)")  # fmt: skip
    add_tiles(model, "if small objects would be lost")
    model.add_argument(
        "--fit-default-boxes",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="fit default boxes to the training data (default: if they reach more objects)",
    )
    model.add_argument("--classification-loss", choices=get_args(ClassificationLossName), help="(default: the model's)")
    model.add_argument("--box-loss", choices=get_args(BoxLossName), help="(default: giou)")
    model.add_argument("--score-thresh", type=fraction, help="least score of a detection (default: the model's)")
    model.add_argument("--nms-thresh", type=fraction, help="largest IoU within a class (default: the model's)")

    training = parser.add_argument_group("training")
    training.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder for the results")
    add = partial(_add_of_fit, training)
    add("resume", action="store_true", help="resume the run in the output folder")
    training.add_argument("--plan", action="store_true", help="print what would be chosen and the time, and stop")
    training.add_argument("--recipe", choices=RECIPES, help="settings of a published training, instead of chosen ones")
    add("epochs", type=positive, help="passes over the data (default: by the number of images)")
    add("minutes", type=amount, metavar="M", help="time of the training with its evaluations, instead of --epochs")
    add("batch_size", type=positive, help="images or clips per optimizer step, over all processes (default: 8)")
    add("accumulate", type=positive, help="parts per batch")
    add("augmentation", choices=get_args(Augmentation))
    add("flip", action=argparse.BooleanOptionalAction,
        help="flip images left to right (default: unless a mirror changes classes by their names)")  # fmt: skip
    add("flip_vertically", action="store_true", help="flip images vertically too")
    add("optimizer", choices=get_args(OptimizerName))
    add("learning_rate", type=amount, help="(default: .01 for sgd, .001 for adamw)")
    add("backbone_scale", type=amount, help="factor on the backbone's learning rate")
    add("freeze_backbone", action="store_true", help="keep pretrained layers of the backbone fixed")
    add("momentum", type=fraction, help="of sgd, or the first beta of adamw")
    add("weight_decay", type=amount)
    add("schedule", choices=get_args(ScheduleName))
    add("warmup_steps", type=count, help="(default: 5 %% of the steps, at most 500)")
    add("batch_norm", choices=get_args(BatchNormMode), help="frozen for small batches, sync for several GPUs")
    add("ema_decay", type=fraction, metavar="D",
        help="of the weights' moving average, 0 to disable (default: .998 to .9998)")  # fmt: skip
    add("clip_norm", type=zero_is_none(amount), help="largest norm of the gradient, 0 to disable")
    add("mixed_precision", choices=get_args(MixedPrecision), help="(default: accelerate's)")
    add("seed", type=count, help="seed of new layers, data order and augmentation")
    add("evaluate_every", type=positive, metavar="EPOCHS",
        help="epochs between validations (default: 5 to 9 validations)")  # fmt: skip
    add("patience", type=count, metavar="N",
        help="validations without a better AP that end the run; 0: none (default: 3, or 0 with --epochs)")  # fmt: skip
    add("checkpoint_seconds", type=amount, help="time between checkpoints")
    add("device", choices=("cpu",), help="train on the CPU even if there is a GPU")
    add("tensorboard", flag="--no-tensorboard", action="store_false", help="write no TensorBoard events")
    add("progress", flag="--quiet", action="store_false", help="print no report and no progress")
    add("trained_on", metavar="NAME", help="name of the data set for the model card")
    add("licence", metavar="SPDX", help="licence of the weights for the model card")


def _add_of_fit(group: argparse._ArgumentGroup, name: str, *, flag: str | None = None, **settings: Any) -> None:
    """Declare a keyword of `fit` as an option of the command.

    It has the same default, unless a recipe may set it: then it has no value unless it is given.

    Args:
        group: The group of options.
        name: The keyword.
        flag: The option; by default named like the keyword.
        **settings: Keywords of `add_argument`.
    """
    default = _OF_FIT[name].default
    if default is not None and "action" not in settings:
        settings["help"] = f"{settings.get('help', '')} (default: {default})".strip()
    flag = flag or f"--{name.replace('_', '-')}"
    of_recipe = any(name in recipe for recipe in RECIPES.values())
    group.add_argument(flag, dest=name, default=argparse.SUPPRESS if of_recipe else default, **settings)


def run(args: argparse.Namespace) -> int:
    """Inspect the data, train, and print the path of the best model.

    Returns:
        The exit code: 0, or 1 if the loss diverged. With `--plan` only the plan is printed.
    """
    began = time.monotonic()
    if args.backbone is not None and args.model == DEFAULT_MODEL:
        args.model = _OF_TIMM[0]
    talks = args.progress and os.environ.get("RANK", "0") == "0"
    options = fit_options(args, [*_OF_FIT])
    # The report has the command that repeats the run, not the one that went on with it.
    options["command"] = shlex.join(word for word in shlex.split(args.command) if word != "--resume")
    train, validation, of_training, of_validation = open_sets(args, *_check_all(args))
    torch.manual_seed(args.seed)
    model, train, choices = build_for(args, train, of_training, options, talks)
    if validation is not None:
        validation, of_validation = usable_part(validation, of_validation, args, talks)
    choices.append(of_validation)
    if talks or args.plan:
        print(f"plan:\n{plan_table(choices)}", file=sys.stdout if args.plan else sys.stderr)
    images = prepared(train, args, training=True)
    if args.plan:
        print_plan(model, images, validation, args, options)
        return 0
    if args.minutes:
        spent = (time.monotonic() - began) / 60
        options["minutes"] = max(0.01, args.minutes - spent)
        looking = f"{spent:.2g} of {args.minutes:g} minutes went into looking at the data"
        choices.append(Choice("time", f"{args.minutes:g} minutes", f"given; {looking}"))
        if talks:
            print(f"{looking}.", file=sys.stderr)
    try:
        measured = None if validation is None else prepared(validation, args, training=False)
        result = fit(model, images, validation=measured, choices=choices, **options)  # type: ignore[arg-type]
    except FloatingPointError as error:
        complain(error)
        return 1
    if talks:
        best = f", best AP {result.best:.4f}" if result.best >= 0 else ""
        print(f"{args.output}/best{best}")
        print(f"{args.output}/report.html")
    return 0


def _check_all(args: argparse.Namespace) -> tuple[Splits, Splits]:
    """Check all arguments before data are read; return the splits to train and to validate on.

    Raises:
        Exception: Of the first error's type, with all messages.
    """
    chosen: tuple[Splits, Splits] = {}, {}
    errors: list[Exception] = []
    if args.minutes is not None and (args.minutes == 0 or getattr(args, "epochs", None)):
        errors.append(ValueError(f"--minutes {args.minutes:g}: give more than 0, and no --epochs with it."))
    try:
        chosen = _choose_splits(args)
    except (ValueError, OSError) as error:
        errors.append(error)
    try:
        check_model(args.model, args.weights)
        if args.backbone is not None and args.model not in _OF_TIMM:
            raise ValueError(f"--backbone is for --model {' and '.join(_OF_TIMM)}; {args.model} has its own.")
        if args.finest_stride is not None and args.model != DEFAULT_MODEL:
            raise ValueError(f"--finest-stride is for --model {DEFAULT_MODEL}; {args.model} has its own maps.")
    except ValueError as error:
        errors.append(error)
    evaluates = bool(chosen[1]) or _holds_back(args, chosen[0])
    for path in chosen[0]:
        try:
            check_decoder(path)
        except ImportError as error:
            errors.append(error)
    needs = {"resume": args.resume, "evaluates": evaluates, "tensorboard": args.tensorboard}
    raise_together([*errors, *obstacles(args.output, **needs)])
    return chosen


def _holds_back(args: argparse.Namespace, of_train: Splits) -> bool:
    """Return whether a part of the training data may be held back to measure AP on.

    That also depends on the number of images, which is not known yet.
    """
    if args.val_fraction is None:
        return any(not splits_of_videos(path, args.layout) for path in of_train)
    return bool(of_train and args.val_fraction)


def _choose_splits(args: argparse.Namespace) -> tuple[Splits, Splits]:
    """Choose the split to train on of each data set, and the split to validate on where there is one.

    Raises:
        ValueError: If a data set is given twice, or a split is missing or not clear.
    """
    if len({path.resolve() for path in args.data}) < len(args.data):
        raise ValueError(f"A data set is given twice: {', '.join(map(str, args.data))}.")
    names = {path: splits_of(path, args.layout) for path in args.data}
    validation: Splits = {}
    for path, of_path in names.items():
        if found := validation_split(path, of_path, args.val_fraction, args.val_split):
            validation[path] = found
    if args.val_split is not None and not validation:
        raise ValueError(f"--val-split: {_has_no(args.val_split, names)}")
    return {path: _train_split(path, of_path, args.train_split) for path, of_path in names.items()}, validation


def _train_split(path: Path, names: list[str], asked: str | None) -> str | None:
    """Return the split of a data set to train on; None if it has no splits.

    Raises:
        ValueError: If there is no such split, or it is not clear which one to take.
    """
    train = asked or find_split(names, "train")
    if asked is not None and find_split(names, asked) is None:
        raise ValueError(f"--train-split: {_has_no(asked, {path: names})}")
    if train is None and len(names) == 1 and canonical_split(names[0]):
        raise ValueError(
            f"{path} has the split {names[0]} alone; trained and measured on the same images, AP says nothing. "
            "Name the splits by --train-split and --val-split if that is meant."
        )
    if train is None and len(names) > 1:
        raise ValueError(f"{path} has the splits {', '.join(names)}; choose one by --train-split.")
    return train


def _has_no(split: str, names: dict[Path, list[str]]) -> str:
    """Return the message that no data set has a split; it lists those that each has."""
    each = (f"{path} has no split {split!r}; it has {', '.join(of_path)}" for path, of_path in names.items())
    return f"{'. '.join(each)}."

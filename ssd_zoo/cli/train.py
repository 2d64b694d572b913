"""Fine-tune a model on annotated images or videos.

DATA is a folder or file in the layout of COCO, Pascal VOC or YOLO; for videos, of clips.json, MOTChallenge or CVAT. For
training on several GPUs or machines, start the command with `accelerate launch -m ssd_zoo` or `torchrun -m ssd_zoo`.
"""

import argparse
import inspect
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from ssd_zoo.cli._data import Data, open_labelled, splits_of
from ssd_zoo.cli._models import build_model, check_model
from ssd_zoo.cli._values import count, fraction, name_list, number, positive, size, with_background, zero_is_none
from ssd_zoo.data import VideoDataset, fit_default_boxes, inspect_dataset, usable
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.data.dataset import find_split
from ssd_zoo.data.divide import divide
from ssd_zoo.data.formats import FORMATS, canonical_split
from ssd_zoo.data.presets import Augmentation
from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.fit import BatchNormMode, MixedPrecision, fit
from ssd_zoo.training.optimizers import OptimizerName, ScheduleName
from ssd_zoo.training.ready import obstacles, raise_together

__all__ = ["add_arguments", "run"]

_OF_FIT = {name: item for name, item in inspect.signature(fit).parameters.items() if name != "model"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    data = parser.add_argument_group("data")
    data.add_argument("data", type=Path, metavar="DATA", help="folder or file of annotated images or videos")
    data.add_argument("--train-split", metavar="NAME", help="split to train on (default: train, or the only one)")
    data.add_argument("--val-split", metavar="NAME", help="split for validation (default: val, valid or validation)")
    data.add_argument("--categories", metavar="NAME,NAME",
                      help="class names (background optional), if the data has none")  # fmt: skip
    data.add_argument("--val-fraction", type=fraction, metavar="F",
                      help="part of the training images for validation, if the data has no split for it")  # fmt: skip
    data.add_argument("--layout", choices=FORMATS, help="layout of the data (default: it is detected)")
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
    model.add_argument("--model", default="ssdlite300_mobilenet_v2", metavar="NAME",
                       help="a saved model, or a name from ssd-zoo list (default: %(default)s)")  # fmt: skip
    model.add_argument(
        "--weights",
        metavar="NAME",
        help="initial weights: a name, a saved model, or scratch (default: the model's DEFAULT)",
    )
    model.add_argument("--size", type=size, metavar="S|HxW", help="input size (default: the model's)")
    model.add_argument("--fit-default-boxes", action="store_true", help="fit default boxes to the training data")
    model.add_argument("--classification-loss", choices=get_args(ClassificationLossName), help="(default: the model's)")
    model.add_argument("--box-loss", choices=get_args(BoxLossName), help="(default: the model's)")
    model.add_argument("--score-thresh", type=fraction, help="least score of a detection (default: the model's)")
    model.add_argument("--nms-thresh", type=fraction, help="largest IoU within a class (default: the model's)")

    training = parser.add_argument_group("training")
    training.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder for the results")
    add = partial(_add_of_fit, training)
    add("resume", action="store_true", help="resume the run in the output folder")
    add("epochs", type=positive)
    add("batch_size", type=positive, help="images or clips per optimizer step, over all processes")
    add("accumulate", type=positive, help="parts per batch")
    add("augmentation", choices=get_args(Augmentation))
    add("flip_vertically", action="store_true", help="flip images vertically too")
    add("optimizer", choices=get_args(OptimizerName))
    add("learning_rate", type=number, help="(default: .01 for sgd, .001 for adamw)")
    add("backbone_scale", type=number, help="factor on the backbone's learning rate")
    add("freeze_backbone", action="store_true", help="keep pretrained layers of the backbone fixed")
    add("momentum", type=fraction, help="of sgd, or the first beta of adamw")
    add("weight_decay", type=number)
    add("schedule", choices=get_args(ScheduleName))
    add("warmup_steps", type=count, help="(default: 5 %% of the steps, at most 500)")
    add("batch_norm", choices=get_args(BatchNormMode), help="frozen for small batches, sync for several GPUs")
    add("ema_decay", type=zero_is_none(fraction), metavar="D", help="of the weights' moving average, 0 to disable")
    add("clip_norm", type=zero_is_none(number), help="largest norm of the gradient, 0 to disable")
    add("mixed_precision", choices=get_args(MixedPrecision), help="(default: accelerate's)")
    add("seed", type=count, help="seed of new layers, data order and augmentation")
    add("evaluate_every", type=positive, metavar="EPOCHS", help="epochs between validations")
    add("checkpoint_seconds", type=number, help="time between checkpoints")
    add("device", choices=("cpu",), help="train on the CPU even if there is a GPU")
    add("tensorboard", flag="--no-tensorboard", action="store_false", help="write no TensorBoard events")
    add("progress", flag="--quiet", action="store_false", help="print no report and no progress")
    add("trained_on", metavar="NAME", help="name of the data set for the model card")
    add("licence", metavar="SPDX", help="licence of the weights for the model card")


def _add_of_fit(group: argparse._ArgumentGroup, name: str, *, flag: str | None = None, **settings: Any) -> None:
    """Declare a keyword of `fit` as an option, with the same default."""
    default = _OF_FIT[name].default
    if default is not None and "action" not in settings:
        settings["help"] = f"{settings.get('help', '')} (default: %(default)s)".strip()
    flag = flag or f"--{name.replace('_', '-')}"
    group.add_argument(flag, dest=name, default=default, **settings)


def run(args: argparse.Namespace) -> int:
    """Inspect the data, train, and print the path of the best model.

    Returns:
        The exit code: 0, or 1 if the loss diverged or an optional package is missing.
    """
    talks = args.progress and os.environ.get("RANK", "0") == "0"
    train_split, val_split = _check_all(args)
    given = with_background(name_list(args.categories)) if args.categories else None
    train = open_labelled(args.data, train_split, given, args.layout)
    validation: Data | None = None
    if args.val_fraction:
        train, validation = divide(train, args.val_fraction, args.seed)
        if talks:
            what = "videos" if isinstance(train, VideoDataset) else "images"
            print(f"{len(validation)} of {len(train) + len(validation)} {what} are for validation.", file=sys.stderr)
    torch.manual_seed(args.seed)
    model = _build(args, train.categories)
    train = _usable("training", train, model, args, talks)
    if args.fit_default_boxes:
        fitted = fit_default_boxes(train, model)
        if talks:
            print(f"default boxes: {fitted}", file=sys.stderr)
        with _silent():  # What was loaded has been told.
            model = _build(args, train.categories, default_boxes=fitted.default_boxes)
    if val_split is not None:
        validation = open_labelled(args.data, val_split, train.categories, args.layout)
    if validation is not None:
        validation = _usable("validation", validation, model, args, talks)
    elif talks:
        print("There is no split to validate on, so AP is not measured; see --val-fraction.", file=sys.stderr)
    try:
        result = fit(
            model,
            _prepared(train, args, training=True),
            validation=None if validation is None else _prepared(validation, args, training=False),
            **{name: value for name, value in vars(args).items() if name in _OF_FIT},
        )
    except (FloatingPointError, ImportError) as error:
        print(f"ssd-zoo: {error}", file=sys.stderr)
        return 1
    if talks:
        best = f", best AP {result.best:.4f}" if result.best >= 0 else ""
        print(f"{args.output}/best{best}")
    return 0


def _check_all(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the splits to train and to validate on; list all that is missing before anything is read.

    Raises:
        Exception: Of the first error's type, with all messages.
    """
    chosen: tuple[str | None, str | None] = None, None
    errors: list[Exception] = []
    try:
        chosen = _choose_splits(args)
    except (ValueError, OSError) as error:
        errors.append(error)
    try:
        check_model(args.model, args.weights)
    except ValueError as error:
        errors.append(error)
    needs = {"resume": args.resume, "evaluates": chosen[1] is not None, "tensorboard": args.tensorboard}
    raise_together([*errors, *obstacles(args.output, **needs)])
    return chosen


def _choose_splits(args: argparse.Namespace) -> tuple[str | None, str | None]:
    names = splits_of(args.data, args.layout)
    train, val = args.train_split or find_split(names, "train"), args.val_split or find_split(names, "val")
    for option, name in (("--train-split", args.train_split), ("--val-split", args.val_split)):
        if name is not None and find_split(names, name) is None:
            raise ValueError(f"{option}: {args.data} has no split {name!r}; it has {', '.join(names)}.")
    if train is None and len(names) == 1 and canonical_split(names[0]):
        raise ValueError(
            f"{args.data} has the split {names[0]} alone; trained and measured on the same images, AP says nothing. "
            "Name the splits by --train-split and --val-split if that is meant."
        )
    if args.val_fraction and val is not None:
        raise ValueError(f"{args.data} has the split {val} for validation; leave out --val-fraction.")
    if train is None and len(names) > 1:
        raise ValueError(f"{args.data} has the splits {', '.join(names)}; choose one by --train-split.")
    return train, val


def _build(args: argparse.Namespace, categories: Sequence[str], **more: Any) -> SSD:
    for name in ("size", "classification_loss", "box_loss", "score_thresh", "nms_thresh"):
        if getattr(args, name) is not None:
            more[name] = getattr(args, name)
    return build_model(args.model, args.weights, categories=categories, progress=args.progress, **more)


@contextmanager
def _silent() -> Iterator[None]:
    log = logging.getLogger("ssd_zoo")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _usable(what: str, dataset: Data, model: SSD, args: argparse.Namespace, talks: bool) -> Data:
    report = inspect_dataset(dataset, model)
    if talks:
        print(f"{what} data: {report.text(advise=not args.fit_default_boxes)}", file=sys.stderr)
    return usable(dataset, report, args.on_invalid)


def _prepared(dataset: Data, args: argparse.Namespace, *, training: bool) -> Data | CachedDataset:
    """Cache a data set if asked for; cut videos into clips."""
    caches = args.cache or args.cache_longest is not None
    if isinstance(dataset, VideoDataset):
        videos = dataset.in_memory(args.cache_longest if training else None) if caches else dataset
        return videos.clips(args.clip_length, [args.clip_stride]) if training else videos.pieces(args.clip_length)
    return CachedDataset(dataset, args.cache_longest if training else None) if caches else dataset

"""Fine-tune a model on annotated images.

DATA is a folder or file in the layout of COCO, Pascal VOC or YOLO. For training on several GPUs or machines, start the
command with `accelerate launch -m ssd_zoo` or `torchrun -m ssd_zoo`.
"""

import argparse
import inspect
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from ssd_zoo.cli._models import build_model
from ssd_zoo.cli._values import count, fraction, name_list, number, positive, size, with_background, zero_is_none
from ssd_zoo.data import DetectionDataset, fit_default_boxes, inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.data.dataset import find_split
from ssd_zoo.data.formats import FORMATS, canonical_split
from ssd_zoo.data.presets import Augmentation
from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.fit import BatchNormMode, MixedPrecision, fit
from ssd_zoo.training.optimizers import OptimizerName, ScheduleName

__all__ = ["add_arguments", "run"]

_OF_FIT = {name: item for name, item in inspect.signature(fit).parameters.items() if name != "model"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    data = parser.add_argument_group("data")
    data.add_argument("data", type=Path, metavar="DATA", help="folder or file of annotated images")
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
    add("batch_size", type=positive, help="images per optimizer step, over all processes")
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


def _add_of_fit(group: Any, name: str, *, flag: str | None = None, **settings: Any) -> None:
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
    names = splits(args.data, layout=args.layout)
    train_split = args.train_split or find_split(names, "train")
    val_split = args.val_split or find_split(names, "val")
    if train_split is None and len(names) == 1 and canonical_split(names[0]):
        raise ValueError(
            f"{args.data} has the split {names[0]} alone; trained and measured on the same images, AP says nothing. "
            "Name the splits by --train-split and --val-split if that is meant."
        )
    if args.val_fraction and val_split is not None:
        raise ValueError(f"{args.data} has the split {val_split} for validation; leave out --val-fraction.")
    given = with_background(name_list(args.categories)) if args.categories else None
    train = open_dataset(args.data, train_split, categories=given, layout=args.layout)
    validation = None
    if args.val_fraction:
        train, validation = train.divided(args.val_fraction, args.seed)
        if talks:
            print(f"{len(validation)} of {len(train) + len(validation)} images are for validation.", file=sys.stderr)
    torch.manual_seed(args.seed)
    model = _build(args, train.categories)
    train = _check("training", train, model, args, talks)
    if args.fit_default_boxes:
        fitted = fit_default_boxes(train, model)
        if talks:
            print(f"default boxes: {fitted}", file=sys.stderr)
        model = _build(args, train.categories, default_boxes=fitted.default_boxes)
    if val_split is not None:
        validation = open_dataset(args.data, val_split, categories=train.categories, layout=args.layout)
    if validation is not None:
        validation = _check("validation", validation, model, args, talks)
    elif talks:
        print("There is no split to validate on, so AP is not measured; see --val-fraction.", file=sys.stderr)
    cache = args.cache or args.cache_longest is not None
    try:
        result = fit(
            model,
            CachedDataset(train, args.cache_longest) if cache else train,
            validation=CachedDataset(validation) if cache and validation is not None else validation,
            **{name: value for name, value in vars(args).items() if name in _OF_FIT},
        )
    except (FloatingPointError, ImportError) as error:
        print(f"ssd-zoo: {error}", file=sys.stderr)
        return 1
    if talks:
        best = f", best AP {result.best:.4f}" if result.best >= 0 else ""
        print(f"{args.output}/best{best}")
    return 0


def _build(args: argparse.Namespace, categories: list[str], **more: Any) -> SSD:
    for name in ("size", "classification_loss", "box_loss", "score_thresh", "nms_thresh"):
        if getattr(args, name) is not None:
            more[name] = getattr(args, name)
    return build_model(args.model, args.weights, categories=categories, progress=args.progress, **more)


def _check(what: str, dataset: DetectionDataset, model: SSD, args: argparse.Namespace, talks: bool) -> DetectionDataset:
    report = inspect_dataset(dataset, model)
    if talks:
        print(f"{what} data: {report}", file=sys.stderr)
    return usable(dataset, report, args.on_invalid)

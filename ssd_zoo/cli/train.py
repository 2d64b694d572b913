"""Fine-tune a model on annotated images.

DATA is a folder or file in the layout of COCO, Pascal VOC or YOLO. For training on several GPUs or machines, start the
command with `accelerate launch -m ssd_zoo` or `torchrun -m ssd_zoo`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, get_args

import torch

from ssd_zoo.cli._models import build_model
from ssd_zoo.cli._values import count, fraction, name_list, number, positive, size, with_background
from ssd_zoo.data import DetectionDataset, fit_default_boxes, inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.data.presets import Augmentation
from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.detector.ssd import SSD

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    data = parser.add_argument_group("data")
    data.add_argument("data", type=Path, metavar="DATA", help="folder or file of annotated images")
    data.add_argument("--train-split", metavar="NAME", help="split to train on (default: train, or the only one)")
    data.add_argument("--val-split", metavar="NAME", help="split for validation (default: val, valid or validation)")
    data.add_argument("--categories", metavar="NAME,NAME",
                      help="class names (background optional), if the data has none")  # fmt: skip
    data.add_argument("--on-invalid", choices=("raise", "drop"), default="raise",
                      help="stop at invalid boxes and images, or drop them (default: %(default)s)")  # fmt: skip
    data.add_argument("--cache", action="store_true", help="keep decoded images in memory")
    data.add_argument("--cache-longest", type=positive, metavar="PX",
                      help="longest side of cached training images; implies --cache")  # fmt: skip
    data.add_argument("--workers", type=count, default=0, help="processes that load images (default: %(default)s)")

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
    training.add_argument("--resume", action="store_true", help="resume the run in the output folder")
    training.add_argument("--epochs", type=positive, default=50, help="(default: %(default)s)")
    training.add_argument("--batch-size", type=positive, default=16,
                          help="images per optimizer step, over all processes (default: %(default)s)")  # fmt: skip
    training.add_argument("--accumulate", type=positive, default=1, help="parts per batch (default: %(default)s)")
    training.add_argument(
        "--augmentation", choices=get_args(Augmentation), default="ssd", help="(default: %(default)s)"
    )
    training.add_argument("--flip-vertically", action="store_true", help="flip images vertically too")
    training.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="(default: %(default)s)")
    training.add_argument("--learning-rate", type=number, help="(default: .01 for sgd, .001 for adamw)")
    training.add_argument("--backbone-scale", type=number, default=1.0,
                          help="factor on the backbone's learning rate (default: %(default)s)")  # fmt: skip
    training.add_argument("--freeze-backbone", action="store_true", help="keep pretrained layers of the backbone fixed")
    training.add_argument("--weight-decay", type=number, default=5e-4, help="(default: %(default)s)")
    training.add_argument("--schedule", choices=("cosine", "step", "constant"), default="cosine",
                          help="(default: %(default)s)")  # fmt: skip
    training.add_argument("--warmup-steps", type=count, help="(default: 5 %% of the steps, at most 500)")
    training.add_argument("--batch-norm", choices=("train", "frozen", "sync"), default="train",
                          help="frozen for small batches, sync for several GPUs (default: %(default)s)")  # fmt: skip
    training.add_argument("--ema-decay", type=fraction, default=0.9998, metavar="D",
                          help="decay of the weights' moving average, 0 to disable (default: %(default)s)")  # fmt: skip
    training.add_argument("--clip-norm", type=number, default=10.0, help="0 to disable (default: %(default)s)")
    training.add_argument("--mixed-precision", choices=("no", "fp16", "bf16"), help="(default: accelerate's)")
    training.add_argument("--seed", type=count, default=0,
                          help="seed of new layers, data order and augmentation (default: %(default)s)")  # fmt: skip
    training.add_argument("--evaluate-every", type=positive, default=1, metavar="EPOCHS",
                          help="epochs between validations (default: %(default)s)")  # fmt: skip
    training.add_argument("--checkpoint-seconds", type=number, default=300, help="(default: %(default)s)")
    training.add_argument("--device", choices=("cpu",), help="train on the CPU even if there is a GPU")
    training.add_argument("--no-tensorboard", action="store_true", help="write no TensorBoard events")
    training.add_argument("--quiet", action="store_true", help="print no report and no progress")
    training.add_argument("--trained-on", metavar="NAME", help="name of the data set for the model card")
    training.add_argument("--licence", metavar="SPDX", help="licence of the weights for the model card")


def run(args: argparse.Namespace) -> int:
    """Inspect the data, train, and print the path of the best model.

    Returns:
        The exit code: 0, or 1 if the loss diverged or an optional package is missing.
    """
    from ssd_zoo.training import fit

    talks = not args.quiet and os.environ.get("RANK", "0") == "0"
    names = splits(args.data)
    train_split = args.train_split or ("train" if "train" in names else None)
    val_split = args.val_split or next((name for name in ("val", "valid", "validation") if name in names), None)
    if train_split is None and val_split is not None and names == [val_split]:
        raise ValueError(
            f"{args.data} has the split {val_split} alone; trained and measured on the same images, AP says nothing. "
            "Name the splits by --train-split and --val-split if that is meant."
        )
    given = with_background(name_list(args.categories)) if args.categories else None
    train = open_dataset(args.data, train_split, categories=given)
    torch.manual_seed(args.seed)
    model = _build(args, train.categories)
    train = _check("training", train, model, args, talks)
    if args.fit_default_boxes:
        fitted = fit_default_boxes(train, model)
        if talks:
            print(f"default boxes: {fitted}", file=sys.stderr)
        model = _build(args, train.categories, default_boxes=fitted.default_boxes)
    validation = None
    if val_split is not None:
        validation = open_dataset(args.data, val_split, categories=train.categories)
        validation = _check("validation", validation, model, args, talks)
    elif talks:
        print("There is no split to validate on, so AP is not measured.", file=sys.stderr)
    cache = args.cache or args.cache_longest is not None
    try:
        result = fit(
            model,
            CachedDataset(train, args.cache_longest) if cache else train,
            validation=CachedDataset(validation) if cache and validation is not None else validation,
            output=args.output,
            epochs=args.epochs,
            batch_size=args.batch_size,
            accumulate=args.accumulate,
            augmentation=args.augmentation,
            flip_vertically=args.flip_vertically,
            optimizer=args.optimizer,
            learning_rate=args.learning_rate,
            backbone_scale=args.backbone_scale,
            freeze_backbone=args.freeze_backbone,
            weight_decay=args.weight_decay,
            schedule=args.schedule,
            warmup_steps=args.warmup_steps,
            batch_norm=args.batch_norm,
            ema_decay=args.ema_decay or None,
            clip_norm=args.clip_norm or None,
            mixed_precision=args.mixed_precision,
            seed=args.seed,
            num_workers=args.workers,
            evaluate_every=args.evaluate_every,
            checkpoint_seconds=args.checkpoint_seconds,
            resume=args.resume,
            device=args.device,
            tensorboard=not args.no_tensorboard,
            progress=not args.quiet,
            trained_on=args.trained_on,
            licence=args.licence,
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
    return build_model(args.model, args.weights, categories=categories, progress=not args.quiet, **more)


def _check(what: str, dataset: DetectionDataset, model: SSD, args: argparse.Namespace, talks: bool) -> DetectionDataset:
    report = inspect_dataset(dataset, model)
    if talks:
        print(f"{what} data: {report}", file=sys.stderr)
    return usable(dataset, report, args.on_invalid)

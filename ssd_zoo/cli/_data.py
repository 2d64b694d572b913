"""Open labelled images or videos, whichever a path holds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ssd_zoo.cli._values import Parser, add_max_pixels, name_list, with_background
from ssd_zoo.data import DetectionDataset, VideoDataset, open_dataset, open_video_dataset, splits, video_splits
from ssd_zoo.data.divide import divide
from ssd_zoo.data.formats import FORMATS, canonical_split
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.training.plan import plan_validation

__all__ = [
    "Data",
    "add_data_options",
    "classes_of",
    "hold_back",
    "open_held_back",
    "open_labelled",
    "splits_of",
    "splits_of_videos",
    "validation_split",
]

Data = DetectionDataset | VideoDataset


def add_data_options(parser: Parser) -> None:
    """Declare the options of labelled data that `data`, `evaluate` and `train` share."""
    parser.add_argument("--categories", metavar="NAME,NAME",
                        help="class names (background optional), if the data has none")  # fmt: skip
    parser.add_argument("--layout", choices=FORMATS, help="layout of the data (default: it is detected)")
    add_max_pixels(parser)


def classes_of(args: argparse.Namespace) -> list[str] | None:
    """Return the class names of `--categories`, background first; None if it is not given."""
    return with_background(name_list(args.categories)) if args.categories else None


def splits_of_videos(path: Path, layout: str | None = None) -> list[str]:
    """List the splits of a data set of videos; empty for images, or if a layout of images is given."""
    return [] if layout else video_splits(path)


def splits_of(path: Path, layout: str | None = None) -> list[str]:
    """List the splits of a data set of images or videos.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it holds no known layout.
    """
    return splits_of_videos(path, layout) or splits(path, layout=layout)


def open_labelled(args: argparse.Namespace, path: Path, split: str | None, categories: Sequence[str] | None) -> Data:
    """Open a data set of images or videos as the options say; errors as for `open_dataset`."""
    if splits_of_videos(path, args.layout):
        return open_video_dataset(path, split, categories=categories, max_pixels=args.max_pixels)
    return open_dataset(path, split, categories=categories, layout=args.layout, max_pixels=args.max_pixels)


def validation_split(path: Path, names: Sequence[str], fraction: float | None, asked: str | None = None) -> str | None:
    """Return the name of the validation split, or None.

    Args:
        path: The data set, for messages.
        names: Names of its splits.
        fraction: The part of the training images that is asked for as validation data; None or 0 for none.
        asked: The split that is asked for; by default `val`.

    Raises:
        ValueError: If there is such a split, and a fraction of the training images is asked for.
    """
    found = find_split(names, asked or "val")
    if found and fraction:
        raise ValueError(f"{path} has the split {found} for validation; leave out --val-fraction.")
    return found


def open_held_back(args: argparse.Namespace, names: Sequence[str]) -> Data | None:
    """Open the images that `train` holds back, if `--split val` or `--val-fraction` asks for them; otherwise None.

    Args:
        args: Arguments with `data`, `split`, `val_fraction` and `seed`.
        names: Names of the data set's splits.
    """
    asks = args.split is not None and canonical_split(args.split) == "val"
    found = validation_split(args.data, names, args.val_fraction, args.split if asks else None)
    divides = find_split(names, "train") is not None or names == ["all"]
    if not args.val_fraction and (not asks or found is not None or not divides):
        return None
    split = find_split(names, "train") if asks or args.split is None else args.split
    return hold_back(open_labelled(args, args.data, split, classes_of(args)), args.val_fraction, args.seed)[1]


def hold_back(train: Data, fraction: float | None, seed: int) -> tuple[Data, Data | None]:
    """Divide data without a validation split into training and validation data.

    Without a fraction, `plan_validation` decides on images, and no videos are held back.
    """
    if fraction is None:
        images = 0 if isinstance(train, VideoDataset) else len(train)
        fraction = plan_validation(images) / max(1, images)
    return divide(train, fraction, seed) if fraction else (train, None)

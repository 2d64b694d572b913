"""Report what a data set holds and what is wrong with it, and draw some of its images.

DATA is a folder or file of annotated images or videos in any layout that `train` reads. Each split gets a report, and a
contact sheet of labelled images or frames.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._data import (
    Data,
    add_data_options,
    classes_of,
    open_held_back,
    open_labelled,
    splits_of,
    validation_split,
)
from ssd_zoo.cli._output import check_outputs, save_picture
from ssd_zoo.cli._values import count, fraction, positive
from ssd_zoo.data import DataReport, inspect_dataset, usable
from ssd_zoo.data.annotations import nearest, number_of
from ssd_zoo.data.divide import divide
from ssd_zoo.data.formats.folders import canonical_split, find_split
from ssd_zoo.data.sheet import contact_sheet, labelled_pictures

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "data"
"""Page of the documentation."""
EXAMPLES = (
    "ssd-zoo data cells",
    "ssd-zoo data coco/annotations/instances_val2017.json --output sheets",
)
"""Commands for the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder or file of annotated images or videos")
    parser.add_argument("--split", metavar="NAME",
                        help="split of the data; val, where there is none, is what train holds back "
                        "(default: all)")  # fmt: skip
    add_data_options(parser)
    parser.add_argument("--val-fraction", type=fraction, metavar="F",
                        help="report the training images in two parts, as train divides them by its --val-fraction F "
                        "and --seed")  # fmt: skip
    parser.add_argument("--seed", type=count, default=0, help="seed of the choice (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("sheets"), metavar="DIR",
                        help="folder for the contact sheets, SPLIT.jpg (default: %(default)s)")  # fmt: skip
    parser.add_argument("--images", type=positive, default=16, help="images per sheet (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the reports and write the contact sheets.

    Returns:
        The exit code: 0; 1 if a split has problems or can't be read, 2 if none can.
    """
    check_outputs(args.output)
    names = [args.split] if args.split else splits_of(args.data, args.layout)
    divided = find_split(names, "train") or names[0]
    asks = args.split is not None and canonical_split(args.split) == "val"
    if not asks:
        validation_split(args.data, names, args.val_fraction)
    reports: dict[str, DataReport] = {}
    failed = 0
    for split in names:
        # Videos without splits have one without a name.
        name = split or "all"
        try:
            held_back = open_held_back(args, splits_of(args.data, args.layout)) if asks else None
            parts = {name: held_back or open_labelled(args, args.data, split, classes_of(args))}
            if args.val_fraction and split == divided and held_back is None:
                train, rest = divide(parts[name], args.val_fraction, args.seed)
                parts = {name: train, f"{name}-held-back": rest}
            reports |= {part: _report(part, dataset, args) for part, dataset in parts.items()}
        except (ValueError, OSError) as error:
            complain(f"{name}: {error}")
            failed += 1
    compares = find_split(names, "train") is not None and divided in reports
    unknown = list(_unknown_classes(reports, divided)) if compares else []
    print("".join(f"problem: {problem}\n" for problem in unknown), end="")
    bad = failed or unknown or any(report.problems for report in reports.values())
    return 2 if failed == len(names) else int(bool(bad))


def _unknown_classes(reports: Mapping[str, DataReport], train: str) -> Iterator[str]:
    """Yield messages about classes that have objects in a split, but none in the training split."""
    known = [name for name, number in reports[train].objects.items() if number]
    for split, report in reports.items():
        for name, number in report.objects.items():
            if number and name not in known:
                objects = f"{number_of(number, 'object')} of {name!r}"
                yield f"{split} has {objects}, of which {train} has none.{nearest(name, known)}"


def _report(name: str, dataset: Data, args: argparse.Namespace) -> DataReport:
    """Print a report and write a contact sheet of what is usable.

    Raises:
        ValueError: If nothing is usable.
    """
    report = inspect_dataset(dataset)
    print(f"{name}: {report}")
    kept = usable(dataset, report, "drop")
    file = args.output / f"{Path(name).name}.jpg"
    save_picture(contact_sheet(kept, images=args.images), file)
    what = "image" if report.videos is None else "frame"
    drawn = number_of(min(args.images, len(labelled_pictures(kept))), what)
    print(f"{file}: {drawn} to look at")
    return report

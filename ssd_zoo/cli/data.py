"""Report what a data set holds and what is wrong with it, and draw some of its images.

DATA is a folder or file of annotated images in any layout that `train` reads. Each split gets a report, and a contact
sheet of labelled images.
"""

import argparse
import sys
from pathlib import Path

from ssd_zoo.cli._output import check_targets, save_picture
from ssd_zoo.cli._values import name_list, positive, with_background
from ssd_zoo.data import inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.formats import FORMATS
from ssd_zoo.data.sheet import contact_sheet

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
    parser.add_argument("data", type=Path, metavar="DATA", help="folder or file of annotated images")
    parser.add_argument("--split", metavar="NAME", help="split of the data (default: all)")
    parser.add_argument("--categories", metavar="NAME,NAME", help="class names, if the data has none")
    parser.add_argument("--layout", choices=FORMATS, help="layout of the data (default: it is detected)")
    parser.add_argument("--output", type=Path, default=Path("sheets"), metavar="DIR",
                        help="folder for the contact sheets, SPLIT.jpg (default: %(default)s)")  # fmt: skip
    parser.add_argument("--images", type=positive, default=16, help="images per sheet (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the reports and write the contact sheets.

    Returns:
        The exit code: 0, or 1 if a split has problems or can't be read.
    """
    names = [args.split] if args.split else splits(args.data, layout=args.layout)
    categories = with_background(name_list(args.categories)) if args.categories else None
    check_targets(args.output, None)
    code = 0
    for name in names:
        try:
            dataset = open_dataset(args.data, name, categories=categories, layout=args.layout)
            report = inspect_dataset(dataset)
            print(f"{name}: {report}")
            sheet = contact_sheet(usable(dataset, report, "drop"), images=args.images)
        except (ValueError, OSError) as error:
            print(f"ssd-zoo: {name}: {error}", file=sys.stderr)
            code = 1
            continue
        file = args.output / f"{Path(name).name}.jpg"
        save_picture(sheet, file)
        print(f"{file}: {min(args.images, len(dataset))} images to look at")
        code = code or int(bool(report.problems))
    return code

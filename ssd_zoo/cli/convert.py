"""Convert another project's checkpoint to a saved model of ssd_zoo.

`ssd_zoo.from_pretrained(DIR)` loads the result, whose detections equal the original's.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from ssd_zoo.cli._values import add_max_pixels, name_list, size, with_background
from ssd_zoo.data.images import find_images, read_image
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import load_report
from ssd_zoo.saved.checkpoints import open_checkpoint, warn_of_folded
from ssd_zoo.saved.pretrained import from_pretrained, save_pretrained
from ssd_zoo.weights.categories import list_names
from ssd_zoo.weights.converters import ORIGINS
from ssd_zoo.weights.files import check_folder
from ssd_zoo.weights.folded_norms import restore_norms
from ssd_zoo.weights.outside import read_text
from ssd_zoo.weights.saved_models import CONFIG, MODEL

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "checkpoints"
"""Page of the documentation."""
EXAMPLES = (
    "ssd-zoo convert ssd300.pth --output out/ssd300",
    "ssd-zoo convert model.tflite --categories cat,dog --images photos --output out/pets",
)
"""Commands for the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE",
                        help=".pth, .safetensors, .pb (frozen graph), .tflite, model.json (TensorFlow.js); "
                             "with --images also a saved model")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the saved model")
    parser.add_argument("--origin", choices=ORIGINS, metavar="NAME",
                        help=f"project of the checkpoint: {', '.join(ORIGINS)} (default: detected)")  # fmt: skip
    parser.add_argument("--categories", metavar="NAME,NAME",
                        help="class names (background optional), or a file with one name per line")  # fmt: skip
    parser.add_argument("--images", nargs="+", metavar="DIR",
                        help="64 to 128 images that restore batch norms folded in the checkpoint; "
                             "training needs these norms")  # fmt: skip
    add_max_pixels(parser)
    parser.add_argument("--licence", metavar="SPDX", help="licence of the weights for the model card")
    parser.add_argument("--size", type=size, metavar="HEIGHTxWIDTH",
                        help="input size, if not the project's usual one")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Convert a checkpoint and print a summary.

    Returns:
        The exit code, 0.

    Raises:
        FileExistsError: If the folder holds other files.
        OSError: If the folder can't be written, or the checkpoint not be read.
        ValueError: If the checkpoint can't be used, or options contradict each other.
    """
    if args.output.exists() and not args.output.is_dir():
        raise NotADirectoryError(f"--output {args.output} is a file; name a folder for the saved model.")
    check_folder(args.output, "--output")
    replaced = _is_saved(args.output)
    if not replaced and args.output.is_dir() and any(args.output.iterdir()):
        raise FileExistsError(f"--output {args.output} holds other files; name a new or empty folder for the model.")
    model, file, origin = _open(args)
    images, restored = find_images(args.images or []), 0
    if images:
        restored = restore_norms(model, map(partial(read_image, max_pixels=args.max_pixels), images))
    else:
        warn_of_folded(model)
    notes = f"Converted from `{file}`, a file of {origin}."
    if restored:
        notes += f" {restored} norms were restored by {len(images)} images of {', '.join(args.images)}."
    report = load_report(model)
    save_pretrained(model, args.output, notes=notes, licence=args.licence or report.licence)
    parameters, tensors = sum(parameter.numel() for parameter in model.parameters()), report.tensors
    height, width = model.size
    builder, _ = model.recipe or ("", {})
    print(
        f"{args.file}: {origin}, {builder}, {height} × {width}, {len(model.categories)} classes "
        f"({', '.join(model.categories[:3])}{', …' if len(model.categories) > 3 else ''}), "
        f"{parameters / 1e6:.1f} M parameters, all {len(tensors)} tensors loaded, "
        f"in {args.output}{', whose model it replaces' if replaced else ''}"
    )
    if images:
        told = f"restored {restored} norms, which the source has folded away, by {len(images)} images"
        print(told if restored else "all norms are there, so none were restored by --images")
    return 0


def _open(args: argparse.Namespace) -> tuple[SSD, str, str]:
    """Build the model; return it, and the names of its file and origin."""
    if _is_saved(args.file) and args.images:
        if args.origin or args.categories or args.size:
            raise ValueError(f"{args.file} is a saved model: leave out --origin, --categories and --size.")
        return from_pretrained(args.file), args.file.name, "ssd_zoo"
    checkpoint = open_checkpoint(args.file, args.origin)
    categories = None if args.categories is None else _categories(args.categories, checkpoint.num_classes)
    model = checkpoint.build(categories=categories, size=args.size, licence=args.licence)
    return model, checkpoint.name, checkpoint.origin


def _is_saved(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / MODEL).is_file()


def _categories(text: str, num_classes: int) -> list[str]:
    """Return class names, background first; it is added if it is missing.

    Args:
        text: Names with commas between, or the path of any file with one per line.
        num_classes: The checkpoint's classes, with the background.

    Raises:
        FileNotFoundError: If the text ends with `.txt` and there is no such file.
        ValueError: If the names, with the background, are not `num_classes`.
    """
    # Unlike Path.is_file, os.path.isfile takes texts that are too long for a path.
    is_file = os.path.isfile(text)
    if not is_file and text.endswith(".txt"):
        raise FileNotFoundError(f"--categories {text}: there is no such file.")
    lines = read_text(Path(text)).splitlines() if is_file else name_list(text)
    names = [line.strip() for line in lines if line.strip()]
    if len(with_background(names)) != num_classes:
        classes = "only class" if num_classes == 2 else f"{num_classes - 1} classes"
        raise ValueError(
            f"--categories must name the file's {classes}, background optional; got {len(names)}: {list_names(names)}."
        )
    return with_background(names)

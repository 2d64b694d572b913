"""Export a model to a file for another runtime, such as ONNX Runtime or OpenVINO.

The file carries its classes and thresholds. `ssd-zoo detect --model FILE`, `ssd-zoo evaluate --model FILE` and
`ssd_zoo.deploy.load(FILE)` run it.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._output import refuse_inputs
from ssd_zoo.cli._values import fraction, positive
from ssd_zoo.data import find_images, read_image
from ssd_zoo.data.annotations import number_of
from ssd_zoo.deploy import DetectionChange, ExportedDetector, compare_detections, export, load
from ssd_zoo.deploy.formats import FORMATS, name_format
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction import open_detector
from ssd_zoo.prediction.facts import model_files
from ssd_zoo.weights.categories import object_classes
from ssd_zoo.weights.files import check_folder

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "deploy"
"""Page of the documentation."""
EXAMPLES = ("ssd-zoo export runs/cells/best --format onnx --output cells.onnx",)
"""Commands for the help."""

# Images that ranges are measured on, and that detections are compared on.
_MEASURED, _COMPARED = 300, 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    suffixes = ", ".join(f"{known.suffix} for {name}" for name, known in FORMATS.items())
    parser.add_argument("model", metavar="MODEL", help="a saved model, or a name from ssd-zoo list")
    parser.add_argument("--format", choices=FORMATS, help="format of the file (default: by its name)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=f"the file: {suffixes}")
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--nms", choices=("inside", "outside"),
                        help="whether the file gives detections or raw output (default: inside if it can)")  # fmt: skip
    parser.add_argument("--pixels", choices=("float32", "uint8"), default="float32",
                        help="type of the file's input (default: %(default)s)")  # fmt: skip
    parser.add_argument("--score-thresh", type=fraction, help="least score (default: the model's)")
    parser.add_argument("--candidates", type=positive, default=1000,
                        help="candidates per image that enter the file's NMS (default: %(default)s)")  # fmt: skip
    parser.add_argument("--int8", metavar="SOURCE",
                        help="folder of typical images, to quantise the file to eight-bit integers")  # fmt: skip
    parser.add_argument("--bfloat16", action="store_true",
                        help="compute in bfloat16 where the CPU can, which is faster (OpenVINO)")  # fmt: skip
    parser.add_argument("--licence", metavar="NAME", help="licence of the weights (default: as far as known)")
    parser.add_argument("--origin", metavar="TEXT", help="origin of the weights (default: as far as known)")
    parser.add_argument("--quiet", action="store_true", help="print no summary and no progress")


def run(args: argparse.Namespace) -> int:
    """Export a model and print a summary.

    Returns:
        The exit code, 0.
    """
    if args.output.is_dir():
        raise IsADirectoryError(f"--output {args.output} is a folder; name a file in it.")
    check_folder(args.output.parent)
    kind = args.format or name_format(args.output)
    files = _some(find_images([args.int8])) if args.int8 else []
    written = [args.output, args.output.with_suffix(".bin")] if kind == "openvino" else [args.output]
    refuse_inputs(f"--output {args.output}", written, [*files, *model_files(args.model)])
    model = open_detector(args.model, args.weights, score_thresh=args.score_thresh, progress=not args.quiet)
    if not isinstance(model, SSD):
        raise ValueError(f"{args.model} is an exported file; give the model that it was exported from.")
    options = {name: getattr(args, name) for name in ("nms", "pixels", "candidates", "bfloat16", "licence", "origin")}
    readable: list[Path] = []
    int8 = _read(files, readable) if args.int8 else None
    path = export(model, args.output, format=kind, int8=int8, **options)
    if not args.quiet:
        height, width = model.size
        nms = args.nms or FORMATS[kind].nms[0]
        classes = len(object_classes(model.categories))
        print(
            f"{path}: {kind}, {height} × {width}, {classes} class{'' if classes == 1 else 'es'}, NMS {nms}, "
            f"scores above {model.score_thresh:g}"
        )
        if not FORMATS[kind].runs:
            print("The file was converted, but not run: its runtime is only on the devices that it is for.")
        if files:
            compared = [read_image(file) for file in readable[:_COMPARED]]
            change, least = _compare(model, load(path), compared)
            print(f"int8 against float on {len(compared)} images, scores above {least:g}: {change}")
    return 0


def _compare(model: SSD, file: ExportedDetector, images: Sequence[Tensor]) -> tuple[DetectionChange, float]:
    """Compare the detections with scores above 0.3, or 0.05 where none is higher; return the change and that score."""
    for least in (0.3, 0.05):
        change = compare_detections(model, file, images, score_thresh=max(least, model.score_thresh))
        if change.matched + change.lost + change.gained:
            break
    return change, max(least, model.score_thresh)


def _read(files: Sequence[Path], readable: list[Path]) -> Iterator[Tensor]:
    """Read images, and note the files of those that can be read; the others are told in one line."""
    failures: list[str] = []
    for file in files:
        try:
            image = read_image(file)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            continue
        readable.append(file)
        yield image
    if failures:
        complain(f"{number_of(len(failures), 'image')} left out, as they can't be read; the first: {failures[0]}")


def _some(files: Sequence[Path]) -> Sequence[Path]:
    """Return at most 300 files, evenly spread."""
    return files[:: -(-len(files) // _MEASURED)]

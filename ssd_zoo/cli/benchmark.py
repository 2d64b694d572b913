"""Measure the speed, and with --data the AP, of models in every format that runs here.

Each model is exported to each format, and all files run in turn with the model itself, so that other load on the
machine affects all alike. Formats whose packages are missing are listed with what installs them.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypedDict, cast

import torch
from torch import nn

from ssd_zoo.cli._colours import painted
from ssd_zoo.cli._data import add_data_options, classes_of, open_labelled
from ssd_zoo.cli._models import DEFAULT_MODEL
from ssd_zoo.cli._output import check_outputs, is_standard_output, opened
from ssd_zoo.cli._values import amount, name_list, positive
from ssd_zoo.deploy import ExportedDetector, export, load
from ssd_zoo.deploy.formats import FORMATS
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction import open_detector
from ssd_zoo.prediction.facts import model_files

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "deploy"
"""Page of the documentation."""
EXAMPLES = (
    f"ssd-zoo benchmark {DEFAULT_MODEL}",
    "ssd-zoo benchmark runs/cells/best cells.onnx --data DATA --split test",
)
"""Commands for the help."""

# Size of the images of noise that the models are timed on.
_HEIGHT, _WIDTH = 480, 640
_LEAST_ROUNDS = 5
_RUNNING = [name for name, known in FORMATS.items() if known.runs]


class _Row(TypedDict):
    """A row of the table: a model in a format, and what was measured.

    `ms` are milliseconds per call, `ratio` the speed relative to the model's first row; None if not measured.
    """

    model: str
    format: str
    ms: float | None
    ratio: float | None
    megabytes: float | None
    AP: float | None
    note: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL",
                        help="saved or exported models, or names from ssd-zoo list")  # fmt: skip
    parser.add_argument("--formats", metavar="NAME,NAME", help=f"formats, of {', '.join(_RUNNING)} (default: all)")
    parser.add_argument("--weights", metavar="NAME", help="weights of a named model (default: its DEFAULT)")
    parser.add_argument("--data", type=Path, metavar="DATA", help="annotated images, to measure AP on")
    parser.add_argument("--split", metavar="NAME", help="split of the data (default: the only one)")
    add_data_options(parser)
    parser.add_argument("--batch-size", type=positive, default=1, help="images per call (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(),
                        help="threads; ExecuTorch takes all cores (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seconds", type=amount, default=20, help="time for each model (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the results; - is the standard output")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: If a format does not run here, or there is no such model.
    """
    formats = name_list(args.formats) if args.formats else _RUNNING
    unknown = [name for name in formats if name not in _RUNNING]
    if unknown:
        raise ValueError(f"The format {unknown[0]!r} does not run here; these may: {', '.join(_RUNNING)}.")
    check_outputs(None, json=args.json, inputs=[file for name in args.models for file in model_files(name)])
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        rows = [row for name in args.models for row in _measure(name, formats, args)]
    finally:
        torch.set_num_threads(before)
    if args.json is not None:
        with opened(args.json) as stream:
            stream.write((json.dumps(rows, indent=1) + "\n").encode())
    if not args.quiet:
        shown_on = sys.stderr if is_standard_output(args.json) else sys.stdout
        print(_table(rows, shown_on), file=shown_on)
    return 0


@torch.inference_mode()
def _measure(name: str, formats: list[str], args: argparse.Namespace) -> list[_Row]:
    """Measure a model and its file in each format; return a row for each."""
    model = open_detector(name, args.weights, progress=not args.quiet)
    rows, detectors = [_row(name, "eager" if isinstance(model, SSD) else "file")], {0: cast(nn.Module, model)}
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(model, SSD):
            for kind in formats:
                _tell(args, f"{name}: {kind}")
                row, detector = _exported(model, name, kind, Path(folder))
                rows.append(row)
                if detector is not None:
                    detectors[len(rows) - 1] = detector
        images = list(torch.randint(256, (args.batch_size, model.in_chans, _HEIGHT, _WIDTH), dtype=torch.uint8))
        _tell(args, f"{name}: {len(detectors)} contenders for {args.seconds:g} s")
        medians = _medians({i: _call(detector, images) for i, detector in detectors.items()}, args.seconds)
        for i, ms in medians.items():
            rows[i]["ms"], rows[i]["ratio"] = ms, medians[0] / ms
            if args.data is not None:
                rows[i]["AP"] = _ap(detectors[i], model.categories, args)
    return rows


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.quiet:
        print(line, file=sys.stderr)


def _row(name: str, format: str) -> _Row:
    return {"model": name, "format": format, "ms": None, "ratio": None, "megabytes": None, "AP": None, "note": ""}


def _exported(model: SSD, name: str, format: str, folder: Path) -> tuple[_Row, ExportedDetector | None]:
    """Export a model to a format and load the file.

    Args:
        model: The model.
        name: Its name in the table.
        format: A key of `FORMATS`.
        folder: Where the file is written, as the format's name and suffix.

    Returns:
        The row, with the size in megabytes but without times and AP, and the loaded detector. If packages are missing,
        the row's note says how to install them, and the detector is None.
    """
    row = _row(name, format)
    path = folder / f"{format}{FORMATS[format].suffix}"
    try:
        detector = load(export(model, path, format=format), threads=torch.get_num_threads())
    except ImportError as error:
        return {**row, "note": str(error)}, None
    row["megabytes"] = sum(file.stat().st_size for file in folder.glob(f"{format}.*")) / 1e6
    return row, detector


def _call(detector: nn.Module, images: list[torch.Tensor]) -> Callable[[], object]:
    return lambda: detector(images)


def _medians(contenders: dict[int, Callable[[], object]], seconds: float) -> dict[int, float]:
    """Return the median times of functions in milliseconds.

    They run in turn, in random order within each round.

    Args:
        contenders: The functions by number of their row.
        seconds: Time of the measurement.
    """
    for call in contenders.values():
        call()
        call()
    times: dict[int, list[float]] = {i: [] for i in contenders}
    order, start, rounds = random.Random(0), time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - start < seconds:
        rounds += 1
        for i, call in order.sample(list(contenders.items()), len(contenders)):
            before = time.perf_counter()
            call()
            times[i].append(1e3 * (time.perf_counter() - before))
    return {i: statistics.median(values) for i, values in times.items()}


def _ap(detector: nn.Module, categories: list[str], args: argparse.Namespace) -> float:
    from ssd_zoo.training import evaluate

    dataset = open_labelled(args, args.data, args.split, classes_of(args))
    # A file with NMS inside has no boxes below its own threshold, so those of other rows do not count either.
    own = getattr(detector, "score_thresh", None)
    evaluation = evaluate(detector, dataset, model_categories=categories, progress=not args.quiet, score_thresh=own)
    return evaluation.metrics["AP"]


def _table(rows: list[_Row], stream: TextIO) -> str:
    """Return a table for readers, on terminals with the fastest row in green."""
    names = max(5, *(len(row["model"]) for row in rows))
    heading = f"{'model':{names}}  {'format':10} {'ms':>8} {'speed':>6} {'MB':>6} {'AP':>6}"
    lines = [painted(heading, "bold", stream)]
    least = min(row["ms"] for row in rows if row["ms"] is not None)
    for row in rows:
        figures = ((row["ms"], "8.1f"), (row["ratio"], "5.2f"), (row["megabytes"], "6.1f"), (row["AP"], "6.4f"))
        shown = [format(value, spec) if value is not None else "–".rjust(int(spec[0])) for value, spec in figures]
        shown[1] += "×" if row["ratio"] is not None else " "
        line = f"{row['model']:{names}}  {row['format']:10} {' '.join(shown)}  {row['note']}".rstrip()
        lines.append(painted(line, "green", stream) if row["ms"] == least else line)
    return "\n".join(lines)

"""The table of all weights, for the documentation and the command line."""

import csv
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssd_zoo.models.registry import get_model_weights, usable_models
from ssd_zoo.weights.categories import object_classes
from ssd_zoo.weights.entries import Weights, WeightsEnum

__all__ = ["LATENCIES", "RESULTS", "latencies", "list_weights", "result_columns", "weights_list", "weights_table"]

RESULTS = ("COCO val2017", "COCO minival14", "Other results")
"""Headings of the result columns. TensorFlow's minival14 is another set of COCO images than val2017, and easier."""
LATENCIES = Path(__file__).with_name("latencies.csv")
"""What `examples/benchmarks/latency.py` measured."""
_HEADER = ("Weights", "Builder", *RESULTS, "Classes", "Parameters", "Multiply–adds", "Size", "Licence", "Origin")
_FACTS = slice(2 + len(RESULTS), None)


def latencies() -> tuple[str, dict[tuple[str, str], tuple[float, float]]]:
    """Return measured times of one photo through each model that has weights.

    Returns:
        The machine's name. Then, by builder and name of the weights, the milliseconds of the model and those of its
        file for OpenVINO.
    """
    machine, *lines = LATENCIES.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines)
    times = {(row["builder"], row["weights"]): (float(row["eager_ms"]), float(row["openvino_ms"])) for row in rows}
    return machine.removeprefix("# "), times


def list_weights(include: Iterable[str] | str | None = None) -> list[tuple[str, WeightsEnum]]:
    """List the weights of all detectors with their builders.

    Weights that ship in the package come first. Weights of images that a clip model also takes are listed once, with
    the image model's builder.

    Args:
        include: Shell-style patterns of builders' names.
    """
    first: dict[Weights, tuple[str, WeightsEnum]] = {}
    for name in usable_models():
        for entry in get_model_weights(name).__members__.values():
            # Names of image models sort before those of clip models.
            first.setdefault(entry.value, (name, entry))
    listed = {entry.value for name in usable_models(include) for entry in get_model_weights(name).__members__.values()}
    found = [row for value, row in first.items() if value in listed]
    return sorted(found, key=lambda row: not row[1].url.startswith("package:"))


def weights_table(include: Iterable[str] | str | None = None) -> str:
    """Return a Markdown table of all weights, without the columns of results.

    Args:
        include: Shell-style patterns of builders' names.
    """
    whole = [_HEADER, *(_row(name, entry) for name, entry in list_weights(include))]
    rows = [(*row[:2], *row[_FACTS]) for row in whole]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def weights_list(include: Iterable[str] | str | None = None, *, width: int = 100) -> str:
    """Return a list of all weights in short lines, for terminals.

    Args:
        include: Shell-style patterns of builders' names; with them the names of the classes are listed too.
        width: Largest number of characters in a line.
    """
    lines = []
    for name, entry in list_weights(include):
        weights, builder, *cells = _row(name, entry)
        lines.append(f"{weights} of {builder}")
        facts = "; ".join(f"{title}: {cell}" for title, cell in zip(_HEADER[2:], cells, strict=True) if cell)
        for text in (facts, ", ".join(object_classes(entry.meta["categories"])))[: 2 if include else 1]:
            lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _row(name: str, entry: WeightsEnum) -> tuple[str, ...]:
    """Return the cells of an entry below `_HEADER`."""
    meta = entry.meta
    return (
        entry.name,
        name,
        *result_columns(meta["metrics"]),
        str(len(object_classes(meta["categories"]))),
        f"{meta['num_params'] / 1e6:.2f} M",
        f"{meta['macs'] / 1e9:.2f} G",
        f"{meta['file_size'] / 1e6:.1f} MB" + (", ships" if entry.url.startswith("package:") else ""),
        meta["licence"],
        meta["origin"].partition(", ")[0].removeprefix("https://"),
    )


def result_columns(metrics: Mapping[str, Mapping[str, float | str]]) -> tuple[str, str, str]:
    """Return a weights entry's figures as texts for the columns `RESULTS`.

    Args:
        metrics: Per data set its figures, and under `"source"` who measured them.
    """
    cells: list[list[str]] = [[], [], []]
    for data, figures in metrics.items():
        values = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "source")
        # minival2014 has the 5,000 images that became val2017.
        column = {"COCO-val2017": 0, "COCO-minival2014": 0, "COCO-minival14": 1}.get(data, 2)
        cells[column].append(f"{values}{f' on {data}' if column == 2 else ''}, {figures['source']}")
    val2017, minival14, others = ("; ".join(cell) for cell in cells)
    return val2017, minival14, others

"""Format results as tables and insert them into the docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: written by examples/benchmarks/run.py -->", "<!-- end of results -->"
# Marks contenders whose reference is torchvision in mixed precision.
HALF = "half precision"
Rows = Sequence[Mapping[str, Any]]


def render(results: Mapping[str, Any]) -> str:
    """Format the tables of all parts in the results."""
    parts = ["Measured on: " + ", ".join(f"{key} {value}" for key, value in results["machine"].items()) + "."]
    for part, (title, fill) in _TABLES.items():
        if results.get(part):
            parts.append(f"#### {title}\n\n{fill(results[part])}")
    return "\n\n".join(parts)


def write_into(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Insert text between two markers of a page.

    Raises:
        ValueError: If the page has no markers.
    """
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} has no place for results: it needs the lines {begin!r} and {end!r}.")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table, in Markdown."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ms(time: Mapping[str, float]) -> str:
    return "{} ({} – {})".format(*(_figures(time[key]) for key in ("median", "low", "high")))


def _times(rows: Rows) -> str:
    lines = []
    for row in rows:
        times = row["times"]
        for kind, time in times.items():
            if kind.endswith(("trunk", "matching")):
                continue
            base = times[f"torchvision, {HALF}" if HALF in kind else "torchvision"]
            trunk, losses = times.get(f"{kind}, trunk"), times.get(f"{kind}, loss and matching")
            lines.append(
                [
                    row["model"],
                    row["batch"],
                    kind,
                    _ms(time),
                    _figures(1e3 * row["batch"] / time["median"]),
                    f"{base['median'] / time['median']:.2f} ×",
                    f"{time['median'] / trunk['median']:.2f}" if trunk else "",
                    f"{losses['median'] / time['median']:.1%}" if losses else "",
                ]
            )
    heads = ["model", "batch", "", "ms (quartiles)", "images/s", "torchvision's time over it"]
    heads += ["over its bare trunk", "loss and matching"]
    used = [i for i in range(len(heads)) if i < 6 or any(line[i] for line in lines)]
    return table([heads[i] for i in used], [[line[i] for i in used] for line in lines])


def _inference(rows: Rows) -> str:
    changes = {row["model"]: row["detections"] for row in rows}
    notes = "\n".join(f"Against torchvision's, {model}: {change}.\n" for model, change in changes.items())
    return f"{_times(rows)}\n\n{notes}".rstrip()


def _postprocessing(rows: Rows) -> str:
    lines = [
        [
            row["scores"],
            row["classes"],
            row["boxes"],
            row["detections"],
            *(_ms(row["times"][whose]) for whose in ("torchvision", "ssd_zoo")),
            f"{row['times']['torchvision']['median'] / row['times']['ssd_zoo']['median']:.1f} ×",
        ]
        for row in rows
    ]
    return table(["scores", "classes", "boxes", "kept", "torchvision, ms", "ssd_zoo, ms", "ratio"], lines)


def _fixed(rows: Rows) -> str:
    kinds = list(rows[0]["times"])
    lines = [[row["images"], row["candidates"], *(_ms(row["times"][kind]) for kind in kinds)] for row in rows]
    return table(["images", "candidates an image", *(f"{kind}, ms" for kind in kinds)], lines)


def _loading(rows: Rows) -> str:
    lines = [
        [
            row["augmentation"],
            row["workers"],
            kind,
            _ms(time),
            _figures(1e3 * row["images"] / time["median"]),
            f"{row['times']['torchvision']['median'] / time['median']:.2f} ×",
        ]
        for row in rows
        for kind, time in row["times"].items()
    ]
    return table(["augmentation", "workers", "", "ms an epoch (quartiles)", "images/s", "ratio"], lines)


def _memory(rows: Rows) -> str:
    lines = [
        [row["model"], row["what"], row["batch"], kind, f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}"]
        for row in rows
        for kind, theirs in row["peaks"]["torchvision"].items()
        for ours in [row["peaks"]["ssd_zoo"][kind]]
    ]
    return table(["model", "", "batch", "of", "torchvision, MB", "ssd_zoo, MB", "ratio"], lines)


def _imports(rows: Rows) -> str:
    [times] = [row["times"] for row in rows]
    lines = [
        [f"import {name}", _ms(time), f"{time['median'] / times['torchvision']['median']:.2f}"]
        for name, time in times.items()
    ]
    return table(["", "ms (quartiles)", "ratio"], lines)


_TABLES = {
    "inference": ("Inference", _inference),
    "training": ("A training step", _times),
    "postprocessing": ("Post-processing of one image", _postprocessing),
    "fixed": ("Post-processing in tensors of fixed shapes, 91 classes", _fixed),
    "loading": ("Reading and augmenting 64 images of 640 × 480", _loading),
    "memory": ("Peak memory", _memory),
    "imports": ("Import", _imports),
}

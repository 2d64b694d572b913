"""Detect in image files."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import ssd_zoo
from ssd_zoo.cli._journal import Journal, JournalRow, changed, weights_of
from ssd_zoo.cli._output import (
    image_ids,
    is_standard_output,
    save_picture,
    write_json,
)
from ssd_zoo.data import draw_detections, read_image
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.prediction.predict import detect_batch
from ssd_zoo.prediction.results import ResultRow, result_rows, table
from ssd_zoo.prediction.sources import find_sources
from ssd_zoo.weights.files import is_stream

__all__ = ["find_files", "run_images"]

Detections = dict[str, Tensor]
File = Path | str
"""A path, an address, or `-` for the standard input."""


def find_files(sources: Sequence[str]) -> list[File]:
    """List images as `find_sources` does; `-` is the standard input.

    Raises:
        FileNotFoundError: If a source gives no image.
        ValueError: If nothing is piped into the standard input.
    """
    files: dict[str, File] = {}
    for source in sources:
        if source == "-" and sys.stdin.isatty():
            raise ValueError("- reads an image from the standard input, so pipe one: ssd-zoo detect - < photo.jpg")
        for file in ["-"] if source == "-" else find_sources([source]):
            files.setdefault(os.path.abspath(file) if isinstance(file, Path) else file, file)
    return list(files.values())


def run_images(
    model: SSD,
    files: Sequence[File],
    pictures: dict[File, Path],
    args: argparse.Namespace,
    chosen: Callable[[Detections], Detections],
) -> int:
    """Detect in images and write the results.

    With a file for results, those of each image are kept in a journal. The same command goes on from there.

    Returns:
        The exit code: 0, or 1 if an image could not be read, or a picture not written.
    """
    journal = _journal(model, args)
    rows: dict[str, JournalRow] = {} if journal is None else journal.rows
    todo = [file for file in files if journal is None or not _is_done(journal, file, pictures)]
    # With the JSON on the standard output, the table would break it.
    tables = sys.stderr if is_standard_output(args.json) else sys.stdout
    hidden = args.quiet or len(todo) < 2 or not sys.stderr.isatty()
    with tqdm(total=len(todo), unit="image", disable=hidden) as progress:
        for row in _detect_all(model, todo, pictures, args, chosen):
            rows[row["file_name"]] = row
            if journal is not None:
                journal.add(row)
            if not args.quiet and "detections" in row:
                progress.write(table(row["file_name"], row["detections"]), file=tables, end="")
            progress.update()
    if args.json is not None:
        write_json(_in_order(files, rows), args.json)
    failures = [row["error"] for file in files if "error" in (row := rows[str(file)])]
    if journal is not None and not failures:
        journal.remove()
    for failure in failures:
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    if failures:
        print(f"ssd-zoo: {len(failures)} of {len(files)} images failed", file=sys.stderr)
    return 1 if failures else 0


def _journal(model: SSD, args: argparse.Namespace) -> Journal | None:
    if args.json is None or is_standard_output(args.json) or is_stream(args.json):
        return None
    journal = Journal(
        args.json,
        {
            "ssd_zoo": ssd_zoo.__version__,
            "model": args.model,
            "weights": weights_of(model, args.model),
            "score_thresh": args.score_thresh,
            "tile": str(model.tile and (*model.tile, model.tile_overlap)),
            "classes": args.classes,
            "output": None if args.output is None else str(args.output),
        },
    )
    if journal.note:
        print(f"ssd-zoo: {journal.note}", file=sys.stderr)
    return journal


def _is_done(journal: Journal, file: File, pictures: dict[File, Path]) -> bool:
    return journal.is_done(file) and (file not in pictures or pictures[file].is_file())


def _detect_all(
    model: SSD,
    files: Sequence[File],
    pictures: dict[File, Path],
    args: argparse.Namespace,
    chosen: Callable[[Detections], Detections],
) -> Iterator[JournalRow]:
    """Detect in images and write annotated pictures; give each image's result, also where it failed."""
    for batch in _batches(files, args.batch_size, args.max_pixels):
        read = [(file, image) for file, image in batch if isinstance(image, Tensor)]
        found = dict(zip([file for file, _ in read], detect_batch(model, [image for _, image in read]), strict=True))
        for file, image in batch:
            row: JournalRow = {"file_name": str(file), "changed": changed(file)}
            if isinstance(image, Tensor):
                detections = chosen(found[file])
                row["detections"] = result_rows(detections, model.categories, 0, file)
                if file in pictures:
                    try:
                        save_picture(draw_detections(image, detections, model.categories), pictures[file])
                    except OSError as error:
                        row["error"] = str(error)
            else:
                row["error"] = image
            yield row


def _batches(
    files: Sequence[File], batch_size: int, max_pixels: int | None
) -> Iterator[list[tuple[File, Tensor | str]]]:
    """Read images; in place of one that can't be read stands the reason."""
    batch: list[tuple[File, Tensor | str]] = []
    for file in files:
        try:
            batch.append((file, read_image(_standard_input() if file == "-" else file, max_pixels=max_pixels)))
        except (ValueError, OSError) as error:
            batch.append((file, str(error)))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _standard_input() -> io.BytesIO:
    content = io.BytesIO(sys.stdin.buffer.read())
    content.name = "the standard input"
    return content


def _in_order(files: Sequence[File], rows: dict[str, JournalRow]) -> list[ResultRow]:
    ids = image_ids(files)
    return [{**found, "image_id": ids[file]} for file in files for found in rows[str(file)].get("detections", [])]

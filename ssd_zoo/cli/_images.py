"""Detect in image files."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._csv import write_csv
from ssd_zoo.cli._journal import Found, Journal, JournalRow, changed, open_journal
from ssd_zoo.cli._output import image_ids, is_standard_output, save_picture, write_json
from ssd_zoo.cli._parquet import write_parquet
from ssd_zoo.data import draw_detections, read_image
from ssd_zoo.data.images import image_size
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.targets import box_scales
from ssd_zoo.prediction.pipeline import Seen, detect_ahead, map_ahead
from ssd_zoo.prediction.results import ResultRow, result_rows, table
from ssd_zoo.prediction.sources import find_sources

__all__ = ["find_files", "run_images"]

Detections = dict[str, Tensor]
File = Path | str
"""A path, an address, or `-` for the standard input."""


def find_files(sources: Sequence[str]) -> list[File]:
    """List images as `find_sources` does; `-` is the standard input.

    Raises:
        FileNotFoundError: If a source gives no image.
        ValueError: If nothing is piped into the standard input, or a source is a model or a video's address.
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

    Raises:
        OSError: If results can't be written.
        ValueError: If `--reduce` would change what is found, or the journal's place is taken.
    """
    journal, todo = open_journal(model, args, files, pictures, reduce=args.reduce)
    rows: list[JournalRow] = []
    failures: list[str] = []
    empty = len(todo) == len(files)
    # With the JSON on the standard output, the table would break it.
    tables = sys.stderr if is_standard_output(args.json) else sys.stdout
    hidden = args.quiet or len(todo) < 2 or not sys.stderr.isatty()
    found = _detect_all(model, todo, pictures, args, chosen)
    with closing(found), tqdm(total=len(todo), unit="image", disable=hidden) as progress:
        for row in found:
            failures += [row["error"]] if "error" in row else []
            empty = empty and not row.get("detections")
            if journal is not None:
                journal.add(row)
            elif args.json is not None:
                rows.append(row)
            if not args.quiet and "detections" in row:
                results = _results(row, 0)
                progress.write(table(row["file_name"], results), file=tables, end="")
            progress.update()
    for failure in failures:
        complain(failure)
    if failures:
        complain(f"{len(failures)} of {len(files)} images failed")
    if empty and len(failures) < len(files) and not args.quiet:
        least = f"{model.score_thresh:g}"
        print(f"note: nothing was found at scores above {least}; a lower --score-thresh shows more", file=sys.stderr)
    if journal is not None:
        _finish(journal, files, args, failed=bool(failures))
    elif args.json is not None:
        write_json(_numbered(files, rows), args.json)
    return 1 if failures else 0


def _finish(journal: Journal, files: Sequence[File], args: argparse.Namespace, *, failed: bool) -> None:
    """Write the files of results from the journal, in the order of the images.

    The journal itself is removed, unless it is the file of results or an image failed.
    """
    names = [str(file) for file in files]
    if journal.file == args.json:
        journal.arrange(names)
    elif args.json is not None:
        write_json(_numbered(files, journal.rows(names)), args.json)
    if args.parquet is not None:
        write_parquet(journal.rows(names), args.parquet)
    if args.csv is not None:
        write_csv(journal.rows(names), args.csv, of_videos=False)
    if journal.file != args.json and not failed:
        journal.remove()


def _detect_all(
    model: SSD,
    files: Sequence[File],
    pictures: dict[File, Path],
    args: argparse.Namespace,
    chosen: Callable[[Detections], Detections],
) -> Generator[JournalRow, None, None]:
    """Detect in images and write annotated pictures; yield each image's result or error.

    Addresses, and images given by the standard input, are read whole even with `--reduce`.
    """
    categories = model.categories
    stamps: dict[File, list[int]] = {}
    sizes: dict[File, tuple[int, int]] = {}
    least = _least_size(model) if args.reduce else None

    def read(file: File) -> Tensor:
        # Before the file is read: what replaces it later is done again.
        stamps[file] = changed(file)
        if least is not None and isinstance(file, Path):
            sizes[file] = image_size(file, max_pixels=args.max_pixels)
            return read_image(file, max_pixels=args.max_pixels, least=least)
        return read_image(_standard_input() if file == "-" else file, max_pixels=args.max_pixels)

    def finish(seen: Seen[File]) -> JournalRow:
        file = seen.source
        row: JournalRow = {"file_name": str(file), "changed": stamps.pop(file)}
        try:
            if isinstance(seen.image, Exception):
                raise seen.image
            detections = chosen(seen.found)
            if file in sizes:
                _, height, width = seen.image.shape
                scales = box_scales([(height, width)], [sizes.pop(file)], torch.device("cpu"))
                detections = {**detections, "boxes": detections["boxes"] * scales}
            row["detections"] = [_detection(found) for found in result_rows(detections, categories, 0, file)]
            if file in pictures:
                save_picture(draw_detections(seen.image, detections, categories), pictures[file])
        except (ValueError, OSError) as error:
            row["error"] = str(error)
        return row

    seen = detect_ahead(model, files, read, batch_size=args.batch_size, workers=args.workers, callers=args.callers)
    with closing(seen):
        if not pictures:
            yield from map(finish, seen)
            return
        rows = map_ahead(finish, seen, threads=args.workers, ahead=args.workers + 1)
        with closing(rows):
            yield from rows


def _least_size(model: SSD | ExportedDetector) -> tuple[int, int]:
    """Return the (height, width) to which `--reduce` may shrink images while decoding.

    Raises:
        ValueError: If the model cuts images into tiles, or does not average pixels when it resizes.
    """
    antialias = model.description.antialias if isinstance(model, ExportedDetector) else model.antialias
    if not antialias or model.tile is not None:
        reason = "cuts images into tiles" if antialias else "does not average pixels when it resizes"
        raise ValueError(f"--reduce would change what is found: the model {reason}. Leave it out.")
    return model.size


def _detection(found: ResultRow) -> Found:
    return {name: found[name] for name in Found.__annotations__}  # type: ignore[literal-required,return-value]


def _results(row: JournalRow, image_id: int) -> list[ResultRow]:
    """Convert a row of the journal to COCO's results format."""
    return [{"image_id": image_id, "file_name": row["file_name"], **found} for found in row.get("detections", [])]


def _numbered(files: Sequence[File], rows: Iterable[JournalRow]) -> Iterator[ResultRow]:
    """Yield the detections of all images as rows of COCO's results, with the images' ids."""
    ids = image_ids(files)
    for file, row in zip(files, rows, strict=True):
        yield from _results(row, ids[file])


def _standard_input() -> io.BytesIO:
    content = io.BytesIO(sys.stdin.buffer.read())
    content.name = "the standard input"
    return content

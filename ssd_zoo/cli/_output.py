"""Write the output of `ssd-zoo detect`: table, COCO results, annotated pictures."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TypedDict

from PIL import Image
from torch import Tensor

from ssd_zoo.data import image_endings
from ssd_zoo.weights.categories import COCO_CATEGORIES
from ssd_zoo.weights.files import check_folder, is_stream, replacing

__all__ = [
    "ResultRow",
    "category_ids",
    "check_targets",
    "image_ids",
    "is_standard_output",
    "opened",
    "picture_files",
    "result_rows",
    "save_picture",
    "table",
    "write_json",
]


class ResultRow(TypedDict):
    """Detection in COCO's results format, with file and class names added."""

    image_id: int
    file_name: str
    category_id: int
    category: str
    bbox: list[float]
    score: float


def check_targets(output: Path | None, json_file: Path | None) -> None:
    """Create output folders and check that they are writable.

    Called before detection, so that errors come early.

    Raises:
        OSError: If a folder or file can't be written.
        ValueError: If the JSON file has the extension of an image, or the output is `-`.
    """
    if output == Path("-"):
        raise ValueError("--output takes a folder; --json - writes to the standard output.")
    if output is not None:
        _make_folder(output)
    if json_file is None or is_standard_output(json_file) or is_stream(json_file):
        return
    if json_file.is_dir():
        raise IsADirectoryError(f"--json {json_file} is a folder; name a file in it.")
    if json_file.suffix.lower() in image_endings():
        raise ValueError(f"--json {json_file} is named like a picture; it takes one file, for the results.")
    _make_folder(json_file.parent)


def _make_folder(folder: Path) -> None:
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def is_standard_output(file: Path | None) -> bool:
    """Check whether a file is called `-`, which means the standard output."""
    return file == Path("-")


@contextlib.contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Open the standard output (`-`), or a file that is replaced once complete."""
    if is_standard_output(file):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with replacing(file) as stream:
            yield stream


def picture_files(files: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Choose the path of each annotated picture.

    Pictures keep the folder structure of the images. Formats other than JPEG and PNG are replaced by PNG.

    Raises:
        ValueError: If a picture would overwrite an image.
    """
    paths = {file: Path(os.path.abspath(file)) for file in files}
    root = Path(os.path.commonpath([path.parent for path in paths.values()]))
    targets = {}
    for file, path in paths.items():
        target = output / path.relative_to(root)
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(target.name + ".png")
        targets[file] = target
    overwritten = {file.resolve() for file in files} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ValueError(f"--output {output} would overwrite {min(overwritten)}, an input; choose another folder.")
    return targets


def save_picture(picture: Image.Image, file: Path) -> None:
    """Save a picture.

    Raises:
        OSError: If the file can't be written; an older one stays. The message names it.
    """
    try:
        with replacing(file) as stream:
            picture.save(stream, format="PNG" if file.suffix.lower() == ".png" else "JPEG", quality=95)
    except OSError as error:
        raise OSError(f"{file} can't be written: {error.strerror or error}.") from error


def image_ids(files: Sequence[Path]) -> dict[Path, int]:
    """Return COCO image ids: numeric file names, or else numbers from 1."""
    by_name = {file: int(file.stem) for file in files if file.stem.isdecimal()}
    if len(set(by_name.values())) == len(files):
        return by_name
    return {file: i for i, file in enumerate(files, start=1)}


def category_ids(categories: Sequence[str]) -> list[int]:
    """Return COCO category ids by label.

    For COCO's 80 classes these are the official ids, which have gaps. Otherwise the ids are the labels.
    """
    if set(categories[1:]) == set(COCO_CATEGORIES[1:]) - {"N/A"}:
        return [0, *(COCO_CATEGORIES.index(name) for name in categories[1:])]
    return list(range(len(categories)))


def result_rows(
    detections: dict[str, Tensor], categories: Sequence[str], image_id: int, file: str | Path
) -> list[ResultRow]:
    """Convert detections to COCO's results format, with file and class names added."""
    ids = category_ids(categories)
    rows = zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    return [
        {
            "image_id": image_id,
            "file_name": str(file),
            "category_id": ids[label],
            "category": categories[label],
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), label, score in rows
    ]


def table(file: Path, rows: Sequence[ResultRow]) -> str:
    """Format an image's detections as a table."""
    lines = [f"{file}: {len(rows) or 'no'} object{'' if len(rows) == 1 else 's'}"]
    width = max((len(row["category"]) for row in rows), default=0)
    for row in rows:
        x, y, box_width, box_height = (round(value) for value in row["bbox"])
        lines.append(f"  {row['category']:{width}}  {row['score']:.2f}  {box_width} × {box_height} at ({x}, {y})")
    return "\n".join(lines) + "\n"


def write_json(results: Sequence[ResultRow], file: Path) -> None:
    """Write results to a JSON file, atomically.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """
    with opened(file) as stream:
        stream.write(("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n").encode())

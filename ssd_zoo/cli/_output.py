"""Write the output of `ssd-zoo detect`: COCO results and annotated pictures."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from ssd_zoo.data import image_endings
from ssd_zoo.data.web import file_name
from ssd_zoo.prediction.results import ResultRow
from ssd_zoo.weights.files import check_folder, is_stream, replacing

__all__ = [
    "check_outputs",
    "image_ids",
    "is_standard_output",
    "opened",
    "picture_files",
    "save_picture",
    "unused",
    "write_json",
]


def check_outputs(output: Path | None, *results: Path | None) -> None:
    """Create output folders and check that they are writable.

    Called before detection, so that errors come early.

    Args:
        output: Folder of pictures.
        *results: Files of results.

    Raises:
        OSError: If a folder or file can't be written.
        ValueError: If a file of results has the extension of an image, or the output is `-`.
    """
    if output == Path("-"):
        raise ValueError("--output takes a folder; --json - writes to the standard output.")
    if output is not None:
        _make_folder(output)
    for file in results:
        if file is None or is_standard_output(file) or is_stream(file):
            continue
        option = f"--{file.suffix[1:] if file.suffix == '.parquet' else 'json'}"
        if file.is_dir():
            raise IsADirectoryError(f"{option} {file} is a folder; name a file in it.")
        if file.suffix.lower() in image_endings():
            raise ValueError(f"{option} {file} is named like a picture; it takes one file, for the results.")
        _make_folder(file.parent)


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


def picture_files(files: Sequence[Path | str], output: Path) -> dict[Path | str, Path]:
    """Choose the path of each annotated picture.

    Pictures keep the folder structure of the images. Formats other than JPEG and PNG are replaced by PNG. The picture
    of an address is a JPEG of the same name; that of the standard input is `stdin.jpg`.

    Raises:
        ValueError: If a picture would overwrite an image.
    """
    paths = {file: Path(os.path.abspath(file)) for file in files if isinstance(file, Path)}
    root = Path(os.path.commonpath([path.parent for path in paths.values()])) if paths else Path()
    targets: dict[Path | str, Path] = {}
    for file, path in paths.items():
        target = output / path.relative_to(root)
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(target.name + ".png")
        targets[file] = target
    for address in (file for file in files if isinstance(file, str)):
        name = "stdin" if address == "-" else file_name(address)
        targets[address] = unused(output / f"{name}.jpg", targets.values())
    overwritten = {file.resolve() for file in paths} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ValueError(f"--output {output} would overwrite {min(overwritten)}, an input; choose another folder.")
    return targets


def unused(file: Path, used: Collection[Path]) -> Path:
    """Return a path, or with a number added to its name if it is used."""
    numbered = (file.with_name(f"{file.stem}_{i}{file.suffix}") for i in itertools.count(1))
    return next(path for path in itertools.chain([file], numbered) if path not in used)


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


def image_ids(files: Sequence[Path | str]) -> dict[Path | str, int]:
    """Return COCO image ids: numeric file names, or else numbers from 1."""
    names = {file: file.stem if isinstance(file, Path) else file_name(file) for file in files}
    by_name = {file: int(name) for file, name in names.items() if name.isdecimal()}
    if len(set(by_name.values())) == len(files):
        return by_name
    return {file: i for i, file in enumerate(files, start=1)}


def write_json(results: Iterable[ResultRow], file: Path) -> None:
    """Write results to a JSON file, atomically.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """
    with opened(file) as stream:
        before = "[\n"
        for result in results:
            stream.write(f"{before}{json.dumps(result)}".encode())
            before = ",\n"
        stream.write(("[\n\n]\n" if before == "[\n" else "\n]\n").encode())

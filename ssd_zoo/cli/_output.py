"""Write the output of `ssd-zoo detect`: COCO results and annotated pictures."""

import contextlib
import itertools
import json
import mimetypes
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from ssd_zoo.data import image_endings
from ssd_zoo.data.web import file_name
from ssd_zoo.prediction.results import ResultRow
from ssd_zoo.weights.files import check_folder, is_stream, locked, replacing

__all__ = [
    "check_outputs",
    "holding",
    "image_ids",
    "is_kept",
    "is_standard_output",
    "opened",
    "picture_files",
    "refuse_inputs",
    "save_picture",
    "unused",
    "write_json",
]

# Options for results that are not JSON, by the ends of their files.
_OTHERS = {".parquet": "--parquet", ".csv": "--csv"}


def check_outputs(
    output: Path | None,
    *,
    json: Path | None = None,
    parquet: Path | None = None,
    csv: Path | None = None,
    inputs: Iterable[Path] = (),
) -> None:
    """Create output folders and check that they are writable.

    Called before detection, so that errors come early.

    Args:
        output: Folder of pictures.
        json: File of results, which must end with `.json` or `.jsonl`, unless it is a stream.
        parquet: File of results, which must end with `.parquet`.
        csv: File of results, which must end with `.csv`.
        inputs: Files that the results may not overwrite.

    Raises:
        OSError: If a folder or file can't be written.
        ValueError: If a file of results is an input, is given twice or has a wrong extension (letter case does not
            count), or the output is `-` or named like a file.
    """
    if output == Path("-"):
        raise ValueError("--output takes a folder; --json - writes to the standard output.")
    if output is not None:
        if not output.is_dir() and (mimetypes.guess_type(output.name)[0] or "").startswith(("image/", "video/")):
            raise ValueError(f"--output {output} is named like a file; it takes a folder, such as found.")
        _make_folder(output)
    for option, file in (("parquet", parquet), ("csv", csv)):
        if file is not None and (file.suffix.lower() != f".{option}" or is_stream(file)):
            raise ValueError(f"--{option} {file} must be a file whose name ends with .{option}.")
    if json is not None and parquet is not None and os.path.abspath(json) == os.path.abspath(parquet):
        raise ValueError(f"--json and --parquet both name {json}; give each a file.")
    for option, file in (("--json", json), ("--parquet", parquet), ("--csv", csv)):
        if file is None or not is_kept(file):
            continue
        if file.is_dir():
            raise IsADirectoryError(f"{option} {file} is a folder; name a file in it.")
        if file.suffix.lower() in image_endings():
            raise ValueError(f"{option} {file} is named like a picture; it takes one file, for the results.")
        refuse_inputs(f"{option} {file}", [file], inputs)
        if option == "--json" and (ending := file.suffix.lower()) not in (".json", ".jsonl"):
            way = f" ssd-zoo detect {_OTHERS[ending]} FILE writes {ending}." if ending in _OTHERS else ""
            raise ValueError(f"--json {file} must be a file whose name ends with .json or .jsonl.{way}")
        _make_folder(file.parent)


def refuse_inputs(option: str, written: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ValueError if a command would overwrite one of its inputs.

    Args:
        option: The option with its value, for the message.
        written: Files to be written.
        inputs: Files that are read. Files that do not exist are passed over.
    """
    there = {_identity(file) for file in written if file.exists()}
    overwritten = [file for file in inputs if there and file.exists() and _identity(file) in there]
    if overwritten:
        raise ValueError(f"{option} would overwrite {min(overwritten)}, an input; choose another name or folder.")


def _identity(file: Path) -> tuple[int, int]:
    """Return numbers by which two paths of one file are recognised."""
    status = file.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def holding(output: Path | None, *results: Path | None) -> Iterator[None]:
    """Within a with-statement, lock the outputs against other commands, without waiting.

    Lock files lie in the folder and beside the results, and are removed at the end. Streams are not locked.

    Args:
        output: Folder of pictures.
        *results: Files of results.

    Raises:
        ValueError: If another command writes one of them.
    """
    locks = {} if output is None else {output / ".lock": output}
    for file in results:
        if file is not None and is_kept(file):
            # Results and their journal have one lock.
            locks[file.with_name(f".{file.name.removesuffix('.jsonl')}.lock")] = file
    with contextlib.ExitStack() as stack:
        for lock, place in locks.items():
            stack.enter_context(locked(lock, f"Another command writes to {place} now"))
        yield


def _make_folder(folder: Path) -> None:
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def is_kept(file: Path) -> bool:
    """Return whether results go to a regular file, there or not yet, and to no pipe, device or standard output."""
    return not is_standard_output(file) and not is_stream(file)


def is_standard_output(file: Path | None) -> bool:
    """Check whether a file is called `-`, which means the standard output."""
    return file == Path("-")


@contextlib.contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Open the standard output (`-`), or a file that is replaced at the end of the with-statement."""
    if is_standard_output(file):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with replacing(file) as stream:
            yield stream


def picture_files(files: Sequence[Path | str], output: Path) -> dict[Path | str, Path]:
    """Choose the path of each annotated picture.

    Pictures keep the folder structure of the images. Formats other than JPEG and PNG are replaced by PNG. The picture
    of an address is a JPEG of the same name; that of the standard input is `stdin.jpg`. A number is added to a name
    that is used.

    Raises:
        ValueError: If a picture would overwrite an image.
    """
    paths = {file: Path(os.path.abspath(file)) for file in files if isinstance(file, Path)}
    root = Path(os.path.commonpath([path.parent for path in paths.values()])) if paths else Path()
    wanted: dict[Path | str, Path] = {file: output / path.relative_to(root) for file, path in paths.items()}
    targets = {file: path for file, path in wanted.items() if path.suffix.lower() in (".jpg", ".jpeg", ".png")}
    used = set(targets.values())
    for file in files:
        if file not in targets:
            name = "stdin" if file == "-" else file_name(str(file))
            target = wanted[file].with_name(f"{wanted[file].name}.png") if file in wanted else output / f"{name}.jpg"
            targets[file] = unused(target, used)
            used.add(targets[file])
    refuse_inputs(f"--output {output}", targets.values(), paths)
    return targets


def unused(file: Path, used: Collection[Path]) -> Path:
    """Return a path, with a number added to its name if the path is used already."""
    numbered = (file.with_name(f"{file.stem}_{i}{file.suffix}") for i in itertools.count(1))
    return next(path for path in itertools.chain([file], numbered) if path not in used)


def save_picture(picture: Image.Image, file: Path) -> None:
    """Save a picture as PNG if its name ends with `.png` (in any letter case), else as JPEG.

    Raises:
        OSError: If the file can't be written; an older one stays. The message names it.
    """
    try:
        with replacing(file) as stream:
            picture.save(stream, format="PNG" if file.suffix.lower() == ".png" else "JPEG", quality=95)
    except OSError as error:
        raise OSError(f"{file} can't be written: {error.strerror or error}.") from error


def image_ids(files: Sequence[Path | str]) -> dict[Path | str, int]:
    """Return COCO image ids: numeric file names if all are numeric and distinct, or else numbers from 1."""
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

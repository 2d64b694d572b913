"""Checkpoints: whole or not at all."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["check_same", "read_checkpoint", "replace_folder", "write_atomically", "write_checkpoint"]


def write_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Writes a checkpoint; the one before is there until the new one is.

    Raises:
        OSError: If it can't be written, for example on a full disk. The last good one stays.
    """
    # Through memory, because PyTorch's own writer hides what went wrong with the disk.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_atomically(buffer.getbuffer(), file)
    except OSError as error:
        kept = "The last good one stays there." if file.exists() else "There is none from before."
        raise OSError(error.errno, f"The checkpoint {file} can't be written: {error.strerror}. {kept}") from error


def write_atomically(content: bytes | memoryview, file: Path) -> None:
    """Writes a file under another name, makes sure that it is on the disk, and puts it in its place."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        ValueError: If it is none.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever PyTorch raises on a file that is something else.
        raise ValueError(f"{file} is no checkpoint of a training: {error}") from error


def check_same(before: dict[str, Any], now: dict[str, Any], file: Path) -> None:
    """Checks that a run goes on with what it began with.

    Raises:
        ValueError: If a setting differs; the message names it.
    """
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"The run of {file} began with {name}={before.get(name)!r}, so it can't go on with {value!r}. Use the "
                "same setting, or another output folder."
            )


def replace_folder(write: Callable[[Path], Any], folder: Path) -> None:
    """Writes a folder under another name and puts it in its place."""
    unfinished, old = folder.with_name(f".{folder.name}.unfinished"), folder.with_name(f".{folder.name}.old")
    for leftover in (unfinished, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write(unfinished)
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)

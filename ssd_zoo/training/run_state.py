"""Checkpoints: whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch

from ssd_zoo.weights.files import write_file

__all__ = ["check_same", "read_checkpoint", "write_checkpoint"]


def write_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Write a checkpoint, whole; until then the one before stays.

    Raises:
        OSError: If it can't be written, for example on a full disk. The last good one stays.
    """
    # Through memory, because PyTorch's own writer hides what went wrong with the disk.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_file(file, buffer.getvalue())
    except OSError as error:
        kept = "The last good one stays there." if file.exists() else "There is none from before."
        raise OSError(error.errno, f"The checkpoint {file} can't be written: {error.strerror}. {kept}") from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: If it is none.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever PyTorch raises on a file that is something else.
        raise ValueError(f"{file} is no checkpoint of a training by ssd_zoo, or it is damaged.") from error
    if not isinstance(state, dict) or not {"settings", "progress", "model", "optimizer"} <= state.keys():
        raise ValueError(f"{file} is no checkpoint of a training by ssd_zoo.")
    return state


def check_same(before: dict[str, Any], now: dict[str, Any], file: Path) -> None:
    """Check that a resumed run has the settings that it began with.

    Raises:
        ValueError: If a setting differs; the message names it.
    """
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"The run of {file} began with {name}={_short(before.get(name))}, so it can't go on with "
                f"{_short(value)}. Use the same setting, or another output folder."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"

"""Find everything that a training lacks before it reads data."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["obstacles", "raise_together"]


def obstacles(output: Path, *, resume: bool, evaluates: bool, tensorboard: bool) -> list[Exception]:
    """Return errors for all that a run lacks: packages, rights, a free folder.

    Args:
        output: The run's folder.
        resume: Whether a run in it may continue.
        evaluates: Whether the run measures AP.
        tensorboard: Whether it writes events for TensorBoard.
    """
    needed = ["accelerate", "matplotlib", *(["faster_coco_eval"] if evaluates else [])]
    needed += ["tensorboard"] if tensorboard else []
    found: list[Exception] = []
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        without = "" if missing != ["tensorboard"] else ", or train with tensorboard=False (--no-tensorboard)"
        found.append(ImportError(f'Training needs {", ".join(missing)}: pip install "ssd_zoo[train]"{without}.'))
    there = output
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        found.append(NotADirectoryError(f"The run's folder {output} can't be made: {there} is not a folder."))
    elif not os.access(there, os.W_OK | os.X_OK):
        found.append(PermissionError(f"The run's folder {output} can't be written: nothing may be written to {there}."))
    elif not resume and any((output / name).exists() for name in ("checkpoint.pt", "best", "last", "metrics.csv")):
        found.append(ValueError(f"{output} holds a run; continue it by resume=True (--resume), or use another folder."))
    return found


def raise_together(errors: Sequence[Exception]) -> None:
    """Raise one error, of the first one's type, that lists all messages."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise type(errors[0])("\n  ".join(["The training can't begin:", *map(str, errors)]))

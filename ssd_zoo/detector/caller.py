"""Warnings that name the caller's line."""

import os
import sys
import warnings
from pathlib import Path

import torch
import torchvision

__all__ = ["warn_caller"]

_LIBRARIES = (
    str(Path(__file__).parents[1]) + os.sep,
    *(str(Path(file).parent) + os.sep for file in (torch.__file__, torchvision.__file__)),
)


def warn_caller(message: str) -> None:
    """Warn at the first line outside this package and torch.

    Args:
        message: Text of the `UserWarning`.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )

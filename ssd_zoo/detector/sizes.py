"""Sizes of inputs: the side of a square, or (height, width)."""

import re
import reprlib
from collections.abc import Sequence

from torch import Tensor

__all__ = ["LARGEST_SIDE", "parse_size", "read_size", "sizes_of"]

LARGEST_SIDE = 16384
_TEXT = re.compile(r"(\d+)(?:[x×](\d+))?", re.IGNORECASE)


def parse_size(size: object) -> tuple[int, int]:
    """Return the (height, width) in pixels of a size: a positive int, or two of them.

    Raises:
        ValueError: If the size is neither a positive int nor two of them, or is larger than `LARGEST_SIDE`.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"size must be a positive int or (height, width), got {reprlib.repr(size)}.")
    if max(sides) > LARGEST_SIDE:
        raise ValueError(f"size {sides[0]} × {sides[1]} is larger than {LARGEST_SIDE} pixels a side.")
    return sides[0], sides[1]


def read_size(text: str) -> tuple[int, int]:
    """Parse a size such as "300", "480x640" or "480×640" to (height, width).

    Raises:
        ValueError: If the text has another form, or a side is 0.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None or not all(int(side) for side in match.groups() if side):
        raise ValueError(f"must be a side or HEIGHTxWIDTH, such as 480x640, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def sizes_of(images: Sequence[Tensor] | Tensor) -> list[tuple[int, int]]:
    """Return the (height, width) in pixels of images or clips."""
    return [(image.shape[-2], image.shape[-1]) for image in images]

"""Parse and check the values of options."""

import argparse
import math
from collections.abc import Callable, Sequence

from ssd_zoo.data.images import MAX_PIXELS
from ssd_zoo.detector.sizes import read_size
from ssd_zoo.weights.categories import is_background

__all__ = [
    "Parser",
    "add_max_pixels",
    "count",
    "fraction",
    "name_list",
    "amount",
    "positive",
    "size",
    "tile",
    "with_background",
    "zero_is_none",
]


Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_max_pixels(parser: Parser) -> None:
    """Declare `--max-pixels`, for commands that read images."""
    parser.add_argument("--max-pixels", type=zero_is_none(count), default=MAX_PIXELS, metavar="N",
                        help="largest image or frame that is read; 0 for no limit (default: %(default)s)")  # fmt: skip


def count(text: str) -> int:
    """Parse a whole number of at least 0.

    Other texts are an `argparse.ArgumentTypeError`, as in all parsers of numbers here.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """Parse a number between 0 and 1."""
    value = _float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def name_list(text: str) -> list[str]:
    """Parse names separated by commas; empty ones are left out."""
    return [name.strip() for name in text.split(",") if name.strip()]


def with_background(categories: Sequence[str]) -> list[str]:
    """Put the background before class names, unless it is there."""
    return list(categories) if categories and is_background(categories[0]) else ["background", *categories]


def amount(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = _float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return value


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return value


def size(text: str) -> tuple[int, int]:
    """Parse an input size; see `read_size`."""
    try:
        return read_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tile(text: str) -> int | tuple[int, int]:
    """Parse the size of tiles, or 0 for none."""
    return 0 if text == "0" else size(text)


def zero_is_none(parse: Callable[[str], float]) -> Callable[[str], float | None]:
    """Return a parser that reads 0 as None, which means "off"."""
    return lambda text: parse(text) or None

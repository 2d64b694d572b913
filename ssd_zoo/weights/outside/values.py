"""Checks of values that others wrote."""

import math
import re
import reprlib
import sys
from collections.abc import Sequence
from typing import TypeAlias, Union

__all__ = [
    "DEEPEST",
    "JSON",
    "LARGEST_INT",
    "check_number_of",
    "line_at",
    "listing",
    "mapping",
    "number",
    "parse_number",
    "quote",
    "text",
    "too_deep",
    "whole",
]

JSON: TypeAlias = Union[bool, int, float, str, "list[JSON]", "dict[str, JSON]", None]

DEEPEST = 64
LARGEST_INT = 2**63 - 1
_LARGEST = sys.float_info.max
_QUOTED = 100
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*", re.ASCII)


def quote(value: object) -> str:
    """Return a value for an error message, in about 100 characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = _QUOTED
    shown = short.repr(value)
    return shown if len(shown) <= _QUOTED else shown[: _QUOTED - 1] + "…"


def line_at(content: str, position: int) -> int:
    """Return the line number of a position, counted from 1."""
    return content.count("\n", 0, position) + 1


def check_number_of(what: str, content: str, marks: Sequence[str], most: int, source: object) -> None:
    """Raise ValueError if a text may hold too many values.

    Args:
        what: Noun of the values, for the message.
        content: The text, before it is parsed.
        marks: Texts that stand before or between values, such as a comma. They are counted.
        most: Number of values that is allowed.
        source: Name of the text in messages.
    """
    found = sum(map(content.count, marks))
    if found > most:
        raise ValueError(f"{source} has {found} {what}, and {most} are allowed; split it into several files.")


def too_deep(source: object, what: str) -> ValueError:
    """Return the error of a text that is nested too deep."""
    return ValueError(f"{source} is {what} nested deeper than {DEEPEST} levels, the limit.")


def number(value: object, what: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Check that a value is a finite number in a range.

    True and False are not numbers.

    Raises:
        ValueError: If it is not; the message begins with `what`.
    """
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and max(low, -_LARGEST) <= value <= min(high, _LARGEST)
    ):
        return float(value)
    raise ValueError(f"{what} must be a finite number{_range(low, high)}, got {quote(value)}.")


def whole(value: object, what: str, *, low: int = -LARGEST_INT, high: int = LARGEST_INT) -> int:
    """Check that a value is a whole number in a range.

    3.0 is one, and becomes an int. True and False are not.

    Raises:
        ValueError: If it is not; the message begins with `what`.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    ends = (-math.inf if low == -LARGEST_INT else low, math.inf if high == LARGEST_INT else high)
    raise ValueError(f"{what} must be a whole number{_range(*ends)}, got {quote(value)}.")


def _range(low: float, high: float) -> str:
    """Return words about the allowed range, for a message."""
    return ("" if low == -math.inf else f" from {low:g}") + ("" if high == math.inf else f" up to {high:g}")


def parse_number(value: str, what: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Parse a decimal number of ASCII digits; see `number`.

    Raises:
        ValueError: If it is not one, or out of range; the message begins with `what`.
    """
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{what} must be a finite number{_range(low, high)}, got {quote(value)}.")
    return number(float(value), what, low=low, high=high)


def text(value: object, what: str, *, longest: int = 2**16) -> str:
    """Check that a value is Unicode text without zero characters.

    Raises:
        ValueError: If it is not, or is too long; the message begins with `what`.
    """
    if not isinstance(value, str) or "\0" in value or re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{what} must be a text, got {quote(value)}.")
    if len(value) > longest:
        raise ValueError(f"{what} has {len(value)} characters; at most {longest} are allowed.")
    return value


def mapping(value: object, what: str) -> dict[str, JSON]:
    """Check that a value is a mapping.

    Raises:
        ValueError: If it is not; the message begins with `what`.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping, got {quote(value)}.")
    return value


def listing(value: object, what: str, *, shortest: int = 0, longest: int = 2**40) -> list[JSON]:
    """Check that a value is a list of an allowed length.

    Raises:
        ValueError: If it is not; the message begins with `what`.
    """
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list, got {quote(value)}.")
    if not shortest <= len(value) <= longest:
        allowed = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise ValueError(f"{what} must have {allowed} entries, got {len(value)}.")
    return value

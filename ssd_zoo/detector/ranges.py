"""Checks of single values: choices, fractions and counts."""

from collections.abc import Sequence

__all__ = ["check_choice", "check_count", "check_fraction"]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError if a value is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def check_fraction(name: str, value: object, what: str) -> None:
    """Check that a value is a number between 0 and 1.

    Args:
        name: Name of the setting.
        value: Its value.
        what: What the number is, such as "an IoU".

    Raises:
        TypeError: If the value is not a number.
        ValueError: If it does not lie between 0 and 1, or is NaN.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {what} and must be a number between 0 and 1, got {value!r}.")
    number = float(value)
    if not 0 <= number <= 1:
        way_out = f" For {number:g} percent, pass {number / 100:g}." if 1 < number <= 100 else ""
        raise ValueError(f"{name} is {what} and must lie between 0 and 1, got {value}.{way_out}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Check that a value is an integer and at least `least`.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below the least one.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if value.__index__() < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")

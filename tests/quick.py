"""Which cases of a test README's command runs; CI runs all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick(*chosen: Any, of: Iterable[Any]) -> list[Any]:
    """Return all values as parameters of a test; those that are not chosen are marked as slow."""
    values = list(of)
    assert all(value in values for value in chosen), "what is chosen is there"
    return [value if value in chosen else pytest.param(*_parts(value), marks=pytest.mark.slow) for value in values]


def _parts(value: Any) -> Collection[Any]:
    return value if isinstance(value, tuple) else (value,)

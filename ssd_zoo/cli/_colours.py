"""Colour texts on terminals."""

import os
from typing import TextIO

__all__ = ["painted"]

_CODES = {"bold": "1", "green": "32", "red": "31"}


def painted(text: str, colour: str, stream: TextIO) -> str:
    """Colour a text if it goes to a terminal, unless `NO_COLOR` is set; see https://no-color.org."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{_CODES[colour]}m{text}\033[0m"

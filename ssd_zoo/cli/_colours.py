"""Colours on terminals."""

import os
import re
import sys
from typing import TextIO

__all__ = ["complain", "painted"]

_CODES = {"bold": "1", "green": "32", "red": "31"}
# An argument in Python, and the option of the command that sets it.
_VALUE = r"""'[^']*'(?: or '[^']*')*|"[^"]*"|\[[^\]]*\]"""
_ARGUMENT = re.compile(rf"(?:[\w.]+ ?= ?(?:{_VALUE}|\S+)|{_VALUE}|\S*[._=]\S*) \((--[^)]+)\)")


def complain(message: object) -> None:
    """Print an error on stderr, after the command's name in red.

    Where the message names a Python argument with its option, as in `max_pixels (--max-pixels)`, only the option is
    printed.
    """
    text = _ARGUMENT.sub(r"\1", str(message))
    print(f"{painted('ssd-zoo:', 'red', sys.stderr)} {text}", file=sys.stderr)


def painted(text: str, colour: str, stream: TextIO) -> str:
    """Return a text in bold, green or red if it goes to a terminal, unless `NO_COLOR` is set; see https://no-color.org."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{_CODES[colour]}m{text}\033[0m"

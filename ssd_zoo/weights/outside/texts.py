"""Reading and decoding of text files."""

import contextlib
import logging
import os
import re
from difflib import get_close_matches
from pathlib import Path

from ssd_zoo.weights.outside.values import line_at

__all__ = ["decode", "near_paths", "read_bytes", "read_start", "read_text"]

LARGEST_TEXT = 2**26
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# Encodings that an XML declaration may name; others of Python's take long or are no encodings of text.
_DECLARED = re.compile(
    rb"""\s*<\?xml[^>]{0,80}encoding\s*=\s*["'](iso-8859-\d+|windows-\d+|gb\w+|big5|shift_jis|euc-\w+|koi8-\w)["']""",
    re.I,
)
_log = logging.getLogger("ssd_zoo")


def read_bytes(file: Path, *, limit: int = LARGEST_TEXT) -> bytes:
    """Read a file of limited size.

    Raises:
        OSError: If it can't be read.
        ValueError: If it has more bytes than the limit.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, but a file is needed.")
    with file.open("rb") as stream:
        # Python takes the memory of the asked size at once.
        content = stream.read(min(os.fstat(stream.fileno()).st_size, limit) + 1)
        while len(content) <= limit and (more := stream.read(2**20)):
            content += more
    if len(content) > limit:
        raise ValueError(f"{file} has more than {limit} bytes, the limit of such files.")
    return content


def read_text(file: Path, *, limit: int = LARGEST_TEXT) -> str:
    """Read a text file; see `decode`.

    Args:
        file: The file.
        limit: The most bytes that it may have.

    Raises:
        OSError: If it can't be read.
        ValueError: If it has more bytes, or is not text.
    """
    return decode(read_bytes(file, limit=limit), file)


def read_start(file: Path, length: int) -> str:
    """Read the first `length` bytes as text; replace bad bytes.

    Raises:
        OSError: If it can't be read.
    """
    with file.open("rb") as stream:
        content = stream.read(length)
    return content.decode(_mark(content) or "utf-8", "replace")


def _mark(content: bytes) -> str | None:
    """Return the encoding that a byte order mark tells, if there is one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), None)


def decode(content: bytes, source: object) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, or else Windows-1252 or Latin-1.

    An XML declaration may name another encoding. Text that is not Unicode is reported in the log.

    Args:
        content: The bytes.
        source: Name of the text in messages.

    Raises:
        ValueError: If it is not text.
    """
    marked = _mark(content)
    declared = _DECLARED.match(content)
    encodings = [marked] if marked else [*([declared[1].decode()] if declared else []), "utf-8", "cp1252", "latin-1"]
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            result = content.decode(encoding)
            break
    else:
        raise ValueError(f"{source} begins like text in {marked}, but is not.")
    if "\0" in result:
        raise ValueError(f"{source}:{line_at(result, result.index(chr(0)))} holds a zero byte; it is not a text file.")
    if encoding in ("cp1252", "latin-1"):
        _log.warning("%s is not UTF-8; it is read as Latin-1. Save it as UTF-8 if letters are wrong.", source)
    return result


def near_paths(path: str | os.PathLike[str]) -> str:
    """Return a sentence that proposes paths similar to a missing one.

    It begins with a space and names what lies in the same folder; it is empty if nothing is similar.
    """
    missing = Path(path)
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = sorted(os.listdir(missing.parent))
    close = get_close_matches(missing.name, beside, n=3)
    return f" Did you mean {' or '.join(str(missing.parent / name) for name in close)}?" if close else ""

"""Fetch images from the web."""

import re
from collections.abc import Collection
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ssd_zoo.version import __version__

__all__ = ["fetch", "file_name", "is_image_address", "is_web"]

_LARGEST = 2**27
# Some servers refuse the name that Python's client gives by default.
_HEADERS = {"User-Agent": f"ssd_zoo/{__version__}"}


def is_web(source: object) -> bool:
    """Return whether a source is an address `http://…` or `https://…`."""
    return isinstance(source, str) and re.match(r"https?://", source, re.IGNORECASE) is not None


def fetch(address: str, *, largest: int = _LARGEST, timeout: float = 30) -> bytes:
    """Download a file into memory.

    Args:
        address: `http://…` or `https://…`.
        largest: Most bytes; by default 134 MB.
        timeout: Seconds that the server may be silent.

    Raises:
        FileNotFoundError: If the server has no such file.
        ConnectionError: If the server can't be reached, refuses, or breaks off.
        ValueError: If it is not an address, or the file is larger than allowed.
    """
    try:
        with urlopen(Request(address, headers=_HEADERS), timeout=timeout) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            content: bytes = b"" if length > largest else answer.read(largest + 1)
    except HTTPError as error:
        error.close()
        kind = FileNotFoundError if error.code in (404, 410) else ConnectionError
        raise kind(f"{address} can't be fetched: the server answers {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"{address} can't be fetched: {getattr(error, 'reason', None) or error}.") from error
    except ValueError as error:
        raise ValueError(f"{address} is not an address that can be fetched: {error}.") from error
    if max(length, len(content)) > largest:
        raise ValueError(f"{address} is larger than {largest} bytes. Download it, and give the path of the file.")
    if len(content) < length:
        raise ConnectionError(f"{address} broke off after {len(content)} of {length} bytes. Try again.")
    return content


def is_image_address(address: str, endings: Collection[str], *, timeout: float = 30) -> bool:
    """Return whether a web address is that of an image.

    Its extension, in any letter case, decides, or without one the type that the server tells. If the server can't be
    reached, it is not.

    Args:
        address: Any address.
        endings: Extensions of images, with their dots, in lower case.
        timeout: Seconds that the server may be silent.
    """
    if not is_web(address):
        return False
    ending = Path(urlsplit(address).path).suffix.lower()
    if ending:
        return ending in endings
    try:
        with urlopen(Request(address, headers=_HEADERS), timeout=timeout) as answer:
            return bool(answer.headers.get_content_maintype() == "image")
    except (OSError, HTTPException, ValueError):
        return False


def file_name(address: str) -> str:
    """Return a file's name without extension from an address.

    `https://user:password@host/door.jpg?channel=1` gives `door`. It is `video` if the address has none; other
    characters than letters, digits, `.`, `-` and `_` become `_`.
    """
    parts = re.sub(r"[?#].*", "", address.partition("://")[2].rpartition("@")[2]).rstrip("/").split("/")
    return re.sub(r"[^\w.-]", "_", Path(parts[-1]).stem) or "video"

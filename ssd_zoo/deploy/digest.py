"""The digest of an exported file, which stands in its description."""

import hashlib
import re
from pathlib import Path

__all__ = ["BLANK", "check_digest", "is_digest", "seal"]

_BEGINNING = "ssd_zoo:sha256:"
BLANK = _BEGINNING + 64 * "0"
"""Digest of a description before the file is complete; it has the length of any other."""

# Its characters stand as they are in JSON, XML, protobuf's messages and flatbuffers.
_DIGEST = re.compile(rb"ssd_zoo:sha256:[0-9a-f]{64}")


def seal(content: bytes) -> bytes:
    """Replace each `BLANK` in a file's content by the content's digest.

    It is the SHA-256 of the content with the blanks in place, and as long as they are. Content without a blank is
    returned unchanged.
    """
    return content.replace(BLANK.encode(), _digest_of(content))


def check_digest(path: Path) -> None:
    """Check that a file has the digest that it holds; one without a digest passes.

    Raises:
        ValueError: If the content has another digest.
    """
    content = path.read_bytes()
    held = _DIGEST.search(content)
    if held is not None and _digest_of(_DIGEST.sub(BLANK.encode(), content)) != held[0]:
        raise ValueError(
            f"{path} is damaged, or was changed: it does not have the digest in its description. Get or export it "
            "again. If you changed it yourself, set the digest in its description to null."
        )


def is_digest(value: object) -> bool:
    """Return whether a value is a digest as descriptions hold it."""
    return isinstance(value, str) and _DIGEST.fullmatch(value.encode(errors="replace")) is not None


def _digest_of(content: bytes) -> bytes:
    return f"{_BEGINNING}{hashlib.sha256(content).hexdigest()}".encode()

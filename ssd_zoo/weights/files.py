"""Files of tensors: atomic writing, and reading with checks.

Each safetensors file that is written holds a digest of its tensors, which is checked when they are read.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ssd_zoo.weights.formats.checkpoint import check_finite
from ssd_zoo.weights.formats.safetensors_file import DIGEST, Header, Packed, encode_header, parse_header, read_contents

__all__ = [
    "check_folder",
    "digest_file",
    "home",
    "is_stream",
    "locked",
    "naming_download",
    "read_header",
    "read_safetensors",
    "replacing",
    "write_file",
    "write_safetensors",
]

_CHUNK = 2**20


def home() -> Path:
    """Return ssd_zoo's cache folder: `SSD_ZOO_HOME`, by default within torch.hub's."""
    return Path(os.environ.get("SSD_ZOO_HOME") or Path(torch.hub.get_dir()) / "ssd_zoo").expanduser()


def write_file(path: Path, *content: bytes | memoryview) -> None:
    """Write a file's content, in pieces, atomically; see `replacing`."""
    with replacing(path) as file:
        file.writelines(content)


def check_folder(folder: Path, name: str = "The folder") -> None:
    """Check that a folder can be created and written to; leave no trace.

    Raises:
        OSError: If it can't: NotADirectoryError or PermissionError. The message begins with the name.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{name} {folder} can't be made: {there} is a file, not a folder.")
    try:
        # Rights alone do not tell: root has all of them, in /proc and on read-only disks too.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise PermissionError(
            f"{name} {folder} can't be written: nothing may be written to {there} ({error.strerror}). Name another."
        ) from error


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_stream(path: Path) -> bool:
    """Check whether a path is a pipe or device, such as /dev/stdout; False if nothing is there."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Lock a file within a with-statement, against other processes.

    On a file system without locks nothing is locked. It is a lock of the operating system, so it ends with its process,
    however that ends.

    Args:
        file: File that is locked. It is made, and removed at the end.
        what: Beginning of the error, such as "Another training writes to runs now".

    Raises:
        ValueError: If another process holds the lock.
        OSError: If the file can't be made.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{what}. Wait until it ends, stop it, or name another place.") from error
    except NotImplementedError:
        pass  # The file system has no locks.
    try:
        yield
    finally:
        # Windows removes no open file.
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces a path when the with-statement ends.

    Folders above the file are made. Until the end, and after an error, the old file stays. Pipes and devices, such as
    /dev/stdout, are written directly.

    Raises:
        OSError: If the file can't be written; the old one stays. The error names the path.
    """
    try:
        if is_stream(path):
            with path.open("wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                mask = os.umask(0)
                os.umask(mask)
                os.chmod(file.name, 0o666 & ~mask)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        # The error of a full disk lacks the file's name, others name the temporary file.
        if error.errno is not None and (error.filename is None or ".part" in str(error.filename)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def naming_download(path: Path) -> Iterator[None]:
    """Within a with-statement, add to a ValueError which download to delete.

    It is added for files in the Hub's cache. The cache holds links, and the file that one leads to must be deleted.
    """
    try:
        yield
    except ValueError as error:
        download = path.resolve()
        if download.parent.name != "blobs":
            raise
        raise ValueError(f"{error} If the download is damaged, delete {download}: it is made again then.") from error


def write_safetensors(path: Path, tensors: Packed, metadata: Mapping[str, str]) -> None:
    """Write packed tensors to a safetensors file atomically.

    The header's metadata are `format`, the tensors' `digest`, and those given, which win.
    """
    header = encode_header(tensors.entries, {"format": "pt", DIGEST: tensors.digest, **metadata})
    write_file(path, header, tensors.data)


def read_header(path: Path) -> Header:
    """Return the checked header of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, is cut off, or has a header that is too long.
    """
    with naming_download(path), path.open("rb") as file:
        return parse_header(file, os.fstat(file.fileno()).st_size, path)


def read_safetensors(path: Path, *, digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors; those of half precision become float32.

    Args:
        path: A safetensors file. If its header holds a digest, its tensors must have it.
        digest: The digest that the tensors must have, as far as it is known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, is damaged or of another digest, or holds a number that is not
            finite.
    """
    with naming_download(path), path.open("rb") as file:
        contents = read_contents(file, path)
    if digest not in (None, contents.digest):
        raise ValueError(
            f"{path} does not hold the tensors of its config: it is damaged, or was replaced while it was opened. "
            "Open it again. If you changed the tensors yourself, remove weights_id from config.json."
        )
    state = {name: _single(tensor) for name, tensor in contents.tensors.items()}
    check_finite(state)
    return state


def _single(tensor: Tensor) -> Tensor:
    """Convert half precision to float32 (single precision); other types stay."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor

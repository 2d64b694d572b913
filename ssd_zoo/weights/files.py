"""Files of tensors: atomic writing, and reading with checks."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssd_zoo.weights.formats.checkpoint import check_finite

__all__ = [
    "LARGEST_HEADER",
    "home",
    "is_stream",
    "read_header",
    "read_safetensors",
    "replacing",
    "write_file",
    "write_safetensors",
]

# Detectors have a few hundred tensors; safetensors itself accepts headers of 100 MB.
LARGEST_HEADER = 10 * 2**20


def home() -> Path:
    """Return ssd_zoo's cache folder: `SSD_ZOO_HOME`, by default within torch.hub's."""
    return Path(os.environ.get("SSD_ZOO_HOME") or Path(torch.hub.get_dir()) / "ssd_zoo").expanduser()


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def is_stream(path: Path) -> bool:
    """Check whether a path is that of a pipe or device, such as /dev/stdout."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces a path once complete.

    At any moment the old or the new file is there, whole. Pipes and devices, such as /dev/stdout, are written directly.

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
        if error.filename is None or ".part" in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to a safetensors file atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_file(path, save(tensors, {"format": "pt", **metadata}))


def read_header(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, is cut off, or has a header that is too long.
    """
    with _opened(path) as file:
        return file.metadata() or {}


def read_safetensors(path: Path, keep: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """Read tensors; those of half precision become float32.

    Args:
        path: A safetensors file.
        keep: Called with a tensor's name; returns whether to read it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file, is cut off, or holds a number that is not finite.
    """
    with _opened(path) as file:
        state = {name: _single(file.get_tensor(name)) for name in file.keys() if keep(name)}  # noqa: SIM118
    check_finite(state)
    return state


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["safe_open"]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(
                f"{path} is cut off or not a safetensors file: it has {size} bytes and announces a header of {length}, "
                f"of which {LARGEST_HEADER} are allowed. Download or save it again."
            )
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is cut off or not a safetensors file: {error}. Download or save it again.") from error

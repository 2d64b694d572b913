"""Files of tensors: written whole or not at all, and read with distrust."""

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
    "read_header",
    "read_safetensors",
    "replacing",
    "write_file",
    "write_safetensors",
]

# No detector has more than a few hundred tensors; safetensors itself would parse 100 MB.
LARGEST_HEADER = 10 * 2**20


def home() -> Path:
    """Gives the folder of what ssd_zoo keeps: `SSD_ZOO_HOME`, by default beside torch.hub's."""
    return Path(os.environ.get("SSD_ZOO_HOME") or Path(torch.hub.get_dir()) / "ssd_zoo").expanduser()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment either the old one or the new one is there.

    Raises:
        OSError: If it can't be written; the old file stays.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        # A full disk does not say which file it had no place for.
        error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file beside a path, which takes its place once it is written and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(file.name, 0o666 & ~mask)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors to a safetensors file, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_file(path, save(tensors, {"format": "pt", **metadata}))


def read_header(path: Path) -> dict[str, str]:
    """Gives the metadata of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, is cut off, or has a header of an absurd length.
    """
    with _opened(path) as file:
        return file.metadata() or {}


def read_safetensors(path: Path, keep: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """Reads tensors, those of half precision as float32.

    Args:
        path: A safetensors file.
        keep: Tells by its name whether a tensor is wanted.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none or is cut off, or if a number in it is not finite.
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
                f"{path} is cut off, or no safetensors file: it has {size} bytes and announces a header of {length}, "
                f"of which {LARGEST_HEADER} are allowed. Download or save it again."
            )
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is cut off, or no safetensors file: {error}. Download or save it again.") from error

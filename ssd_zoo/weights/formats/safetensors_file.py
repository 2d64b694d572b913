"""The header of safetensors files, and a digest of their tensors.

Eight bytes hold the length of a JSON header, which holds type, shape and offsets of each tensor. Its values follow.
https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import BinaryIO, NamedTuple, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from ssd_zoo.weights.outside import listing, mapping, parse_json, quote, text, whole

__all__ = [
    "DIGEST",
    "TYPES",
    "Contents",
    "Entry",
    "Header",
    "Packed",
    "digest_of",
    "encode_header",
    "pack",
    "parse_header",
    "read_contents",
]

DIGEST = "digest"
"""Key of the digest in a header's metadata."""

# Detectors have a few hundred tensors; safetensors itself accepts headers of 100 MB.
_LARGEST = 10 * 2**20
_MOST_SIDES = 8
TYPES = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""PyTorch's types by their names in a header."""


class Entry(NamedTuple):
    """Type, shape and place of a tensor in a safetensors file.

    `start` and `stop` are bytes after the header. `dtype` is a key of `TYPES`.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """A file's header: metadata, tensors by name, and the first byte after it."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    start: int


class Packed(NamedTuple):
    """Tensors as bytes (`entries` by name, in `data`), and their digest."""

    entries: dict[str, Entry]
    data: memoryview
    digest: str


class Contents(NamedTuple):
    """A whole file: its header, its tensors, and their digest."""

    header: Header
    tensors: dict[str, Tensor]
    digest: str


class Stream(Protocol):
    """Source of bytes: an open file, or part of a Hub's file."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes."""
        ...


def parse_header(stream: Stream, size: int, source: object) -> Header:
    """Read and check the header of a safetensors file.

    Args:
        stream: The file, at its beginning.
        size: Its length in bytes.
        source: Name of the file in messages.

    Raises:
        ValueError: If it is not a safetensors file, is cut off, has a header over 10 MiB, or tensors of unknown types,
            or that do not fill the file.
    """
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(size - 8, _LARGEST):
        raise ValueError(
            f"{source} is cut off or not a safetensors file: it has {size} bytes and announces a header of {length}; "
            f"at most {_LARGEST} are allowed. Download or save it again."
        )
    try:
        content = mapping(parse_json(stream.read(length), "the header"), "the header")
        texts = mapping(content.pop("__metadata__", {}), "__metadata__")
        metadata = {name: text(value, f"metadata {quote(name)}", longest=_LARGEST) for name, value in texts.items()}
        entries = {
            text(name, "a tensor's name"): _entry(value, f"tensor {quote(name)}") for name, value in content.items()
        }
        _check_places(entries, size - 8 - length)
    except ValueError as error:
        raise ValueError(
            f"{source} is cut off or not a safetensors file: {str(error).rstrip('.')}. Download or save it again."
        ) from error
    return Header(metadata, entries, 8 + length)


def _entry(value: object, what: str) -> Entry:
    entry = mapping(value, what)
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise ValueError(f"{what} has the type {quote(dtype)}; known are {', '.join(TYPES)}")
    sides = listing(entry.get("shape"), f"the shape of {what}", longest=_MOST_SIDES)
    shape = tuple(whole(side, f"a side of {what}", low=0) for side in sides)
    offsets = listing(entry.get("data_offsets"), f"data_offsets of {what}", shortest=2, longest=2)
    start, stop = (whole(offset, f"an offset of {what}", low=0) for offset in offsets)
    if math.prod(shape) * TYPES[dtype].itemsize != stop - start:
        raise ValueError(f"{what} of shape {list(shape)} and type {dtype} has {stop - start} bytes")
    return Entry(dtype, shape, start, stop)


def _check_places(entries: Mapping[str, Entry], size: int) -> None:
    """Raise ValueError unless the tensors fill `size` bytes without gaps or overlaps."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            raise ValueError(f"tensor {quote(name)} begins at byte {entry.start}, not at {end}")
        end = entry.stop
    if end != size:
        raise ValueError(f"its tensors have {end} bytes, but {size} are there")


def read_contents(file: BinaryIO, source: object) -> Contents:
    """Read and check a whole file.

    Each byte is read once. So what is checked is what is returned, also if another process changes the file meanwhile.

    Args:
        file: The open file, at its beginning.
        source: Name of the file in messages.

    Raises:
        ValueError: See `parse_header`; or if the tensors do not have the digest in the header.
    """
    header = parse_header(file, os.fstat(file.fileno()).st_size, source)
    in_order = sorted(header.entries.items(), key=lambda item: item[1][2:])
    values = {name: bytearray(entry.stop - entry.start) for name, entry in in_order}
    for name, piece in values.items():
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise ValueError(f"{source} was cut off at {quote(name)} while it was read. Read it again.")
    digest = digest_of(header.entries, values.values())
    if digest != header.metadata.get(DIGEST, digest):
        raise ValueError(
            f"{source} is damaged: its tensors do not have the digest in its header. Download or save it again."
        )
    return Contents(header, {name: _tensor(entry, values[name]) for name, entry in header.entries.items()}, digest)


def _tensor(entry: Entry, values: bytearray) -> Tensor:
    dtype = TYPES[entry.dtype]
    flat = torch.frombuffer(values, dtype=torch.uint8) if values else torch.empty(0, dtype=torch.uint8)
    return flat.view(dtype).reshape(entry.shape)


def encode_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """Return a header as bytes, with its length before it."""
    content = {"__metadata__": dict(metadata)} | {name: _plain(entry) for name, entry in entries.items()}
    encoded = json.dumps(content).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded


def _plain(entry: Entry) -> dict[str, object]:
    return {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.stop]}


def digest_of(entries: Mapping[str, Entry], data: Iterable[bytes | bytearray | memoryview]) -> str:
    """Return a digest of names, types, shapes and values.

    Args:
        entries: The tensors by name.
        data: Their bytes, in any pieces.

    Returns:
        `sha256:` and 64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(sorted((name, *entry) for name, entry in entries.items())).encode())
    for piece in data:
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def pack(state: Mapping[str, Tensor]) -> Packed:
    """Return tensors, moved to the CPU, as the bytes of a safetensors file."""
    # A module at two places of a model shares its tensors, and safetensors refuses shared memory.
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        on_cpu = tensor.detach().cpu().contiguous()
        plain[name] = on_cpu.clone() if on_cpu.data_ptr() in seen else on_cpu
        seen.add(on_cpu.data_ptr())
    whole_file = memoryview(save(plain))
    start = 8 + int.from_bytes(whole_file[:8], "little")
    content = json.loads(bytes(whole_file[8:start]))
    entries = {name: _entry(value, name) for name, value in content.items() if name != "__metadata__"}
    data = whole_file[start:]
    return Packed(entries, data, digest_of(entries, [data]))

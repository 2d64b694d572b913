"""Reader of weights in TensorFlow.js models.

A graph model is `model.json` and shards. The manifest lists groups of weights. The joined shards of a group hold the
values of its weights one after another.
https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from torch import Tensor

from ssd_zoo.weights.outside import JSON, listing, mapping, number, parse_json, quote, read_bytes, text, whole

__all__ = ["read_tfjs"]

_TYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "float16": "<f2", "uint8": "u1", "uint16": "<u2"}
_MAX_BYTES = 2**31
_MAX_SIDES = 8
# Largest scale and offset. Their products with 16-bit values stay within single precision.
_LARGEST = 1e30


def read_tfjs(path: Path) -> dict[str, Tensor]:
    """Read the weights of a TensorFlow.js model.

    Args:
        path: Its `model.json`, or the folder that holds it; the shards lie beside it. Links are followed, because
            the Hub's cache consists of links.

    Returns:
        Tensors by name. Quantised ones are restored: to `value * scale + min`, or from half precision.

    Raises:
        OSError: If `model.json` is missing.
        ValueError: If the model is invalid, or a shard is missing, outside the folder, or of another length.
    """
    file = path / "model.json" if path.is_dir() else path
    entries = [_group(file, group) for group in _manifest(file)]
    names = Counter(weight.name for _, weights in entries for weight in weights)
    # A shared shard would let a small file fill the memory.
    # In one spelling: "./a.bin" is "a.bin".
    shards = Counter(str(PurePosixPath(path)) for paths, _ in entries for path in paths)
    for what, listed in (("weight", names), ("shard", shards)):
        for name, count in listed.most_common(1):
            if count > 1:
                raise ValueError(f"{file} lists the {what} {quote(name)} {count} times; each must be there once.")
    state: dict[str, Tensor] = {}
    for paths, weights in entries:
        content = _read_shards(file, paths, sum(weight.length for weight in weights))
        start = 0
        for weight in weights:
            state[weight.name] = weight.restore(content[start : start + weight.length])
            start += weight.length
    if not state:
        raise ValueError(f"{file} lists no weights.")
    return state


def _manifest(file: Path) -> list[JSON]:
    """Return the groups of weights that a `model.json` lists, not yet checked.

    Raises:
        ValueError: If it is not JSON, or has no list `weightsManifest`.
    """
    content = parse_json(read_bytes(file), file)
    if isinstance(content, dict) and "weightsManifest" in content:
        return listing(content["weightsManifest"], f"{file}: weightsManifest")
    if isinstance(content, dict) and "builder" in content:
        raise ValueError(
            f"{file} is the config of a model that ssd_zoo has saved: ssd_zoo.from_pretrained({str(file.parent)!r}) "
            "loads its folder."
        )
    raise ValueError(
        f"{file} is not a model.json of TensorFlow.js: it lacks a readable weightsManifest of paths and weights."
    )


def _group(file: Path, value: JSON) -> tuple[list[str], list["_Weight"]]:
    """Return the paths of a group's shards, and its weights."""
    group = mapping(value, f"{file}: a group of weightsManifest")
    paths = listing(group.get("paths"), f"{file}: the paths of shards")
    weights = listing(group.get("weights"), f"{file}: the weights of a group")
    return [text(path, f"{file}: a shard's path", longest=1024) for path in paths], [
        _Weight(file, weight) for weight in weights
    ]


class _Weight:
    """One tensor in the list of weights of a `model.json`.

    `shape` is its shape, `dtype` its type, `stored` the type in the shards, `length` its bytes there. An invalid entry
    is a ValueError.
    """

    def __init__(self, file: Path, value: JSON) -> None:
        entry = mapping(value, f"{file}: a weight")
        self.name = text(entry.get("name"), f"{file}: a weight's name", longest=1024)
        what = f"{file}: weight {quote(self.name)}"
        sides = listing(entry.get("shape"), f"{what}: shape", longest=_MAX_SIDES)
        self.shape = tuple(whole(side, f"{what}: a side", low=0, high=_MAX_BYTES) for side in sides)
        if math.prod(max(side, 1) for side in self.shape) > _MAX_BYTES:
            raise ValueError(f"{what} has the shape {list(self.shape)}, which is too large.")
        self.dtype = _dtype(entry.get("dtype"), what)
        quantization = mapping(entry.get("quantization") or {}, f"{what}: quantization")
        self.stored = _dtype(quantization.get("dtype", self.dtype), what)
        self.scale = self.min = 0.0
        if self.is_quantised:
            self.scale, self.min = (
                number(quantization.get(key), f"{what}: {key}", low=-_LARGEST, high=_LARGEST)
                for key in ("scale", "min")
            )
        self.length = math.prod(self.shape) * np.dtype(_TYPES[self.stored]).itemsize

    @property
    def is_quantised(self) -> bool:
        return self.stored in ("uint8", "uint16") and self.stored != self.dtype

    def restore(self, content: bytes) -> Tensor:
        """Return the tensor of its bytes in the shards."""
        values = np.frombuffer(content, _TYPES[self.stored]).reshape(self.shape)
        if self.is_quantised:
            # In double precision, as in TensorFlow.js.
            values = values * self.scale + self.min
            values = values.round() if self.dtype == "int32" else values
        return torch.from_numpy(np.array(values, dtype=_TYPES[self.dtype]))


def _dtype(value: JSON, what: str) -> str:
    if not isinstance(value, str) or value not in _TYPES:
        raise ValueError(f"{what} has the type {quote(value)}; known are {', '.join(_TYPES)}.")
    return value


def _read_shards(file: Path, paths: Sequence[str], length: int) -> bytes:
    """Join a group's shards; check their lengths before reading them.

    Raises:
        ValueError: If a shard is missing, outside the folder, or their length is not `length` bytes.
    """
    shards = []
    for path in paths:
        windows = PureWindowsPath(path)
        if windows.drive or windows.root or ".." in windows.parts or not windows.parts:
            raise ValueError(f"{file} names a shard outside its folder, {quote(path)}; shards must lie beside it.")
        shards.append(file.parent / PurePosixPath(path))
        # Unlike Path.is_file, os.path.isfile takes texts that are too long for a path.
        if not os.path.isfile(shards[-1]):
            raise ValueError(f"{file} names the shard {quote(path)}, but there is no such file.")
    sizes = [shard.stat().st_size for shard in shards]
    if sum(sizes) != length or length > _MAX_BYTES:
        listed = ", ".join(f"{path:.100} of {size}" for path, size in list(zip(paths, sizes, strict=True))[:5])
        raise ValueError(
            f"{file} describes weights of {length} bytes, but their shards hold {sum(sizes)}: {listed}. "
            "A shard is cut off, or of another model."
        )
    return b"".join(shard.read_bytes() for shard in shards)

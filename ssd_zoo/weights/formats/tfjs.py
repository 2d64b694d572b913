"""Reader of weights in TensorFlow.js models.

A graph model is `model.json` and shards. The manifest lists groups of weights. The joined shards of a group hold the
values of its weights one after another.
https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_tfjs"]

_TYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "float16": "<f2", "uint8": "u1", "uint16": "<u2"}
_MAX_BYTES = 2**31


def read_tfjs(path: Path) -> dict[str, Tensor]:
    """Read the weights of a TensorFlow.js model.

    Args:
        path: Its `model.json`, or the folder that holds it; the shards lie beside it.

    Returns:
        Tensors by name. Quantised ones are restored: to `value * scale + min`, or from half precision.

    Raises:
        OSError: If `model.json` is missing.
        ValueError: If the model is invalid, or a shard is missing, outside the folder, or of another length.
    """
    file = path / "model.json" if path.is_dir() else path
    try:
        groups = json.loads(file.read_bytes())["weightsManifest"]
        entries = [(group["paths"], [_Weight(file, weight) for weight in group["weights"]]) for group in groups]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, _WeightError):
            raise
        raise ValueError(
            f"{file} is not a model.json of TensorFlow.js: it lacks a readable weightsManifest of paths and weights."
        ) from error
    names = Counter(weight.name for _, weights in entries for weight in weights)
    # A shared shard would let a small file fill the memory.
    shards = Counter(path for paths, _ in entries if isinstance(paths, list) for path in map(_normal, paths))
    for what, listed in (("weight", names), ("shard", shards)):
        for name, count in listed.most_common(1):
            if count > 1:
                raise ValueError(f"{file} lists the {what} {name!r} {count} times; each must be there once.")
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


class _WeightError(ValueError):
    """Error of a weight with an invalid description in the manifest."""


class _Weight:
    """One entry of the manifest."""

    def __init__(self, file: Path, entry: Mapping[str, Any]) -> None:
        self.name = str(entry["name"])
        self.shape = tuple(entry["shape"])
        self.dtype = str(entry["dtype"])
        quantization = entry.get("quantization") or {}
        self.stored = str(quantization.get("dtype", self.dtype))
        self.scale, self.min = quantization.get("scale"), quantization.get("min")
        told = f"{file} describes weight {self.name!r} "
        for dtype in (self.dtype, self.stored):
            if dtype not in _TYPES:
                raise _WeightError(f"{told}with the type {dtype!r}; known are {', '.join(_TYPES)}.")
        if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in self.shape):
            raise _WeightError(f"{told}with the shape {list(self.shape)}; sides are whole numbers from 0.")
        if (
            self.stored in ("uint8", "uint16")
            and self.stored != self.dtype
            and not (_is_number(self.scale) and _is_number(self.min))
        ):
            raise _WeightError(f"{told}as quantised, with scale {self.scale!r} and min {self.min!r}, not two numbers.")
        self.length = math.prod(self.shape) * np.dtype(_TYPES[self.stored]).itemsize

    def restore(self, content: bytes) -> Tensor:
        values = np.frombuffer(content, _TYPES[self.stored]).reshape(self.shape)
        if self.stored in ("uint8", "uint16") and self.stored != self.dtype:
            # In double precision, as in TensorFlow.js.
            values = values * np.float64(self.scale) + np.float64(self.min)
            values = values.round() if self.dtype == "int32" else values
        return torch.from_numpy(np.array(values, dtype=_TYPES[self.dtype]))


def _normal(path: Any) -> str:
    """Return a path in one spelling: "./a.bin" is "a.bin"."""
    return str(PurePosixPath(str(path)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read_shards(file: Path, paths: Any, length: int) -> bytes:
    """Join a group's shards; check their lengths before reading them."""
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"{file} lists {paths!r} as the paths of shards; they must be texts.")
    shards = []
    for path in paths:
        windows = PureWindowsPath(path)
        if windows.drive or windows.root or ".." in windows.parts or not windows.parts:
            raise ValueError(f"{file} names a shard outside its folder, {path!r}; shards must lie beside it.")
        shards.append(file.parent / PurePosixPath(path))
        if not shards[-1].is_file():
            raise ValueError(f"{file} names the shard {path!r}, but there is no file {shards[-1]}.")
    sizes = [shard.stat().st_size for shard in shards]
    if sum(sizes) != length or length > _MAX_BYTES:
        listed = ", ".join(f"{path} of {size}" for path, size in zip(paths, sizes, strict=True))
        raise ValueError(
            f"{file} describes weights of {length} bytes, but their shards hold {sum(sizes)}: {listed}. "
            "A shard is cut off, or of another model."
        )
    return b"".join(shard.read_bytes() for shard in shards)

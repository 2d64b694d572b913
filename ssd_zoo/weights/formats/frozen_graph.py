"""Reader of constants in frozen TensorFlow graphs, from protobuf's wire format.

A GraphDef is a list of nodes; a node of the operation Const holds its tensor in an attribute. Field numbers are from
tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto.
https://protobuf.dev/programming-guides/encoding
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssd_zoo.weights.outside import quote

__all__ = ["read_constants"]

_MAX_BYTES = 2**31  # Protobuf's limit of a message.
# Constants of one repeated value are short in the file; those of detectors take less than a megabyte together.
_MAX_FILLED = 2**24
_MAX_FIELDS = 2**20
_MAX_SIDES = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# GraphDef.node; NodeDef: name, op, attr; the entry of a map: key, value; AttrValue.tensor.
_NODE, _NAME, _OP, _ATTR, _KEY, _VALUE, _TENSOR = 1, 1, 2, 5, 1, 2, 8
# TensorProto: dtype, shape, content; TensorShapeProto.dim, its size.
_DTYPE, _SHAPE, _CONTENT, _DIM, _SIZE = 1, 2, 4, 2, 1
# DataType: NumPy's type, and the field of TensorProto for values listed one by one.
_TYPES: dict[int, tuple[str, int]] = {
    1: ("<f4", 5),
    2: ("<f8", 6),
    3: ("<i4", 7),
    9: ("<i8", 10),
    10: ("?", 11),
    19: ("<f2", 13),
}
_HALF = 19

Field = tuple[int, int, "int | memoryview"]


def read_constants(file: Path) -> dict[str, Tensor]:
    """Read the numeric constants of a frozen graph, weights among them.

    Args:
        file: The binary GraphDef (`.pb`).

    Returns:
        Tensors by the names of their nodes.

    Raises:
        ValueError: If the file is truncated, damaged, not a graph, or holds no constants.
    """
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than a graph can have.")
    constants: dict[str, Tensor] = {}
    filled = _Budget(_MAX_FILLED)
    try:
        for number, _, node in _fields(memoryview(file.read_bytes())):
            if number == _NODE:
                constants.update(_constant(_message(node), filled))
    except ValueError as error:
        raise ValueError(f"{file} is not a whole frozen TensorFlow graph: {error}") from error
    if not constants:
        raise ValueError(f"{file} is not a frozen TensorFlow graph: it holds no constants.")
    return constants


class _Budget:
    """Bytes left for constants that repeat one value, which the file holds once."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, count: int) -> None:
        """Subtract bytes; raise ValueError if none are left."""
        self.left -= count
        if self.left < 0:
            raise ValueError(f"its constants repeat values to more than {_MAX_FILLED} bytes together.")


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield number, wire type and value of each field of a message.

    Values are numbers or bytes; messages within the message are bytes.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, kind, value
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"field {number} has the unknown wire type {kind} before byte {position}.")
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if length is None:
            length, position = _varint(message, position)
        if length > len(message) - position:
            raise ValueError(f"a field of {length} bytes ends {length - (len(message) - position)} bytes too early.")
        yield number, kind, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number of variable length; return it and the position after it.

    Raises:
        ValueError: If the message ends within it, or it has more than 10 bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends within a number.")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
    raise ValueError("a number has more than 10 bytes.")


def _message(value: int | memoryview) -> memoryview:
    """Return a field's bytes; raise ValueError if it is a number."""
    if isinstance(value, int):
        raise ValueError("there is a number where a message should be.")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode(errors="replace")


def _constant(node: memoryview, filled: _Budget) -> dict[str, Tensor]:
    """Return name and tensor of a numeric Const node as a dict; empty for other nodes.

    Raises:
        ValueError: If its tensor is invalid; one of a type that is not numeric is left out.
    """
    name = operation = ""
    tensor = None
    for number, _, value in _fields(node):
        if number == _NAME:
            name = _text(value)
        elif number == _OP:
            operation = _text(value)
        elif number == _ATTR:
            entry = {key: content for key, _, content in _fields(_message(value))}
            if _text(entry.get(_KEY, memoryview(b""))) == "value":
                attribute = {key: content for key, _, content in _fields(_message(entry.get(_VALUE, memoryview(b""))))}
                tensor = attribute.get(_TENSOR)
    if operation != "Const" or tensor is None:
        return {}
    try:
        values = _tensor(_message(tensor), filled)
    except ValueError as error:
        raise ValueError(f"constant {quote(name)}: {error}") from error
    return {} if values is None else {name: values}


def _tensor(message: memoryview, filled: _Budget) -> Tensor | None:
    fields = list(islice(_fields(message), _MAX_FIELDS + 1))
    if len(fields) > _MAX_FIELDS:
        raise ValueError(f"it has more than {_MAX_FIELDS} fields.")
    dtype = next((value for number, _, value in fields if number == _DTYPE), 0)
    if not isinstance(dtype, int) or dtype not in _TYPES:
        return None
    kind, listed = _TYPES[dtype]
    shape = [size for number, _, value in fields if number == _SHAPE for size in _sizes(_message(value))]
    if len(shape) > _MAX_SIDES or math.prod(max(size, 1) for size in shape) >= 2**31:
        raise ValueError(f"its shape {quote(shape)} is not known, or too large.")
    content = next((_message(value) for number, _, value in fields if number == _CONTENT), None)
    if content is not None:
        if len(content) != math.prod(shape) * np.dtype(kind).itemsize:
            raise ValueError(f"shape {shape} of {np.dtype(kind)} needs other than its {len(content)} bytes.")
        values = np.frombuffer(content, kind)
    else:
        values = _listed([field for field in fields if field[0] == listed], dtype, kind)
        # A shorter list is filled with its last value.
        count = math.prod(shape)
        if len(values) > count:
            raise ValueError(f"shape {shape} has {len(values)} values.")
        filled.take((count - len(values)) * np.dtype(kind).itemsize)
        rest = values[-1:] if len(values) else np.zeros(1, kind)
        values = np.concatenate([values, np.repeat(rest, count - len(values))])
    return torch.from_numpy(values.astype(np.dtype(kind).newbyteorder("=")).reshape(shape))


def _sizes(shape: memoryview) -> Iterator[int]:
    for number, _, dimension in _fields(shape):
        if number == _DIM:
            sizes = [value for key, _, value in _fields(_message(dimension)) if key == _SIZE]
            yield sizes[-1] if sizes and isinstance(sizes[-1], int) else 0


def _listed(fields: list[Field], dtype: int, kind: str) -> np.ndarray:
    """Return the values of a tensor that lists them one by one.

    Args:
        fields: The tensor's fields.
        dtype: TensorFlow's number of the type; float16 is stored as bits.
        kind: NumPy's name of the type.
    """
    floating = kind in ("<f4", "<f8")
    if floating:
        packed = [np.frombuffer(value, kind) for _, _, value in fields if not isinstance(value, int)]
        return np.concatenate([np.zeros(0, kind), *packed])
    values: list[int] = []
    for _, wire, value in fields:
        if isinstance(value, int):
            values.append(value)
        elif wire == _BYTES:
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                values.append(number)
                if len(values) > _MAX_FIELDS:
                    raise ValueError(f"it lists more than {_MAX_FIELDS} values.")
    if dtype == _HALF:
        return np.array([value & 0xFFFF for value in values], np.uint16).view("<f2")
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64).astype(kind)

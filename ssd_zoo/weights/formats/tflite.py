"""Reader of constants in TensorFlow Lite models.

A model is a flatbuffer: lists of tensors, of their buffers, and of operators. Names of constants are unreliable, since
converters name a constant after other operators that share it. Kernels and biases are therefore named after their
convolution.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_tflite"]

T = TypeVar("T")

_MAX_BYTES = 2**31  # Flatbuffers' limit of a file.
_MAX_ENTRIES = 2**16
_MAX_DIMENSIONS = 8
_MAX_NAME = 1024
_TYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "FLOAT64": "<f8", "BOOL": "?"}
_TYPES |= {"INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"}
_KERNELS = {"CONV_2D": "weights", "DEPTHWISE_CONV_2D": "depthwise_weights"}
# The part of a convolution output's name that follows the layer's name.
_OPERATION = re.compile(r"/BatchNorm/.*|/[^/]*$")


def read_tflite(path: Path) -> dict[str, Tensor]:
    """Read the constants of a TensorFlow Lite model.

    Args:
        path: The `.tflite` file. Its main graph is read.

    Returns:
        Tensors by name, dequantised to float32; integers without a scale are unchanged. Kernels and biases of
        convolutions have the names and layouts of TensorFlow's variables: `LAYER/weights (H, W, in, out)`,
        `LAYER/depthwise_weights (H, W, C, 1)` and `LAYER/biases`. Inputs add their shapes as `NAME/shape`.

    Raises:
        ImportError: If the package `tflite`, which holds the schema, is missing.
        ValueError: If the file is truncated, damaged, not a TensorFlow Lite model, or has constants of unknown types.
    """
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than a TensorFlow Lite model can have.")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"{path} is not a TensorFlow Lite model: it lacks the identifier TFL3 in bytes 4 to 8.")
    try:
        import tflite
    except ImportError as error:
        raise ImportError('TensorFlow Lite models need tflite: pip install "ssd_zoo[convert]".') from error
    try:
        return _Graph(tflite, content).read()
    except _FlawError as error:
        raise ValueError(f"{path} is not a readable TensorFlow Lite model: {error}.") from error
    # Errors of the schema's package at an offset out of bounds.
    except (struct.error, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{path} is cut off or damaged: an offset in it points to nothing readable.") from error


class _FlawError(ValueError):
    """Error of a flaw in the file; its message is the end of a sentence about it."""


class _Graph:
    """The main graph of a model.

    Args:
        tflite: The package of the schema.
        content: The file's bytes.
    """

    def __init__(self, tflite: Any, content: bytes) -> None:
        self._content = content
        # Constants may share bytes. The limit keeps a damaged file from repeating all of them many times.
        self._bytes_left = 2 * len(content)
        # Lists may be shared, too; an entry has four bytes.
        self._entries_left = len(content)
        model = tflite.Model.GetRootAs(content, 0)
        self._buffers = self._entries("buffers", model.BuffersLength, model.Buffers)
        codes = self._entries("operator codes", model.OperatorCodesLength, model.OperatorCodes)
        graphs = self._entries("graphs", model.SubgraphsLength, model.Subgraphs)
        if not graphs:
            raise _FlawError("it has no graph")
        self._tensors = self._entries("tensors", graphs[0].TensorsLength, graphs[0].Tensors)
        self._operators = self._entries("operators", graphs[0].OperatorsLength, graphs[0].Operators)
        self._inputs = self._entries("inputs", graphs[0].InputsLength, graphs[0].Inputs)
        builtin = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        # Codes below 127 are in the deprecated field, later ones in the newer field.
        self._codes = [builtin.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode())) for code in codes]
        self._types = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
        self._read: dict[int, Tensor | None] = {}

    def read(self) -> dict[str, Tensor]:
        """Read all constants, and the shapes of inputs."""
        state: dict[str, Tensor] = {}
        for name, index, is_kernel in self._operands():
            tensor = self._constant(index)
            if tensor is None:
                continue
            if is_kernel and tensor.ndim != 4:
                raise _FlawError(f"kernel {name!r} has shape {list(tensor.shape)}; kernels have four dimensions")
            # Kernels are (out, height, width, in), depthwise ones (1, height, width, channels).
            self._add(state, name, tensor.permute(1, 2, 3, 0) if is_kernel else tensor)
        for index in sorted(set(range(len(self._tensors))) - set(self._read)):
            tensor = self._constant(index)
            if tensor is not None:
                self._add(state, self._name(index), tensor)
        if not state:
            raise _FlawError("it holds no constants")
        for index in self._inputs:
            self._add(state, f"{self._name(index)}/shape", torch.tensor(self._shape(index)))
        return state

    def _operands(self) -> Iterator[tuple[str, int, bool]]:
        """Yield each kernel and bias: its name after its convolution, its index, and whether it is a kernel."""
        dequantised = {}
        for operator in self._operators:
            inputs = self._entries("inputs", operator.InputsLength, operator.Inputs)
            kind = _at(self._codes, operator.OpcodeIndex(), "operator code")
            if kind == "DEQUANTIZE" and inputs and operator.OutputsLength():
                dequantised[operator.Outputs(0)] = inputs[0]
            elif kind in _KERNELS and operator.OutputsLength():
                layer = _OPERATION.sub("", self._name(operator.Outputs(0)).partition(";")[0])
                for index, leaf in zip(inputs[1:], (_KERNELS[kind], "biases"), strict=False):
                    if index >= 0:
                        yield f"{layer}/{leaf}", dequantised.get(index, index), leaf != "biases"

    def _constant(self, index: int) -> Tensor | None:
        """Return a constant's values, cached; None for a tensor that is computed."""
        if index not in self._read:
            self._read[index] = self._decode(index)
        return self._read[index]

    def _decode(self, index: int) -> Tensor | None:
        entry, name = _at(self._tensors, index, "tensor"), self._name(index)
        buffer = _at(self._buffers, entry.Buffer(), "buffer")
        # Buffer 0 is empty by definition.
        if entry.Buffer() == 0 or not buffer.DataLength():
            return None
        stored = self._types.get(entry.Type(), str(entry.Type()))
        if stored not in _TYPES:
            raise _FlawError(f"constant {name!r} is of the type {stored}; known are {', '.join(_TYPES)}")
        if entry.Sparsity() is not None:
            raise _FlawError(f"constant {name!r} is sparse; only dense ones are read")
        dtype, shape, length = np.dtype(_TYPES[stored]), self._shape(index), buffer.DataLength()
        if math.prod(shape) * dtype.itemsize != length:
            raise _FlawError(f"constant {name!r} has shape {shape} of {stored}, but {length} bytes")
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise _FlawError("its constants overlap: together they are more than twice as long as the file")
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(shape).astype(dtype.newbyteorder("="))
        if dtype.kind == "f":
            return torch.from_numpy(values).float()
        return self._dequantise(name, values, entry.Quantization())

    def _dequantise(self, name: str, values: np.ndarray, quantization: Any) -> Tensor:
        """Return `(values - zero point) * scale`; the values themselves without a scale.

        Scales and zero points are one for all values, or one for each channel.
        """
        if quantization is None or not quantization.ScaleLength():
            return torch.from_numpy(values)
        if quantization.DetailsType():
            raise _FlawError(f"constant {name!r} is quantised in a custom way; only scales and zero points are known")
        scales = self._entries("scales", quantization.ScaleLength, quantization.Scale)
        zeros = self._entries("zero points", quantization.ZeroPointLength, quantization.ZeroPoint) or [0] * len(scales)
        axis, channels = quantization.QuantizedDimension(), 1
        if len(scales) > 1:
            channels = values.shape[axis] if 0 <= axis < values.ndim else 0
        if not len(scales) == len(zeros) == channels or not np.isfinite(scales).all():
            raise _FlawError(
                f"constant {name!r} of shape {list(values.shape)} has {len(scales)} scales and {len(zeros)} zero "
                f"points on dimension {axis}; each must be finite, and one for all or one a channel"
            )
        sides = [-1 if i == axis else 1 for i in range(values.ndim)] if channels > 1 else []
        zero, scale = (np.array(numbers, np.float64).reshape(sides) for numbers in (zeros, scales))
        return torch.from_numpy((values - zero) * scale).float()

    def _name(self, index: int) -> str:
        name: bytes = _at(self._tensors, index, "tensor").Name() or b""
        if len(name) > _MAX_NAME:
            raise _FlawError(f"the name of tensor {index} has {len(name)} bytes")
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise _FlawError(f"the name of tensor {index} is not UTF-8: {name[:40]!r}") from error

    def _shape(self, index: int) -> list[int]:
        entry = _at(self._tensors, index, "tensor")
        if entry.ShapeLength() > _MAX_DIMENSIONS:
            raise _FlawError(f"tensor {self._name(index)!r} has {entry.ShapeLength()} dimensions")
        shape = [entry.Shape(i) for i in range(entry.ShapeLength())]
        if min(shape, default=0) < 0:
            raise _FlawError(f"tensor {self._name(index)!r} has shape {shape}; sides are whole numbers from 0")
        return shape

    def _entries(self, what: str, length: Callable[[], int], get: Callable[[int], T]) -> list[T]:
        """Return a list of the flatbuffer; raise _FlawError if it is too long for the file."""
        count = length()
        self._entries_left -= count
        if count > min(_MAX_ENTRIES, len(self._content) // 4) or self._entries_left < 0:
            raise _FlawError(f"it lists {count} {what}, more than it can have")
        return [get(i) for i in range(count)]

    @staticmethod
    def _add(state: dict[str, Tensor], name: str, tensor: Tensor) -> None:
        if name in state:
            raise _FlawError(f"two constants have the name {name!r}")
        state[name] = tensor


def _at(entries: Sequence[T], index: int, what: str) -> T:
    """Return an entry of a list; raise _FlawError if there is none of this index."""
    if not 0 <= index < len(entries):
        raise _FlawError(f"it names {what} {index} of {len(entries)}")
    return entries[index]

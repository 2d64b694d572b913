"""Makes small TensorFlow Lite models, field by field."""

import flatbuffers
import numpy as np
import tflite

TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32"}


def constant(name, values, *, scale=(), zero=(), axis=0, **others):
    """One tensor: a list of numbers makes a quantisation, `others` replace fields such as `shape` or `type`."""
    values = np.asarray(values)
    kind = getattr(tflite.TensorType, TYPES[str(values.dtype)])
    fields = {"name": name, "shape": values.shape, "type": kind, "data": values.tobytes()}
    return {**fields, "scale": scale, "zero": zero, "axis": axis, **others}


def computed(name, shape=(1,)):
    return {**constant(name, np.zeros(0, np.float32)), "shape": shape}


def model(*tensors, operators=(), inputs=()):
    """The file's bytes.

    Args:
        *tensors: See `constant` and `computed`.
        operators: Names of builtin operators, with the numbers of the tensors that go in and come out.
        inputs: Numbers of the graph's inputs.
    """
    builder = flatbuffers.Builder()

    def vector(prepend, items, width):
        builder.StartVector(width, len(items), width)
        for item in reversed(items):
            prepend(item)
        return builder.EndVector()

    def ints(items):
        return vector(builder.PrependInt32, items, 4)

    def offsets(items):
        return vector(builder.PrependUOffsetTRelative, items, 4)

    def table(kind, **fields):
        getattr(tflite, f"{kind}Start")(builder)
        for field, value in fields.items():
            if value is not None:
                getattr(tflite, f"{kind}Add{field}")(builder, value)
        return getattr(tflite, f"{kind}End")(builder)

    def tensor(number, fields):
        scale = vector(builder.PrependFloat32, fields["scale"], 4)
        zero = vector(builder.PrependInt64, fields["zero"], 8)
        quantization = table("QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=fields["axis"])
        name = fields["name"] if isinstance(fields["name"], bytes) else fields["name"].encode()
        return table(
            "Tensor",
            Name=builder.CreateByteVector(name),
            Shape=ints(fields["shape"]),
            Type=fields["type"],
            Buffer=fields.get("buffer", number + 1),
            Quantization=quantization,
            Sparsity=table("SparsityParameters") if fields.get("sparse") else None,
        )

    names = sorted({name for name, _, _ in operators})
    codes = [getattr(tflite.BuiltinOperator, name) for name in names]
    graph = table(
        "SubGraph",
        Tensors=offsets([tensor(i, fields) for i, fields in enumerate(tensors)]),
        Inputs=ints(inputs),
        Operators=offsets(
            [
                table("Operator", OpcodeIndex=names.index(name), Inputs=ints(taken), Outputs=ints(made))
                for name, taken, made in operators
            ]
        ),
    )
    contents = [b"", *(fields["data"] for fields in tensors)]
    buffers = [table("Buffer", Data=builder.CreateByteVector(content)) for content in contents]
    root = table(
        "Model",
        Version=3,
        OperatorCodes=offsets([table("OperatorCode", DeprecatedBuiltinCode=min(c, 127), BuiltinCode=c) for c in codes]),
        Subgraphs=offsets([graph]),
        Buffers=offsets(buffers),
    )
    builder.Finish(root, file_identifier=b"TFL3")
    return bytes(builder.Output())

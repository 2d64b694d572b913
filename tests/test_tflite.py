"""Small TensorFlow Lite models: what is read of them, by hand-worked numbers, and what is refused."""

import random
import sys
import tracemalloc

import numpy as np
import pytest
import tflite
import torch
from test_oracles_mobilenet import variables_of_mobilenet_v2
from tflite_file import computed, constant, model

import ssd_zoo
from ssd_zoo.weights.formats.checkpoint import read_checkpoint

FLOAT = np.float32


def read(content, tmp_path):
    (tmp_path / "x.tflite").write_bytes(content)
    return read_checkpoint(tmp_path / "x.tflite")


def test_constants_of_each_form(tmp_path):
    content = model(
        constant("float32", FLOAT([[1.5, -2]])),
        constant("float16", np.float16([0.5, 3])),
        constant("uint8", np.uint8([128, 130, 0]), scale=[0.5], zero=[128]),
        constant("int8", np.int8([[1, -2]]), scale=[0.5], zero=[-3]),
        constant("int8 by row", np.int8([[1, 2], [3, -4]]), scale=[0.5, 10], zero=[0, 0]),
        constant("int8 by column", np.int8([[1, 2], [3, -4]]), scale=[0.5, 10], zero=[0, 1], axis=1),
        constant("int32 bias", np.int32([10, -4]), scale=[0.25, 2]),
        constant("a shape", np.int32([1, -1, 4])),
        computed("an output"),
        computed("image", (1, 6, 8, 3)),
        inputs=[9],
    )
    found = {name: (str(t.dtype).removeprefix("torch."), t.tolist()) for name, t in read(content, tmp_path).items()}
    assert found == {
        "float32": ("float32", [[1.5, -2]]),
        "float16": ("float32", [0.5, 3]),
        "uint8": ("float32", [0, 1, -64]),
        "int8": ("float32", [[2, 0.5]]),
        "int8 by row": ("float32", [[0.5, 1], [30, -40]]),
        "int8 by column": ("float32", [[0.5, 10], [1.5, -50]]),
        "int32 bias": ("float32", [2.5, -8]),
        "a shape": ("int32", [1, -1, 4]),
        "image/shape": ("int64", [1, 6, 8, 3]),
    }


def test_operands_are_named_after_their_convolution(tmp_path):
    content = model(
        computed("image"),
        constant("x/Conv2D", np.arange(6, dtype=np.float16).reshape(2, 1, 1, 3)),
        computed("x/Conv2D_dequantize"),
        constant("other", FLOAT([7, 8])),
        computed("a/b/Relu6;other/BatchNorm/sub"),
        constant("x/depthwise", FLOAT([[[[0, 1], [2, 3]]]])),
        computed("a/project/BatchNorm/FusedBatchNormV3;a/project/Conv2D1"),
        computed("Predictor/BiasAdd"),
        operators=[
            ("DEQUANTIZE", [1], [2]),
            ("CONV_2D", [0, 2, 3], [4]),
            # No bias, and one that a layer before has.
            ("DEPTHWISE_CONV_2D", [4, 5, -1], [6]),
            ("CONV_2D", [6, 2, 3], [7]),
        ],
    )
    state = read(content, tmp_path)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "a/b/weights": (1, 1, 3, 2),
        "a/b/biases": (2,),
        "a/project/depthwise_weights": (1, 2, 2, 1),
        "Predictor/weights": (1, 1, 3, 2),
        "Predictor/biases": (2,),
    }
    # Rows were outputs.
    assert state["a/b/weights"].tolist() == [[[[0, 3], [1, 4], [2, 5]]]]
    assert state["a/project/depthwise_weights"].flatten().tolist() == [0, 1, 2, 3]
    assert torch.equal(state["Predictor/biases"], torch.tensor([7.0, 8]))


def detector(kind, boxes):
    """A whole `ssd300_mobilenet_v2` in 8 bits: the file, and the variables that its integers stand for."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(kind.split()[0])
    limits = np.iinfo(dtype)
    tensors, operators, variables = [computed("image", (1, 300, 300, 3))], [], {}
    for name, shape in variables_of_mobilenet_v2().items():
        layer, _, leaf = name.rpartition("/")
        if not leaf.endswith("weights"):
            continue
        # Kernels are (out, height, width, in), depthwise ones (1, height, width, channels).
        stored = rng.integers(limits.min, limits.max, (shape[3], *shape[:3]), dtype, endpoint=True)
        bias = rng.integers(-(10**6), 10**6, shape[2] if leaf == "depthwise_weights" else shape[3], np.int32)
        axis = 3 if leaf == "depthwise_weights" else 0
        scale = rng.uniform(0.001, 0.01, len(bias) if kind.endswith("channel") else 1).astype(np.float32)
        zero = np.full(len(scale), 100 if kind == "uint8" else 0)
        operators.append((KERNELS[axis], [0, len(tensors), len(tensors) + 1], [len(tensors) + 2]))
        tensors += [
            constant(f"{layer}/Conv2D", stored, scale=scale, zero=zero, axis=axis),
            constant(f"{layer}/Conv2D_bias", bias, scale=scale, zero=0 * zero),
            computed(f"{layer}/BiasAdd"),
        ]
        each = (1, 1, 1, -1) if axis == 3 else (-1, 1, 1, 1)
        kernel = (stored - zero.reshape(each)) * np.float64(scale).reshape(each)
        variables[name] = torch.from_numpy(kernel.transpose(1, 2, 3, 0)).float()
        variables[f"{layer}/biases"] = torch.from_numpy(bias * np.float64(scale)).float()
    operators.append(("CUSTOM", [0, 0, len(tensors)], [len(tensors) + 1]))
    tensors += [boxes, computed("TFLite_Detection_PostProcess")]
    return model(*tensors, operators=operators, inputs=[0]), variables


KERNELS = {0: "CONV_2D", 3: "DEPTHWISE_CONV_2D"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8 per channel", "int8", "uint8"])
def test_a_detector_in_8_bits(kind, tmp_path):
    corners = ssd_zoo.ssd300_mobilenet_v2(weights_backbone=None, num_classes=2).default_boxes.view(-1, 2, 2) / 300
    # Boxes that no builder has: half as high.
    centres, sizes = corners.mean(1), (corners[:, 1] - corners[:, 0]) * torch.tensor([1, 0.5])
    # TFLite_Detection_PostProcess takes y, x, height, width.
    anchors = torch.cat([centres, sizes], 1)[:, [1, 0, 3, 2]]
    boxes = constant("anchors", anchors.numpy())
    if kind == "uint8":
        step = anchors.max() / 255
        boxes = constant("anchors", (anchors / step).round().byte().numpy(), scale=[step.item()], zero=[0])
        # Centres lie on the grid of the map's cells, whatever their rounding.
        sizes = (sizes / step).round() * step
    content, variables = detector(kind, boxes)
    (tmp_path / "x.tflite").write_bytes(content)
    found, state = ssd_zoo.load_checkpoint(tmp_path / "x.tflite"), ssd_zoo.load_checkpoint(variables).state_dict()
    assert found.recipe[0] == "ssd300_mobilenet_v2"
    assert found.size == (300, 300)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state_dict().items())
    expected = torch.cat([centres - sizes / 2, centres + sizes / 2], 1) * 300
    torch.testing.assert_close(found.default_boxes, expected, rtol=0, atol=1e-3)


ROW = FLOAT([1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0" * 9, "lacks the identifier TFL3"),
        (b"\x80\x02", "lacks the identifier TFL3"),
        (b"\0\0\0\0TFL3", "it has no graph"),
        (b"\xff\xff\xff\x7fTFL3" + b"\0" * 99, "cut off or damaged"),
        (model(constant("w", ROW))[:100], "cut off or damaged"),
        (model(computed("w")), "holds no constants"),
        (model(constant("w", ROW, shape=(3,))), r"'w' has shape \[3\] of FLOAT32, but 8 bytes"),
        (model(constant("w", ROW, shape=(2**30,) * 3)), r"'w' has shape .* of FLOAT32, but 8 bytes"),
        (model(constant("w", ROW, shape=(-2, -1))), r"'w' has shape \[-2, -1\]; sides are whole numbers"),
        (model(constant("w", ROW, shape=(1,) * 9)), "'w' has 9 dimensions"),
        (model(constant(b"\xff\xfe", ROW)), r"name of tensor 0 is not UTF-8: b'\\xff"),
        (model(constant("w", ROW, type=tflite.TensorType.STRING)), "'w' is of the type STRING; known are FLOAT32"),
        (model(constant("w", ROW, type=77)), "'w' is of the type 77"),
        (model(constant("w", ROW, sparse=True)), "'w' is sparse"),
        (model(constant("w", ROW, buffer=9)), "names buffer 9 of 2"),
        (model(constant("w", ROW), constant("w", ROW)), "two constants have the name 'w'"),
        (model(constant("w", np.int8([1, 2]), scale=[1, 2, 3])), r"'w' of shape \[2\] has 3 scales and 3 zero points"),
        (model(constant("w", np.int8([1, 2]), scale=[1, 2], zero=[0])), "has 2 scales and 1 zero points"),
        (model(constant("w", np.int8([1, 2]), scale=[1, 2], axis=4)), "on dimension 4"),
        (model(constant("w", np.int8([1, 2]), scale=[float("nan")])), "must be finite"),
        (model(constant("w", ROW), computed("y"), operators=[("CONV_2D", [1, 0], [1])]), "kernels have four dim"),
        (model(constant("w", ROW), computed("y"), operators=[("CONV_2D", [1, 5], [1])]), "names tensor 5 of 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_files(content, message, tmp_path):
    with pytest.raises(ValueError, match=f"x.tflite.*{message}"):
        read(content, tmp_path)


def test_many_constants_of_the_same_bytes(tmp_path):
    first = constant("0", np.zeros(10**5, np.uint8), scale=[1], zero=[0])
    others = [{**first, "name": str(i), "data": b"", "buffer": 1} for i in range(1, 1000)]
    tracemalloc.start()
    with pytest.raises(ValueError, match="constants overlap"):
        read(model(first, *others), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_damaged_bytes(tmp_path):
    kernel = constant("kernel", np.ones((2, 1, 1, 2), np.int8), scale=[1, 2], zero=[0, 0])
    content = model(
        computed("image"), kernel, constant("b", ROW), computed("a/y"), operators=[("CONV_2D", [0, 1, 2], [3])]
    )
    generator = random.Random(0)
    for _ in range(800):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 1, 2, 8])):
            damaged[generator.randrange(len(damaged))] = generator.choice([0, 127, 255, generator.randrange(256)])
        damaged[4:8] = b"TFL3"
        try:
            read(damaged[: generator.choice([len(damaged), generator.randrange(len(damaged))])], tmp_path)
        except ValueError as error:
            assert "x.tflite" in str(error)  # noqa: PT017 - most are refused, some are not damaged where it matters


def test_without_the_package_of_the_schema(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(ImportError, match=r'pip install "ssd_zoo\[convert\]"'):
        read(model(constant("w", ROW)), tmp_path)

"""What `load_checkpoint` refuses, and what it says then; files that other architectures of the origins have."""

import gzip
import io
import pickle
import re
import resource
import struct
import tarfile
import warnings
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ssd_zoo
from ssd_zoo.weights.formats.checkpoint import read_checkpoint
from ssd_zoo.weights.formats.frozen_graph import read_constants


@pytest.fixture(scope="module")
def state():
    """The slim face detector's tensors, by Ultra-Light-Face's names."""
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite320_ultraface_slim(num_classes=2)
    # Ours to theirs: what the converter does, the other way round.
    names = {}
    for name in model.state_dict():
        theirs = name.replace("backbone.extra.", "extras.0.").replace("backbone.stem.", "base_net.0.")
        for old, new in (("extras.0.2.", "extras.0.2.0."), ("extras.0.4.", "extras.0.2.2.")):
            theirs = theirs.replace(old, new)
        if theirs.startswith("backbone.blocks."):
            _, _, block, part, *rest = theirs.split(".")
            theirs = f"base_net.{int(block) + 1}.{3 * int(part) + (rest[0] == 'norm')}.{rest[1]}"
        theirs = theirs.replace("base_net.0.conv", "base_net.0.0").replace("base_net.0.norm", "base_net.0.1")
        theirs = theirs.replace("head.cls_logits", "classification_headers")
        names[name] = theirs.replace("head.bbox_regression", "regression_headers")
    return {names[name]: tensor for name, tensor in model.state_dict().items()}


def test_every_way_to_give_it(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    torch.save({"module." + name: tensor for name, tensor in state.items()}, tmp_path / "b.pt")
    torch.save({"epoch": 1, "model": {"state_dict": state}}, tmp_path / "c.tar")
    torch.save({"model_ema": {"n_averaged": torch.tensor(3), **state}}, tmp_path / "d.bin")
    # As torchvision's references/detection saves it.
    options = Namespace(epochs=26, data_path="coco", device=None)
    torch.save({"model": state, "optimizer": {"state": {}}, "args": options, "epoch": 3}, tmp_path / "g.pth")
    torch.save(state, tmp_path / "e.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "f.safetensors")
    image = torch.rand(3, 50, 60, generator=torch.Generator().manual_seed(0))
    expected = None
    for given in (state, *sorted(tmp_path.iterdir()), str(tmp_path / "a.pth")):
        model = ssd_zoo.load_checkpoint(given)
        assert not model.training
        with torch.inference_mode():
            raw = model.forward_raw(model.prepare([image]))
        expected = expected or raw
        assert all(torch.equal(raw[key], expected[key]) for key in raw)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_lower_precision_is_computed_in_single(state, dtype):
    half = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model = ssd_zoo.load_checkpoint(half)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_categories(state):
    assert ssd_zoo.load_checkpoint(state).categories == ["background", "face"]
    assert ssd_zoo.load_checkpoint(state, categories=["BG", "helmet"]).categories == ["BG", "helmet"]
    with pytest.raises(ValueError, match="2 classes, background counted, so categories must be 2 names, .* got 1"):
        ssd_zoo.load_checkpoint(state, categories=["face"])
    with pytest.raises(ValueError, match=r"write categories=\['background', 'nothing', 'helmet'\]"):
        ssd_zoo.load_checkpoint(state, categories=["nothing", "helmet"])


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_is_unpickled(tmp_path):
    torch.save({"model": Harmful()}, tmp_path / "zip.pth")
    torch.save({"model": Harmful()}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": {}, "args": Namespace(a=Harmful())}, tmp_path / "options.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("zip", "legacy", "options", "module"):
        with pytest.raises(ValueError, match=r"could run any code, so the file is not read.*torch\.save\(") as error:
            ssd_zoo.load_checkpoint(tmp_path / f"{name}.pth")
        assert ("Linear" if name == "module" else "exec") in str(error.value)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({}, "holds no tensors"),
        ({"model": {}}, "holds no tensors"),
        ([1, 2], "is of type list, not a state dict"),
        ({"lr": 0.1, "weights": torch.ones(1)}, "holds 'lr' of type float"),
        ({"a": torch.ones(2).to(torch.complex128)}, "holds 'a', .*only dense"),
        ({"a": torch.ones(2, device="meta")}, "holds 'a', .*only dense"),
    ],
)
def test_no_state_dicts(checkpoint, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ssd_zoo.load_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        ssd_zoo.load_checkpoint(tmp_path / "x.pth")


def test_a_file_that_holds_itself(tmp_path):
    checkpoint = {}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds 'model' of type dict"):
        ssd_zoo.load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated_files(state, form, tmp_path):
    file = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    content = file.read_bytes()
    for length in (0, 1, 7, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="x.*(damaged|cut off|empty)"):
            ssd_zoo.load_checkpoint(file)
    with pytest.raises(FileNotFoundError):
        ssd_zoo.load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(IsADirectoryError, match="name a file in it, such as x"):
        ssd_zoo.load_checkpoint(tmp_path)


def archive(*names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return content.getvalue()


def tar():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.addfile(tarfile.TarInfo(name))
    return content.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"The weights are on the other page.\n", "is a text file"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in \xe2\x9c\x93</body></html>", "is a web page"),
        (LFS, "is a Git LFS pointer.*: git lfs pull fetches that"),
        (gzip.compress(b"weights"), "is compressed by gzip"),
        (tar(), "is a tar archive"),
        (pickle.dumps({"a": 1}, protocol=4), "is a pickle, but not one of torch.save"),
        (archive("a.txt"), "is a zip archive, but not one of torch.save"),
        (archive("m/data.pkl", "m/constants.pkl"), r"is a TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict"),
        (archive("m/data.pkl"), "is damaged, or not what torch.save writes"),
        (archive("m/data.pkl")[:-9], "is cut off or damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "is an image"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 99, "is an image"),
        (b"RIFF\n\0\0\0WEBP" + b"\0" * 99, "is an image"),
        (b"\x08\n\x12\x07pytorch" + b"\0" * 99, "is an ONNX model, which can't be read back"),
        (b"\x08\x01\x12\xf0\x01" + b"\0" * 99, "is TensorFlow's SavedModel: export that as"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "is an HDF5 file of Keras"),
        (b"\x93NUMPY" + b"\0" * 99, "is damaged, or not what torch.save writes; .safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_another_kind(content, message, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.pth {message}") as error:
        ssd_zoo.load_checkpoint(tmp_path / "x.pth")
    # PyTorch's own text is the cause, if anything.
    theirs = str(error.value.__cause__ or "weights_only").splitlines()
    assert not any(line.strip() in str(error.value) for line in theirs if line.strip())


@pytest.mark.parametrize("suffix", ["safetensors", "pb", "tflite"])
def test_pointers_in_place_of_any_format(suffix, tmp_path):
    (tmp_path / f"x.{suffix}").write_bytes(LFS)
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        ssd_zoo.load_checkpoint(tmp_path / f"x.{suffix}")


def test_safetensors_of_another_kind(tmp_path):
    (tmp_path / "z.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(ValueError, match="z.safetensors is cut off or not a safetensors file"):
        ssd_zoo.load_checkpoint(tmp_path / "z.safetensors")


@pytest.mark.filterwarnings("ignore:.*(quantize|TypedStorage|invariant|Sparse CSR)")
@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    ],
)
def test_tensors_of_other_kinds(make, tmp_path):
    torch.save({"w": make(torch.eye(3))}, tmp_path / "x.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="holds 'w', a tensor of .*; only dense ones of real numbers load"):
            ssd_zoo.load_checkpoint(tmp_path / "x.pth")


def test_wrong_shapes_missing_and_foreign_tensors(state):
    weight = "base_net.3.3.weight"
    with pytest.raises(ValueError, match=rf"'{weight}' .*must have shape \(32, 32, 1, 1\), got \(32, 31, 1, 1\)"):
        ssd_zoo.load_checkpoint(state | {weight: torch.zeros(32, 31, 1, 1)})
    huge = torch.zeros(1).expand(10**6, 10**6, 10**4)
    with pytest.raises(ValueError, match=rf"'{weight}' .*got \(1000000, 1000000, 10000\)"):
        ssd_zoo.load_checkpoint(state | {weight: huge})
    with pytest.raises(
        ValueError, match=r"lacks tensors of this model: 1 of them, backbone\.blocks\.2\.1\.conv\.weight"
    ):
        ssd_zoo.load_checkpoint({name: tensor for name, tensor in state.items() if name != weight})
    with pytest.raises(ValueError, match=r"no known origin.*Nearest is ultraface, which does not know 'fc\.weight'"):
        ssd_zoo.load_checkpoint(state | {"fc.weight": torch.zeros(1)})
    head = {name: tensor for name, tensor in state.items() if not name.startswith("regression_headers.0")}
    with pytest.raises(ValueError, match=r"lacks the bias of head\.bbox_regression\.0, which the other maps have"):
        ssd_zoo.load_checkpoint(head)


# A double may be finite, and infinite in the model.
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_numbers_that_are_not_finite(state, value):
    tensor = state["base_net.3.3.weight"].double()
    tensor[0, 0] = value
    with pytest.raises(
        ValueError, match=r"'base_net\.3\.3\.weight' holds 1 numbers of 1024 that are NaN, infinite or b"
    ):
        ssd_zoo.load_checkpoint(state | {"base_net.3.3.weight": tensor})


def test_origins(state):
    assert ssd_zoo.load_checkpoint(state, "ultraface").size == (240, 320)
    with pytest.raises(ValueError, match="Unknown origin 'caffe'; known are amdegroot, .*, ultraface"):
        ssd_zoo.load_checkpoint(state, "caffe")
    with pytest.raises(ValueError, match="not of the origin 'lufficc'"):
        ssd_zoo.load_checkpoint(state, "lufficc")
    with pytest.raises(ValueError, match="fit none of amdegroot, .*They begin with 'a', 'b'"):
        ssd_zoo.load_checkpoint({"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(ValueError, match="ssd_zoo's own.*from_pretrained"):
        ssd_zoo.load_checkpoint(ssd_zoo.load_checkpoint(state).state_dict())
    # A classifier has no head that detects.
    with pytest.raises(ValueError, match="no known origin"):
        ssd_zoo.load_checkpoint({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)})


def number(field, value):
    return varint(field << 3) + varint(value)


def varint(value):
    value %= 2**64
    start = b""
    while value >= 0x80:
        start += bytes([value & 0x7F | 0x80])
        value >>= 7
    return start + bytes([value])


def message(field, *parts):
    content = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def constant(name, dtype, shape, *values):
    dimensions = message(2, *(message(2, number(1, size)) for size in shape))
    tensor = message(8, number(1, dtype), dimensions, *values)
    attributes = message(5, message(1, b"value"), message(2, tensor))
    return message(1, message(1, name.encode()), message(2, b"Const"), attributes)


def test_constants_of_each_form(tmp_path):
    nodes = [
        constant("content", 1, [2, 2], message(4, np.arange(4, dtype="<f4").tobytes())),
        constant("half", 19, [2], message(4, np.array([1.5, -2], "<f2").tobytes())),
        # Half precision that is not packed as content comes as the bits of each number.
        constant("half listed", 19, [2], message(13, varint(0x3E00), varint(0xC000))),
        constant("listed", 1, [2], message(5, struct.pack("<2f", 1, 2))),
        constant("one by one", 1, [], varint(5 << 3 | 5) + struct.pack("<f", 7)),
        constant("repeated", 3, [3], number(7, 5)),
        constant("negative", 3, [2], message(7, varint(-1), varint(4))),
        constant("nothing listed", 3, [2]),
        constant("long", 9, [1], message(10, varint(-(2**40)))),
        constant("truth", 10, [2], message(11, varint(1), varint(0))),
        constant("a text", 7, [], message(8, b"no number")),
        message(1, message(1, b"image"), message(2, b"Placeholder")),
    ]
    (tmp_path / "graph.pb").write_bytes(b"".join(nodes) + number(4, 21))
    found = {name: (str(t.dtype), t.tolist()) for name, t in read_checkpoint(tmp_path / "graph.pb").items()}
    assert found == {
        "content": ("torch.float32", [[0, 1], [2, 3]]),
        "half": ("torch.float16", [1.5, -2]),
        "half listed": ("torch.float16", [1.5, -2]),
        "listed": ("torch.float32", [1, 2]),
        "one by one": ("torch.float32", 7),
        "repeated": ("torch.int32", [5, 5, 5]),
        "negative": ("torch.int32", [-1, 4]),
        "nothing listed": ("torch.int32", [0, 0]),
        "long": ("torch.int64", [-(2**40)]),
        "truth": ("torch.bool", [True, False]),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no constants"),
        (b"\x08", "ends within a number"),
        (b"\xff" * 20, "more than 10 bytes"),
        (b"\x0b\x0b", "unknown wire type 3"),
        (message(1, b"x" * 9)[:-1], "ends 1 bytes too early"),
        (varint(1 << 3 | 2) + varint(2**62), "too early"),
        (number(1, 5), "a number where a message should be"),
        (constant("w", 1, [2, 2], message(4, b"\0" * 15)), r"constant 'w': shape \[2, 2\] of float32 needs other"),
        (constant("w", 1, [2**20, 2**20], number(1, 1)), "constant 'w': its shape .* too large"),
        (constant("w", 1, [2**40], message(4, b"")), "its shape .* is not known"),
        (constant("w", 1, [-1], message(4, b"")), "its shape .* is not known"),
        (constant("w", 1, [1], message(5, b"\0" * 6)), "constant 'w'"),
        # Each of the constants repeats one number.
        (constant("w", 1, [2**21], number(1, 1)) * 9, "repeat values to more than 16777216 bytes together"),
        (constant("w", 1, [1] * 17, message(4, b"\0" * 4)), "its shape .* too large"),
    ],
)
def test_hostile_graphs(content, message, tmp_path):
    (tmp_path / "x.pb").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.pb.*{message}"):
        read_constants(tmp_path / "x.pb")


def test_messages_within_messages_do_not_recurse(tmp_path):
    nested = b""
    for _ in range(5000):
        nested = message(1, nested)
    (tmp_path / "x.pb").write_bytes(nested)
    with pytest.raises(ValueError, match="no constants|a number where|end"):
        read_constants(tmp_path / "x.pb")


def test_truncated_graph(test_data, tmp_path):
    content = (test_data / "weights/ssdlite_mobilenet_v2_person/frozen_inference_graph.pb").read_bytes()
    for length in (100, len(content) // 2, len(content) - 1):
        (tmp_path / "x.pb").write_bytes(content[:length])
        with pytest.raises(ValueError, match="x.pb"):
            ssd_zoo.load_checkpoint(tmp_path / "x.pb")


def _zip(file, records, compression=zipfile.ZIP_STORED, mode="w"):
    with zipfile.ZipFile(file, mode, compression) as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)


def _call(name: bytes, argument: int) -> bytes:
    """A pickle that calls a function with a number."""
    return b"\x80\x02c" + name + b"\nJ" + argument.to_bytes(4, "little") + b"\x85R."


BOMBS = {
    "expanded": lambda file: torch.save({"w": torch.zeros(1).expand(2**31, 2)}, file),
    "expanded in part": lambda file: torch.save({"w": torch.zeros(1, 8).expand(2**20, 8)}, file),
    "one storage a hundred times": lambda file: torch.save(
        dict.fromkeys(map(str, range(100)), torch.rand(10**4)), file
    ),
    "compressed": lambda file: _zip(file, {"data.pkl": b"\x80\x02}.", "data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED),
    "bytes by number": lambda file: _zip(file, {"data.pkl": _call(b"__builtin__\nbytearray", 2**30)}),
    "legacy bytes by number": lambda file: file.write_bytes(_call(b"builtins\nbytearray", 2**30)),
    "bytes by number under another name": lambda file: _zip(file, {"Data.pkl": _call(b"builtins\nbytearray", 2**30)}),
    "an archive behind bytes by number": lambda file: (
        file.write_bytes(_call(b"builtins\nbytearray", 2**30)),
        _zip(file, {"data.pkl": b"\x80\x02}."}, mode="a"),
    ),
    "bytes by number behind a long text": lambda file: file.write_bytes(
        b"\x80\x02X" + (2**23).to_bytes(4, "little") + b"a" * 2**23 + _call(b"builtins\nbytearray", 2**30)[2:]
    ),
    "many lists": lambda file: _zip(file, {"data.pkl": b"\x80\x02(" + b"]" * 2**21 + b"l."}),
    "a large pickle": lambda file: _zip(file, {"data.pkl": b"\x80\x02" + b"N0" * 2**22 + b"N."}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_they_take_memory(bomb, tmp_path):
    file = tmp_path / "x.pth"
    BOMBS[bomb](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="x.pth") as caught:
        ssd_zoo.load_checkpoint(file)
    assert not re.search("damaged, or not what|of type bytearray", str(caught.value))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes


def test_names_that_are_no_texts(tmp_path):
    torch.save({(1, 2): torch.ones(1), "a" * 10**5: [torch.ones(1)]}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth") as caught:
        ssd_zoo.load_checkpoint(tmp_path / "x.pth")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["explist.pth", "half_expand.pth", "pb_bomb.pb", "tuplekey.pth", "zipbomb.pth"])
def test_hostile_files_from_outside(name, test_data):
    file = test_data.parent / "cases" / "hostile" / name
    if not file.is_file():
        pytest.skip(f"{file} is missing")
    with pytest.raises(ValueError, match=name):
        ssd_zoo.load_checkpoint(file)


def test_changed_bytes_are_seen_wherever_they_lie(state, tmp_path):
    file = tmp_path / "a.pth"
    torch.save(state, file)
    whole = file.read_bytes()
    read_checkpoint(file)
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if "data/" in member.filename]
    for member in members:
        name, extra = struct.unpack("<HH", whole[member.header_offset + 26 :][:4])
        middle = member.header_offset + 30 + name + extra + member.file_size // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(ValueError, match=r"a\.pth is damaged"):
            read_checkpoint(file)


def test_files_without_checksums(state, tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes checksums")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / "a.pth").keys() == state.keys()


def test_folders_name_what_lies_in_them(state, tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file"):
        read_checkpoint(tmp_path)
    torch.save(state, tmp_path / "slim.pth")
    with pytest.raises(IsADirectoryError, match=r"name a file in it, such as slim\.pth"):
        read_checkpoint(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"a graph")
    with pytest.raises(IsADirectoryError, match="TensorFlow's SavedModel"):
        read_checkpoint(tmp_path)
    ssd_zoo.save_pretrained(ssd_zoo.load_checkpoint(state), tmp_path)
    with pytest.raises(IsADirectoryError, match=r"a saved model, which ssd_zoo\.from_pretrained loads"):
        read_checkpoint(tmp_path)

"""Models of TensorFlow.js that a test makes: values worked by hand, and files that are not whole."""

import json

import numpy as np
import pytest
import torch

from ssd_zoo.weights.formats.checkpoint import read_checkpoint


def write(folder, weights, shards, **content):
    """Write model.json and shards; a weight is its entry without the name's key."""
    folder.mkdir(exist_ok=True)
    for name, values in shards.items():
        (folder / name).write_bytes(values)
    group = {"paths": list(shards), "weights": [{"name": name, **entry} for name, entry in weights.items()]}
    (folder / "model.json").write_text(json.dumps({"modelTopology": {}, "weightsManifest": [group], **content}))
    return folder / "model.json"


def quantised(dtype, **settings):
    return {"shape": [2], "dtype": "float32", "quantization": {"dtype": dtype, **settings}}


ROWS = [
    # Name, entry, bytes, value by hand.
    ("float32", {"shape": [2], "dtype": "float32"}, np.float32([1.5, -2]).tobytes(), [1.5, -2.0]),
    ("float16", quantised("float16"), np.float16([0.5, 3]).tobytes(), [0.5, 3.0]),
    ("uint8", quantised("uint8", scale=0.5, min=-1.0), bytes([0, 255]), [-1.0, 126.5]),
    ("uint16", quantised("uint16", scale=2.0, min=10.0), np.uint16([1, 1000]).tobytes(), [12.0, 2010.0]),
    ("int32", {"shape": [2], "dtype": "int32"}, np.int32([7, -7]).tobytes(), [7, -7]),
    ("bool", {"shape": [2], "dtype": "bool"}, bytes([1, 0]), [True, False]),
    ("scalar", {"shape": [], "dtype": "float32"}, np.float32(4).tobytes(), 4.0),
    ("empty", {"shape": [0], "dtype": "float32"}, b"", []),
]


@pytest.mark.parametrize("cut", [0, 3, 11])
def test_values_of_every_type(tmp_path, cut):
    content = b"".join(values for _, _, values, _ in ROWS)
    # A shard may end within a number.
    shards = {"a.bin": content[:cut], "b.bin": content[cut:]}
    file = write(tmp_path / "model", {name: entry for name, entry, _, _ in ROWS}, shards)
    for path in (file, file.parent):
        state = read_checkpoint(path)
        assert {name: tensor.tolist() for name, tensor in state.items()} == {name: row for name, _, _, row in ROWS}
        assert state["uint8"].dtype == torch.float32


FLOAT = {"shape": [2], "dtype": "float32"}
FAULTS = {
    "a short shard": (FLOAT, {"a.bin": bytes(7)}, "weights of 8 bytes, but their shards hold 7: a.bin of 7"),
    "a long shard": (FLOAT, {"a.bin": bytes(9)}, "weights of 8 bytes, but their shards hold 9"),
    "a huge shape": ({**FLOAT, "shape": [10**9, 10**9]}, {"a.bin": bytes(8)}, "shape .* too large"),
    "a negative side": (
        {**FLOAT, "shape": [-2]},
        {"a.bin": bytes(8)},
        "'w': a side must be a whole number from 0 .*got -2",
    ),
    "an unknown type": ({**FLOAT, "dtype": "complex64"}, {"a.bin": bytes(8)}, "'w' has the type 'complex64'"),
    "no scale": (quantised("uint8", min=0.0), {"a.bin": bytes(2)}, "scale must be a finite number .*got None"),
    "a scale beyond single precision": (quantised("uint8", min=0.0, scale=1e308), {"a.bin": bytes(2)}, "'w': scale"),
    "many sides": ({**FLOAT, "shape": [1] * 71}, {"a.bin": bytes(4)}, "0 to 8 entries, got 71"),
    "a huge side and none": ({**FLOAT, "shape": [0, 10**30]}, {"a.bin": b""}, "holds 1000000000000000000000000000000"),
    "a large side and none": ({**FLOAT, "shape": [0, 2**31, 2]}, {"a.bin": b""}, "too large"),
    "no number": (
        quantised("uint8", min=0.0, scale=float("nan")),
        {"a.bin": bytes(2)},
        "holds NaN, which is not a finite",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path, fault):
    entry, shards, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        read_checkpoint(write(tmp_path / "model", {"w": entry}, shards))


@pytest.mark.parametrize("path", ["../secret.bin", "/etc/passwd", "a/../../x.bin", "..\\secret.bin", "C:\\x.bin", ""])
def test_shards_outside_the_folder_are_refused(tmp_path, path):
    file = write(tmp_path / "model", {"w": FLOAT}, {})
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    file.write_text(file.read_text().replace('"paths": []', f'"paths": {json.dumps([path])}'))
    with pytest.raises(ValueError, match="a shard outside its folder"):
        read_checkpoint(file)


def test_links_are_followed(tmp_path):
    # The Hub's cache has links to files in another folder.
    file = write(tmp_path / "blobs", {"w": FLOAT}, {"a.bin": np.float32([1.5, -2]).tobytes()})
    (tmp_path / "snapshot").mkdir()
    for blob in file.parent.iterdir():
        (tmp_path / "snapshot" / blob.name).symlink_to(blob)
    assert read_checkpoint(tmp_path / "snapshot")["w"].tolist() == [1.5, -2]


def test_a_missing_shard_is_named(tmp_path):
    file = write(tmp_path / "model", {"w": FLOAT}, {"a.bin": bytes(4), "b.bin": bytes(4)})
    (file.parent / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"names the shard 'b.bin', but there is no such file"):
        read_checkpoint(file)


def test_nothing_is_listed_twice(tmp_path):
    # A shard that stands for many weights would let a small file fill the memory.
    file = write(tmp_path / "model", {"w": FLOAT}, {"a.bin": bytes(8)})
    manifest = json.loads(file.read_text())
    [group] = manifest["weightsManifest"]
    file.write_text(
        json.dumps({"weightsManifest": [group, {**group, "weights": [{**group["weights"][0], "name": "v"}]}]})
    )
    with pytest.raises(ValueError, match=r"lists the shard 'a.bin' 2 times; each must be there once"):
        read_checkpoint(file)
    file.write_text(json.dumps({"weightsManifest": [{**group, "paths": ["a.bin", "./a.bin"]}]}))
    with pytest.raises(ValueError, match=r"lists the shard 'a.bin' 2 times"):
        read_checkpoint(file)
    file.write_text(json.dumps({"weightsManifest": [{**group, "weights": group["weights"] * 2}]}))
    with pytest.raises(ValueError, match=r"lists the weight 'w' 2 times"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"weightsManifest": 3}', '{"weightsManifest": [{}]}', "[" * 100_000, "\xff\xfe",
     '{"weightsManifest": [{"paths": 3, "weights": []}]}', '{"weightsManifest": [{"paths": [], "weights": [3]}]}',
     '{"weightsManifest": [{"paths": [], "weights": [{"name": "w", "shape": [2], "dtype": "float32",'
     ' "quantization": 3}]}]}', '{"weightsManifest": []}',
     '{"weightsManifest": [{"paths": [], "weights": [{"name": "w", "shape": 3, "dtype": "float32"}]}]}'],
)  # fmt: skip
def test_another_json_is_refused(tmp_path, text):
    file = tmp_path / "model.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="model.json"):
        read_checkpoint(file)

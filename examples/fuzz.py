"""Read mutated files, and count what each reader does with them.

    python examples/fuzz.py                             # 20 000 cases of each cheap reader, 2 000 of each dear one
    python examples/fuzz.py --readers tfjs pth --cases 500
    python examples/fuzz.py --readers tfjs --case 417 --keep out   # one case again; its files go to out/

A reader may accept a file or refuse it by ValueError or OSError. Anything else is a fault: another error, more than
5 seconds, more than 1 GiB of further memory, or values that are known to be wrong.
"""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import ssd_zoo
from ssd_zoo.cli._journal import Journal
from ssd_zoo.data import inspect_dataset, open_dataset, open_video_dataset, read_image, usable
from ssd_zoo.deploy.description import Description, Nms
from ssd_zoo.deploy.load import ExportedDetector, load
from ssd_zoo.deploy.runtime import Opened
from ssd_zoo.training.metrics.coco import score_results
from ssd_zoo.training.run_state import read_run_state
from ssd_zoo.weights.formats.checkpoint import read_checkpoint
from ssd_zoo.weights.formats.safetensors_file import parse_header
from ssd_zoo.weights.outside import parse_json, parse_xml, parse_yaml
from ssd_zoo.weights.saved_models import open_saved

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SECONDS, MEMORY = 5, 2**30
BATCH = 200
Files = dict[str, bytes]


class Reader(NamedTuple):
    """A reader of files.

    Attributes:
        seeds: Makes whole files; a name that begins with "=" is never mutated.
        read: Called with the folder of the files; raises AssertionError for values that are known to be wrong.
        dear: Whether a case takes more than some milliseconds.
    """

    seeds: Callable[[], list[Files]]
    read: Callable[[Path], object]
    dear: bool = False


def saved_model() -> list[Files]:
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, num_classes=3)
    with tempfile.TemporaryDirectory() as folder:
        ssd_zoo.save_pretrained(model, folder)
        files = {name: (Path(folder) / name).read_bytes() for name in ("config.json", "model.safetensors")}
    return [files]


def config_alone() -> list[Files]:
    [files] = saved_model()
    return [{"config.json": files["config.json"], "=model.safetensors": files["model.safetensors"]}]


def tensors_alone() -> list[Files]:
    [files] = saved_model()
    return [{"=config.json": files["config.json"], "model.safetensors": files["model.safetensors"]}]


def read_tensors(folder: Path) -> None:
    """Tensors that are read are the seed's, since the digest tells."""
    weights = open_saved(folder).weights
    state = weights.get_state_dict()
    if weights.digest is not None:
        assert [str(sorted(state)), sum(map(checksum, state.values()))] == WHOLE, "tensors differ from the seed's"


def checksum(tensor: torch.Tensor) -> float:
    return tensor.double().flatten().dot(torch.arange(tensor.numel()).double().cos()).item()


def whole_state() -> list[object]:
    torch.manual_seed(0)
    state = ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, num_classes=3).state_dict()
    return [str(sorted(state)), sum(checksum(state[name]) for name in sorted(state))]


def read_model(folder: Path) -> None:
    model = ssd_zoo.from_pretrained(folder)
    assert all(0 <= value <= 1 for value in (model.score_thresh, model.nms_thresh, model.iou_thresh))
    assert model.default_boxes.isfinite().all()


def read_state(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        state = read_checkpoint(folder / name)
        size = sum(file.stat().st_size for file in folder.iterdir())
        assert all(isinstance(key, str) for key in state)
        assert sum(tensor.nbytes for tensor in state.values()) <= 8 * size + 2**25, "more bytes than were read"

    return read


def torch_files() -> list[Files]:
    state = {"a.weight": torch.rand(4, 3), "a.bias": torch.rand(4).half(), "n": torch.tensor(7)}
    seeds = []
    for checkpoint in (state, {"model": state, "epoch": 3, "args": {"lr": 0.1, "names": ["a", "b"]}}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(checkpoint, stream, _use_new_zipfile_serialization=zipped)
            seeds.append({"x.pth": stream.getvalue()})
    return seeds


def torch_pickles() -> list[Files]:
    """Records of a zip file; `read_pickles` puts them together, so that mutations do not break the archive."""
    [whole, *_] = torch_files()
    with zipfile.ZipFile(io.BytesIO(whole["x.pth"])) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return [{name if "data" in name else f"={name}": content for name, content in records.items()}]


def read_pickles(folder: Path) -> None:
    records = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    with zipfile.ZipFile(folder / "x.pth", "w") as archive:
        for file in records:
            archive.write(file, f"x/{file.relative_to(folder)}")
    read_state("x.pth")(folder)


def tfjs() -> list[Files]:
    weights = [
        {"name": "a/weights", "shape": [2, 2], "dtype": "float32"},
        {"name": "b", "shape": [3], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
        {"name": "c", "shape": [], "dtype": "int32"},
    ]
    manifest = {"format": "graph-model", "weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": weights}]}
    return [{"model.json": json.dumps(manifest).encode(), "a.bin": bytes(range(9)), "b.bin": bytes(range(14))}]


def tflite() -> list[Files]:
    from tflite_file import computed, constant, model

    kernel = constant("k", np.ones((2, 1, 1, 2), np.int8), scale=(0.5, 0.25), zero=(0, 1))
    bias, image, out = constant("b", np.ones(2, np.float32)), computed("image", (1, 8, 8, 2)), computed("Layer/Relu6")
    return [{"x.tflite": model(kernel, bias, image, out, operators=[("CONV_2D", (2, 0, 1), (3,))], inputs=(2,))}]


def frozen_graph() -> list[Files]:
    def field(number: int, content: bytes | int) -> bytes:
        if isinstance(content, int):
            return varint(number << 3) + varint(content)
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        low = b"" if value < 128 else bytes([value & 127 | 128])
        return low + (varint(value >> 7) if low else bytes([value]))

    def constant(name: str, dtype: int, shape: list[int], values: bytes) -> bytes:
        sides = b"".join(field(2, field(1, side)) for side in shape)
        tensor = field(1, dtype) + field(2, sides) + values
        entry = field(1, b"value") + field(2, field(8, tensor))
        return field(1, field(1, name.encode()) + field(2, b"Const") + field(5, entry))

    graph = constant("a", 1, [2, 2], field(4, bytes(16))) + constant("b", 3, [70], field(7, 5))
    return [{"x.pb": graph + constant("c", 1, [2], field(5, bytes(8))) + constant("h", 19, [2], field(13, 15360))}]


def headers() -> list[Files]:
    return [{"header": save({"features.0.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}, {"format": "pt"})}]


def read_remote_header(folder: Path) -> None:
    content = (folder / "header").read_bytes()
    header = parse_header(io.BytesIO(content), len(content), "the file")
    assert sum(entry.stop - entry.start for entry in header.entries.values()) == len(content) - header.start


def picture(kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 16), 50).convert("RGB").save(stream, kind, **options)
    return stream.getvalue()


def images() -> list[Files]:
    return [{"=kind": kind.encode(), "image": picture(kind)} for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")]


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 24}],
    "annotations": [
        {"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": [1, 2, 5.5, 6], "area": 33, "iscrowd": i // 2}
        for i in range(3)
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 6], "score": 0.5}] * 2
VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>a.png</filename><size><width>24</width><height>16</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9.5</xmax><ymax>8</ymax>
</bndbox></object></annotation>"""
YOLO = "path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
Y_BOXES = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.3 0.4\n"


def coco() -> list[Files]:
    return [{"train.json": json.dumps(COCO, indent=1).encode(), "=a.png": picture()}]


def results() -> list[Files]:
    return [{"=truth.json": json.dumps(COCO).encode(), "found.json": json.dumps(RESULTS).encode()}]


def voc() -> list[Files]:
    lists = {"ImageSets/Main/train.txt": b"a\n"}
    return [{**lists, "Annotations/a.xml": VOC.encode(), "=JPEGImages/a.png": picture()}]


def yolo() -> list[Files]:
    return [{"data.yaml": YOLO.encode(), "labels/a.txt": Y_BOXES.encode(), "=images/a.png": picture()}]


def layout(
    *shapes: str, lists: bool = False, more: Mapping[str, str] = MappingProxyType({})
) -> Callable[[], list[Files]]:
    """Return a function that writes data sets in some shapes of `tests/layouts.py`, with one image each.

    Args:
        shapes: Their names.
        lists: Whether the files that name images and classes are mutated, in place of the labels.
        more: Further files.
    """

    def seeds() -> list[Files]:
        from labelled import PICTURES
        from layouts import SHAPES

        made = []
        for shape in shapes:
            with tempfile.TemporaryDirectory() as folder:
                labels = SHAPES[shape](Path(folder), "train", PICTURES[:1])
                for file, text in more.items():
                    (Path(folder) / file).write_text(text)
                files = [file for file in Path(folder).rglob("*") if file.is_file()]
                chosen = [file for file in files if (file not in labels and file.suffix != ".png") is lists]
                chosen = [file for file in chosen if file.suffix != ".png"]
                name = {file: ("" if file in chosen else "=") + str(file.relative_to(folder)) for file in files}
                made.append({name[file]: file.read_bytes() for file in files})
        return made

    return seeds


RUNS = [18, 6, 10, 6, 10, 6, 10, 6, 10, 6, 296]
MASKS = [[[1, 2, 6, 2, 6, 8]], {"size": [16, 24], "counts": RUNS}, {"size": [16, 24], "counts": "b06:0000000n8"}]


def masks() -> list[Files]:
    """COCO's annotations without boxes: an outline, and run lengths as numbers and as text."""
    things = [{"id": i, "image_id": 1, "category_id": 1, "segmentation": mask} for i, mask in enumerate(MASKS)]
    return [{"train.json": json.dumps({**COCO, "annotations": things}, indent=1).encode(), "=a.png": picture()}]


def read_masks(folder: Path) -> None:
    """Boxes of run lengths lie within the size that they have; the seed's is (1, 2, 6, 8)."""
    read_labels(folder)
    content = parse_json((folder / "train.json").read_bytes(), "x.json")
    # As texts, because True equals 1.
    if json.dumps(content) == json.dumps(json.loads(masks()[0]["train.json"])):
        assert open_dataset(folder / "train.json")[0][1]["boxes"].tolist() == [[1, 2, 6, 8]] * 3


def runs() -> list[Files]:
    stream = io.BytesIO()
    state = {"w": torch.rand(4, 3)}
    torch.save({"settings": {"size": [64, 64]}, "progress": {"epoch": 1}, "model": state, "optimizer": {}}, stream)
    return [{"checkpoint.pt": stream.getvalue()}]


def exported() -> list[Files]:
    """A detector in two formats, made by another process: what starts threads can't be forked."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys, ssd_zoo; from ssd_zoo.deploy import export\n"
            "model = ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, num_classes=3).eval()\n"
            "for file in sys.argv[1:]: export(model, file, format=file.rpartition('.')[2])"
        )
        files = [Path(folder, name) for name in ("x.onnx", "x.pt2")]
        subprocess.run([sys.executable, "-c", code, *files], check=True, capture_output=True)
        return [{file.name: file.read_bytes()} for file in files]


def read_exported(folder: Path) -> None:
    [file] = folder.iterdir()
    [found] = load(file)([torch.rand(3, 40, 50)])
    assert found["boxes"].isfinite().all()


def read_labels(folder: Path) -> None:
    path = folder / "train.json" if (folder / "train.json").exists() else folder
    dataset = open_dataset(path)
    boxes = [dataset[i][1]["boxes"].tolist() for i in range(min(len(dataset), 2))]
    assert all(math.isfinite(value) for of_image in boxes for box in of_image for value in box), "boxes are not finite"


THING = {"frame": 0, "track": 1, "category": "cat", "box": [1, 2, 9.5, 8], "ignored": False}
VIDEO = {"file": "a", "frames": 3, "height": 16, "width": 24, "labeled_frames": [0, 2]}
CLIPS = {
    "categories": ["cat", "dog"],
    "videos": [
        {**VIDEO, "objects": [THING, {**THING, "frame": 2}]},
        {"file": "b", "objects": [{**THING, "track": None, "category": "dog"}]},
    ],
}


def frames(folder: str, *names: str) -> Files:
    return {f"={folder}/{name}": picture("PNG" if name.endswith("png") else "JPEG") for name in names}


def clips() -> list[Files]:
    pictures = frames("a", "1.png", "2.png", "3.png") | frames("b", "1.png")
    return [{"clips.json": json.dumps(CLIPS, indent=1).encode(), **pictures}]


def mot() -> list[Files]:
    lines = "1,1,2,3,9,8,1,1,1\n2,1,3,3,9.5,8,0,1,0.5\n"
    sequence = "[Sequence]\nseqLength=2\nimWidth=24\nimHeight=16\n"
    own = {"gt/gt.txt": lines.encode(), "seqinfo.ini": sequence.encode(), **frames("img1", "1.png", "2.png")}
    return [{**own, "gt/labels.txt": b"cat\n"}, own]


def read_videos(folder: Path) -> None:
    """Of a video that can be used, boxes are finite, and frames and labels are there."""
    data = open_video_dataset(folder)
    for video in data.videos:
        target = video.target
        assert target["boxes"].isfinite().all(), "boxes are not finite"
        assert ((target["labels"] > 0) & (target["labels"] < len(data.categories))).all()
        assert video.fault or ((target["frame_index"] >= 0).all() and (target["frame_index"] < video.num_frames).all())
    usable(data, inspect_dataset(data, read_images=False), "drop")


CVAT = """<?xml version="1.0"?>
<annotations><version>1.1</version><meta><task><size>3</size><labels><label><name>cat</name></label></labels>
<original_size><width>24</width><height>16</height></original_size></task><source>a</source></meta>
<track id="0" label="cat"><box frame="0" outside="0" xtl="1" ytl="2" xbr="9.5" ybr="8"/>
<polygon frame="2" outside="0" points="1.0,2.0;9.0,2.5;5.0,8.0"/></track></annotations>"""
VID = """<annotation><size><width>24</width><height>16</height></size><object><trackid>0</trackid>
<name>n02084071</name><bndbox><xmax>9</xmax><xmin>1</xmin><ymax>8</ymax><ymin>2</ymin></bndbox></object></annotation>"""


def cvat_video() -> list[Files]:
    pictures = frames("a", "1.png", "2.png", "3.png")
    return [{"a.xml": CVAT.encode(), "=b.xml": CVAT.encode(), **pictures}]


def imagenet_vid() -> list[Files]:
    folder = "Annotations/VID/train/a"
    pictures = frames("Data/VID/train/a", "0.JPEG", "1.JPEG")
    return [{f"{folder}/0.xml": VID.encode(), f"={folder}/1.xml": VID.encode(), **pictures}]


def descriptions() -> list[Files]:
    model = ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, num_classes=3)
    places: tuple[Nms, ...] = ("inside", "outside")
    described = {nms: Description.of(model, nms=nms, pixels="float32") for nms in places}
    return [{"=nms": nms.encode(), "x.json": one.to_json().encode()} for nms, one in described.items()]


def read_description(folder: Path) -> None:
    """Detect by the description; the file's answers are those of the seed's model."""
    text = (folder / "x.json").read_bytes().decode(errors="replace")
    opened = Opened(text, partial(run_constant, (folder / "nms").read_text()))
    detector = ExportedDetector(Description.from_json(text, "x"), opened, "x")
    [found] = detector([torch.rand(3, 40, 50)])
    assert found["boxes"].isfinite().all()
    names = [detector.categories[label] for label in found["labels"].tolist()]
    assert all(isinstance(name, str) for name in names)


def run_constant(nms: str, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    images, state = inputs["images"], set(inputs) - {"images"}
    if images.shape[1:] != (3, 64, 64) or images.dtype != torch.float32 or state:
        raise ValueError(f"the input has the shape {tuple(images.shape)}")
    boxes = torch.tensor([[1.0, 2, 30, 40], [5.0, 5, 60, 50]])
    many = len(images)
    if nms == "inside":
        ones = torch.ones(many, dtype=torch.int64)
        best = {"boxes": boxes.repeat(many, 1, 1), "scores": torch.tensor([[0.9, 0.4]]).repeat(many, 1)}
        return {**best, "labels": torch.tensor([[1, 2]]).repeat(many, 1), "count": 2 * ones, "exact": ones.bool()}
    raw = {"cls_logits": torch.eye(2, 3).repeat(many, 1, 1), "bbox_regression": torch.zeros(many, 2, 4)}
    return {**raw, "default_boxes": boxes}


HEADER = {"ssd_zoo": "1", "model": "x"}
ROW = {"file_name": "a.png", "changed": [9, 8], "detections": [
    {"category_id": 1, "category": "cat", "bbox": [1, 2, 3, 4], "score": 0.5}
]}  # fmt: skip


def journal() -> list[Files]:
    return [{"found.json.jsonl": "".join(f"{json.dumps(row)}\n" for row in (HEADER, ROW, ROW)).encode()}]


def read_journal(folder: Path) -> None:
    kept = Journal(folder / "found.json.jsonl", HEADER)
    assert all(isinstance(one["score"], float | int) for row in kept.rows(kept) for one in row.get("detections", []))


READERS = {
    "json": Reader(coco, lambda folder: parse_json((folder / "train.json").read_bytes(), "x.json")),
    "yaml": Reader(yolo, lambda folder: parse_yaml((folder / "data.yaml").read_bytes(), "x.yaml")),
    "xml": Reader(voc, lambda folder: parse_xml((folder / "Annotations/a.xml").read_bytes(), "x.xml")),
    "config": Reader(config_alone, open_saved),
    "header": Reader(headers, read_remote_header),
    "tensors": Reader(tensors_alone, read_tensors, dear=True),
    "tfjs": Reader(tfjs, read_state("model.json")),
    "tflite": Reader(tflite, read_state("x.tflite")),
    "pb": Reader(frozen_graph, read_state("x.pb")),
    "pth": Reader(torch_files, read_state("x.pth")),
    "pickle": Reader(torch_pickles, read_pickles),
    "images": Reader(images, lambda folder: read_image(folder / "image")),
    "coco": Reader(coco, read_labels),
    "voc": Reader(voc, read_labels),
    "yolo": Reader(yolo, read_labels),
    "csv": Reader(layout("table_of_tutorials", "table_of_roboflow", "table_of_open_images"), read_labels),
    "kitti": Reader(layout("kitti"), read_labels),
    "widerface": Reader(layout("widerface"), read_labels),
    "cvat": Reader(layout("cvat"), read_labels),
    "labelme": Reader(layout("labelme"), read_labels),
    "masks": Reader(masks, read_masks),
    "lists": Reader(layout("yolo_darknet", "yolo_folders", "yolo_yaml_lists", "voc_lists", lists=True), read_labels),
    "codes": Reader(
        layout("table_of_open_images", lists=True, more={"class-descriptions-boxable.csv": "cat,Cat\ndog,Dog\n"}),
        read_labels,
    ),
    "clips": Reader(clips, read_videos),
    "mot": Reader(mot, read_videos),
    "cvat-video": Reader(cvat_video, read_videos),
    "vid": Reader(imagenet_vid, read_videos),
    "run": Reader(runs, lambda folder: read_run_state(folder / "checkpoint.pt")),
    "exported": Reader(exported, read_exported, dear=True),
    "description": Reader(descriptions, read_description, dear=True),
    "journal": Reader(journal, read_journal),
    "results": Reader(results, lambda folder: score_results(folder / "truth.json", folder / "found.json"), dear=True),
    "folder": Reader(config_alone, read_model, dear=True),
}

NUMBERS = b"0 -1 1e999 1e308 -1e308 NaN Infinity 9223372036854775808 1e-320 16777217 65536 0.5 3.0 1_0".split()
VALUES = [*NUMBERS, *b'true null "" [] {} "x" [[1,2]] {"a":1} "../../x" "hf-hub:a/b" *a &a <!DOCTYPE'.split()]
BYTES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\xe9", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xef\xbb\xbf", b"[" * 3000]
LETTERS = frozenset(b"0123456789.-+eE")


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a few places of a file."""
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at, size = chance.randrange(len(content) + 1), min(2 ** chance.randrange(9), len(content))
        kind = chance.randrange(8)
        if kind == 0 and content:
            at = min(at, len(content) - 1)
            content = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[at + size :]
        elif kind == 2:
            content = content[:at] + chance.choice(BYTES) + content[at + chance.randrange(2) :]
        elif kind == 3:
            other = chance.randrange(len(content) + 1)
            content = content[:at] + content[other : other + size] + content[at:]
        elif kind == 4 and chance.random() < 0.2:
            content = content[:at]
        else:
            # A number, or a text between quotes, becomes another value.
            stop = at
            while stop < len(content) and content[stop] in LETTERS:
                stop += 1
            while at > 0 and content[at - 1] in LETTERS:
                at -= 1
            content = content[:at] + chance.choice(VALUES) + content[stop:]
    return content


def write_case(name: str, seeds: list[Files], number: int, seed: int, folder: Path) -> None:
    """Write the files of a case; the same numbers make the same files."""
    chance = random.Random(f"{seed} {name} {number}")
    files = chance.choice(seeds)
    victim = chance.choice([file for file in files if not file.startswith("=")])
    shutil.rmtree(folder, ignore_errors=True)
    for file, content in files.items():
        path = folder / file.removeprefix("=")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate(content, chance) if file == victim else content)


class SlowError(BaseException):
    """Error of a case that takes too long."""


def run_case(reader: Reader, folder: Path) -> str:
    """Return "accepted", "refused" or the fault of a case."""

    def stop(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGALRM, stop)
    # A call into a library that does not come back ends the process.
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader.read(folder)
        return "accepted"
    except (ValueError, OSError) as error:
        # The system quotes the whole name of a file.
        long = len(str(error)) >= 2000 and not (isinstance(error, OSError) and error.errno)
        return f"a message of {len(str(error))} characters" if long else "refused"
    except SlowError:
        return f"more than {SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class Case(NamedTuple):
    """What became of a case.

    Attributes:
        number: Its number.
        end: As `run_case` returns it.
        seconds: Time that it took.
        memory: The most further bytes that the process had until then.
    """

    number: int
    end: str
    seconds: float = 0.0
    memory: int = 0


def run_batch(reader: Reader, name: str, seeds: list[Files], numbers: range, seed: int) -> Iterator[Case]:
    """Run cases in a process of their own; yield each case."""
    receiver, sender = os.pipe()
    process = os.fork()
    if process == 0:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            base = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY, base + MEMORY))
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for number in numbers:
                    os.write(sender, f"{number}\n".encode())
                    write_case(name, seeds, number, seed, Path(folder) / "case")
                    started = time.monotonic()
                    end = run_case(reader, Path(folder) / "case")
                    took = time.monotonic() - started
                    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
                    os.write(sender, f"{took:.3f} {1024 * memory} {end}\n".encode(errors="replace"))
        os._exit(0)
    os.close(sender)
    number = -1
    with open(receiver, encoding="utf-8", errors="replace") as stream:
        lines = iter(stream)
        for line in lines:
            number, end = int(line), next(lines, None)
            if end is not None:
                took, memory, told = end.strip().split(" ", 2)
                yield Case(number, told, float(took), int(memory))
    _, status = os.waitpid(process, 0)
    if status:
        yield Case(number, f"the process ended by signal {os.WTERMSIG(status)}")


def run_reader(name: str, cases: int, seed: int) -> list[Case]:
    """Run a reader's cases."""
    reader, done = READERS[name], list[Case]()
    seeds, start = reader.seeds(), 0
    while start < cases:
        last = start
        for case in run_batch(reader, name, seeds, range(start, min(start + BATCH, cases)), seed):
            done.append(case)
            last = case.number
        start = last + 1
    return done


WHOLE = whole_state()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="NAME")
    parser.add_argument("--cases", type=int, help="cases of each reader (default: 20 000, of dear readers 2 000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone, with the full error")
    parser.add_argument("--keep", type=Path, default=Path("case"), help="folder for the files of --case")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    if args.case is not None:
        [name] = args.readers
        write_case(name, READERS[name].seeds(), args.case, args.seed, args.keep)
        READERS[name].read(args.keep)
        return 0
    failed = False
    for name in args.readers:
        done, ends = run_reader(name, args.cases or (2000 if READERS[name].dear else 20000), args.seed), {}
        for case in done:
            ends.setdefault(case.end, []).append(case.number)
        counts = {end: len(ends.pop(end, [])) for end in ("accepted", "refused")}
        faults = sum(map(len, ends.values()))
        longest, most = max(case.seconds for case in done), max(case.memory for case in done)
        print(
            f"{name:12} {counts['accepted']:6} accepted {counts['refused']:6} refused {faults:5} faults, "
            f"longest {longest:5.2f} s, most memory {most / 2**20:5.0f} MiB",
            flush=True,
        )
        for end, numbers in sorted(ends.items(), key=lambda item: -len(item[1]))[:8]:
            print(f"    {len(numbers):5} × {end}, such as --case {numbers[0]}", flush=True)
        failed |= faults > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

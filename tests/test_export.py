"""Exported detectors detect as the models do, and say what they are."""

import copy
import functools
import io
import json
import os
import pickle
import re
import shlex
import shutil
import sys
import threading
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_same_detections
from conftest import ROOT
from labelled import make_coco
from PIL import Image
from runtimes import assert_outputs_are_the_models, open_alone
from test_readme import blocks
from torch import nn
from torchvision.ops import batched_nms

import ssd_zoo
from ssd_zoo import SSD, DefaultBoxGenerator
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset, read_image
from ssd_zoo.deploy import export, load
from ssd_zoo.deploy.description import Description
from ssd_zoo.deploy.export import OLDEST_TORCH
from ssd_zoo.deploy.formats import FORMATS
from ssd_zoo.deploy.openvino import write_openvino
from ssd_zoo.deploy.runtime import on_threads
from ssd_zoo.detector.frames import split_frames
from ssd_zoo.detector.postprocess.suppress import suppress_batch
from ssd_zoo.layers.basic import ConvNormAct
from ssd_zoo.training import evaluate

onnx = pytest.importorskip("onnx", reason='pip install "ssd_zoo[deploy]"')
pytest.importorskip("onnxscript", reason='pip install "ssd_zoo[deploy]"')
pytest.importorskip("onnxruntime", reason='pip install "ssd_zoo[deploy]"')
pytest.importorskip("openvino", reason='pip install "ssd_zoo[deploy]"')
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=f"exporting needs torch {OLDEST_TORCH}"),
]

SUFFIXES = {name: known.suffix for name, known in FORMATS.items()}
# Formats whose export takes many seconds, with the package that it needs.
HEAVY = {"litert": "litert_torch", "executorch": "executorch", "aoti": "torch"}


def of(format, *values, slow=True, id=None):
    """Parameters of a test. All tests of a format run in one of pytest's processes, which exports once."""
    marks = [pytest.mark.xdist_group(format), *([pytest.mark.slow] if slow and format != "onnx" else [])]
    return pytest.param(format, *values, id=id, marks=marks)


of_onnx, of_openvino, of_pt2 = map(pytest.mark.xdist_group, ("onnx", "openvino", "pt2"))
PLACES = [of(name, nms, id=f"{name}-{nms}") for name, known in FORMATS.items() if known.runs for nms in known.nms]
CATEGORIES = ["background", "cat", "dog", "käse"]


class Backbone(nn.Module):
    def __init__(self, in_chans):
        super().__init__()
        self.first = ConvNormAct(in_chans, 8, 3, stride=2)
        self.second = ConvNormAct(8, 8, 3, stride=2)

    def forward(self, batch):
        first = self.first(batch[..., ::2, ::2])
        return [first, self.second(first)]


def build(in_chans=3, **settings):
    torch.manual_seed(0)
    boxes = DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9])
    settings = {"detections_per_img": 20, "topk_candidates": 50, "image_mean": [0.4] * in_chans, **settings}
    model = SSD(
        Backbone(in_chans), boxes, (48, 64), CATEGORIES, image_std=[0.2] * in_chans, in_chans=in_chans, **settings
    )
    for parameter in model.head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def images_of(*sizes, in_chans=3):
    return [torch.rand(in_chans, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]


IMAGES = images_of((40, 60), (48, 64), (30, 30), (9, 200), (64, 48), (100, 100), (50, 70), (33, 20))


TRAINED = {
    "coco": {"weights": "COCO_TF_V1"},
    "person": {"weights": "COCO_TF_V1", "categories": ["background", "person"]},
    "bccd": {"weights": "BCCD_V1"},
}


def trained(name, **settings):
    return ssd_zoo.ssdlite300_mobilenet_v2(**TRAINED[name], **settings).eval()


def photos_of(name, test_data, split="test"):
    return open_dataset(test_data / "bccd", split) if name == "bccd" else open_dataset(test_data / "coco128")


def needs_packages_of(format):
    if format in HEAVY:
        pytest.importorskip(HEAVY[format], reason=f'pip install "ssd_zoo[{format}]"')


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Exports the model once for each format and place of NMS."""
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def file(format="onnx", nms="inside"):
        needs_packages_of(format)
        told = {"licence": "CC0-1.0", "origin": "seed 0"}
        return export(model, folder / f"{nms}{SUFFIXES[format]}", format=format, nms=nms, **told)

    return file


@pytest.fixture
def file(format, nms, exported):
    return exported(format, nms)


in_all_formats = pytest.mark.parametrize(("format", "nms"), PLACES)


@in_all_formats
@torch.no_grad()
def test_detections_are_the_models(model, file):
    detector = load(file)
    expected = model(IMAGES)
    assert all(len(found["scores"]) == 20 for found in expected)
    for count in (1, 3, 8):
        assert_same_detections(detector(IMAGES[:count]), expected[:count])
    as_bytes = [(image * 255).to(torch.uint8) for image in IMAGES]
    assert_same_detections(detector(as_bytes), model(as_bytes))
    batch = torch.stack([IMAGES[1], IMAGES[1].flip(2)])
    assert_same_detections(detector(batch), model(batch))


@pytest.mark.parametrize("format", [of("onnx"), of("openvino", slow=False)])
@pytest.mark.parametrize("nms", ["inside", "outside"])
@torch.no_grad()
def test_many_images_are_spread_over_threads(model, file):
    detector, expected = load(file, threads=2), model(IMAGES)
    for count in (2, 5, 8, 3):
        assert_same_detections(detector(IMAGES[:count]), expected[:count])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: detector(IMAGES), range(8)):
            assert_same_detections(found, expected)


@pytest.mark.parametrize("nms", ["outside"])
@pytest.mark.parametrize("format", [*(of(name, slow=False) for name in ("onnx", "openvino", "pt2")), *map(of, HEAVY)])
@torch.no_grad()
def test_callers_run_at_once(file):
    """Two calls at once find what each finds alone, also after pickling."""
    detector, images = load(file, threads=1, callers=2), IMAGES[:2]
    expected = [detector([image])[0] for image in images]
    with ThreadPoolExecutor(2) as pool:
        for found in [pool.map(lambda image: detector([image])[0], images) for _ in range(4)]:
            assert_same_detections(list(found), expected)
    copied = pickle.loads(pickle.dumps(detector))
    assert_same_detections([copied([image])[0] for image in images], expected)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="NO AFFINITY: whether a core is shared is not tested")
@pytest.mark.parametrize("format", [of("onnx"), of("openvino", slow=False)])
@pytest.mark.parametrize("nms", ["outside"])
def test_threads_are_not_tied_to_a_core(file):
    """Of two files or processes that tie their threads to cores, both share the first one."""
    detector, caller, seen = load(file, threads=1), threading.get_native_id(), set()
    done = threading.Event()

    def watch():
        while not done.wait(0.0005):
            seen.add(frozenset(os.sched_getaffinity(caller)))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        for _ in range(100):
            detector(IMAGES[:1])
        done.set()
        watching.result()
    assert seen == {frozenset(os.sched_getaffinity(0))}


@pytest.mark.parametrize("nms", ["inside", "outside"])
@pytest.mark.parametrize("format", [of("onnx"), of("openvino")])
@torch.no_grad()
def test_runtimes_take_batches_of_any_size(model, file):
    """`load` runs these files one image at a time; other programs need not."""
    run, batch = open_alone(file), model.prepare(IMAGES)
    for count in (3, 8, 1):
        some = batch[:count]
        found = run({"images": some * model.image_std + model.image_mean})
        assert_outputs_are_the_models(found, model, model.forward_raw(some))


@of_onnx
def test_number_of_images_has_a_name(exported):
    graph = onnx.load(exported()).graph
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"batch"}


@of_onnx
@torch.no_grad()
def test_call_leaves_torchs_threads(exported):
    detector, before = load(exported()), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        detector(IMAGES[:2])
        with pytest.raises(ValueError, match="NaN"):
            detector([torch.full((3, 9, 9), torch.nan)])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_callers_at_once_leave_torchs_threads_to_new_ones():
    before, inside, leave, seen = torch.get_num_threads(), threading.Event(), threading.Event(), []

    def call():
        with on_threads(1):
            inside.set()
            leave.wait(60)

    torch.set_num_threads(3)
    try:
        other = threading.Thread(target=call)
        with on_threads(1):
            other.start()
            assert inside.wait(60)
        leave.set()
        other.join()
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert [torch.get_num_threads(), *seen] == [3, 3]
    finally:
        torch.set_num_threads(before)


@in_all_formats
@torch.no_grad()
def test_few_detections_and_none(model, file):
    scores = torch.cat([found["scores"] for found in model(IMAGES)])
    for score_thresh in (scores.quantile(0.9).item(), 1.0):
        model.score_thresh, before = score_thresh, model.score_thresh
        try:
            assert_same_detections(load(file, score_thresh=score_thresh)(IMAGES), model(IMAGES))
        finally:
            model.score_thresh = before


@in_all_formats
def test_file_says_what_it_is(model, file):
    detector = load(file, threads=1)
    assert detector.categories == CATEGORIES
    assert (detector.size, detector.in_chans) == ((48, 64), 3)
    described = detector.description
    assert described.thresholds == model._thresholds()
    assert described.image_mean == pytest.approx([0.4] * 3)
    assert described.version == ssd_zoo.__version__
    assert (described.licence, described.origin) == ("CC0-1.0", "seed 0")
    assert not detector.training
    if described.nms == "outside":
        assert torch.equal(detector.default_boxes, model.default_boxes)


@in_all_formats
@torch.no_grad()
def test_streams(model, file):
    detector, state, expected_state = load(file), None, None
    for frames in (IMAGES[:2], [IMAGES[2].expand(3, -1, -1, -1), IMAGES[3].unsqueeze(0)]):
        found, state = detector.step(frames, state)
        expected, expected_state = model.step(frames, expected_state)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours["frame_index"], theirs["frame_index"])
            assert_same_detections(split_frames(ours, 4), split_frames(theirs, 4))
    assert state["frames_seen"].tolist() == [4, 2]
    with pytest.raises(ValueError, match="The state has 2 streams, but there are frames of 1"):
        detector.step(IMAGES[:1], state)


@pytest.mark.parametrize(
    ("format", "in_chans"),
    [
        ("onnx", 1),
        pytest.param("onnx", 4, marks=pytest.mark.slow),
        *(of(kind, 4) for kind in ("litert", "pt2")),
        *(of(kind, 1) for kind in ("openvino", "executorch", "aoti")),
    ],
)
@torch.no_grad()
def test_channels_and_bytes(format, in_chans, tmp_path):
    needs_packages_of(format)
    model = build(in_chans)
    detector = load(export(model, tmp_path / f"m{SUFFIXES[format]}", format=format, pixels="uint8"))
    assert detector.description.pixels == "uint8"
    # Of the input's size, so that nothing is rounded after resizing.
    images = [(image * 255).to(torch.uint8) for image in images_of((48, 64), (48, 64), in_chans=in_chans)]
    assert_same_detections(detector(images), model(images))
    with pytest.raises(ValueError, match=f"so 3 channels; this model takes {in_chans}"):
        detector(IMAGES)


@pytest.mark.parametrize(
    "settings",
    [
        {"topk_candidates": None, "score_function": "sigmoid", "clip_before_nms": False},
        pytest.param({"topk_candidates": 3, "score_thresh": 0.3, "antialias": True}, marks=pytest.mark.slow),
        pytest.param({"detections_per_img": 5000, "nms_thresh": 0.9}, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_settings(settings, tmp_path):
    model = build(**settings)
    detector = load(export(model, tmp_path / "m.onnx", format="onnx"))
    assert_same_detections(detector(IMAGES), model(IMAGES))


@pytest.mark.parametrize("nms_thresh", [0.0, 0.5, 1.0])
def test_nms_of_openvino_keeps_boxes_whose_iou_is_the_threshold(nms_thresh, model, tmp_path):
    """By hand: the second box overlaps the first by 0, 1/2 or all of the union."""
    import openvino

    other = {0.0: [10.0, 0, 20, 10], 0.5: [0.0, 0, 10, 5], 1.0: [0.0, 0, 10, 10]}[nms_thresh]

    class Suppress(nn.Module):
        inputs, outputs, calibration = ("images",), ("kept",), ()
        described = Description.of(model, nms="inside", pixels="float32")

        def example(self):
            return torch.tensor([[[0.0, 0, 10, 10], other]] * 2), {}

        def forward(self, images, state):
            ones = torch.ones_like(images[..., 0])
            return {"kept": suppress_batch(images, ones.long(), ones > 0, 2, nms_thresh)}

    graph = Suppress()
    assert graph(*graph.example())["kept"].all()
    write_openvino(graph, tmp_path / "m.xml")
    run = openvino.Core().compile_model(tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert run(graph.example()[0].numpy())["kept"].all()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@torch.no_grad()
def test_int8(format, model, tmp_path):
    if format == "openvino":
        pytest.importorskip("nncf", reason='pip install "ssd_zoo[int8]"')
    for nms in ("outside", "inside"):
        file = export(model, tmp_path / f"{nms}{SUFFIXES[format]}", format=format, nms=nms, int8=IMAGES)
        assert (b"FakeQuantize" if format == "openvino" else b"QuantizeLinear") in file.read_bytes()
        detector = load(file)
        assert detector.description.int8
        for ours, theirs in zip(detector(IMAGES), model(IMAGES), strict=True):
            # Scores of random weights are close together; all in all they are the model's.
            torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=0.03)
        if nms == "outside":
            batch = model.prepare(IMAGES[:2])
            found = FORMATS[format].open(file, 1, 1).run({"images": (batch * model.image_std + model.image_mean)})
            assert torch.equal(found["default_boxes"], model.default_boxes)
            for name, value in model.forward_raw(batch).items():
                error = (found[name] - value).abs()
                assert 0 < error.mean() < 0.02 * value.abs().max()


@torch.no_grad()
def test_forward_fixed_exports_with_any_threshold(model, tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return self.model.forward_fixed(batch)

    import onnxruntime

    batch = model.prepare(IMAGES[:2])
    program = torch.onnx.export(Fixed().eval(), (batch,), dynamo=True, verbose=False)
    program.save(tmp_path / "m.onnx")
    found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"batch": batch.numpy()})
    for array, value in zip(found, model.forward_fixed(batch).values(), strict=True):
        np.testing.assert_allclose(array, value.numpy(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_output_that_is_nan_is_an_error(tmp_path):
    model = ssd_zoo.ssdlite320_ultraface_slim(weights=None, weights_backbone=None).eval()
    next(model.parameters())[0] = torch.nan
    detector = load(export(model, tmp_path / "m.onnx", format="onnx", nms="outside"))
    with pytest.raises(ValueError, match=r"output for images\[0\] is NaN"):
        detector([torch.rand(3, 90, 120)])


@pytest.mark.slow
def test_too_few_candidates_are_told(model, tmp_path):
    detector = load(export(model, tmp_path / "m.onnx", format="onnx", candidates=1))
    with pytest.warns(UserWarning, match="more candidates than the file compares"):
        detector(IMAGES)


def test_suppress_batch_is_greedy_nms():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(2, 60, 2, generator=generator) * 30], 2)
    labels, eligible = torch.randint(1, 4, (2, 60), generator=generator), torch.rand(2, 60, generator=generator) > 0.2
    kept = suppress_batch(boxes, labels, eligible, 4, 0.4)
    for i in range(2):
        index = eligible[i].nonzero().squeeze(1)
        expected = index[batched_nms(boxes[i, index], -index.float(), labels[i, index], 0.4)]
        assert kept[i].nonzero().squeeze(1).tolist() == sorted(expected.tolist())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": "tensorrt"}, ValueError, "format must be one of 'onnx', 'openvino', .*, got 'tensorrt'"),
        ({"format": "openvino"}, ValueError, r"of format 'openvino' ends with .xml, got .*m.onnx"),
        ({"format": "pt2", "path": "m.aoti.pt2"}, ValueError, r"of format 'pt2' ends with .pt2, got m.aoti.pt2"),
        (
            {"format": "litert", "nms": "inside"},
            ValueError,
            r"NMS outside: leave out nms='inside' \(--nms inside\), or take one of onnx, openvino, pt2",
        ),
        ({"nms": "both"}, ValueError, "nms must be one of 'inside', 'outside', got 'both'"),
        ({"pixels": "float16"}, ValueError, "pixels must be one of 'float32', 'uint8', got 'float16'"),
        ({"candidates": 0}, ValueError, "candidates must be at least 1, got 0"),
        ({"int8": []}, ValueError, "int8 needs images to measure ranges on, but there are none"),
        ({"int8": [torch.rand(1, 9, 9)]}, ValueError, "so 1 channels; this model takes 3"),
        (
            {"int8": IMAGES, "format": "pt2", "path": "m.pt2"},
            ValueError,
            "formats onnx, openvino, so no file was written",
        ),
        ({"bfloat16": True}, ValueError, "bfloat16 is for the format openvino; leave it out"),
        ({"model": nn.Identity()}, TypeError, "export takes an SSD of ssd_zoo, got Identity"),
        ({"model": build().train()}, ValueError, "call model.eval"),
    ],
)
def test_wrong_arguments(change, error, message, model, tmp_path):
    asked = {"model": model, "path": tmp_path / "m.onnx", "format": "onnx", **change}
    with pytest.raises(error, match=message):
        export(**asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_layers_that_cannot_be_exported(format, tmp_path):
    class Choosing(Backbone):
        def forward(self, batch):
            return super().forward(batch if batch.mean() > 0 else -batch)

    model = build()
    model.backbone = Choosing(3)
    with pytest.raises(ValueError, match=f"can't be exported as '{format}': .*data-dependent.*[^.]\\. Every builder"):
        export(model.eval(), tmp_path / f"m{SUFFIXES[format]}", format=format)
    assert not list(tmp_path.iterdir())


def described(content, **changes):
    """An ONNX file with another description, without a digest unless given; no changes remove the description."""
    model = onnx.load_from_string(content)
    [entry] = model.metadata_props
    if changes:
        entry.value = json.dumps({**json.loads(entry.value), "digest": None, **changes})
    else:
        model.ClearField("metadata_props")
    return model.SerializeToString()


@of_onnx
def test_wrong_onnx_files(exported, tmp_path):
    whole = exported().read_bytes()
    cases = [
        (whole[:-1000], "can't be opened as an ONNX file"),
        (whole[1000:], "is damaged, or was changed"),
        (b"no model", "can't be opened as an ONNX file"),
        (b"", r"n\.onnx can't be opened as an exported file: it is empty"),
        (described(whole, digest=5), "digest must be a file's digest or None, got 5"),
        (described(whole), "was not exported by ssd_zoo: it carries no description"),
        (described(whole, format=2), r"it has format 2, written by ssd_zoo .* pip install --upgrade ssd_zoo"),
        (described(whole, format="1"), "can't be used"),
        (described(whole, categories="cat"), "categories must be a list of names, background first, got 'cat'"),
        (described(whole, thresholds={"nms_thresh": 7}), "nms_thresh is an IoU"),
        (described(whole, nms="none"), "nms must be one of"),
        (described(whole, in_chans=-1), "in_chans must be a whole number from 1, got -1"),
        (described(whole, extra=1), "can't be used: it has the unknown field 'extra'"),
        (described(whole, **{"x" * 5000: 1}), r"can't be used: it has the unknown field 'x+\W+x+'\.$"),
        (described(whole, score_function="relu"), "score_function must be one of 'softmax', 'sigmoid', got 'relu'"),
        (described(whole, antialias=None), "antialias must be one of True, False, got None"),
        (described(whole, last_frame_only=1), "last_frame_only must be one of True, False, got 1"),
        (described(whole, in_chans=4), "can't be run on the input that it describes"),
        (described(whole, size=[64, 64]), "can't be run on the input that it describes"),
        (described(whole, nms="outside"), r"has the outputs boxes, .* expected cls_logits"),
    ]
    for content, message in cases:
        (tmp_path / "n.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "n.onnx")
    for wrong, error, message in (
        ({"score_thresh": 0.001}, ValueError, r"drops scores up to 0.01 by itself, so score_thresh can't be 0.001"),
        ({"score_thresh": -1}, ValueError, "score_thresh is a score and must lie between 0 and 1, got -1"),
        ({"score_thresh": "0.5"}, TypeError, "score_thresh is a score and must be a number between 0 and 1, got '0.5'"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"threads": "2"}, TypeError, "threads must be an integer of at least 1, got '2'"),
        ({"threads": 1.5}, TypeError, "threads must be an integer of at least 1, got 1.5"),
        ({"callers": 0}, ValueError, "callers must be at least 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            load(exported(), **wrong)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load(tmp_path / "o.onnx")
    with pytest.raises(ValueError, match=r"must end with .onnx \(onnx\), .xml \(openvino\), .tflite \(litert\)"):
        load(tmp_path / "m.pt")


def contents(whole):
    """Give where the content of each member of a zip file begins, and its length."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for member in archive.infolist():
            header = member.header_offset
            lengths = [int.from_bytes(whole[header + at : header + at + 2], "little") for at in (26, 28)]
            yield header + 30 + sum(lengths), member.compress_size


@pytest.mark.parametrize(
    "format",
    [of(name) for name in ("onnx", "openvino", "litert", "executorch", "pt2")],
)
def test_damage_anywhere_is_seen(format, exported, tmp_path):
    file = exported(format, "outside")
    whole, wrong = file.read_bytes(), tmp_path / file.name
    if format == "openvino":
        shutil.copy(file.with_suffix(".bin"), wrong.with_suffix(".bin"))
    assert (load(file).description.digest is None) == (format == "pt2")
    places = [len(whole) * part // 20 for part in range(20)]
    if format == "pt2":
        # Between the members, such as in the times of their headers, nothing has a checksum, and nothing is used.
        inside = [range(start, start + count) for start, count in contents(whole)]
        places = [at for at in places if any(at in place for place in inside)]
        assert len(places) > 10
    for at in places:
        wrong.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=re.escape(str(wrong))):
            load(wrong)
    wrong.write_bytes(whole)
    load(wrong)


@of_onnx
@torch.no_grad()
def test_a_file_without_a_digest_is_told(model, exported, tmp_path):
    (tmp_path / "m.onnx").write_bytes(described(exported().read_bytes(), licence="MIT"))
    with pytest.warns(UserWarning, match=r"m\.onnx holds no digest, so damage to it can't be noticed"):
        detector = load(tmp_path / "m.onnx")
    assert_same_detections(detector(IMAGES), model(IMAGES))


@of_onnx
@pytest.mark.parametrize("names", [CATEGORIES[:3], [*CATEGORIES, "more"]])
def test_names_that_do_not_fit_the_classes(names, exported, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(described(exported("onnx", "outside").read_bytes(), categories=names))
    with pytest.raises(ValueError, match=f"has 4 classes with the background, but its description names {len(names)}"):
        load(file)


@of_onnx
@torch.no_grad()
def test_a_class_that_no_name_is_for(exported, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(described(exported().read_bytes(), categories=CATEGORIES[:3]))
    with pytest.warns(UserWarning, match="holds no digest"):
        detector = load(file)
    with pytest.raises(ValueError, match="found the class 3, which its description does not name"):
        detector(IMAGES)


@of_onnx
@pytest.mark.parametrize("nms", ["inside", "outside"])
@torch.no_grad()
def test_thresholds_that_are_set_have_effect_or_are_an_error(nms, exported, tmp_path):
    detector, model = load(exported("onnx", nms)), build()
    detector.score_thresh = model.score_thresh = 0.95
    assert_same_detections(detector(IMAGES), model(IMAGES))
    assert len(detector(IMAGES[:1])[0]["scores"]) < 20
    with pytest.raises(TypeError, match="score_thresh is a score"):
        detector.score_thresh = "high"
    for name, value in (("score_thresh", 0.001), ("nms_thresh", 0.1), ("detections_per_img", 3)):
        if nms == "inside":
            with pytest.raises(ValueError, match=f"{name}.*nms='outside'"):
                setattr(detector, name, value)
        else:
            setattr(detector, name, value)
            setattr(model, name, value)
            assert_same_detections(detector(IMAGES), model(IMAGES))
    for name, value in (("size", (64, 64)), ("score_function", "relu"), ("antialias", True)):
        with pytest.raises(ValueError, match=f"has {name}="):
            setattr(detector, name, value)
    with pytest.raises(ValueError, match="has 4 classes with the background, got 2 names"):
        detector.categories = ["background", "cat"]


@of_onnx
@torch.no_grad()
def test_copies_and_pickles_open_the_file_again(exported, tmp_path):
    file = tmp_path / "m.onnx"
    shutil.copy(exported(), file)
    detector = load(file, score_thresh=0.3, threads=1)
    expected, pickled = detector(IMAGES), pickle.dumps(detector)
    for other in (pickle.loads(pickled), copy.deepcopy(detector)):
        assert_same_detections(other(IMAGES), expected)
        assert (other.score_thresh, other.training) == (0.3, False)
    shutil.copy(exported("onnx", "outside"), file)
    with pytest.raises(
        ValueError, match=r"m\.onnx was replaced since the detector was copied or pickled. Load it again"
    ):
        pickle.loads(pickled)


@pytest.mark.parametrize("format", [of("pt2", slow=False), *map(of, HEAVY)])
def test_wrong_files_of_other_formats(format, exported, tmp_path):
    file = exported(format, "outside")
    whole = file.read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-100]):
        wrong = tmp_path / f"wrong{SUFFIXES[format]}"
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match="can't be opened as|is damaged") as caught:
            load(wrong)
        assert ".." not in str(caught.value)
        assert format != "pt2" or len(content) < len(whole) - 100 or "it is cut off" in str(caught.value)


@pytest.mark.slow
def test_core_ml(model, tmp_path):
    coremltools = pytest.importorskip("coremltools", reason='pip install "ssd_zoo[coreml]"')
    file = tmp_path / "m.mlpackage"
    with pytest.raises(ValueError, match="hold no uint8"):
        export(model, file, format="coreml", pixels="uint8")
    for _ in range(2):
        export(model, file, format="coreml", licence="CC0-1.0", origin="seed 0")
    described = coremltools.models.MLModel(str(file), skip_model_load=True).get_spec().description
    assert [item.name for item in described.output] == ["cls_logits", "bbox_regression", "default_boxes"]
    assert list(described.output[0].type.multiArrayType.shape) == [1, len(model.default_boxes), 4]
    told = Description.from_json(described.metadata.userDefined["ssd_zoo"], "")
    assert told == Description.of(model, nms="outside", pixels="float32", licence="CC0-1.0", origin="seed 0")
    assert [path.name for path in tmp_path.iterdir()] == ["m.mlpackage"]
    with pytest.raises(ValueError, match="runs in apps on Apple's devices"):
        load(file)


def changed_pt2(file, target, change):
    """A copy of a program in which the members with an ending are changed."""
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, change(name, content))
    return target


class Payload:
    def __reduce__(self):
        return (print, ("a pickle was run",))


@of_pt2
def test_changed_bytes_of_a_program_are_seen(exported, tmp_path):
    whole, wrong = exported("pt2", "outside").read_bytes(), tmp_path / "wrong.pt2"
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        largest = max(archive.infolist(), key=lambda member: member.compress_size)
    middle = largest.header_offset + largest.compress_size // 2
    wrong.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"wrong\.pt2.*damaged"):
        load(wrong)


def test_tflite_of_another_project_is_to_be_converted(tmp_path):
    """This is said without the runtime's package, which would not help."""
    (tmp_path / "x.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 99)
    with pytest.raises(ValueError, match=r"was not exported by ssd_zoo.*ssd-zoo convert .*x\.tflite"):
        load(tmp_path / "x.tflite")


def test_licence_and_origin_of_a_saved_model(tmp_path):
    """They follow the weights from entry or checkpoint through saved folders into the exported file."""
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", categories=["background", "cat"], size=64)
    ssd_zoo.save_pretrained(model, tmp_path / "a", licence="MIT")
    ssd_zoo.save_pretrained(ssd_zoo.from_pretrained(tmp_path / "a"), tmp_path / "b")
    for folder, licence in (("a", "MIT"), ("b", None)):
        described = Description.of(ssd_zoo.from_pretrained(tmp_path / folder), nms="outside", pixels="float32")
        assert described.licence == licence
        assert described.origin.startswith("TensorFlow Object Detection API model zoo")
    card = (tmp_path / "b/README.md").read_text()
    assert "Not stated. The model began with weights of TensorFlow" in card
    assert "; their licence: MIT.\n" in card


@of_pt2
def test_pt2_runs_nothing_but_operators(exported, tmp_path, capsys):
    file, wrong = exported("pt2", "outside"), tmp_path / "wrong.pt2"

    def refused(message, change):
        with pytest.raises(ValueError, match=message):
            load(changed_pt2(file, wrong, change))
        assert "pickle" not in capsys.readouterr().out

    pickled = io.BytesIO()
    torch.save((Payload(),), pickled)
    refused("weights_only", lambda name, content: pickled.getvalue() if name.endswith("model.pt") else content)
    for old, new, message in (
        (b'"use_pickle": false', b'"use_pickle": true', "has use_pickle True"),
        (b"\"Symbol('s", b"\"print(1) or Symbol('s", "has expr_str"),
        (b'"guards_code": []', b'"guards_code": ["print(1)"]', "has guards_code"),
        (b'"guards_code": []', b'"guards_code": ["L[\'a\'].size()[0] == print(1)"]', "has guards_code"),
        (b"torch.ops.aten.conv2d.default", b"torch.os.system", "has target"),
    ):
        refused(message, lambda name, content: content.replace(old, new))  # noqa: B023
    shutil.copy(file, wrong)
    with zipfile.ZipFile(wrong, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/data/aotinductor/model/m.so", b"")
    with pytest.raises(ValueError, match="it holds data/aotinductor/model/m.so, which programs of detectors do not"):
        load(wrong)


@of_pt2
def test_bombs_of_programs_are_refused_before_they_take_memory(exported, tmp_path):
    file, wrong = exported("pt2", "outside"), tmp_path / "wrong.pt2"
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].partition("/")[0]
        texts = [member for member in archive.infolist() if member.filename.endswith(".json")]
    assert max(member.file_size for member in texts) * 10 < 2**24, "a program's own text is far from the limit"
    called = b"\x80\x02cbuiltins\nbytearray\nJ" + (2**30).to_bytes(4, "little") + b"\x85R."
    deep = b"[" * 10**5
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02N.")
        archive.writestr("x/data/0", bytes(2**28))
    for name, content, packing, told in (
        ("models/model.json", b" " * 2**28, zipfile.ZIP_DEFLATED, "would unpack to .* bytes"),
        ("models/model.json", b"[]," * 2**23, zipfile.ZIP_STORED, "has 25165824 bytes, and 16777216 are allowed"),
        ("models/model.json", deep, zipfile.ZIP_STORED, "nested deeper than 64 levels"),
        ("data/sample_inputs/model.pt", called, zipfile.ZIP_STORED, "holds a bytearray"),
        ("data/sample_inputs/model.pt", inner.getvalue(), zipfile.ZIP_STORED, "would unpack to .* bytes"),
    ):
        with zipfile.ZipFile(file) as before, zipfile.ZipFile(wrong, "w", packing) as after:
            for member in before.namelist():
                after.writestr(member, content if member == f"{root}/{name}" else before.read(member))
        tracemalloc.start()
        with pytest.raises(ValueError, match=told):
            load(wrong)
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()


def test_program_of_another_project(tmp_path):
    program = torch.export.export(nn.ReLU(), (torch.zeros(2),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ValueError, match="was not exported by ssd_zoo"):
        load(tmp_path / "m.pt2")


@of_openvino
@pytest.mark.slow
def test_wrong_openvino_files(exported, tmp_path):
    file, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    shutil.copy(exported("openvino"), file)
    shutil.copy(exported("openvino").with_suffix(".bin"), weights)
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"m.bin does not belong to .*m.xml, or is damaged"):
        load(file)
    weights.unlink()
    with pytest.raises(ValueError, match=r"needs its weights beside it, but there is no file .*m.bin"):
        load(file)
    weights.write_bytes(b"")
    file.write_text("<net/>")
    with pytest.raises(ValueError, match="can't be opened as an OpenVINO file"):
        load(file)


def hide(package, monkeypatch):
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "openvino"])
def test_missing_packages(package, model, tmp_path, monkeypatch):
    hide(package, monkeypatch)
    with pytest.raises(ImportError, match=rf'needs {package}: pip install "ssd_zoo\[deploy\]"'):
        export(model, tmp_path / "m.xml", format="openvino")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "package"), [("litert", "litert_torch"), ("executorch", "executorch"), ("coreml", "coremltools")]
)
def test_missing_packages_of_other_formats(format, package, model, tmp_path, monkeypatch):
    hide(package, monkeypatch)
    with pytest.raises(ImportError, match=rf'needs {package}: pip install "ssd_zoo\[{format}\]"'):
        export(model, tmp_path / f"m{SUFFIXES[format]}", format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "packages", "extra"),
    [("m.xml", ["onnx", "openvino", "nncf"], "int8"), ("m.onnx", ["onnxruntime"], "deploy")],
)
def test_missing_packages_for_int8(model, tmp_path, monkeypatch, path, packages, extra):
    """They are told together, and before an image is read."""
    for package in packages:
        hide(package, monkeypatch)
    told = rf'needs {", ".join(packages)}: pip install "ssd_zoo\[{extra}\]"'
    with pytest.raises(ImportError, match=told):
        export(model, tmp_path / path, int8=(pytest.fail("an image was read") for _ in range(1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [
        of("onnx", "onnxruntime", "deploy"),
        of("openvino", "openvino", "deploy"),
        of("litert", "ai_edge_litert", "litert"),
        of("executorch", "executorch", "executorch"),
    ],
)
def test_missing_runtimes(format, package, extra, exported, monkeypatch):
    file = exported(format, "outside")
    hide(package, monkeypatch)
    with pytest.raises(ImportError, match=rf'^Running an? .* file needs {package}: pip install "ssd_zoo\[{extra}\]"'):
        load(file)


def test_old_torch(model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.8.1"))
    with pytest.raises(ImportError, match=r"needs torch 2\.9 or newer, .*; this is 2\.8\.1: pip install"):
        export(model, tmp_path / "m.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["coco", "bccd"])
@pytest.mark.filterwarnings("ignore:An image has more candidates")
def test_int8_keeps_ap(name, format, test_data, tmp_path):
    if format == "openvino":
        pytest.importorskip("nncf", reason='pip install "ssd_zoo[int8]"')
    model, measured = trained(name), photos_of(name, test_data)
    typical = photos_of(name, test_data, "train")
    images = (typical.images[i].read() for i in range(64))
    detector = load(export(model, tmp_path / f"m{SUFFIXES[format]}", format=format, int8=images))
    evaluation = evaluate(detector, measured, model_categories=model.categories)
    # In float, see docs/deploy.md.
    assert evaluation.metrics["AP"] > {"coco": 0.3356, "bccd": 0.610}[name] - 0.01


@pytest.mark.slow
def test_bfloat16(model, tmp_path):
    pytest.importorskip("openvino", reason='pip install "ssd_zoo[deploy]"')
    exact, fast = (
        load(export(model, tmp_path / f"{name}.xml", bfloat16=name == "fast", nms="outside"))
        for name in ("exact", "fast")
    )
    assert (exact.description.bfloat16, fast.description.bfloat16) == (False, True)
    batch, _ = exact.description.resize(IMAGES)
    one, other = (detector._run({"images": batch})["cls_logits"] for detector in (exact, fast))
    torch.testing.assert_close(other, one, rtol=0.05, atol=0.05)
    if sys.platform == "linux" and any(
        flag in Path("/proc/cpuinfo").read_text().split() for flag in ("avx512_bf16", "amx_bf16")
    ):
        assert not torch.allclose(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_int8_command(tmp_path, photo, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    command = ["export", "ssdlite300_mobilenet_v2", "--format", "onnx", "--output", "m.onnx", "--int8", "photos"]
    assert main(command) == 2
    assert "photos" in capsys.readouterr().err
    shutil.copy(photo, "photos")
    for name in ("a.jpg", "b.jpg"):
        Path("photos", name).write_text("Dear diary")
    assert main(command) == 0
    assert "ssd-zoo: 2 images left out, as they can't be read; the first: photos/a.jpg is" in capsys.readouterr().err
    for name in ("a.jpg", "b.jpg"):
        Path("photos", name).unlink()
    assert main(command) == 0
    assert "int8 against float on 1 images, scores above 0.3: 1 detections matched, 0 lost" in capsys.readouterr().out
    assert "The ranges of int8 are of 1 images, which is few: take 50 to 300." in caplog.messages
    Image.new("RGB", (640, 480), "grey").save(Path("photos", photo.name))
    assert main(command) == 0
    assert "int8 against float on 1 images, scores above 0.05: " in capsys.readouterr().out


@pytest.mark.slow
def test_commands(labelled, tmp_path, photo, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite320_ultraface_slim(weights=None, num_classes=2, size=(64, 96), score_thresh=0.1).eval()
    ssd_zoo.save_pretrained(model, "saved")
    # The format is told by the name.
    told = ["--licence", "CC0-1.0", "--origin", "seed 0"]
    assert main(["export", "saved", "--output", "m.onnx", "--nms", "outside", *told]) == 0
    assert "m.onnx: onnx, 64 × 96, 1 class, NMS outside, scores above 0.1" in capsys.readouterr().out
    described = load("m.onnx").description
    assert (described.licence, described.origin) == ("CC0-1.0", "seed 0")
    results = []
    for name in ("saved", "m.onnx"):
        command = ["detect", str(photo), "--model", name, "--score-thresh", "0.2", "--json", "r.json", "--quiet"]
        assert main(command) == 0
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=0.05)
    capsys.readouterr()
    for command, message in (
        (["detect", str(photo), "--model", "m.onnx", "--weights", "DEFAULT"], "leave out the weights DEFAULT"),
        (["detect", str(photo), "--model", "n.onnx"], "There is no file n.onnx"),
        (["export", "m.onnx", "--format", "openvino", "--output", "m.xml"], "m.onnx is an exported file"),
        (
            ["export", "saved", "--output", "m.pb"],
            "detector by its name, which must end with .onnx (onnx), ",
        ),
        (["evaluate", ".", "--model", "n.onnx"], ""),
    ):
        assert main(command) == 2
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def labelled(model, tmp_path_factory):
    """Images, of whose detections by the model every other one is an object."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(CATEGORIES) if label]
    for i, image in enumerate(IMAGES[:3]):
        file = folder / "images" / f"{i}.png"
        Image.fromarray((image * 255).to(torch.uint8).permute(1, 2, 0).numpy()).save(file)
        content["images"].append({"id": i, "file_name": file.name, "height": image.shape[1], "width": image.shape[2]})
        with torch.no_grad():
            [found] = model([read_image(file)])
        for box, label in zip(found["boxes"][::2].tolist(), found["labels"][::2].tolist(), strict=True):
            x1, y1, x2, y2 = box
            thing = {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            thing |= {"id": len(content["annotations"]) + 1, "area": (x2 - x1) * (y2 - y1)}
            content["annotations"].append(thing)
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@in_all_formats
@torch.no_grad()
def test_commands_run_the_file(model, file, nms, labelled, tmp_path):
    # With NMS inside, the number of detections can't be raised to the 100 that AP counts, nor in a module around one.
    measured = model if nms == "outside" else nn.Sequential(model).eval()
    expected = evaluate(measured, open_dataset(labelled), model_categories=CATEGORIES).metrics
    assert 0.2 < expected["AP"] < 0.9
    command = ["--model", str(file), "--json", str(tmp_path / "r.json"), "--quiet"]
    assert main(["evaluate", str(labelled), *command]) == 0
    measured = json.loads((tmp_path / "r.json").read_text())
    assert {name: measured[name] for name in ("AP", "AP50")} == pytest.approx(
        {name: expected[name] for name in ("AP", "AP50")}, abs=1e-6
    )
    assert main(["detect", str(labelled / "images"), *command, "--score-thresh", "0.3"]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    found = model([read_image(file) for file in sorted((labelled / "images").iterdir())])
    chosen = [(box, score) for of in found for box, score in zip(of["boxes"], of["scores"], strict=True) if score > 0.3]
    boxes, scores = (torch.stack(values) for values in zip(*chosen, strict=True))
    torch.testing.assert_close(torch.tensor([row["score"] for row in rows]), scores, rtol=0, atol=1e-4)
    corners = torch.tensor([row["bbox"] for row in rows])
    torch.testing.assert_close(corners[:, 2:], boxes[:, 2:] - boxes[:, :2], rtol=0, atol=0.1)


@pytest.mark.slow
def test_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite320_ultraface_slim(weights=None, num_classes=2, size=(64, 96)).eval()
    ssd_zoo.save_pretrained(model, "saved")
    command = ["benchmark", "saved", "--seconds", "0", "--threads", "1", "--json", "r.json", "--formats"]
    assert main([*command, "pt2,litert"]) == 0
    eager, program, litert = json.loads((tmp_path / "r.json").read_text())
    assert (eager["format"], eager["ratio"], program["format"]) == ("eager", 1, "pt2")
    assert program["ratio"] == pytest.approx(eager["ms"] / program["ms"])
    assert litert["ms"] is None
    assert litert["note"].endswith('pip install "ssd_zoo[litert]".')
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in table] == ["format", "eager", "pt2", "litert"]
    make_coco(tmp_path / "data")
    model.categories[1] = "cat"
    ssd_zoo.save_pretrained(model, "saved")
    assert main([*command, "pt2", "--data", "data", "--max-pixels", "100000", "--quiet"]) == 0
    own = {"model_categories": model.categories, "score_thresh": model.score_thresh}
    expected = evaluate(model, open_dataset(tmp_path / "data"), **own).metrics["AP"]
    assert [row["AP"] for row in json.loads((tmp_path / "r.json").read_text())] == pytest.approx([expected] * 2)
    assert main([*command, "coreml"]) == 2
    assert "'coreml' does not run here; these may: onnx, openvino" in capsys.readouterr().err


# The place of NMS that computes the most in the file; test_detections_are_the_models has all.
PHOTOS = [
    pytest.param(*place.values, name, id=f"{place.values[0]}-{name}", marks=[pytest.mark.slow, *place.marks])
    for place in {place.values[0]: place for place in reversed(PLACES)}.values()
    for name in (TRAINED if place.values[0] not in HEAVY else ["coco"])
]


@pytest.mark.parametrize(("format", "nms", "name"), PHOTOS)
@torch.no_grad()
def test_photos(format, nms, name, test_data, tmp_path):
    """Input is 300 × 300 with 91 or 2 classes, and 480 × 640 with 4."""
    needs_packages_of(format)
    # Of blood cells there are more candidates than files compare by default.
    model, photos = trained(name, score_thresh=0.1 if name == "bccd" else 0.01), photos_of(name, test_data)
    images = [photos.images[i].read() for i in range(12)]
    detector = load(export(model, tmp_path / f"m{SUFFIXES[format]}", format=format, nms=nms))
    assert detector.description.licence == ("Apache-2.0 AND MIT" if name == "bccd" else "Apache-2.0")
    expected = model(images)
    for start, count in ((0, 1), (1, 3), (4, 8)):
        assert_same_detections(detector(images[start : start + count]), expected[start : start + count])


@pytest.mark.parametrize(
    ("antialias", "settings"),
    [
        (True, {"topk_candidates": 5, "score_function": "softmax", "clip_before_nms": True}),
        (
            False,
            {"score_function": "sigmoid", "clip_before_nms": False, "topk_candidates": None, "detections_per_img": 30},
        ),
    ],
)
@torch.no_grad()
def test_page_decodes_as_the_model(antialias, settings, tmp_path):
    page = (ROOT / "docs/raw_output.md").read_text(encoding="utf-8")
    decode, code = (code for code in blocks(page, "py") if "def " in code)
    steps: dict = {"Image": Image}
    exec(decode + code[code.index("def resize") : code.index("told =")], steps)
    model = build(score_thresh=0.01, antialias=antialias, **settings)
    detector = load(export(model, tmp_path / "m.onnx", format="onnx", nms="outside"))
    told = json.loads(detector.description.to_json())
    for name in ("astronaut.jpg", "coffee.jpg"):
        photo = Image.open(ROOT / "examples" / name)
        image = read_image(ROOT / "examples" / name)
        batch = model.prepare([image])
        # Pillow rounds pixels.
        pixels = np.array(steps["resize"](photo, told["size"], antialias)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(pixels, (batch[0] * model.image_std + model.image_mean).numpy(), atol=1.01 / 255)
        raw = {**model.forward_raw(batch), "default_boxes": model.default_boxes}
        found = steps["choose"]({key: value.numpy() for key, value in raw.items()}, told, photo)
        [expected] = detector([image])
        names, scores, boxes = zip(*found, strict=True)
        assert list(names) == [CATEGORIES[label] for label in expected["labels"]]
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
        np.testing.assert_allclose(np.stack(boxes), expected["boxes"], atol=0.01)


def run_page(name, folder, monkeypatch, capsys):
    """Runs a page's samples beside the photo; returns the page, what it says that they print, and what they do."""
    (folder / "photos").mkdir()
    shutil.copy(ROOT / "examples" / "astronaut.jpg", folder / "photos")
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    # Not marked as python, so that pages can be tested without the packages of these.
    code = "\n".join(blocks(page, "py"))
    exec(compile(code, name, "exec"), {})
    expected = re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)
    assert expected
    return page, expected, capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_page_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    page, expected, printed = run_page("deploy.md", tmp_path, monkeypatch, capsys)
    assert printed == expected
    _, *commands = blocks(page, "sh")[0].splitlines()
    assert [main(shlex.split(command)[1:]) for command in commands] == [0, 0]
    assert capsys.readouterr().out in blocks(page, "text")


@pytest.mark.xdist_group("litert")
@pytest.mark.slow
def test_page_on_raw_output_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("litert_torch", reason='pip install "ssd_zoo[litert]"')
    _, expected, printed = run_page("raw_output.md", tmp_path, monkeypatch, capsys)
    assert printed == expected

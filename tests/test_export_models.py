"""A builder of each family exports to ONNX, the others as a program of torch; the raw output is the model's.

`examples/benchmarks/formats.py` does this for every builder and format.
"""

import pytest
import torch
from compare import assert_same_detections
from runtimes import assert_outputs_are_the_models, open_alone
from test_models import FAMILIES, NAMES, small_size
from test_optimize import build
from torch import nn

import ssd_zoo
from ssd_zoo.deploy import export, load
from ssd_zoo.deploy.export import OLDEST_TORCH
from ssd_zoo.deploy.formats import FORMATS
from ssd_zoo.detector.frames import split_frames

pytest.importorskip("onnxscript", reason='pip install "ssd_zoo[deploy]"')
pytest.importorskip("onnxruntime", reason='pip install "ssd_zoo[deploy]"')

pytestmark = pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=f"exporting needs torch {OLDEST_TORCH}")

PHOTO_LIKE = torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))
# Not square; the table of docs/deploy.md is of 128 × 128.
WIDE = (128, 192)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_3d")])
@torch.no_grad()
def test_raw_output_is_the_models(name, tmp_path):
    small = small_size(name)
    model = build(name, **({"size": WIDE} if small["size"] == 128 else small))
    kind = "onnx" if name in (*FAMILIES, "ssd256_vgg16d") else "pt2"
    file = export(model, tmp_path / f"model{FORMATS[kind].suffix}", format=kind, nms="outside")
    detector, batch = load(file, threads=1), model.prepare(PHOTO_LIKE)
    expected = model.forward_raw(batch)
    for count in (1, 3):
        found = detector._run({"images": batch[:count] * model.image_std + model.image_mean})
        for key, value in expected.items():
            error = (found[key] - value[:count]).abs().max()
            assert error <= 1e-4 * value[:count].abs().max()
    assert torch.equal(detector.default_boxes, model.default_boxes)


class Fixed(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.forward_fixed(batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.endswith("_3d")])
@torch.no_grad()
def test_forward_fixed_exports(name):
    """Beyond the raw output, which is tested above for every builder, all builders share this code."""
    # With norms as build makes them, logits of EfficientNet are so large that rounding shows in scores.
    torch.manual_seed(0)
    model = ssd_zoo.get_model(name, weights=None, weights_backbone=None, num_classes=4, **small_size(name)).eval()
    batch = model.prepare(PHOTO_LIKE)
    shapes = {"batch": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(Fixed(model), (batch[:2],), dynamic_shapes=shapes, strict=False).module()
    for some in (batch[:1], batch):
        found, expected = program(some), model.forward_fixed(some)
        assert found.keys() == expected.keys()
        # Scores of random weights lie so close that rounding orders boxes; tests/test_compile.py compares these.
        for key in ("scores", "count", "exact"):
            torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frames", ["all", "last"])
@torch.no_grad()
def test_streams_are_the_models(frames, tmp_path):
    # An average of three frames, so that the past shows.
    settings = {"temporal_stages": (5,), "inflate": "average", "frames": frames, "size": 128, "detections_per_img": 30}
    model = build("ssdlite300_mobilenet_v2_3d", **settings)
    for kind, nms in (("onnx", "inside"), ("openvino", "outside"), ("pt2", "inside")):
        file = export(model, tmp_path / f"model{FORMATS[kind].suffix}", format=kind, nms=nms)
        assert_same_in_time(load(file), model)
        if kind != "pt2":
            assert_same_for_any_number_of_streams(file, model)


@pytest.mark.slow
@torch.no_grad()
def test_outputs_that_are_also_other_values_keep_their_names(tmp_path):
    # Taps of zeros are computed away, so that what is remembered is an inner value.
    model = build("ssdlite300_mobilenet_v2_3d", size=96)
    file = export(model, tmp_path / "model.xml", format="openvino", nms="outside")
    assert_same_in_time(load(file), model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # converters warn of themselves
@pytest.mark.parametrize(
    ("kind", "package"),
    [
        pytest.param("litert", "litert_torch", marks=pytest.mark.xdist_group("litert")),
        ("executorch", "executorch"),
    ],
)
@torch.no_grad()
def test_streams_of_the_runtimes_on_phones(kind, package, tmp_path):
    pytest.importorskip(package, reason=f'pip install "ssd_zoo[{kind}]"')
    settings = {"temporal": "depthwise", "temporal_stages": (5,), "inflate": "average", "size": 128}
    model = build("ssdlite300_mobilenet_v2_3d", **settings)
    assert_same_in_time(load(export(model, tmp_path / f"model{FORMATS[kind].suffix}", format=kind)), model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # converters warn of themselves
@pytest.mark.parametrize(
    ("name", "size", "kind", "package"),
    [
        # XNNPACK folds norms that share a convolution into the same weights.
        ("ssdlite320_mobilenet_v2_fpn", 128, "executorch", "executorch"),
        # Its converter takes no expanded divisor, as the paper's norm had.
        ("ssd256_vgg16d", 256, "litert", "litert_torch"),
    ],
)
@torch.no_grad()
def test_layers_that_a_converter_took_wrongly(name, size, kind, package, tmp_path):
    pytest.importorskip(package, reason=f'pip install "ssd_zoo[{kind}]"')
    model = build(name, size=size)
    file = export(model, tmp_path / f"model{FORMATS[kind].suffix}", nms="outside")
    detector, batch = load(file), model.prepare(PHOTO_LIKE)
    found = detector._run({"images": batch * model.image_std + model.image_mean})
    for key, value in model.forward_raw(batch).items():
        assert (found[key] - value).abs().max() <= 1e-4 * value.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # converters warn of themselves
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v2_fpn", "ssdlite300_mobilenet_v2_3d"])
def test_core_ml_converts(name, tmp_path):
    """It has no addcmul, which layers in time call, and no whole numbers as bounds, which shared heads have."""
    pytest.importorskip("coremltools", reason='pip install "ssd_zoo[coreml]"')
    assert export(build(name, size=128), tmp_path / "model.mlpackage", nms="outside").is_dir()


def assert_same_in_time(detector, model):
    clips = [torch.rand(count, 3, 90, 120, generator=torch.Generator().manual_seed(count)) for count in (3, 1, 4)]
    found = detector(clips)
    for ours, theirs in zip(found, model(clips), strict=True):
        assert torch.equal(ours["frame_index"], theirs["frame_index"])
        assert_same_detections(split_frames(ours, 4), split_frames(theirs, 4))
    with pytest.warns(UserWarning, match="one by one"):
        alone = detector([clips[1][0]])
    assert_same_detections(detector([clips[1][0]]), alone)
    assert_same_detections(alone, split_frames(model([clips[1]])[0], 1))
    state = expected_state = None
    for piece in (clips[0][:1], clips[0][1:]):
        [ours], state = detector.step([piece], state)
        [theirs], expected_state = model.step([piece], expected_state)
        assert_same_detections(split_frames(ours, 3), split_frames(theirs, 3))
    assert state.keys() == expected_state.keys()
    assert state["frames_seen"].tolist() == [3]


def assert_same_for_any_number_of_streams(file, model):
    """The runtime alone computes all streams in one call; `load` runs one after another."""
    run, described = open_alone(file), load(file).description
    for streams in (3, 1):
        state, expected_state = described.blank_state(streams), None
        for frames in (PHOTO_LIKE, PHOTO_LIKE.flip(0), PHOTO_LIKE.flip(3), PHOTO_LIKE):
            batch = model.prepare(frames[:streams])
            found = run({"images": batch * model.image_std + model.image_mean, **state})
            raw, expected_state = model.step_raw(batch, [1] * streams, expected_state)
            assert_outputs_are_the_models(found, model, raw)
            state = {name: found[f"next.{name}"] for name in described.state}
        assert state["frames_seen"].tolist() == [4] * streams

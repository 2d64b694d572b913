"""SSD on VGG-16 against the original implementations, and what weights entries change."""

import pytest
import torch
from oracles import load_oracle, stand_in_for_downloads

import ssd_zoo
from ssd_zoo import DefaultBoxGenerator, SSD300_VGG16D_Weights, SSD512_VGG16D_Weights
from ssd_zoo.weights.converters import amdegroot, lufficc, mmdet

# Pixels, from the originals' configurations.
VOC300 = [30, 60, 111, 162, 213, 264, 315]
COCO300 = [21, 45, 99, 153, 207, 261, 315]
VOC512 = [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.65]
COCO512 = [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72]
MMDET512 = [20, 51, 133, 215, 296, 378, 460, 542]

ENTRIES = [
    (SSD300_VGG16D_Weights.COCO_V1, COCO300, "sizes"),
    (SSD300_VGG16D_Weights.COCO_MMDET_V1, COCO300, "none"),
    (SSD300_VGG16D_Weights.COCO_LUFFICC_V1, COCO300, "all"),
    (SSD300_VGG16D_Weights.VOC0712_LUFFICC_V1, VOC300, "all"),
    (SSD512_VGG16D_Weights.COCO_MMDET_V1, MMDET512, "none"),
    (SSD512_VGG16D_Weights.COCO_LUFFICC_V1, COCO512, "all"),
    (SSD512_VGG16D_Weights.VOC0712_LUFFICC_V1, VOC512, "all"),
]


def build(weights, oracle, monkeypatch):
    """Builds a model from a weights entry whose file holds an oracle's tensors."""
    stand_in_for_downloads(monkeypatch, lambda url: {"model": oracle.state})
    return ssd_zoo.ssd300_vgg16d(weights=weights).eval()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module", params=["amdegroot", "lufficc", "mmdet"])
def origin(request, test_data, monkeypatch_module):
    """An oracle and the model that is to be equal to it, with its raw output."""
    if request.param == "amdegroot":
        oracle = load_oracle(test_data, "amdegroot_ssd300_voc")
        model = ssd_zoo.load_checkpoint(oracle.state)
    elif request.param == "lufficc":
        oracle = load_oracle(test_data, "lufficc_vgg_ssd300_voc")
        model = build("VOC0712_LUFFICC_V1", oracle, monkeypatch_module)
    else:
        oracle = load_oracle(test_data, "mmdet_ssd300_coco")
        model = build("COCO_MMDET_V1", oracle, monkeypatch_module)
    with torch.inference_mode():
        batch = model.prepare([oracle.image])
        return oracle, model, batch, model.forward_raw(batch)


def test_input(origin):
    oracle, _, batch, _ = origin
    oracle.check_input(batch)


def test_default_boxes(origin):
    oracle, model, _, _ = origin
    oracle.check_default_boxes(model)


def test_raw_output(origin):
    oracle, _, _, raw = origin
    oracle.check_raw(raw)


def test_detections(origin):
    oracle, model, _, _ = origin
    with torch.inference_mode():
        [found] = model([oracle.image])
    oracle.check_detections(found)


def test_number_of_parameters_and_categories(origin):
    oracle, model, _, _ = origin
    assert sum(parameter.numel() for parameter in model.parameters()) == oracle.facts["num_params"]
    assert model.categories[1:] == oracle.categories[1:]


def entry_on_meta(entry, monkeypatch, **arguments):
    """Builds the model of a weights entry without its tensors."""
    monkeypatch.setattr("ssd_zoo.models.settle.load_weights", lambda model, weights, options: model)
    with torch.device("meta"):
        return ssd_zoo.get_model(type(entry).__name__.removesuffix("_Weights").lower(), weights=entry, **arguments)


@pytest.mark.parametrize(("entry", "sides", "clip"), ENTRIES, ids=[str(entry) for entry, *_ in ENTRIES])
def test_entries_have_the_default_boxes_of_their_origin(entry, sides, clip, monkeypatch):
    model = entry_on_meta(entry, monkeypatch)
    size = model.size[0]
    steps = [8, 16, 32, 64, 100, 300] if size == 300 else [8, 16, 32, 64, 128, 256, 512]
    cells = [38, 19, 10, 5, 3, 1] if size == 300 else [64, 32, 16, 8, 4, 2, 1]
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]] if size == 300 else [[2], *[[2, 3]] * 4, [2], [2]]
    start = 0
    for k, (step, n) in enumerate(zip(steps, cells, strict=True)):
        number = n * n * (2 + 2 * len(ratios[k]))
        boxes = model.default_boxes[start : start + number].view(n, n, -1, 4)
        start += number
        # Well within the image, clipping of centres has no say; that of sizes has.
        widths = (boxes[..., 2] - boxes[..., 0])[n // 2, n // 2]
        sizes = [sides[k], (sides[k] * sides[k + 1]) ** 0.5]
        for ratio in ratios[k]:
            sizes += [sides[k] * ratio**0.5, sides[k] / ratio**0.5]
        limit = float("inf") if clip == "none" else size
        assert widths.tolist() == pytest.approx([min(side, limit) for side in sizes], abs=1e-3)
        centre = boxes[n // 2, n // 2, 0, :2] + widths[0] / 2
        expected = (n // 2 + 0.5) * step
        assert centre.tolist() == pytest.approx([expected, expected], abs=1e-3)
    assert start == len(model.default_boxes)


def test_only_lufficc_clips_centres(monkeypatch):
    # The last cell of the 38 × 38, 19 × 19, 10 × 10 and 5 × 5 maps has its centre at 300, 296, 304 and 288 px.
    centres = {}
    for entry, *_ in ENTRIES[:3]:
        boxes = entry_on_meta(entry, monkeypatch).default_boxes
        centres[entry.name] = ((boxes[:, 2] + boxes[:, 0]) / 2).max().item()
    assert centres["COCO_LUFFICC_V1"] == pytest.approx(300)
    assert centres["COCO_V1"] == centres["COCO_MMDET_V1"] == pytest.approx(304)


@pytest.mark.parametrize(("entry", "sides", "clip"), ENTRIES, ids=[str(entry) for entry, *_ in ENTRIES])
def test_entries_tell_the_number_of_parameters_and_classes(entry, sides, clip, monkeypatch):
    model = entry_on_meta(entry, monkeypatch)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.meta["num_params"]
    assert model.categories == entry.meta["categories"]


def test_arguments_go_before_the_settings_of_weights(monkeypatch):
    default_boxes = DefaultBoxGenerator(aspect_ratios=[[2]] * 6, scales=[0.1] * 7)
    model = entry_on_meta(
        SSD300_VGG16D_Weights.VOC0712_LUFFICC_V1, monkeypatch, default_boxes=default_boxes, score_thresh=0.3
    )
    assert model.score_thresh == 0.3
    assert model.detections_per_img == 100
    assert model.default_boxes[0, 2] - model.default_boxes[0, 0] == pytest.approx(30)


def test_settings_of_weights_follow_channels_and_size(monkeypatch):
    model = entry_on_meta(SSD300_VGG16D_Weights.VOC0712_LUFFICC_V1, monkeypatch, in_chans=1, size=600)
    assert model.image_mean.flatten().tolist() == pytest.approx([(123 + 117 + 104) / 3 / 255])
    assert model.default_boxes[0, 2] - model.default_boxes[0, 0] == pytest.approx(60)


@pytest.mark.parametrize("convert", [amdegroot.ORIGIN.convert, lufficc.ORIGIN.convert, mmdet.ORIGIN.convert])
def test_converters_refuse_what_they_do_not_know(convert):
    with pytest.raises(ValueError, match="Unexpected tensor 'fc"):
        convert({"fc.weight": torch.zeros(1)})


def test_ssd256():
    with torch.device("meta"):
        model = ssd_zoo.ssd256_vgg16d(weights_backbone=None, num_classes=21)
    assert len(model.default_boxes) == 6132
    side = (model.default_boxes[-4:, 2] - model.default_boxes[-4:, 0]).tolist()
    # On the 1 × 1 map: 0.9, the root of 0.9 · 1.075, and 0.9 with ratio 2, clipped to the input.
    assert side == pytest.approx([230.4, 256 * (0.9 * 1.075) ** 0.5, 256, 230.4 / 2**0.5])

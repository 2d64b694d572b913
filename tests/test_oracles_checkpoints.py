"""Files of other projects, from the disk to detections, against what the originals computed."""

import json

import numpy as np
import pytest
import torch
from oracles import load_oracle
from safetensors.torch import save_file
from torchvision.ops import clip_boxes_to_image

import ssd_zoo
from ssd_zoo.weights.formats.checkpoint import read_checkpoint

# Each origin's file as its project writes it, or as it might come.
FILES = {
    "amdegroot_ssd300_voc": lambda state: state,
    "lufficc_vgg_ssd300_voc": lambda state: {"model": state, "iteration": 120000},
    "lufficc_mobilenet_v2_ssd320_voc": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    "mmdet_ssd300_coco": lambda state: {"meta": {"epoch": 24}, "state_dict": state},
    "mmdet_ssdlite_mobilenetv2_coco": lambda state: {"state_dict": state, "optimizer": {"state": {}}},
    "nvidia_ssd300_resnet50": lambda state: {"epoch": 65, "model": {f"module.{k}": v for k, v in state.items()}},
    "qfgaohao_mb2_ssd_lite_voc": lambda state: state,
    "qfgaohao_vgg16_ssd_voc": lambda state: {"ema": state},
}


@pytest.fixture(scope="module", params=FILES)
def origin(request, test_data, tmp_path_factory):
    """An oracle and what `load_checkpoint` makes of its file."""
    oracle = load_oracle(test_data, request.param)
    file = tmp_path_factory.mktemp("checkpoints") / "file.pth"
    torch.save(FILES[request.param](oracle.state), file)
    model = ssd_zoo.load_checkpoint(file)
    file.unlink()
    return oracle, model


def test_raw_output_and_default_boxes(origin):
    oracle, model = origin
    oracle.check_default_boxes(model)
    with torch.inference_mode():
        batch = model.prepare([oracle.image])
        oracle.check_input(batch)
        oracle.check_raw(model.forward_raw(batch))


def test_detections(origin):
    oracle, model = origin
    with torch.inference_mode():
        [found] = model([oracle.image])
    oracle.check_detections(found)
    assert [name.lower() for name in model.categories[1:]] == [name.lower() for name in oracle.categories[1:]]


def test_thresholds(origin):
    oracle, model = origin
    thresholds = oracle.facts["thresholds"]
    assert model.score_thresh == thresholds["score"]
    assert model.nms_thresh == thresholds["nms_iou"]
    assert model.topk_candidates == thresholds.get("pre_nms_top_k_per_class")
    limit = thresholds.get("max_per_image") or 200 * (len(model.categories) - 1)
    assert model.detections_per_img == limit


@pytest.fixture(scope="module", params=["RFB", "slim"])
def faces(request, test_data):
    with np.load(test_data / f"oracles/ultraface_{request.param.lower()}_320.npz") as arrays:
        arrays = dict(arrays)
    facts = json.loads((test_data / f"oracles/ultraface_{request.param.lower()}_320.json").read_text())
    model = ssd_zoo.load_checkpoint(test_data / f"weights/ultraface/version-{request.param}-320.pth")
    return model, torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2), arrays, facts


def test_faces(faces):
    model, images, arrays, facts = faces
    with torch.inference_mode():
        raw = model.forward_raw(model.prepare(images))
        detections = model(images)
    torch.testing.assert_close(raw["cls_logits"], torch.from_numpy(arrays["logits"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(raw["bbox_regression"], torch.from_numpy(arrays["locations"]), rtol=0, atol=1e-4)
    in_pixels = torch.tensor([320, 240, 320, 240])
    centres, sizes = torch.from_numpy(arrays["priors"]).split(2, dim=1)
    theirs = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1) * in_pixels
    torch.testing.assert_close(model.default_boxes, theirs, rtol=0, atol=1e-4)
    for i, found in enumerate(detections):
        boxes = clip_boxes_to_image(torch.from_numpy(arrays[f"det_p70.{i}.boxes"]) * in_pixels, (240, 320))
        torch.testing.assert_close(found["boxes"], boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(found["scores"], torch.from_numpy(arrays[f"det_p70.{i}.scores"]), rtol=0, atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["params"]["trainable"]
    assert model.categories == ["background", "face"]


@pytest.mark.parametrize(
    ("size", "boxes"),
    # Three boxes a cell on the first and the last map, two on the others; maps as fd_config.py lists them.
    [
        ((96, 128), 3 * 16 * 12 + 2 * 8 * 6 + 2 * 4 * 3 + 3 * 2 * 2),
        ((480, 640), 3 * 80 * 60 + 2 * 40 * 30 + 2 * 20 * 15 + 3 * 10 * 8),
    ],
)
def test_faces_of_other_sizes(test_data, size, boxes):
    model = ssd_zoo.load_checkpoint(test_data / "weights/ultraface/version-RFB-320.pth", size=size)
    assert model.size == size
    assert len(model.default_boxes) == boxes
    # The sides stay as they are in pixels; no centre lies closer to the edge than half of the smallest step.
    first = model.default_boxes[:3]
    assert (first[:, 2] - first[:, 0]).tolist() == pytest.approx([10, 16, 24])
    assert first[0, :2].tolist() == pytest.approx([size[1] / (size[1] // 8) / 2 - 5, size[0] / (size[0] // 8) / 2 - 5])


def test_settings_are_the_graphs(test_data, tmp_path):
    state = read_checkpoint(test_data / "weights/ssdlite_mobilenet_v2_person/frozen_inference_graph.pb")
    nms = "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/"
    changed = {
        f"{nms}MultiClassNonMaxSuppression/non_max_suppression/iou_threshold": 0.5,
        f"{nms}MultiClassNonMaxSuppression/non_max_suppression/score_threshold": 0.25,
        f"{nms}PadOrClipBoxList/Select/t": 7,
        "Preprocessor/map/while/ResizeImage/stack": [320, 512],
        "Preprocessor/sub/y": 0.5,
        "MultipleGridAnchorGenerator/truediv_14/x": [0.1, 0.2, 0.4],
        "MultipleGridAnchorGenerator/Sqrt/x": [1.0, 4.0, 0.25],
    }
    for name, value in changed.items():
        assert name in state
        state[name] = torch.tensor(value)
    save_file(state, tmp_path / "graph.safetensors")
    model = ssd_zoo.load_checkpoint(tmp_path / "graph.safetensors")
    assert (model.nms_thresh, model.score_thresh, model.detections_per_img) == (0.5, 0.25, 7)
    assert model.size == (320, 512)
    # A pixel of 255 becomes 255 · 2 / 255 - 0.5.
    assert model.prepare([torch.ones(3, 8, 8)]).mean().item() == pytest.approx(1.5)
    first = model.default_boxes[:3]
    sides = (first[:, 2:] - first[:, :2]) / 320
    assert sides.flatten().tolist() == pytest.approx([0.1, 0.1, 0.4, 0.1, 0.2, 0.8], abs=1e-5)
    assert model.categories == ["background", "class 1"]

"""FPNLite against TensorFlow.js's output for two detectors of hands; the oracles' README says how it was made."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ssd_zoo
from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.weights.converters._tensorflow_fpn import _split_kernels

CATEGORIES = ["background", "open", "closed", "pinch", "point", "face", "pointtip", "pinchtip"]
PREDICTOR = "StatefulPartitionedCall/WeightSharedConvolutionalBoxPredictor"


def read_graph(folder):
    """Read a TensorFlow.js model, independently of the package."""
    state = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        content = b"".join((folder / path).read_bytes() for path in group["paths"])
        for weight in group["weights"]:
            quantization = weight.get("quantization", {"scale": 1, "min": 0})
            stored = np.dtype(quantization.get("dtype", weight["dtype"]))
            length = math.prod(weight["shape"]) * stored.itemsize
            values = np.frombuffer(content[:length], stored) * quantization["scale"] + quantization["min"]
            state[weight["name"]] = torch.tensor(values.astype(weight["dtype"])).reshape(weight["shape"])
            content = content[length:]
    return state


@pytest.fixture(scope="module")
def graph(test_data):
    return read_graph(test_data / "weights/tfjs_fpnlite320_hands")


@pytest.fixture(scope="module")
def model(test_data):
    return ssd_zoo.load_checkpoint(test_data / "weights/tfjs_fpnlite320_hands", categories=CATEGORIES)


@pytest.fixture(scope="module")
def oracle(test_data):
    with np.load(test_data / "oracles/tfjs_fpnlite320_hands.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def test_settings_are_the_graphs(model):
    assert model.recipe[0] == "ssdlite320_mobilenet_v2_fpn"
    assert model.size == (320, 320)
    assert (model.detections_per_img, model.topk_candidates, model.score_function) == (100, None, "sigmoid")
    assert (model.score_thresh, model.nms_thresh) == (pytest.approx(1e-8), pytest.approx(0.6))
    torch.testing.assert_close(model.image_mean.flatten(), torch.full((3,), 0.5))
    torch.testing.assert_close(model.image_std.flatten(), torch.full((3,), 0.5))
    assert sum(parameter.numel() for parameter in model.parameters()) == 2562504


def test_default_boxes(model, graph):
    decode = "StatefulPartitionedCall/Postprocessor/Decode/get_center_coordinates_and_sizes"
    height, width, y, x = (graph[f"{decode}/{name}"] for name in ("sub_1", "sub", "add", "add_1"))
    expected = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1) * 320
    torch.testing.assert_close(model.default_boxes, expected, rtol=0, atol=1e-4)
    centres = model.default_boxes[-54::6].unflatten(1, (2, 2)).mean(1)
    assert centres.round().tolist() == [[x, y] for y in (0, 128, 256) for x in (0, 128, 256)]


@torch.no_grad()
def test_raw_output(model, oracle):
    raw = model.forward_raw(model.prepare(oracle["images"].permute(0, 3, 1, 2)))
    torch.testing.assert_close(raw["cls_logits"].sigmoid()[..., 1:], oracle["scores"], rtol=0, atol=1e-5)
    boxes = decode_boxes(raw["bbox_regression"], model.default_boxes)
    torch.testing.assert_close(boxes, oracle["boxes_yxyx"][..., [1, 0, 3, 2]] * 320, rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_saved_model_detects_the_same(model, oracle, tmp_path):
    loaded = ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path)).eval()
    [expected] = model(oracle["images"][:1].permute(0, 3, 1, 2))
    [found] = loaded(oracle["images"][:1].permute(0, 3, 1, 2))
    assert found["labels"].tolist() == expected["labels"].tolist()
    # The first image shows a face and two open hands.
    assert [loaded.categories[label] for label in found["labels"][:3]] == ["face", "open", "open"]
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=0)


class HeadOfFile(nn.Module):
    """A file's head, computed level by level with the constants that the file has for each."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def separable(self, features, depthwise, pointwise, bias):
        depthwise, pointwise = (self.graph[f"{PREDICTOR}/{name}"] for name in (depthwise, pointwise))
        features = F.conv2d(features, depthwise.permute(2, 3, 0, 1), padding=1, groups=len(depthwise[0, 0]))
        return F.conv2d(features, pointwise.permute(3, 2, 0, 1), self.graph[f"{PREDICTOR}/{bias}"])

    def forward(self, maps):
        rows = {"cls_logits": [], "bbox_regression": []}
        for level, features in enumerate(maps):
            call = f"_{level}" if level else ""
            for k in range(4):
                conv = f"PredictionTower/conv2d_{k}/separable_conv2d{call}"
                names = f"{conv}/ReadVariableOp", f"{conv}_weights", f"{conv}_bn_offset"
                features = F.relu6(self.separable(features, *names))
            for key, name, columns in (("cls_logits", "Class", 8), ("bbox_regression", "Box", 4)):
                place = f"WeightSharedConvolutional{name}Head/{name}Predictor"
                conv, bias = f"{place}/separable_conv2d{call}", f"{place}/BiasAdd{call}"
                output = self.separable(
                    features, f"{conv}/ReadVariableOp", f"{conv}/ReadVariableOp_1", f"{bias}/ReadVariableOp"
                )
                rows[key].append(output.permute(0, 2, 3, 1).reshape(len(output), -1, columns))
        # Their offsets are y, x, height, width.
        return {
            "cls_logits": torch.cat(rows["cls_logits"], 1),
            "bbox_regression": torch.cat(rows["bbox_regression"], 1)[..., [1, 0, 3, 2]],
        }


@pytest.mark.slow
@torch.no_grad()
def test_quantised_weights_detect_as_their_dequantised_ones(test_data, oracle, tmp_path):
    folder = test_data / "weights/tfjs_fpnlite640_hands_int8"
    loaded = ssd_zoo.load_checkpoint(folder, categories=CATEGORIES)
    # In the file each level has kernels of its own, which are no longer those of one shared layer times gains.
    assert loaded.recipe[0] == "ssdlite640_mobilenet_v2_fpn"
    assert loaded.recipe[1]["own_towers"] is True
    assert loaded.size == (640, 640)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 2562504 + 4 * 4 * (9 * 128 + 128 * 128)
    quantised = ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(loaded, tmp_path)).eval()
    exact = copy.deepcopy(quantised)
    exact.head = HeadOfFile(read_graph(folder))
    images = oracle["images"][:3].permute(0, 3, 1, 2)
    for image in images:
        batch = quantised.prepare([image])
        raw, expected = quantised.forward_raw(batch), exact.forward_raw(batch)
        torch.testing.assert_close(raw["cls_logits"].sigmoid(), expected["cls_logits"].sigmoid(), rtol=0, atol=1e-5)
        boxes, others = (decode_boxes(each["bbox_regression"], exact.default_boxes) for each in (raw, expected))
        torch.testing.assert_close(boxes, others, rtol=0, atol=1e-3)
        [found], [theirs] = quantised([image]), exact([image])
        assert found["labels"].tolist() == theirs["labels"].tolist()
        torch.testing.assert_close(found["scores"], theirs["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found["boxes"], theirs["boxes"], rtol=0, atol=1e-3)
    [found] = quantised(images[:1])
    assert [quantised.categories[label] for label in found["labels"][:3]] == ["face", "open", "open"]


def test_default_boxes_in_8_bits_are_the_exact_ones_rounded(test_data):
    folder = test_data / "weights/tfjs_fpnlite640_hands_int8"
    exact = ssd_zoo.ssdlite640_mobilenet_v2_fpn(weights_backbone=None, num_classes=8).default_boxes / 640
    corners = exact.unflatten(1, (2, 2))
    [x, y], [width, height] = corners.mean(1).T, (corners[:, 1] - corners[:, 0]).T
    graph, entries = read_graph(folder), json.loads((folder / "model.json").read_text())["weightsManifest"]
    steps = {entry["name"]: entry.get("quantization", {}).get("scale") for of in entries for entry in of["weights"]}
    for name, expected in (("sub_1", height), ("sub", width), ("add", y), ("add_1", x)):
        name = f"StatefulPartitionedCall/Postprocessor/Decode/get_center_coordinates_and_sizes/{name}"
        assert (graph[name] - expected).abs().max() < 0.51 * steps[name]
    assert ssd_zoo.load_checkpoint(folder).default_boxes.equal(exact * 640)
    # The file's size is its own, whatever is asked for.
    assert ssd_zoo.load_checkpoint(folder, size=512).size == (512, 512)


@pytest.mark.parametrize("file", ["tfjs_fpnlite320_hands", "tfjs_ssdlite_mobilenet_v2_coco"])
def test_default_boxes_are_the_files(file, test_data):
    graph = read_graph(test_data / "weights" / file)
    before = ssd_zoo.load_checkpoint(graph).default_boxes
    corners = graph.get("Postprocessor/ExpandDims")
    if corners is not None:
        graph["Postprocessor/ExpandDims"] = halved(corners)
    for name in graph:
        if re.search(r"get_center_coordinates_and_sizes/sub(_1)?$", name):
            graph[name] = graph[name] / 2
    model = ssd_zoo.load_checkpoint(graph)
    torch.testing.assert_close(model.default_boxes, halved(before), rtol=0, atol=1e-4)
    # Other sizes of the input have boxes of the same share of it.
    [shape, *_] = model.default_box_generator.shapes
    assert ssd_zoo.load_checkpoint(graph, size=256).default_box_generator.shapes[0] == shape


def halved(boxes):
    first, last = boxes.split(2, -1)
    return torch.cat([0.75 * first + 0.25 * last, 0.25 * first + 0.75 * last], -1)


def test_default_boxes_that_are_no_grid_are_refused(graph):
    name = "StatefulPartitionedCall/Postprocessor/Decode/get_center_coordinates_and_sizes/add"
    with pytest.raises(ValueError, match="do not lie on the grids of this model's feature maps"):
        ssd_zoo.load_checkpoint({**graph, name: graph[name] + 0.1})
    with pytest.raises(ValueError, match="has 12798 default boxes, but this model 12804"):
        ssd_zoo.load_checkpoint(
            {key: value[6:] if len(value.shape) == 1 and len(value) == 12804 else value for key, value in graph.items()}
        )


def test_offsets_by_other_factors_are_refused(graph):
    name = "ConstantFolding/StatefulPartitionedCall/Postprocessor/Decode/truediv_2_recip"
    with pytest.raises(
        ValueError, match=r"divides offsets by 4, but SSD's detectors by 10 \(centres\) and 5 \(sizes\)"
    ):
        ssd_zoo.load_checkpoint({**graph, name: torch.tensor(0.25)})


def test_levels_come_apart():
    # Two channels out, three in; three levels. The second channel is dead.
    shared = torch.tensor([[1.0, 2, 2], [0, 0, 0]]).view(2, 3, 1, 1)
    gains = torch.tensor([1.0, -2, 3])
    kernel, found = _split_kernels(shared * gains.view(3, 1, 1, 1, 1))
    # The mean square of the gains is 14 / 3.
    torch.testing.assert_close(found[:, 0], gains / (14 / 3) ** 0.5)
    torch.testing.assert_close(kernel, shared * (14 / 3) ** 0.5)
    assert found.isfinite().all()


def test_a_level_may_not_lack(graph):
    [name] = (name for name in graph if name.endswith("PredictionTower/conv2d_2/separable_conv2d_3_weights"))
    with pytest.raises(ValueError, match=r"'head.tower.convs.2.pointwise.weight' for each of 5 levels"):
        ssd_zoo.load_checkpoint({key: tensor for key, tensor in graph.items() if key != name})

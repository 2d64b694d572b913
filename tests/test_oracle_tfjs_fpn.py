"""FPNLite against TensorFlow.js's output for two detectors of hands; the oracles' README says how it was made."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch

import ssd_zoo
from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.weights.converters._tensorflow_fpn import _split_kernels

CATEGORIES = ["background", "open", "closed", "pinch", "point", "face", "pointtip", "pinchtip"]


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


@torch.no_grad()
def test_quantised_weights_detect_as_their_dequantised_ones(test_data, oracle):
    folder = test_data / "weights/tfjs_fpnlite640_hands_int8"
    quantised = ssd_zoo.load_checkpoint(folder, categories=CATEGORIES)
    assert quantised.recipe[0] == "ssdlite640_mobilenet_v2_fpn"
    assert quantised.size == (640, 640)
    image = oracle["images"][0].permute(2, 0, 1)
    [found] = quantised([image])
    assert [quantised.categories[label] for label in found["labels"][:3]] == ["face", "open", "open"]
    # In the file each level has kernels of its own, which are no longer those of one shared layer times gains.
    graph, batch = read_graph(folder), quantised.prepare([image])
    scores = quantised.forward_raw(batch)["cls_logits"].sigmoid()
    rows = [6 * cells**2 for cells in (80, 40, 20, 10, 5)]
    exact = [of_level(quantised, graph, level)(batch).split(rows, 1)[level] for level in range(5)]
    difference = (scores - torch.cat(exact, 1).sigmoid()).abs().max()
    assert 0.005 < difference < 0.016  # as docs/checkpoints.md says


def of_level(model, graph, level):
    """Give all levels the kernels of one, as the file has them; return the function of the logits."""
    model = copy.deepcopy(model)
    tower = "StatefulPartitionedCall/WeightSharedConvolutionalBoxPredictor/PredictionTower"
    for k, conv in enumerate(model.head.tower.convs):
        kernel = graph[f"{tower}/conv2d_{k}/separable_conv2d{f'_{level}' if level else ''}_weights"]
        conv.pointwise.weight.copy_(kernel.permute(3, 2, 0, 1))
        model.head.tower.norms[level][k].weight.fill_(1)
    return lambda batch: model.forward_raw(batch)["cls_logits"]


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

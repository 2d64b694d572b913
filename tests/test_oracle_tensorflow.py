"""`ssdlite300_mobilenet_v2` against the TensorFlow graph that its weights come from."""

import json

import numpy as np
import pytest
import torch

import ssd_zoo


@pytest.fixture(scope="module")
def oracle(test_data):
    folder = test_data / "oracles"
    arrays = dict(np.load(folder / "tf_ssdlite_person.npz"))
    return arrays, json.loads((folder / "tf_ssdlite_person.json").read_text())


@pytest.fixture(scope="module")
def float32_model(test_data):
    graph = test_data / "weights/ssdlite_mobilenet_v2_person/frozen_inference_graph.pb"
    return ssd_zoo.load_checkpoint(graph, categories=["background", "person"])


@pytest.fixture(scope="module")
def images(oracle):
    return torch.from_numpy(oracle[0]["images"]).permute(0, 3, 1, 2)


def xyxy(boxes):
    """TensorFlow's ymin, xmin, ymax, xmax as fractions of the image, in pixels of 300 × 300."""
    return torch.from_numpy(boxes)[..., [1, 0, 3, 2]] * 300


def test_default_boxes(float32_model, oracle):
    assert float32_model.default_boxes.shape == (1917, 4)
    torch.testing.assert_close(float32_model.default_boxes, xyxy(oracle[0]["anchors"]), rtol=0, atol=1e-4)


def test_parameters(float32_model):
    assert sum(parameter.numel() for parameter in float32_model.parameters()) == 3045126


@torch.no_grad()
def test_raw_output(float32_model, oracle, images):
    arrays, _ = oracle
    raw = float32_model.forward_raw(float32_model.prepare(images))
    torch.testing.assert_close(raw["cls_logits"], torch.from_numpy(arrays["class_logits"]), rtol=0, atol=5e-4)
    expected = torch.from_numpy(arrays["box_encodings"])[..., [1, 0, 3, 2]]
    torch.testing.assert_close(raw["bbox_regression"], expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_detections(float32_model, oracle, images):
    arrays, _ = oracle
    for i, found in enumerate(float32_model(images)):
        count = int(arrays["det.num"][i])
        assert found["labels"].tolist() == [1] * count
        torch.testing.assert_close(found["boxes"], xyxy(arrays["det.boxes"][i, :count]), rtol=0, atol=0.01)
        scores = torch.from_numpy(arrays["det.scores"][i, :count])
        torch.testing.assert_close(found["scores"], scores, rtol=0, atol=1e-5)


@torch.no_grad()
def test_shipped_weights_are_the_same_in_half_precision(float32_model, images):
    shipped = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}
    for name, tensor in float32_model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(shipped.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    for found, expected in zip(shipped(images), float32_model(images), strict=True):
        sure = expected["scores"] > 0.5
        torch.testing.assert_close(found["scores"][: sure.sum()], expected["scores"][sure], rtol=0, atol=0.01)
        torch.testing.assert_close(found["boxes"][: sure.sum()], expected["boxes"][sure], rtol=0, atol=1)

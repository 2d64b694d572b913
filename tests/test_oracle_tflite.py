"""`ssd300_mobilenet_v2` against a TensorFlow Lite model of it, run by Google's own interpreter.

The model is MediaPipe's, of 23 classes of Open Images: `ssd_mobilenet_v2_coco` of the TensorFlow Object Detection API.
"""

import copy
import logging

import numpy as np
import pytest
import torch
from PIL import Image

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.weights.formats.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def file(test_data):
    return test_data / "weights/tflite_ssd_mobilenet_v2_oid/ssd_mobilenetv2_oidv4_fp16.tflite"


@pytest.fixture(scope="module")
def model(file):
    return ssd_zoo.load_checkpoint(file)


@pytest.fixture(scope="module")
def images(test_data):
    """Eight photographs, `(8, 3, 300, 300)`, uint8."""
    files = sorted((test_data / "coco128/images").glob("*.jpg"))[:8]
    arrays = [np.array(Image.open(file).convert("RGB").resize((300, 300))) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def interpreter(file):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        pytest.skip(f"NO ORACLE: TensorFlow Lite models run by ai-edge-litert, which is not installed: {error}")
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter, image):
    """Offsets `(1917, 4)`, y x h w, and logits `(1917, 24)` of an image `(3, 300, 300)`, uint8."""
    [taken], made = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(taken["index"], (image.permute(1, 2, 0)[None].float() / 127.5 - 1).numpy())
    interpreter.invoke()
    return [torch.from_numpy(interpreter.get_tensor(details["index"])[0]) for details in made]


def test_recipe(model):
    assert model.recipe[0] == "ssd300_mobilenet_v2"
    assert model.size == (300, 300)
    assert len(model.categories) == 24
    assert (model.nms_thresh, model.score_function) == (0.6, "sigmoid")
    assert sum(parameter.numel() for parameter in model.parameters()) == 4970780


def test_size_is_that_of_the_input(file):
    state = read_checkpoint(file)
    assert state["normalized_input_image_tensor/shape"].tolist() == [1, 300, 300, 3]
    state["normalized_input_image_tensor/shape"] = torch.tensor([1, 256, 320, 3])
    assert ssd_zoo.load_checkpoint(state).size == (256, 320)
    assert ssd_zoo.load_checkpoint(state, size=300).size == (300, 300)


def test_default_boxes(model, test_data):
    # The file has none. TensorFlow's SSDLite has the same generator, with the default numbers of both configurations.
    anchors = torch.from_numpy(np.load(test_data / "oracles/tf_ssdlite_person.npz")["anchors"])
    torch.testing.assert_close(model.default_boxes, anchors[:, [1, 0, 3, 2]] * 300, rtol=0, atol=1e-4)


@torch.no_grad()
def test_raw_output(model, images, interpreter):
    batch = model.prepare(images)
    raw = model.forward_raw(batch)
    for i, image in enumerate(images):
        offsets, logits = run(interpreter, image)
        torch.testing.assert_close(raw["cls_logits"][i].sigmoid(), logits.sigmoid(), rtol=0, atol=1e-5)
        theirs = offsets[:, [1, 0, 3, 2]]
        off = (raw["bbox_regression"][i] - theirs).abs()
        assert off.quantile(0.999) < 1e-4
        assert off.max() < 2e-4
        if i == 6:
            # Here the largest difference, 1e-4 of offsets up to 80, is theirs: from the offsets in double precision
            # theirs differ by up to 1.1e-4, ours by 4.3e-5.
            [exact] = copy.deepcopy(model).double().forward_raw(batch[i : i + 1].double())["bbox_regression"]
            torch.testing.assert_close(raw["bbox_regression"][i].double(), exact, rtol=0, atol=1e-4)
            torch.testing.assert_close(theirs.double(), exact, rtol=0, atol=2e-4)
    assert raw["cls_logits"][..., 1:].sigmoid().max() > 0.4


def test_convert(file, tmp_path, capsys, caplog):
    labels = file.with_name("labelmap.txt")
    with caplog.at_level(logging.WARNING, "ssd_zoo"):
        assert main(["convert", str(file), "--output", str(tmp_path / "oid"), "--categories", str(labels)]) == 0
    [record] = caplog.records
    assert "60 norms folded" in record.message
    assert "ssd_zoo.restore_norms" in record.message
    assert "ssd-zoo convert FILE --images DIR --output DIR" in record.message
    assert (
        "tensorflow, ssd300_mobilenet_v2, 300 × 300, 24 classes (background, Bicycle, Boot, …)"
        in capsys.readouterr().out
    )
    assert ssd_zoo.from_pretrained(tmp_path / "oid").categories[4] == "Person"

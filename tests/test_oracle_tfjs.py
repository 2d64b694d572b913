"""`ssdlite300_mobilenet_v2` on COCO against TensorFlow.js, which runs the file that its weights come from."""

import json
import logging

import numpy as np
import pytest
import torch

import ssd_zoo
from ssd_zoo.data import find_images, open_dataset, read_image
from ssd_zoo.detector.boxes import decode_boxes

CATEGORIES = ssd_zoo.SSDLite300_MobileNet_V2_Weights.COCO_TF_V1.meta["categories"]


@pytest.fixture(scope="module")
def folder(test_data):
    return test_data / "weights/tfjs_ssdlite_mobilenet_v2_coco"


@pytest.fixture(scope="module")
def oracle(test_data):
    return dict(np.load(test_data / "oracles/tfjs_ssdlite_coco.npz"))


@pytest.fixture(scope="module")
def original(folder):
    return ssd_zoo.load_checkpoint(folder / "model.json")


@pytest.fixture(scope="module")
def shipped():
    return ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()


def xyxy(boxes):
    """TensorFlow's ymin, xmin, ymax, xmax as fractions of the image, in pixels of 300 × 300."""
    return torch.from_numpy(boxes)[..., [1, 0, 3, 2]] * 300


def test_the_model_of_the_file(original, folder):
    assert original.recipe[0] == "ssdlite300_mobilenet_v2"
    assert original.categories == CATEGORIES
    assert sum(parameter.numel() for parameter in original.parameters()) == 4500543
    # The graph has them as a constant, after those of 20 MB of shards.
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"][0]
    start = 0
    for weight in manifest["weights"]:
        if weight["name"] == "Postprocessor/ExpandDims":
            break
        start += 4 * int(np.prod(weight["shape"]))
    content = b"".join((folder / path).read_bytes() for path in manifest["paths"])
    theirs = np.frombuffer(content, "<f4", 1917 * 4, start).reshape(1917, 4).copy()
    torch.testing.assert_close(original.default_boxes, xyxy(theirs), rtol=0, atol=1e-4)


@torch.no_grad()
def test_scores_and_boxes(original, oracle):
    raw = original.forward_raw(original.prepare(torch.from_numpy(oracle["images"]).permute(0, 3, 1, 2)))
    scores = raw["cls_logits"].sigmoid()[..., 1:]
    torch.testing.assert_close(scores, torch.from_numpy(oracle["scores"]), rtol=0, atol=1e-5)
    boxes = decode_boxes(raw["bbox_regression"], original.default_boxes)
    torch.testing.assert_close(boxes, xyxy(oracle["boxes_yxyx"]), rtol=0, atol=1e-3)


def test_what_ships_is_the_original_in_half_precision(shipped, original, oracle):
    images = torch.from_numpy(oracle["images"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        for found, expected in zip(shipped(images), original(images), strict=True):
            sure = expected["scores"] > 0.5
            count = int(sure.sum())
            assert found["labels"][:count].tolist() == expected["labels"][sure].tolist()
            torch.testing.assert_close(found["scores"][:count], expected["scores"][sure], rtol=0, atol=0.01)
            torch.testing.assert_close(found["boxes"][:count], expected["boxes"][sure], rtol=0, atol=1)


@pytest.fixture(scope="module")
def photographs(test_data):
    """32 photographs with their objects, labelled by the ids of COCO."""
    dataset = open_dataset(test_data / "coco128", categories=CATEGORIES)
    return list(zip(*(dataset[i] for i in range(32)), strict=True))


@torch.no_grad()
def losses(model, photographs, *, training):
    images, targets = photographs
    if training:
        return sum(model.train()(images, targets).values()).item()
    return sum(model.eval()(images, targets, return_losses=True)[1].values()).item()


@pytest.mark.slow
def test_what_ships_can_be_trained(shipped, photographs):
    state = {name: tensor.clone() for name, tensor in shipped.state_dict().items()}
    in_evaluation = losses(shipped, photographs, training=False)
    assert losses(shipped, photographs, training=True) == pytest.approx(in_evaluation, rel=0.1)
    shipped.load_state_dict(state)
    shipped.eval()


@pytest.mark.slow
def test_the_original_says_that_it_cant(folder, photographs, tmp_path, caplog):
    from ssd_zoo.training import fit

    with caplog.at_level(logging.WARNING, "ssd_zoo"):
        model = ssd_zoo.load_checkpoint(folder)
    [record] = caplog.records
    assert "64 norms folded" in record.message
    assert "ssd_zoo.restore_norms" in record.message
    with pytest.raises(ValueError, match=r"64 norms of the model were folded away.*restore_norms"):
        fit(model, list(zip(*photographs, strict=True)), output=tmp_path / "run")
    in_evaluation = losses(model, photographs, training=False)
    with pytest.warns(UserWarning, match=r"64 norms .* folded away.*restore_norms"):
        assert losses(model, photographs, training=True) > 2 * in_evaluation


@pytest.mark.slow
def test_command_restores_norms(folder, test_data, tmp_path, capsys, original, photographs):
    from ssd_zoo.cli.main import main

    images = [str(file) for file in find_images([test_data / "coco128"])[:64]]
    assert main(["convert", str(folder), "--output", str(tmp_path / "coco"), "--images", *images]) == 0
    assert "restored 64 norms, which the source has folded away, by 64 images" in capsys.readouterr().out
    model = ssd_zoo.from_pretrained(tmp_path / "coco").eval()
    batch = original.prepare([read_image(file) for file in images[:4]])
    with torch.no_grad():
        for key, expected in original.forward_raw(batch).items():
            torch.testing.assert_close(model.forward_raw(batch)[key], expected, rtol=0, atol=1e-3)
    assert losses(model, photographs, training=True) == pytest.approx(
        losses(model, photographs, training=False), rel=0.1
    )


@torch.no_grad()
def test_clips_start_from_it(shipped, oracle):
    video = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1").eval()
    frames = torch.from_numpy(oracle["images"]).permute(0, 3, 1, 2)
    expected = shipped.forward_raw(shipped.prepare(frames))
    whole = video.forward_raw(video.prepare([frames]), [4])
    first, state = video.step_raw(video.prepare([frames[:3]]), [3])
    rest, _ = video.step_raw(video.prepare([frames[3:]]), [1], state)
    for key, value in expected.items():
        torch.testing.assert_close(whole[key], value, rtol=0, atol=1e-3)
        torch.testing.assert_close(torch.cat([first[key], rest[key]]), value, rtol=0, atol=1e-3)

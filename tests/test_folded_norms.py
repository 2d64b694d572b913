"""Norms that a source has folded away, restored: the same output in evaluation, and statistics to train with."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import find_images, read_image
from ssd_zoo.layers.folded import folded_norms


def build(norms=()):
    """A detector of which some norms are folded, into no kernels: so they have random gains and offsets."""
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=3, size=96).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for name in norms:
        module = model.get_submodule(name)
        module.running_mean.zero_()
        module.running_var.fill_(1 - module.eps)
        module.weight.data.uniform_(0.5, 1.5)
        module.bias.data.normal_()
    return model


IMAGES = [torch.rand(3, 80 + 8 * i, 96, generator=torch.Generator().manual_seed(i)) for i in range(5)]
SOME = ["backbone.stem.norm", "backbone.blocks.3.project.norm", "head.cls_logits.1.0.norm"]


def test_they_are_found():
    assert folded_norms(build(SOME)) == SOME
    assert folded_norms(build()) == []
    fresh = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=3, size=96)
    assert folded_norms(fresh) == [], "a variance of 1 is a fresh norm's"


@torch.no_grad()
def test_they_are_restored():
    model = build(SOME)
    others = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith(tuple(SOME))}
    batch = model.prepare(IMAGES)
    expected = model.forward_raw(batch)
    inputs = model.backbone.stem.conv(batch)
    assert ssd_zoo.restore_norms(model, iter(IMAGES), batch_size=2) == 3
    assert folded_norms(model) == []
    for key, value in model.forward_raw(batch).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
    # By hand: the first norm's input is the first convolution's output.
    norm = model.backbone.stem.norm
    torch.testing.assert_close(norm.running_mean, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, inputs.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in others.items())
    assert ssd_zoo.restore_norms(model, IMAGES) == 0


@torch.no_grad()
def test_training_mode_then_gives_what_evaluation_gives():
    torch.manual_seed(0)
    model = build()
    every = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    model = build(every)
    images = [torch.rand(3, 96, 96) for _ in range(32)]
    ssd_zoo.restore_norms(model, images)
    batch = model.prepare(images)
    expected = model.backbone(batch)
    for actual, value in zip(model.train().backbone(batch), expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=0, atol=0.02 * value.std().item())


def test_too_few_images_change_nothing():
    model = build(SOME)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for images in ([], IMAGES[:1]):
        with pytest.raises(ValueError, match=f"at least 2 images, got {len(images)}"):
            ssd_zoo.restore_norms(model, images)
    with pytest.raises(TypeError, match="not a tensor"):
        ssd_zoo.restore_norms(model, [IMAGES[0], "photo.jpg"])
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_mode_is_kept():
    model = build(SOME)
    with pytest.warns(UserWarning, match="3 norms of this model were folded away, 'backbone.stem.norm' among them"):
        model.train()
    ssd_zoo.restore_norms(model, IMAGES)
    assert model.training
    assert model.train() is model


def test_a_new_model_in_bfloat16_has_no_folded_norms():
    fresh = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=3, size=96)
    assert folded_norms(fresh.bfloat16()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: model.bfloat16().float(),
        lambda model: model.half().float(),
        lambda model: model.double(),
        copy.deepcopy,
        lambda model: copy.deepcopy(model.bfloat16()).float(),
        lambda model: pickle.loads(pickle.dumps(model.bfloat16())),
    ],
)
def test_they_are_known_in_any_precision(change):
    assert folded_norms(change(build(SOME))) == SOME


def test_they_are_known_after_saving(tmp_path):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        ssd_zoo.save_pretrained(build(SOME).to(dtype), tmp_path / str(dtype))
        assert folded_norms(ssd_zoo.from_pretrained(tmp_path / str(dtype))) == SOME


def test_restored_norms_are_forgotten():
    model = build(SOME).bfloat16().float()
    ssd_zoo.restore_norms(model, IMAGES)
    assert folded_norms(model) == folded_norms(model.half()) == []


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_they_are_known_whatever_the_norms_own_eps(eps):
    model = build(SOME)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    assert folded_norms(model) == SOME
    assert folded_norms(nn.SyncBatchNorm.convert_sync_batchnorm(model)) == SOME


def test_batches_have_images():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ssd_zoo.restore_norms(build(SOME), IMAGES, batch_size=0)


def test_a_saved_model_gets_its_norms_by_the_command(tmp_path, capsys):
    ssd_zoo.save_pretrained(build(SOME), tmp_path / "folded")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, image in enumerate(IMAGES):
        to_pil_image(image).save(photos / f"{i}.png")
    plan = ["train", "--model", str(tmp_path / "folded"), "--output", str(tmp_path / "run"), "--plan", str(photos)]
    for image in photos.iterdir():
        label = tmp_path / "photos" / f"{image.stem}.txt"
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    (photos / "classes.txt").write_text("class 1\n")
    assert main(plan) == 2
    assert "ssd-zoo convert FILE --images DIR, where FILE is the source or the saved model" in capsys.readouterr().err
    convert = ["convert", str(tmp_path / "folded"), "--images", str(photos)]
    assert main([*convert, "--output", str(tmp_path / "whole")]) == 0
    assert "restored 3 norms" in capsys.readouterr().out
    assert folded_norms(ssd_zoo.from_pretrained(tmp_path / "whole")) == []
    assert f"3 norms were restored by 5 images of {photos}" in (tmp_path / "whole/README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "count"),
    [
        # 52 of MobileNetV2, 4 of the pyramid, and 20 of a tower, where those of five maps follow the same convolution.
        ("tfjs_fpnlite320_hands", 76),
        ("tflite_ssd_mobilenet_v2_oid/ssd_mobilenetv2_oidv4_fp16.tflite", 60),
    ],
)
def test_those_of_real_files_are_restored(file, count, test_data):
    model = ssd_zoo.load_checkpoint(test_data / "weights" / file)
    assert len(folded_norms(model)) == count
    images = [read_image(path) for path in find_images([test_data / "coco128"])[:4]]
    batch = model.prepare(images)
    with torch.no_grad():
        before = model.forward_raw(batch)
        assert ssd_zoo.restore_norms(model, images) == count
        assert folded_norms(model) == []
        after = model.forward_raw(batch)
        torch.testing.assert_close(after["cls_logits"].sigmoid(), before["cls_logits"].sigmoid(), rtol=0, atol=1e-5)
        torch.testing.assert_close(after["bbox_regression"], before["bbox_regression"], rtol=0, atol=1e-3)
        # By the statistics of this very batch, training gives what evaluation gives.
        trained = model.train().forward_raw(batch)
        for key, value in before.items():
            torch.testing.assert_close(trained[key], value, rtol=0, atol=0.05)

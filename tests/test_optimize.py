"""Detectors made fast detect the same, and say by how much they do not."""

import copy
import logging
import pickle
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from compare import assert_same_detections
from torch import nn
from torch._inductor.utils import run_and_get_code
from torch.nn.utils import parametrizations, prune

import ssd_zoo
from ssd_zoo.data import find_images, read_image
from ssd_zoo.deploy import compare_detections, fuse_norms, optimize
from ssd_zoo.deploy.kept_kernels import _KeptKernel
from ssd_zoo.layers.basic import ConvNormAct, L2Norm
from ssd_zoo.layers.convolution import FastConv2d

IMAGES = [torch.rand(3, 90, 120, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def build(name, **kwargs):
    """A small model whose norms are not the identity, as they are at first."""
    torch.manual_seed(0)
    model = ssd_zoo.get_model(name, weights=None, weights_backbone=None, num_classes=4, **kwargs).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


# What is left: norms of timm's maps, of maps that share convolutions, and before activations.
@pytest.mark.parametrize(
    ("name", "kwargs", "left"),
    [
        ("ssdlite320_mobilenet_v3_large", {"size": 128}, 0),
        ("ssd300_resnet18", {"size": 260}, 0),
        ("ssdlite300_mobilenet_v2", {"size": 128}, 0),
        ("ssdlite320_mobilenet_v2_fpn", {"size": 128}, 20),
        ("ssd_timm", {"backbone": "resnet18", "size": 128}, 3),
        ("ssdlite_timm", {"backbone": "mobilenetv3_small_050", "size": 128}, 2),
        ("ssdlite_timm", {"backbone": "test_vit", "size": 128}, 1),
    ],
)
@torch.no_grad()
def test_every_norm_after_a_convolution_goes(name, kwargs, left):
    model = build(name, **kwargs)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    fast = optimize(model, compile=False)
    assert norms(fast) == left < norms(model)
    batch = model.prepare(IMAGES)
    for key, value in model.forward_raw(batch).items():
        torch.testing.assert_close(fast.forward_raw(batch)[key], value, rtol=1e-3, atol=1e-4 * value.std().item())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@torch.no_grad()
def test_a_real_detector_detects_the_same(test_data, caplog):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    images = [read_image(file) for file in find_images([test_data / "coco128"])[:8]]
    with caplog.at_level(logging.INFO, logger="ssd_zoo"):
        fast = optimize(model, compile=False, images=images)
    change = fast.detection_change
    assert change.matched > 50
    assert (change.lost, change.gained) == (0, 0)
    assert change.box_shift < 0.01
    assert change.score_change < 1e-5
    assert str(change) in caplog.text
    assert_same_detections(fast(images), model(images))


@pytest.mark.slow
@torch.no_grad()
def test_large_maps_and_many_channels_are_computed_otherwise():
    model = build("ssd300_vgg16d")
    fast = optimize(model, compile=False)
    # VGG from conv2_1 to conv5_3; heads of four classes have few channels.
    assert sum(hasattr(module, "transformed") for module in fast.modules()) == 11
    assert not hasattr(optimize(model, compile=False, freeze=False).backbone.features[12], "transformed")
    batch = model.prepare(IMAGES[:2])
    seen = []
    fast.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found, expected = fast.forward_raw(batch), model.forward_raw(batch)
    assert seen == [1, 1], "one image after another"
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-4 * value.std().item())


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(ConvNormAct(3, 128, 3, stride=2), nn.Conv2d(128, 256, 3, padding=1))
        self.second = ConvNormAct(256, 8, 3, stride=2)

    def forward(self, batch):
        first = self.first(batch)
        return [first, self.second(first)]


def tiny(size=(48, 48)):
    torch.manual_seed(0)
    default_boxes = ssd_zoo.DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9])
    return ssd_zoo.SSD(Tiny(), default_boxes, size, ["background", "cat"]).eval()


# Old inductors warn while they compile.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled():
    model = tiny()
    fast = optimize(model)
    with torch.no_grad():
        expected = model(IMAGES)
    found, graphs = run_and_get_code(fast, IMAGES)
    assert_same_detections(found, expected)
    assert_same_detections(fast(IMAGES[:1]), expected[:1])
    code = "\n".join(graphs)
    assert "ssd_zoo.conv2d" in code
    assert "frozen_param" in code, "weights are constants"
    larger = tiny((64, 48))
    with torch.no_grad():
        expected = larger(IMAGES)
    found, graphs = run_and_get_code(optimize(larger), IMAGES)
    assert_same_detections(found, expected)
    assert "64, 48" in "\n".join(graphs), "sizes are constants too"


def test_half_precision():
    model = build("ssdlite320_mobilenet_v3_large", size=96)
    fast = optimize(model, compile=False, dtype=torch.bfloat16)
    assert fast.head.cls_logits[0][1].weight.dtype == torch.bfloat16
    assert fast.default_boxes.dtype == torch.float32
    assert fast.detection_change.box_shift > 0.001
    [found] = fast(IMAGES[:1])
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


def test_what_differs_is_counted():
    class Fixed(nn.Module):
        def __init__(self, boxes, labels, scores):
            super().__init__()
            found = {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}
            self.found = [found]

        def forward(self, images):
            return self.found

    before = Fixed([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]], [1, 2, 1], [0.9, 0.5, 0.4]).eval()
    after = Fixed([[0.0, 1.5, 10, 10], [50, 50, 60, 60]], [1, 1], [0.7, 0.5]).eval()
    change = compare_detections(before, after, IMAGES[:1])
    assert (change.matched, change.lost, change.gained, change.box_shift) == (1, 2, 1, 1.5)
    assert change.score_change == pytest.approx(0.2)
    assert str(change).startswith("1 detections matched, 2 lost, 1 gained; boxes moved by up to 1.5 px")
    change = compare_detections(before, after, IMAGES[:1], score_thresh=0.6)
    assert (change.matched, change.lost, change.gained) == (1, 0, 0)
    after.score_thresh = 0.6  # as of a file with post-processing
    assert compare_detections(before, after, IMAGES[:1]) == compare_detections(after, before, IMAGES[:1]) == change
    assert str(compare_detections(before, after, IMAGES[:1], score_thresh=0.95)) == "no detections to compare"


def test_norms_whose_convolution_has_another_use_stay():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.twice = nn.Conv2d(4, 4, 1)
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))

        def forward_raw(self, batch):
            features = self.conv(batch)
            first = features + self.norm(features)
            return [norm(self.twice(first)) for norm in self.norms]

    assert fuse_norms(Branches().eval(), torch.rand(1, 3, 4, 4)) == 0


def test_refuses_what_cannot_be():
    model = build("ssdlite320_mobilenet_v3_large", size=96)
    with pytest.raises(ValueError, match="dtype must be a floating-point type"):
        optimize(model, dtype=torch.int8)
    with pytest.raises(ValueError, match="one of .*'reduce-overhead'.*, got 'reduce_overhead'"):
        optimize(model, compile="reduce_overhead")
    with pytest.raises(ValueError, match=r"pass a list of images: model\(\[image\]\)"):
        compare_detections(model, model, IMAGES[0])
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        optimize(model.train())
    with pytest.raises(ValueError, match="Only models in evaluation mode"):
        compare_detections(model, model, IMAGES)


@pytest.mark.slow
def test_many_models_compile(monkeypatch):
    # What is compiled does not matter here, but how often.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    image = torch.rand(3, 64, 64)
    for seed in range(5):
        torch.manual_seed(seed)
        model = ssd_zoo.ssdlite320_ultraface_slim(size=64, score_thresh=0.5).eval()
        fast = optimize(model)
        for images in ([image], [image, image]):
            with torch.no_grad():
                expected = model(images)
            assert_same_detections(fast(images), expected)


def test_lengths_of_channels_are_the_same_in_half_precision():
    norm = L2Norm(512, 20.0)
    features = torch.zeros(1, 512, 1, 2)
    features[..., 1] = 4000
    expected = norm(features)
    with torch.no_grad():
        torch.testing.assert_close(norm.half()(features.half()).float(), expected, rtol=1e-3, atol=0)


def halve_at_random(module):
    prune.random_unstructured(module, "weight", amount=0.5)


@pytest.mark.parametrize(
    "change",
    [
        halve_at_random,
        parametrizations.weight_norm,
        lambda module: module.register_forward_hook(lambda _module, _args, output: 2 * output),
        lambda module: setattr(module, "forward", lambda batch, before=module.forward: before(batch) + 1),
    ],
    ids=["pruned", "parametrised", "hook", "forward"],
)
def test_layers_that_users_changed_stay(change):
    model = build("ssdlite300_mobilenet_v2", size=96)
    for name in ("backbone.stem.conv", "backbone.blocks.3.depthwise.conv", "head.cls_logits.0.1"):
        change(model.get_submodule(name))
    assert_same_detections(optimize(model, compile=False)(IMAGES), model(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda conv: conv.register_forward_hook(lambda _module, _args, output: 2 * output),
        halve_at_random,
        lambda conv: conv.weight.mul_(2),
        lambda conv: conv.load_state_dict({name: 2 * value for name, value in conv.state_dict().items()}),
        lambda conv: setattr(conv, "weight", nn.Parameter(2 * conv.weight, requires_grad=False)),
    ],
    ids=["hook", "pruned", "in place", "state", "another weight"],
)
@pytest.mark.parametrize("copied", [False, True])
def test_kept_kernels_are_left_when_their_layer_changes(change, copied):
    torch.manual_seed(0)
    batch = torch.randn(2, 80, 32, 32)
    kept = _KeptKernel(FastConv2d(80, 80, 3, padding=1).requires_grad_(False), in_graphs=False)
    before = kept(batch)
    assert not torch.equal(before, F.conv2d(batch, kept.conv.weight, kept.conv.bias, padding=1)), "it is Winograd's"
    if copied:
        kept = copy.deepcopy(kept)
    assert torch.equal(kept(batch), before)
    change(kept.conv)
    expected = copy.deepcopy(kept.conv).double()(batch.double())
    for one in (kept, copy.deepcopy(kept)):
        torch.testing.assert_close(one(batch).double(), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(one(batch), before, atol=1e-2)


@pytest.fixture
def maps_are_large(monkeypatch):
    """As those of VGG are, whose images are computed one after another."""
    monkeypatch.setattr(sys.modules[optimize.__module__], "_LARGE_MAP", 0)


@pytest.mark.usefixtures("maps_are_large")
def test_a_deep_copy_has_layers_of_its_own():
    model = tiny()
    fast = optimize(model, compile=False)
    assert sum(hasattr(module, "transformed") for module in fast.modules()) == 1
    batch = model.prepare(IMAGES[:2])
    expected = fast.forward_raw(batch)
    other = copy.deepcopy(copy.deepcopy(fast))
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not other.forward_raw(batch)["cls_logits"].any()
    for key, value in fast.forward_raw(batch).items():
        assert torch.equal(value, expected[key])
    seen = []
    other.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    other.forward_raw(batch)
    assert seen == [1, 1]
    assert copy.deepcopy(fast).to(torch.bfloat16).forward_raw(batch.bfloat16())["cls_logits"].isfinite().all()


@pytest.mark.usefixtures("maps_are_large")
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_optimized_model_is_pickled_and_follows_its_settings(compile):
    model = tiny()
    again = pickle.loads(pickle.dumps(optimize(model, compile=compile)))
    assert "forward_raw" in vars(again)
    for score_function in ("softmax", "sigmoid"):
        model.score_function = again.score_function = score_function
        [expected], [found] = model(IMAGES[:1]), again(IMAGES[:1])
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-3)

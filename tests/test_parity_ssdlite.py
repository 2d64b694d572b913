"""`ssdlite320_mobilenet_v3_large` with torchvision's weights is torchvision's, with either tail."""

import copy

import pytest
import torch
import torchvision
from compare import assert_same_detections
from oracles import fill, stand_in_for_downloads
from torch.utils.flop_counter import FlopCounterMode

import ssd_zoo
from ssd_zoo.weights.converters import torchvision as from_torchvision

IMAGES = [
    torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(0)),
    torch.rand(3, 200, 333, generator=torch.Generator().manual_seed(1)),
]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 20, 200, 290], [50, 60, 140, 170]]), "labels": torch.tensor([3, 5])},
    {"boxes": torch.tensor([[100.0, 20, 320, 190]]), "labels": torch.tensor([20])},
]
TAILS = {True: {"weights": "COCO_V1"}, False: {"weights_backbone": "IMAGENET1K_V1"}}


def filled(model):
    kinds = {name: ([*t.shape], str(t.dtype).removeprefix("torch.")) for name, t in model.state_dict().items()}
    return {name: torch.from_numpy(fill(name, *kind)) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def files():
    """What torch.hub would download: the detector, with the reduced tail, and the classifier."""
    detector = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None)
    return {"ssdlite320": filled(detector), "mobilenet": filled(torchvision.models.mobilenet_v3_large())}


@pytest.fixture(scope="module", autouse=True)
def _downloads(files):
    def read(url, *args, **kwargs):
        file = files["ssdlite320" if "ssdlite320" in url else "mobilenet"]
        return {name: tensor.to(torch.empty(0).device) for name, tensor in file.items()}

    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_downloads(patch, read)
        patch.setattr("torchvision.models._api.load_state_dict_from_url", read)
        yield


def build_theirs(*, reduced_tail, **kwargs):
    return torchvision.models.detection.ssdlite320_mobilenet_v3_large(**TAILS[reduced_tail], **kwargs)


def build_ours(*, reduced_tail, **kwargs):
    return ssd_zoo.ssdlite320_mobilenet_v3_large(reduced_tail=reduced_tail, **TAILS[reduced_tail], **kwargs)


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["reduced", "whole"])
def pair(request):
    theirs = build_theirs(reduced_tail=request.param)
    theirs.load_state_dict(filled(theirs))
    ours = build_ours(reduced_tail=request.param)
    ours.load_state_dict(from_torchvision.ORIGIN.convert(theirs.state_dict()))
    return ours, theirs


def test_parameters(pair):
    ours, theirs = pair
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert count == sum(parameter.numel() for parameter in theirs.parameters())
    assert count == (3440060 if len(ours.backbone.blocks[-1].project.norm.bias) == 80 else 5198540)


@torch.no_grad()
def test_default_boxes_and_raw_output(pair):
    ours, theirs = (model.eval() for model in pair)
    images, _ = theirs.transform(IMAGES)
    torch.testing.assert_close(ours.prepare(IMAGES), images.tensors, rtol=1e-5, atol=1e-5)
    features = list(theirs.backbone(images.tensors).values())
    assert len(ours.default_boxes) == 3234
    assert torch.equal(ours.default_boxes, theirs.anchor_generator(images, features)[0])
    expected = theirs.head(features)
    actual = ours.forward_raw(images.tensors)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        # float32 through 60 layers: either is as far from what float64 gives.
        torch.testing.assert_close(actual[key], value, rtol=0, atol=5e-5 * value.std().item())


@torch.no_grad()
def test_detections(pair):
    ours, theirs = (model.eval() for model in pair)
    assert_same_detections(ours(IMAGES), theirs(IMAGES))


@torch.no_grad()
def test_losses_and_statistics(pair):
    # In float64: norms over maps of few cells would enlarge what rounding does.
    ours, theirs = (copy.deepcopy(model).train().double() for model in pair)
    images = [image.double() for image in IMAGES]
    losses = ours(images, TARGETS)
    for key, value in theirs(images, TARGETS).items():
        torch.testing.assert_close(losses[key], value, rtol=1e-5, atol=0)
    statistics = from_torchvision.ORIGIN.convert(theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, statistics[name], rtol=1e-4, atol=1e-5)


def test_gradients(pair):
    # Activations enlarge in the gradients what rounding did before: in float64 it did little.
    ours, theirs = (copy.deepcopy(model).double().train() for model in pair)
    for model in (ours, theirs):
        # Norms over maps of few cells would enlarge it too.
        for module in model.modules():
            module.train(not isinstance(module, torch.nn.BatchNorm2d))
        sum(model([image.double() for image in IMAGES], TARGETS).values()).backward()
    gradients = from_torchvision.ORIGIN.convert({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("reduced_tail", [True, False])
@pytest.mark.parametrize("layers", [None, *range(7)])
def test_trainable_layers(layers, reduced_tail):
    with torch.device("meta"):
        ours = build_ours(reduced_tail=reduced_tail, trainable_backbone_layers=layers)
        theirs = build_theirs(reduced_tail=reduced_tail, trainable_backbone_layers=layers)
    trainable = {name: torch.tensor(p.requires_grad) for name, p in theirs.named_parameters()}
    expected = {name: bool(flag) for name, flag in from_torchvision.ORIGIN.convert(trainable).items()}
    assert {name: p.requires_grad for name, p in ours.named_parameters()} == expected


@pytest.mark.parametrize("reduced_tail", [True, False])
def test_weights(reduced_tail):
    ours = build_ours(reduced_tail=reduced_tail)
    state = from_torchvision.ORIGIN.convert(build_theirs(reduced_tail=reduced_tail).state_dict())
    loaded = ours.state_dict()
    for name, what in ssd_zoo.load_report(ours).tensors.items():
        assert what == ("loaded" if reduced_tail or not name.startswith(("head.", "backbone.extras.")) else "new")
        assert what == "new" or torch.equal(loaded[name], state[name])


def test_backbone_weights_leave_a_reduced_tail_new():
    model = ssd_zoo.ssdlite320_mobilenet_v3_large(num_classes=3, weights_backbone="IMAGENET1K_V2")
    tensors = ssd_zoo.load_report(model).tensors
    new = {".".join(name.split(".")[:3]) for name, what in tensors.items() if what == "new" and "backbone" in name}
    assert {name for name in new if "extras" not in name} == {
        *("backbone.blocks.12", "backbone.blocks.13", "backbone.blocks.14", "backbone.last.conv", "backbone.last.norm")
    }
    assert tensors["backbone.blocks.12.squeeze.fc2.bias"] == "loaded"
    with pytest.raises(ValueError, match=r"trainable_backbone_layers=1 would freeze the reduced tail.*at least 2"):
        ssd_zoo.ssdlite320_mobilenet_v3_large(trainable_backbone_layers=1)


def test_detector_weights_are_of_the_reduced_tail():
    with pytest.raises(ValueError, match="COCO_V1 is of the reduced tail: leave out reduced_tail=False"):
        ssd_zoo.ssdlite320_mobilenet_v3_large(weights="COCO_V1", reduced_tail=False)


def test_macs():
    with torch.device("meta"):
        model = ssd_zoo.ssdlite320_mobilenet_v3_large(weights_backbone=None).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_raw(torch.empty(1, 3, 320, 320, device="meta"))
    # torchvision's meta says 0.583.
    assert counter.get_total_flops() / 2e9 == pytest.approx(0.583, abs=5e-4)


def test_trains_on_a_single_image():
    model = ssd_zoo.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=6)
    sum(model(IMAGES[:1], TARGETS[:1]).values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

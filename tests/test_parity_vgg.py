"""`ssd300_vgg16d` with the weights of torchvision's `ssd300_vgg16` is torchvision's `ssd300_vgg16`."""

import copy

import pytest
import torch
import torchvision
from compare import assert_same_detections
from oracles import stand_in_for_downloads
from torchvision.models.detection.ssd import _vgg_extractor

import ssd_zoo
from ssd_zoo.weights.converters import torchvision as from_torchvision

IMAGES = [
    torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0)),
    torch.rand(3, 200, 333, generator=torch.Generator().manual_seed(1)),
]
TARGETS = [{"boxes": torch.tensor([[10.0, 20, 200, 290], [50, 60, 70, 80]]), "labels": torch.tensor([3, 5])}]


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    theirs = torchvision.models.detection.ssd300_vgg16(weights_backbone=None, num_classes=21)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            # Biases of zero would hide that they are mixed up.
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
        theirs.backbone.scale_weight.uniform_(10, 30)
        # Pixels up to 255 through random kernels would saturate the scores, and equal scores have no order.
        theirs.backbone.features[0].weight /= 100
    ours = ssd_zoo.ssd300_vgg16d(weights_backbone=None, num_classes=21)
    ours.load_state_dict(from_torchvision.ORIGIN.convert(theirs.state_dict()))
    return ours, theirs


def test_parameters(pair):
    ours, theirs = pair
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_default_boxes_and_raw_output(pair):
    ours, theirs = (model.eval() for model in pair)
    images, _ = theirs.transform(IMAGES)
    batch = ours.prepare(IMAGES)
    torch.testing.assert_close(batch, images.tensors, rtol=1e-5, atol=1e-3)
    features = list(theirs.backbone(images.tensors).values())
    assert len(ours.default_boxes) == 8732
    assert torch.equal(ours.default_boxes, theirs.anchor_generator(images, features)[0])
    expected = theirs.head(features)
    actual = ours.forward_raw(images.tensors)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_detections(pair):
    ours, theirs = (model.eval() for model in pair)
    assert_same_detections(ours(IMAGES), theirs(IMAGES))


@pytest.mark.slow
def test_losses_and_gradients(pair):
    # ReLUs and pools make large in the gradients what rounding did before: in float64, without resizing, it did little.
    ours, theirs = (copy.deepcopy(model).double().train() for model in pair)
    for name in ("image_mean", "image_std"):
        setattr(theirs.transform, name, getattr(ours, name).flatten().tolist())
    # One image: sums over several are the same for all models, see test_parity_ssdlite.py.
    images = [IMAGES[0].double()]
    losses, expected = ours(images, TARGETS), theirs(images, TARGETS)
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-5, atol=1e-5)
    for model, values in ((ours, losses), (theirs, expected)):
        model.zero_grad()
        sum(values.values()).backward()
    gradients = from_torchvision.ORIGIN.convert({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("layers", range(6))
def test_trainable_layers(layers):
    with torch.device("meta"):
        ours = ssd_zoo.ssd300_vgg16d(weights_backbone=None)
        theirs = torchvision.models.detection.ssd300_vgg16(weights_backbone=None)
        theirs.backbone = _vgg_extractor(torchvision.models.vgg16(weights=None), False, layers)
    ours.backbone.freeze(layers)
    trainable = {name: torch.tensor(p.requires_grad) for name, p in theirs.named_parameters()}
    expected = {name: bool(flag) for name, flag in from_torchvision.ORIGIN.convert(trainable).items()}
    assert {name: p.requires_grad for name, p in ours.named_parameters()} == expected


@pytest.fixture
def backbone_file(monkeypatch):
    """What stands for torchvision's file: VGG-16 but for the classifier's shapes."""
    with torch.device("meta"):
        vgg = torchvision.models.vgg16(weights=None)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape if name.startswith("features") else (1,), generator=generator)
        for name, tensor in vgg.state_dict().items()
    }
    stand_in_for_downloads(monkeypatch, lambda url: state)
    return state


def test_backbone_weights(backbone_file):
    model = ssd_zoo.ssd300_vgg16d(num_classes=3, weights_backbone="IMAGENET1K_FEATURES")
    for name, tensor in backbone_file.items():
        if name.startswith("features"):
            assert torch.equal(model.backbone.state_dict()[name], tensor)
    # Pretrained, four of the five stages train, as in torchvision.
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"backbone.features.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    report = ssd_zoo.load_report(model)
    assert report.tensors["backbone.features.28.weight"] == "loaded"
    assert report.tensors["backbone.features.31.weight"] == report.tensors["head.cls_logits.0.weight"] == "new"


def test_backbone_weights_for_other_channels(backbone_file):
    first = backbone_file["features.0.weight"]
    grey = ssd_zoo.ssd300_vgg16d(num_classes=3, weights_backbone="IMAGENET1K_FEATURES", in_chans=1)
    torch.testing.assert_close(grey.backbone.features[0].weight, first.sum(1, keepdim=True))
    # An image whose channels are all alike gives what it gave in RGB.
    four = ssd_zoo.ssd300_vgg16d(num_classes=3, weights_backbone="IMAGENET1K_FEATURES", in_chans=4)
    torch.testing.assert_close(four.backbone.features[0].weight.sum(1), first[:, [0, 1, 2, 0]].sum(1) * 3 / 4)
    assert ssd_zoo.load_report(four).tensors["backbone.features.0.weight"] == "adapted to channels"


def test_a_file_of_another_model_is_refused(backbone_file):
    del backbone_file["features.5.weight"]
    with pytest.raises(ValueError, match=r"does not fit this model: 1 tensors .* backbone.features.5.weight"):
        ssd_zoo.ssd300_vgg16d(num_classes=3, weights_backbone="IMAGENET1K_FEATURES")


def test_trainable_layers_need_pretrained_weights():
    with pytest.warns(UserWarning, match="trainable_backbone_layers=2 has no effect"), torch.device("meta"):
        model = ssd_zoo.ssd300_vgg16d(weights_backbone=None, trainable_backbone_layers=2)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="between 0 and 5, got 6"):
        ssd_zoo.ssd300_vgg16d(weights_backbone=None, trainable_backbone_layers=6)


def test_torchvisions_file_with_other_classes(monkeypatch):
    theirs = torchvision.models.detection.ssd300_vgg16(weights_backbone=None)
    stand_in_for_downloads(monkeypatch, lambda url: theirs.state_dict())
    categories = ["background", "person", "dog", "robot"]
    model = ssd_zoo.get_model("ssd300_vgg16d", weights="COCO_V1", categories=categories)
    report = ssd_zoo.load_report(model)
    assert report.classes == ("background", "person", "dog")
    assert not report.unused
    copied = [name for name, what in report.tensors.items() if what == "copied by class name"]
    assert copied == [f"head.cls_logits.{i}.{kind}" for i in range(6) for kind in ("weight", "bias")]
    assert {what for name, what in report.tensors.items() if name not in copied} == {"loaded"}
    # COCO's ids: person 1, dog 18.
    for ours, conv in zip(model.head.cls_logits, theirs.head.classification_head.module_list, strict=True):
        rows, known = ours.weight.unflatten(0, (-1, 4)), conv.weight.unflatten(0, (-1, 91))
        assert torch.equal(rows[:, :3], known[:, [0, 1, 18]])
        assert (ours.bias.unflatten(0, (-1, 4))[:, 3] == 0).all()
    whole = ssd_zoo.get_model("ssd300_vgg16d", weights="COCO_V1")
    assert set(ssd_zoo.load_report(whole).tensors.values()) == {"loaded"}

"""SSD300 on ResNet against NVIDIA's, and backbone weights from torchvision."""

import pytest
import torch
import torchvision
from oracles import load_oracle, stand_in_for_downloads
from torchvision.ops import FrozenBatchNorm2d

import ssd_zoo
from ssd_zoo.backbones.resnet import ResNetConv4
from ssd_zoo.weights.converters import nvidia
from ssd_zoo.weights.key_tables import unwrap


@pytest.fixture(scope="module")
def oracle(test_data):
    return load_oracle(test_data, "nvidia_ssd300_resnet50")


@pytest.fixture(scope="module")
def model(oracle):
    return ssd_zoo.load_checkpoint(oracle.state)


def test_detections(oracle, model):
    with torch.inference_mode():
        [found] = model([oracle.image])
    assert len(found["scores"]) == oracle.facts["detections"]["total"]


def test_number_of_parameters(oracle, model):
    assert sum(parameter.numel() for parameter in model.parameters()) == oracle.facts["num_params"]


@pytest.mark.parametrize("depth", [18, 34, 101])
def test_other_depths_convert_by_the_same_table(depth):
    with torch.device("meta"):
        model = ssd_zoo.get_model(f"ssd300_resnet{depth}", weights_backbone=None, num_classes=81)
        classifier = torchvision.models.get_model(f"resnet{depth}")
    children = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6}
    state = {}
    for name, tensor in classifier.state_dict().items():
        child, _, rest = name.partition(".")
        if child in children:
            state[f"feature_extractor.feature_extractor.{children[child]}.{rest}"] = tensor
    for name, tensor in model.state_dict().items():
        name = name.replace("backbone.extras.", "additional_blocks.").replace("head.cls_logits", "conf")
        if not name.startswith("backbone."):
            state[name.replace("head.bbox_regression", "loc")] = tensor
    converted = nvidia.ORIGIN.convert(state)
    ours = model.state_dict()
    assert converted.keys() == ours.keys()
    assert all(converted[name].shape == tensor.shape for name, tensor in ours.items())
    assert len(model.default_boxes) == 8732


def test_heads_are_reordered_from_column_first_to_shape_first():
    # Two boxes; rows are numbered class · 10 + box and coordinate · 10 + box, as NVIDIA counts them.
    state = {
        "conf.0.bias": torch.tensor([0, 1, 10, 11, 20, 21]),
        "loc.0.bias": torch.tensor([0, 1, 10, 11, 20, 21, 30, 31]),
    }
    converted = nvidia.ORIGIN.convert(state)
    assert converted["head.cls_logits.0.bias"].tolist() == [0, 10, 20, 1, 11, 21]
    assert converted["head.bbox_regression.0.bias"].tolist() == [0, 10, 20, 30, 1, 11, 21, 31]


def test_training_checkpoints_are_unwrapped():
    tensor = torch.zeros(1)
    for checkpoint in (
        {"model": {"module.conf.0.bias": tensor}, "epoch": 3, "optimizer": {"state": {}}},
        {"state_dict": {"conf.0.bias": tensor}, "meta": {"CLASSES": ("person",)}},
        {"conf.0.bias": tensor},
    ):
        assert list(unwrap(checkpoint)) == ["conf.0.bias"]


@pytest.fixture
def classifier(monkeypatch):
    """A ResNet-18 of torchvision's, which stands for any weights that would be downloaded."""
    torch.manual_seed(0)
    classifier = torchvision.models.resnet18()
    stand_in_for_downloads(monkeypatch, lambda url: classifier.state_dict())
    return classifier.eval()


def test_backbone_is_torchvisions_at_stride_8(classifier):
    model = ssd_zoo.ssd300_resnet18(num_classes=2).eval()
    for conv in (classifier.layer3[0].conv1, classifier.layer3[0].downsample[0]):
        conv.stride = (1, 1)
    batch = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        features = classifier.maxpool(classifier.relu(classifier.bn1(classifier.conv1(batch))))
        expected = classifier.layer3(classifier.layer2(classifier.layer1(features)))
        ours = model.backbone.layer3(
            model.backbone.layer2(
                model.backbone.layer1(
                    model.backbone.maxpool(model.backbone.relu(model.backbone.bn1(model.backbone.conv1(batch))))
                )
            )
        )
    assert torch.equal(ours, expected)
    assert ours.shape == (1, 256, 8, 12)
    report = ssd_zoo.load_report(model)
    assert {name.split(".")[1] for name, what in report.tensors.items() if what == "new"} >= {"extras"}
    assert all(name.startswith("backbone.layer4.") for name in report.unused)


def test_other_norms_take_what_they_can_of_pretrained_ones(classifier):
    frozen = ssd_zoo.ssd300_resnet18(num_classes=2, norm_layer=FrozenBatchNorm2d)
    assert torch.equal(frozen.backbone.bn1.running_var, classifier.bn1.running_var)
    groups = ssd_zoo.ssd300_resnet18(num_classes=2, norm_layer=lambda channels: torch.nn.GroupNorm(8, channels))
    assert torch.equal(groups.backbone.conv1.weight, classifier.conv1.weight)


@pytest.mark.parametrize(
    ("trainable", "frozen"),
    [(4, set()), (2, {"conv1", "bn1", "layer1"}), (0, {"conv1", "bn1", "layer1", "layer2", "layer3"})],
)
def test_freezes_from_the_front(trainable, frozen):
    backbone = ResNetConv4(18, extras=[(8, 8, 2, 1)])
    backbone.freeze(trainable)
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if not p.requires_grad} == frozen


def test_unknown_depth():
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, 101, got 20"):
        ResNetConv4(20, extras=[])

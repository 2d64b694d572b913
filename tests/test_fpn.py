"""SSD on a feature pyramid: levels, default boxes, what is shared, parameters counted by hand."""

import json
import re

import pytest
import torch
import torchvision
from configs import write_config
from torchvision.models.feature_extraction import create_feature_extractor

import ssd_zoo
from ssd_zoo.backbones.fpn import FeaturePyramid, MobileNetV2FPN, ResNet50FPN
from ssd_zoo.detector.feature_maps import feature_map_shapes
from ssd_zoo.detector.shared_head import SeparableConv2d, SharedHead
from ssd_zoo.layers.basic import MaxPool2dSame
from ssd_zoo.models.loading import fit_state
from ssd_zoo.weights.converters import torchvision as converter

NAMES = ["ssd640_resnet50_fpn", "ssdlite320_mobilenet_v2_fpn", "ssdlite640_mobilenet_v2_fpn"]


def build(name, **kwargs):
    torch.manual_seed(0)
    return ssd_zoo.get_model(name, weights_backbone=None, **kwargs)


@pytest.mark.parametrize(
    ("name", "sides", "channels", "num_params"),
    [
        # Backbone, projections, four 3 × 3 layers, two towers (convolutions, norms of 5 maps), classes, boxes.
        (
            "ssd640_resnet50_fpn",
            [80, 40, 20, 10, 5],
            256,
            (25557032 - 2049000)
            + (512 + 1024 + 2048) * 256
            + 3 * 256
            + 4 * (9 * 256 * 256 + 2 * 256)
            + 2 * (4 * 9 * 256 * 256 + 5 * 4 * 2 * 256)
            + (9 * 256 + 1) * 6 * 91
            + (9 * 256 + 1) * 6 * 4,
        ),
        # The same with one tower, and 9 * 128 + 128 * 128 weights where there were 9 * 256 * 256.
        *(
            (
                f"ssdlite{side}_mobilenet_v2_fpn",
                sides,
                128,
                2223872
                + (32 + 96 + 1280) * 128
                + 3 * 128
                + 4 * (9 * 128 + 128 * 128 + 2 * 128)
                + 4 * (9 * 128 + 128 * 128)
                + 5 * 4 * 2 * 128
                + (9 * 128 + (128 + 1) * 6 * 91)
                + (9 * 128 + (128 + 1) * 6 * 4),
            )
            for side, sides in ((320, [40, 20, 10, 5, 3]), (640, [80, 40, 20, 10, 5]))
        ),
    ],
)
def test_levels_and_parameters(name, sides, channels, num_params):
    with torch.device("meta"):
        model = build(name)
    assert feature_map_shapes(model.backbone, model.size) == [(channels, side, side) for side in sides]
    assert len(model.default_boxes) == 6 * sum(side**2 for side in sides)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_params


def test_default_boxes_by_hand():
    with torch.device("meta"):
        boxes = build("ssdlite640_mobilenet_v2_fpn").default_boxes
        smaller = build("ssdlite640_mobilenet_v2_fpn", size=(256, 384)).default_boxes
    # Level 3, stride 8: squares of 32 and 32√2 pixels about (4, 4), then twice as wide as high, then twice as high.
    a, b, c = 32.0, 32 * 2**0.5, 32 / 2**0.5
    sizes = torch.tensor([[a, a], [b, b], [b, c], [64, a], [c, b], [a, 64]])
    expected = torch.cat([4 - sizes / 2, 4 + sizes / 2], dim=1)
    torch.testing.assert_close(boxes[:6], expected)
    torch.testing.assert_close(smaller[:6], expected)
    # Level 7, stride 128, the last cell.
    torch.testing.assert_close(boxes[-6], torch.tensor([576 - 256.0, 576 - 256, 576 + 256, 576 + 256]))


def test_centres_by_hand():
    # A level's stride is 2 to its power. Where it divides a side, the first centre lies half a stride from the edge.
    with torch.device("meta"):
        model = build("ssdlite320_mobilenet_v2_fpn", size=(320, 384))
    assert model.default_box_generator.steps == (8, 16, 32, 64, 128)
    assert model.default_box_generator.offsets == ((4, 4), (8, 8), (16, 16), (32, 32), (64, 0))
    centres = model.default_boxes[-54::6].unflatten(1, (2, 2)).mean(1)
    expected = torch.tensor([[x, y] for y in (0.0, 128, 256) for x in (64.0, 192, 320)])
    torch.testing.assert_close(centres, expected, rtol=0, atol=1e-4)


def test_another_size_has_its_own_centres(tmp_path):
    model = build("ssdlite320_mobilenet_v2_fpn", num_classes=2, size=128)
    folder = ssd_zoo.save_pretrained(model, tmp_path)
    assert ssd_zoo.from_pretrained(folder).default_box_generator == model.default_box_generator
    other = ssd_zoo.from_pretrained(folder, size=192).default_box_generator
    assert other.offsets[-1] == (0, 0)
    assert other.shapes == model.default_box_generator.shapes


def test_models_saved_before_offsets_keep_their_boxes(tmp_path):
    grid = {"steps": None, "offsets": None, "clip": "none"}
    boxes = ssd_zoo.DefaultBoxGenerator(shapes=[[(0.5, 0.5)] * 6] * 5, **grid)
    folder = ssd_zoo.save_pretrained(
        build("ssdlite320_mobilenet_v2_fpn", num_classes=2, size=64, default_boxes=boxes), tmp_path
    )
    config = json.loads((folder / "config.json").read_text())
    del config["default_boxes"]["offsets"]
    write_config(folder, json.dumps(config))
    assert ssd_zoo.from_pretrained(folder).default_box_generator == boxes


def test_convolutions_are_shared_and_norms_are_not():
    head = SharedHead([8, 8, 8], [6, 6, 6], 4, num_convs=2)
    names = [name for name, _ in head.cls_logits.named_parameters()]
    assert len([name for name in names if ".convs." in name]) == 2
    assert len([name for name in names if ".norms." in name]) == 3 * 2 * 2
    features = torch.rand(2, 8, 5, 5)
    with torch.no_grad():
        first, second, third = head.eval()([features] * 3)["cls_logits"].chunk(3, dim=1)
        assert torch.equal(first, second)
        head.cls_logits[0].tower.norms[1][0].weight.mul_(2)
        one, two, three = head([features] * 3)["cls_logits"].chunk(3, dim=1)
    assert torch.equal(one, first)
    assert not torch.equal(two, second)
    assert torch.equal(three, third)


def test_one_tower_serves_both():
    head = SharedHead([8, 8], [6, 6], 4, separable=True, one_tower=True)
    assert not [name for name, _ in head.cls_logits.named_parameters() if "tower" in name]
    assert len(head.tower.convs) == 4
    assert isinstance(head.cls_logits[0].conv, SeparableConv2d)


@torch.no_grad()
@pytest.mark.parametrize("one_tower", [True, False])
def test_own_towers_of_the_same_weights_are_a_shared_one(one_tower):
    shared = SharedHead([8, 8], [6, 6], 4, num_convs=2, separable=True, one_tower=one_tower).eval()
    own = SharedHead([8, 8], [6, 6], 4, num_convs=2, separable=True, one_tower=one_tower, own_towers=True).eval()
    for name, tensor in own.state_dict().items():
        # tower.LEVEL.convs.… here, tower.convs.… there; tower.LEVEL.norms.0.… here, tower.norms.LEVEL.… there.
        name = re.sub(r"tower\.(\d)\.norms\.0\.", r"tower.norms.\1.", name)
        name = re.sub(r"tower\.\d\.convs\.", "tower.convs.", name)
        tensor.copy_(shared.state_dict()[name])
    maps = [torch.randn(2, 8, 5, 5), torch.randn(2, 8, 3, 3)]
    expected = shared(maps)
    assert all(torch.equal(value, expected[key]) for key, value in own(maps).items())
    tower = own.tower if one_tower else own.bbox_regression[0].tower
    tower[1].convs[0].pointwise.weight.mul_(2)
    changed = own(maps)["bbox_regression"]
    assert torch.equal(changed[:, :150], expected["bbox_regression"][:, :150])
    assert not torch.equal(changed[:, 150:], expected["bbox_regression"][:, 150:])


def test_classes_start_from_the_prior():
    scores = SharedHead([8, 8], [6, 6], 4)([torch.rand(1, 8, 6, 6), torch.rand(1, 8, 3, 3)])["cls_logits"].sigmoid()
    torch.testing.assert_close(scores, torch.full((1, 6 * 45, 4), 0.01), rtol=0.3, atol=0)


def test_a_shared_head_needs_like_maps():
    with pytest.raises(ValueError, match=r"equal numbers of channels on all maps, got \[8, 16\]"):
        SharedHead([8, 16], [6, 6], 4)
    with pytest.raises(ValueError, match=r"equal numbers of default boxes in a cell on all maps, got \[4, 6\]"):
        SharedHead([8, 8], [4, 6], 4)


def test_pyramid_by_hand():
    pyramid = FeaturePyramid([1, 1], 1, norm_layer=lambda channels: torch.nn.Identity()).eval()
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.zero_()
        for project in pyramid.projections:
            project.weight.fill_(1)
        for layer in (*pyramid.smoothings, *pyramid.coarser):
            layer.conv.weight[:, :, 1, 1] = 1
        fine = torch.tensor([[1.0, 2, 3], [0, 1, 0], [0, 0, 9]]).view(1, 1, 3, 3)
        coarse = torch.tensor([[1.0, 2], [3, 4]]).view(1, 1, 2, 2)
        maps = pyramid([fine, coarse])
    # Nearest on an odd side: cells 0 and 1 of three lie in the first of two. ReLU6 cuts 13 to 6. A coarser map of an
    # even side is padded at its end alone, so that the kernel's middle lies on the second row and column.
    assert maps[0].squeeze().tolist() == [[2, 3, 5], [1, 2, 2], [3, 3, 6]]
    assert maps[1].squeeze().tolist() == [[1, 2], [3, 4]]
    assert [features.squeeze().tolist() for features in maps[2:]] == [4, 4]


def test_max_pooling_by_hand():
    pool = MaxPool2dSame(3, stride=2)
    # Of an even side the windows start at the edge, and the last one goes over it by a cell; of an odd one both do.
    assert pool(torch.arange(-16.0, 0).view(1, 1, 4, 4)).squeeze().tolist() == [[-6, -5], [-2, -1]]
    assert pool(torch.arange(-9.0, 0).view(1, 1, 3, 3)).squeeze().tolist() == [[-5, -4], [-2, -1]]


@pytest.mark.parametrize("name", NAMES[:2])
def test_trains_on_one_small_image(name):
    model = build(name, num_classes=3, size=(64, 96))
    targets = [{"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([2])}]
    sum(model([torch.rand(3, 64, 96)], targets).values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", NAMES[:2])
def test_rows_of_known_classes_are_copied(name):
    model = build(name, categories=["background", "person", "dog", "robot"], size=64).eval()
    torch.manual_seed(1)
    other = ssd_zoo.get_model(name, weights_backbone=None, categories=["background", "dog", "cat"], size=64).eval()
    report = fit_state(other, model.state_dict(), model.categories, source="a file")
    assert report.classes == ("background", "dog")
    copied = {tensor for tensor, what in report.tensors.items() if what == "copied by class name"}
    last = "conv.pointwise" if "lite" in name else "conv"
    assert copied == {f"head.cls_logits.0.{last}.weight", f"head.cls_logits.0.{last}.bias"}
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        raw, of_other = model.forward_raw(batch), other.forward_raw(batch)
    torch.testing.assert_close(of_other["bbox_regression"], raw["bbox_regression"])
    torch.testing.assert_close(of_other["cls_logits"][..., :2], raw["cls_logits"][..., [0, 2]])


@pytest.mark.parametrize(
    ("backbone", "classifier", "taps"),
    [
        (ResNet50FPN, torchvision.models.resnet50, ["layer2", "layer3", "layer4"]),
        (MobileNetV2FPN, torchvision.models.mobilenet_v2, ["features.6", "features.13", "features.18"]),
    ],
)
def test_backbones_are_torchvisions(backbone, classifier, taps):
    torch.manual_seed(0)
    theirs = classifier(weights=None).eval()
    ours = backbone(8).eval()
    missing, unexpected = ours.load_state_dict(converter.ORIGIN.convert(theirs.state_dict()), strict=False)
    assert {name.partition(".")[0] for name in missing} == {"pyramid"}
    assert not unexpected
    # On odd sides "SAME" padding is torchvision's.
    batch = torch.rand(1, 3, 65, 65)
    given = []
    ours.pyramid.register_forward_pre_hook(lambda _, args: given.extend(args[0]))
    with torch.no_grad():
        ours(batch)
        expected = create_feature_extractor(theirs, taps)(batch)
    for features, tap in zip(given, taps, strict=True):
        torch.testing.assert_close(features, expected[tap])


@pytest.mark.parametrize("backbone", [ResNet50FPN, MobileNetV2FPN])
def test_freezes_by_stages(backbone):
    batch = torch.rand(2, 3, 64, 64)
    counts = []
    for trainable in range(6):
        with torch.device("meta"):
            network = backbone(8)
        network.freeze(trainable)
        frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
        counts.append(len(frozen))
        assert not any(name.startswith("pyramid") for name in frozen)
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == 0
    network.freeze(0)
    assert {name.partition(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"pyramid"}
    assert len(network(batch.to("meta"))) == 5

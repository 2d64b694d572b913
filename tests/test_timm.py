"""SSD and SSDLite on timm's models: convolutional ones of many families, transformers, maps in either layout."""

import copy
import sys

import pytest
import timm
import torch
from torch import nn

import ssd_zoo
from ssd_zoo.backbones.timm import find_timm_maps
from ssd_zoo.backbones.timm_backbone import TimmBackbone
from ssd_zoo.detector.feature_maps import feature_map_shapes

# Model, and the strides of its maps from 8 on.
FAMILIES = {
    "mobilenetv4_conv_small_050": (8, 16, 32),
    "efficientnet_lite0": (8, 16, 32),
    "resnet18": (8, 16, 32),
    "convnext_atto": (8, 16, 32),
    "repvgg_a0": (8, 16, 32),
    "hgnetv2_b0": (8, 16, 32),
    "fastvit_t8": (8, 16, 32),
    "ghostnetv2_100": (8, 16, 32),
    "mobileone_s0": (8, 16, 32),
    "swin_tiny_patch4_window7_224": (8, 16, 32),
    "vit_tiny_patch16_224": (16,),
    "xcit_nano_12_p8_224": (8,),
    "vit_small_patch32_224": (32,),
    "levit_128s": (16, 32, 64),
    "vgg11": (8, 16, 32),
    "darknet17": (8, 16, 32),
    "hrnet_w18_small": (8, 16, 32),
}
TARGETS = [{"boxes": torch.tensor([[10.0, 20, 60, 60]]), "labels": torch.tensor([1])}]


def build(builder, backbone, **kwargs):
    torch.manual_seed(0)
    return builder(backbone, weights_backbone=None, **{"num_classes": 3, **kwargs})


# ReXNet has norms behind a pooling to one cell, and HRNet parts that only its finer maps need.
@pytest.mark.parametrize("backbone", [*list(FAMILIES)[:11], "rexnet_100"])
def test_detects_and_trains(backbone):
    model = build(ssd_zoo.ssdlite_timm, backbone, size=(96, 128), in_chans=1, detections_per_img=5)
    image = torch.rand(1, 80, 100)
    sum(model([image], TARGETS).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert {name.split(".")[0] for name in trained} == {"backbone", "head"}
    with torch.no_grad():
        [found] = model.eval()([image])
        maps = model.backbone(model.prepare([image]))
    assert len(found["boxes"]) == 5
    assert [tuple(features.shape[1:]) for features in maps] == feature_map_shapes(model.backbone, model.size, 1)
    assert len(model.default_boxes) == 6 * sum(features[0, 0].numel() for features in maps)


@pytest.mark.parametrize(
    ("builder", "first", "backbone", "strides"),
    [
        *((ssd_zoo.ssd_timm, 8, *family) for family in FAMILIES.items()),
        *(
            (ssd_zoo.ssdlite_timm, 16, name, FAMILIES[name])
            for name in ("resnet18", "xcit_nano_12_p8_224", "levit_128s")
        ),
    ],
)
def test_maps_halve_from_the_backbones_to_one_cell(builder, first, backbone, strides):
    with torch.device("meta"):
        model = build(builder, backbone, size=(320, 448))
    sizes = [(height, width) for _, height, width in feature_map_shapes(model.backbone, model.size)]
    taken = [stride for stride in strides if stride >= first] or [strides[-1]]
    for (height, width), stride in zip(sizes, taken, strict=False):
        assert (height, width) == (320 // stride, 448 // stride)
    for (height, width), (next_height, next_width) in zip(sizes[len(taken) - 1 :], sizes[len(taken) :], strict=False):
        assert (next_height, next_width) == (-(-height // 2), -(-width // 2))
    assert sizes[-1][0] == 1
    assert len(model.default_boxes) == 6 * sum(height * width for height, width in sizes)


def test_scales():
    with torch.device("meta"):
        boxes = build(ssd_zoo.ssd_timm, "resnet18").default_boxes
        lite = build(ssd_zoo.ssdlite_timm, "resnet18").default_boxes
    # The first square of each map: 0.1, then from 0.2 to 0.9; 40 20 10 5 3 2 1 cells a side, six boxes on each.
    first = torch.tensor([side**2 for side in (40, 20, 10, 5, 3, 2)]).cumsum(0) * 6
    sides = (boxes[:, 2] - boxes[:, 0])[torch.cat([torch.tensor([0]), first])] / 320
    torch.testing.assert_close(sides, torch.tensor([0.1, 0.2, 0.34, 0.48, 0.62, 0.76, 0.9]))
    first = torch.tensor([side**2 for side in (20, 10, 5, 3, 2)]).cumsum(0) * 6
    sides = (lite[:, 2] - lite[:, 0])[torch.cat([torch.tensor([0]), first])] / 320
    torch.testing.assert_close(sides, torch.linspace(0.2, 0.95, 6))


def test_ssdlite_has_torchvisions_default_boxes():
    with torch.device("meta"):
        ours = build(ssd_zoo.ssdlite_timm, "mobilenetv3_large_100").default_boxes
    import torchvision
    from torchvision.models.detection.image_list import ImageList

    theirs = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    maps = [torch.zeros(1, 1, side, side) for side in (20, 10, 5, 3, 2, 1)]
    [expected] = theirs.anchor_generator(ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)]), maps)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("backbone", "size", "smallest"),
    [("resnet18", 8, "32 × 32"), ("resnet18", (320, 16), "320 × 32"), ("vit_tiny_patch16_224", 15, "16 × 16")],
)
def test_too_small_sizes_name_one_that_works(backbone, size, smallest):
    with pytest.raises(ValueError, match=f"one that works is {smallest}"):
        build(ssd_zoo.ssd_timm, backbone, size=size)
    height, width = (int(side) for side in smallest.split(" × "))
    with torch.device("meta"):
        assert build(ssd_zoo.ssd_timm, backbone, size=(height, width)).size == (height, width)


def test_sizes_that_do_not_fit_name_one_that_does():
    with pytest.raises(ValueError, match=r"size is 300 × 300 pixels, but timm's 'botnet26t_256'.* 320 × 320"):
        build(ssd_zoo.ssd_timm, "botnet26t_256", size=300)


def test_unknown_backbones_propose():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet8'. Did you mean .*resnet18"):
        ssd_zoo.ssd_timm("resnet8")
    with pytest.raises(ValueError, match=r"timm has no model 'qqqqqqqq'. timm.list_models\(\) lists all"):
        ssd_zoo.ssdlite_timm("qqqqqqqq")
    with pytest.raises(ValueError, match="timm has no weights 'a9' of resnet18; it has 'a1_in1k', "):
        ssd_zoo.ssd_timm("resnet18", weights_backbone="a9")
    with pytest.raises(ValueError, match="timm has no weights 'a9' of resnet18"):
        ssd_zoo.ssd_timm("resnet18.a9", weights_backbone=None)
    with pytest.raises(TypeError, match="must be the name of a timm model, got None"):
        ssd_zoo.ssd_timm(None)


def test_models_without_maps_say_why(register):
    def mapless_of_this_test(pretrained=False, **kwargs):
        raise NotImplementedError("no\nmaps")

    register(mapless_of_this_test)
    with pytest.raises(ValueError, match=r"_of_this_test' gives no feature maps: NotImplementedError: no maps$"):
        build(ssd_zoo.ssd_timm, "mapless_of_this_test")


def test_normalisation_is_timms():
    with torch.device("meta"):
        model = build(ssd_zoo.ssd_timm, "vit_tiny_patch16_224")
        four = build(ssd_zoo.ssd_timm, "resnet18", in_chans=4)
    assert model.image_mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(four.image_std.flatten(), torch.tensor([0.229, 0.224, 0.225, 0.229]))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_freezes_by_stages(backbone):
    with torch.device("meta"):
        maps = find_timm_maps(backbone, (64, 64), first_stride=16)
        counts = []
        for trainable in sorted({0, 1, 2, len(maps.stages) - 1, len(maps.stages)}):
            network = TimmBackbone(maps, [(8, 16)])
            network.freeze(trainable)
            frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
            assert all(name.startswith("net.") for name in frozen)
            counts.append(len(frozen))
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == 0
    assert counts[0] == sum(1 for _ in network.net.parameters())


def test_freezes_what_comes_before_a_stage():
    with torch.device("meta"):
        network = TimmBackbone(find_timm_maps("resnet18", (64, 64), first_stride=8), [])
    network.freeze(2)
    trained = {name.split(".")[1] for name, parameter in network.net.named_parameters("net") if parameter.requires_grad}
    assert trained == {"layer3", "layer4"}


@pytest.fixture
def register(monkeypatch):
    """Makes functions timm models, until the test ends."""
    for table in ("_module_to_models", "_model_to_module", "_model_entrypoints", "_model_default_cfgs"):
        monkeypatch.setattr(timm.models._registry, table, getattr(timm.models._registry, table).copy())
    module = sys.modules[__name__]

    def register(function):
        monkeypatch.setattr(module, "__all__", [function.__name__], raising=False)
        timm.models.register_model(function)

    return register


@pytest.fixture
def tiny(tmp_path, register):
    """A timm model whose pretrained weights lie in a file."""
    torch.manual_seed(7)
    net = timm.create_model("resnet10t")
    torch.save(net.state_dict(), tmp_path / "weights.pth")

    def tiny_of_this_test(pretrained=False, **kwargs):
        overlay = {"file": str(tmp_path / "weights.pth"), "mean": (0.1, 0.2, 0.3)}
        return timm.create_model("resnet10t", pretrained=pretrained, **{**kwargs, "pretrained_cfg_overlay": overlay})

    register(tiny_of_this_test)
    return net


def test_pretrained_weights_are_timms(tiny):
    model = ssd_zoo.ssd_timm("tiny_of_this_test", num_classes=3, size=64)
    assert torch.equal(model.backbone.net.layer4[0].conv1.weight, tiny.layer4[0].conv1.weight)
    torch.testing.assert_close(model.image_mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    report = ssd_zoo.load_report(model)
    assert report.tensors["backbone.net.layer4.0.conv1.weight"] == "loaded"
    assert report.tensors["backbone.extras.0.0.conv.weight"] == "new"
    assert {what for name, what in report.tensors.items() if name.startswith("head.")} == {"new"}
    grey = ssd_zoo.ssd_timm("tiny_of_this_test", num_classes=3, size=64, in_chans=1)
    torch.testing.assert_close(grey.backbone.net.conv1[0].weight, tiny.conv1[0].weight.sum(1, keepdim=True))
    fresh = ssd_zoo.ssd_timm("tiny_of_this_test", num_classes=3, size=64, weights_backbone=False)
    assert not torch.equal(fresh.backbone.net.layer4[0].conv1.weight, tiny.layer4[0].conv1.weight)
    with pytest.raises(ValueError, match="No builder loaded weights"):
        ssd_zoo.load_report(fresh)


def test_freezing_wants_pretrained_weights(tiny):
    with pytest.warns(UserWarning, match="no effect without pretrained weights"):
        build(ssd_zoo.ssd_timm, "tiny_of_this_test", size=64, trainable_backbone_layers=1)
    model = ssd_zoo.ssd_timm("tiny_of_this_test", size=64, trainable_backbone_layers=1)
    assert not model.backbone.net.layer3[0].conv1.weight.requires_grad
    assert model.backbone.net.layer4[0].conv1.weight.requires_grad
    with pytest.raises(ValueError, match="must lie between 0 and 5, got 9"):
        ssd_zoo.ssd_timm("tiny_of_this_test", size=64, trainable_backbone_layers=9)


def test_models_without_weights_say_so():
    with pytest.raises(
        ValueError, match="timm has no pretrained weights of 'cs3darknet_s'; pass weights_backbone=None"
    ):
        ssd_zoo.ssd_timm("cs3darknet_s")


def test_failed_downloads_say_the_way_out(register):
    def distant_of_this_test(pretrained=False, **kwargs):
        if pretrained:
            raise FileNotFoundError("No connection.")
        return timm.create_model("resnet10t", features_only=True, out_indices=kwargs.get("out_indices"))

    register(distant_of_this_test)
    with pytest.raises(ConnectionError, match=r"'distant_of_this_test': No connection. .* pass weights_backbone=None"):
        ssd_zoo.ssd_timm("distant_of_this_test", size=64)


def test_modules_in_two_places_stay_whole():
    # As in timm's CoaT, where torch's functional_call left such modules on the meta device.
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.stages = nn.Sequential(self.conv)
            self.tied = nn.Conv2d(3, 4, 3)
            self.tied.weight = self.conv.weight

        def forward(self, batch):
            return [self.stages(batch), self.tied(batch)]

    backbone = Twice()
    assert feature_map_shapes(backbone, (8, 8)) == [(4, 6, 6), (4, 6, 6)]
    assert {parameter.device.type for parameter in backbone.parameters()} == {"cpu"}
    assert backbone.tied.weight is backbone.stages[0].weight


def test_norm_layer_is_everywhere_new():
    with torch.device("meta"):
        model = build(ssd_zoo.ssdlite_timm, "convnext_atto", norm_layer=lambda channels: nn.GroupNorm(1, channels))
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_copies_and_compiles():
    model = build(ssd_zoo.ssd_timm, "vit_tiny_patch16_224", size=(64, 96)).eval()
    batch = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.forward_raw(batch)
        copied = copy.deepcopy(model).forward_raw(batch)
        compiled = torch.compile(model.forward_raw, fullgraph=True, backend="eager")(batch)
    for key, value in expected.items():
        assert torch.equal(copied[key], value)
        torch.testing.assert_close(compiled[key], value)

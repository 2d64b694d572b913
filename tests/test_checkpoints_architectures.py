"""Architectures of the origins that no oracle is there for: their names and shapes load, by the same tables.

Names and shapes are the originals'; where a network is written down here once more, it is for its numbers.
"""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from oracles import fill
from test_checkpoints import constant, message
from test_oracles_mobilenet import (
    conv,
    names_of_mobilenet_v1_qfgaohao,
    names_of_mobilenet_v3_lufficc,
    variables_of_mobilenet_v1,
    variables_of_mobilenet_v2,
)
from torch import nn

import ssd_zoo

VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
VGG |= {17: (256, 512), **dict.fromkeys((19, 21, 24, 26, 28), (512, 512))}
EXTRAS_512 = [(1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256), (256, 128, 256)]
# Sides in pixels of the first and the last map's smaller squares.
VOC512, COCO512, COCO300 = (35.84, 460.8), (20.48, 460.8), (21, 261)


def ssd512(vgg, norm_name, extra, cls, reg, classes):
    """Names and shapes of an SSD512, whose last extra layer has a 4 × 4 kernel."""
    shapes = {norm_name: (512,)}
    for i, (before, after) in VGG.items():
        shapes |= conv(f"{vgg}.{i}", after, before, 3, 3)
    shapes |= conv(f"{vgg}.31", 1024, 512, 3, 3) | conv(f"{vgg}.33", 1024, 1024, 1, 1)
    for i, (before, between, after) in enumerate(EXTRAS_512):
        side = 4 if i == 4 else 3
        shapes |= conv(extra(i, 0), between, before, 1, 1) | conv(extra(i, 1), after, between, side, side)
    maps = zip((512, 1024, 512, 256, 256, 256, 256), (4, 6, 6, 6, 6, 4, 4), strict=True)
    for i, (channels, boxes) in enumerate(maps):
        shapes |= conv(cls(i), boxes * classes, channels, 3, 3) | conv(reg(i), boxes * 4, channels, 3, 3)
    return shapes


def amdegroot512(classes):
    return ssd512(
        "vgg", "L2Norm.weight", lambda i, j: f"extras.{2 * i + j}", "conf.{}".format, "loc.{}".format, classes
    )


def lufficc512(classes):
    heads = ("box_head.predictor.cls_headers.{}".format, "box_head.predictor.reg_headers.{}".format)
    extra = "backbone.extras.{}".format
    return ssd512("backbone.vgg", "backbone.l2_norm.weight", lambda i, j: extra(2 * i + j), *heads, classes)


def mmdet512(classes):
    heads = ("bbox_head.cls_convs.{}.0".format, "bbox_head.reg_convs.{}.0".format)
    extra = "neck.extra_layers.{}.{}.conv".format
    return ssd512("backbone.features", "neck.l2_norm.weight", extra, *heads, classes)


def state_of(shapes):
    kinds = {name: "int64" if name.endswith("tracked") else "float32" for name in shapes}
    return {name: torch.from_numpy(fill(name, list(shape), kinds[name])) for name, shape in shapes.items()}


def zeros_of(shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("shapes", "origin", "classes", "sides", "clip"),
    [
        (amdegroot512, "amdegroot", 21, VOC512, "all"),
        (lufficc512, "lufficc", 81, COCO512, "all"),
        (lufficc512, "lufficc", 5, VOC512, "all"),
        # mmdet cuts sides to whole pixels.
        (mmdet512, "mmdet", 81, (20, 460), "none"),
        (mmdet512, "mmdet", 21, (35, 460), "none"),
    ],
)
def test_ssd512(shapes, origin, classes, sides, clip):
    model = ssd_zoo.load_checkpoint(zeros_of(shapes(classes)))
    assert model.recipe[0] == "ssd512_vgg16d"
    assert len(model.default_boxes) == 24564
    assert model.default_box_generator.clip == clip
    widths = model.default_boxes[:, 2] - model.default_boxes[:, 0]
    assert widths[0] == pytest.approx(sides[0], abs=1e-3)
    assert widths[-4] == pytest.approx(sides[1], abs=1e-3)
    names = {21: "tvmonitor", 81: "toothbrush", 5: "class 4"}
    assert model.categories[-1] == names[classes]
    assert model.detections_per_img == {"amdegroot": 200 * 20, "lufficc": 100, "mmdet": 200}[origin]


def test_mmdets_background_comes_first():
    state = zeros_of(mmdet512(3))
    # Two classes, then the background, for each of four boxes.
    state["bbox_head.cls_convs.0.0.bias"] = torch.arange(12.0)
    model = ssd_zoo.load_checkpoint(state)
    assert model.head.cls_logits[0].bias.tolist() == [2, 0, 1, 5, 3, 4, 8, 6, 7, 11, 9, 10]


def test_qfgaohaos_older_vgg16():
    # conv4_3 has an L2 norm there, whose weight is called scale.
    shapes = {"source_layer_add_ons.0.scale": (512,)}
    for i, (before, after) in VGG.items():
        shapes |= conv(f"base_net.{i}", after, before, 3, 3)
    shapes |= conv("base_net.31", 1024, 512, 3, 3) | conv("base_net.33", 1024, 1024, 1, 1)
    for i, (before, between, after) in enumerate(EXTRAS_512[:4]):
        shapes |= conv(f"extras.{i}.0", between, before, 1, 1) | conv(f"extras.{i}.2", after, between, 3, 3)
    maps = zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True)
    for i, (channels, boxes) in enumerate(maps):
        shapes |= conv(f"classification_headers.{i}", boxes * 21, channels, 3, 3)
        shapes |= conv(f"regression_headers.{i}", boxes * 4, channels, 3, 3)
    model = ssd_zoo.load_checkpoint(zeros_of(shapes))
    assert type(model.backbone.conv4_3_norm).__name__ == "L2Norm"
    assert model.default_boxes[0, 2] - model.default_boxes[0, 0] == pytest.approx(30)


@pytest.mark.parametrize(
    ("shapes", "builder", "classes"),
    [
        (names_of_mobilenet_v1_qfgaohao, "ssd300_mobilenet_v1_qfgaohao", 21),
        (names_of_mobilenet_v3_lufficc, "ssdlite320_mobilenet_v3_large_lufficc", 21),
        (variables_of_mobilenet_v1, "ssd300_mobilenet_v1", 91),
        (variables_of_mobilenet_v2, "ssd300_mobilenet_v2", 91),
    ],
)
def test_mobilenets(shapes, builder, classes):
    model = ssd_zoo.load_checkpoint(zeros_of(shapes()))
    assert model.recipe[0] == builder
    assert len(model.categories) == classes
    assert model.categories[1] == ("person" if classes == 91 else "aeroplane")


def frozen(theirs):
    """A frozen graph of variables, with settings that no builder has by default."""
    nms = "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/MultiClassNonMaxSuppression/non_max_suppression"
    constants = theirs | {
        "Preprocessor/mul/x": torch.tensor(0.01),
        "Preprocessor/sub/y": torch.tensor(0.5),
        "Preprocessor/map/while/ResizeImage/stack": torch.tensor([256, 320], dtype=torch.int32),
        f"{nms}/score_threshold": torch.tensor(0.125),
        f"{nms}/iou_threshold": torch.tensor(0.375),
        "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/PadOrClipBoxList/Select/t": torch.tensor(
            37, dtype=torch.int32
        ),
        "Postprocessor/Decode/truediv/y": torch.tensor(10.0),
        "Postprocessor/Decode/truediv_2/y": torch.tensor(5.0),
    }
    for i in range(6):
        count = 6 if i else 3
        constants[f"MultipleGridAnchorGenerator/truediv_{14 + i}/x"] = torch.full((count,), (i + 1) / 8)
        # Widths are the scale times the root of a ratio.
        constants[f"MultipleGridAnchorGenerator/Sqrt{f'_{i}' if i else ''}/x"] = torch.tensor(
            [4.0, 1, 0.25] * (count // 3)
        )
    kinds = {torch.float32: 1, torch.int32: 3}
    return b"".join(
        constant(name, kinds[tensor.dtype], tensor.shape, message(4, tensor.numpy().tobytes()))
        for name, tensor in constants.items()
    )


def test_mobilenet_v2_from_tensorflow(tmp_path):
    generator = torch.Generator().manual_seed(0)
    theirs = {name: torch.rand(s, generator=generator) for name, s in variables_of_mobilenet_v2().items()}
    ours = ssd_zoo.load_checkpoint(theirs | {"global_step": torch.tensor(200000)}).state_dict()
    own = sum(tensor.numel() for name, tensor in ours.items() if not name.endswith("num_batches_tracked"))
    assert own == sum(tensor.numel() for tensor in theirs.values())
    extractor = "FeatureExtractor/MobilenetV2"
    places = {"backbone.stem": "Conv", "backbone.blocks.0.project": "expanded_conv/project"}
    places |= {"backbone.blocks.16.expand": "expanded_conv_16/expand", "backbone.last": "Conv_1"}
    places |= {f"backbone.extras.{i}.0": f"layer_19_1_Conv2d_{i + 2}_1x1_{n}" for i, n in ((0, 256), (3, 64))}
    places |= {f"backbone.extras.{i}.1": f"layer_19_2_Conv2d_{i + 2}_3x3_s2_{n}" for i, n in ((0, 512), (3, 128))}
    for place, name in places.items():
        # A kernel's numbers by (height, width, in, out) there, (out, in, height, width) here.
        kernel, theirs_kernel = ours[f"{place}.conv.weight"], theirs[f"{extractor}/{name}/weights"]
        assert torch.equal(kernel[3, 1, -1, 0], theirs_kernel[-1, 0, 1, 3])
        assert torch.equal(ours[f"{place}.norm.bias"], theirs[f"{extractor}/{name}/BatchNorm/beta"])
        assert torch.equal(ours[f"{place}.norm.running_var"], theirs[f"{extractor}/{name}/BatchNorm/moving_variance"])
    depthwise = theirs[f"{extractor}/expanded_conv_5/depthwise/depthwise_weights"]
    assert torch.equal(ours["backbone.blocks.5.depthwise.conv.weight"][7, 0], depthwise[:, :, 7, 0])
    for i in (0, 5):
        scores, offsets = (theirs[f"BoxPredictor_{i}/{b}/weights"] for b in ("ClassPredictor", "BoxEncodingPredictor"))
        assert torch.equal(ours[f"head.cls_logits.{i}.weight"][:, :, 0, 0], scores[0, 0].T)
        # y, x, height, width there; x, y, width, height here.
        assert torch.equal(ours[f"head.bbox_regression.{i}.weight"][:4, :, 0, 0], offsets[0, 0, :, [1, 0, 3, 2]].T)
    (tmp_path / "frozen.pb").write_bytes(frozen(theirs))
    model = ssd_zoo.load_checkpoint(tmp_path / "frozen.pb")
    assert model.recipe[0] == "ssd300_mobilenet_v2"
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    assert (model.size, model.score_thresh, model.nms_thresh, model.detections_per_img) == (
        (256, 320),
        0.125,
        0.375,
        37,
    )
    # Pixels of 0 to 255 times 0.01 less 0.5 are those of 0 to 1, less 0.5 / 2.55, by 1 / 2.55.
    torch.testing.assert_close(model.image_mean.flatten(), torch.full((3,), 0.5 / 2.55))
    torch.testing.assert_close(model.image_std.flatten(), torch.full((3,), 1 / 2.55))
    # Of the first map's 16 × 20 cells, and the last, in shares of the shorter side.
    assert model.default_boxes[:3].tolist() == [[-24, 0, 40, 16], [-8, -8, 24, 24], [0, -24, 16, 40]]
    assert model.default_boxes[-1].tolist() == [112, -64, 208, 320]


@pytest.mark.parametrize("variables", [variables_of_mobilenet_v1, variables_of_mobilenet_v2])
def test_norms_that_are_biases(variables):
    # As TensorFlow Lite has them.
    shapes = {name.replace("BatchNorm/beta", "biases"): shape for name, shape in variables().items()}
    model = ssd_zoo.load_checkpoint(
        {name: torch.full(shape, 2.0) for name, shape in shapes.items() if "BatchNorm" not in name}
    )
    numbers = torch.randn(1, 32, 4, 4)
    torch.testing.assert_close(model.backbone.stem.norm(numbers), numbers + 2)


@pytest.mark.parametrize("depth", [18, 34, 101])
def test_nvidias_depths(depth):
    children = torchvision.models.get_model(f"resnet{depth}").children()
    network = nn.Module()
    network.feature_extractor = nn.Module()
    network.feature_extractor.feature_extractor = nn.Sequential(*list(children)[:7])
    channels = {18: [256, 512, 512, 256, 256, 128], 34: [256, 512, 512, 256, 256, 256]}.get(
        depth, [1024, 512, 512, 256, 256, 256]
    )
    network.additional_blocks = nn.ModuleList(
        nn.Sequential(
            nn.Conv2d(before, between, 1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(),
            nn.Conv2d(between, after, 3, bias=False),
            nn.BatchNorm2d(after),
        )
        for before, after, between in zip(channels, channels[1:], [256, 256, 128, 128, 128], strict=False)
    )
    boxes = [4, 6, 6, 6, 4, 4]
    network.loc = nn.ModuleList(nn.Conv2d(c, 4 * n, 3) for c, n in zip(channels, boxes, strict=True))
    network.conf = nn.ModuleList(nn.Conv2d(c, 81 * n, 3) for c, n in zip(channels, boxes, strict=True))
    model = ssd_zoo.load_checkpoint({"model": {f"module.1.{k}": v for k, v in network.state_dict().items()}})
    assert model.recipe[0] == f"ssd300_resnet{depth}"
    assert model.categories[1] == "person"


class MLPerf(nn.Module):
    """MLPerf's SSD300: the numbers of mlcommons/training, single_stage_detector/ssd/ssd300.py at 0a18eb3."""

    def __init__(self):
        super().__init__()
        children = list(torchvision.models.resnet34().children())
        first = children[6][0]
        first.conv1.stride = first.downsample[0].stride = (1, 1)
        self.model = nn.Module()
        self.model.layer1, self.model.layer2 = nn.Sequential(*children[:6]), nn.Sequential(children[6])
        rows = [(256, 256, 512, 2, 1), (512, 256, 512, 2, 1), (512, 128, 256, 2, 1)]
        rows += [(256, 128, 256, 1, 0)] * 2
        self.additional_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, c, 3, stride, padding), nn.ReLU())
            for a, b, c, stride, padding in rows
        )
        channels, self.boxes = (256, 512, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4)
        maps = list(zip(channels, self.boxes, strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(c, 4 * n, 3, padding=1) for c, n in maps)
        self.conf = nn.ModuleList(nn.Conv2d(c, 81 * n, 3, padding=1) for c, n in maps)

    def forward(self, batch):
        maps = [self.model.layer2(self.model.layer1(batch))]
        for block in self.additional_blocks:
            maps.append(block(maps[-1]))
        # Channels are columns, then boxes; ours are map, row, column, box.
        outputs = {}
        for key, heads, columns in (("bbox_regression", self.loc, 4), ("cls_logits", self.conf, 81)):
            rows = [head(of_map).unflatten(1, (columns, -1)) for head, of_map in zip(heads, maps, strict=True)]
            outputs[key] = torch.cat([row.permute(0, 3, 4, 2, 1).reshape(1, -1, columns) for row in rows], dim=1)
        return outputs


@torch.inference_mode()
def test_mlperf():
    torch.manual_seed(0)
    network = MLPerf().eval()
    model = ssd_zoo.load_checkpoint(
        {"model": {f"module.{k}": v for k, v in network.state_dict().items()}, "iteration": 9}
    )
    assert model.recipe[0] == "ssd300_resnet34_mlperf"
    batch = torch.randn(1, 3, 300, 300)
    raw, expected = model.forward_raw(batch), network(batch)
    for key, value in expected.items():
        torch.testing.assert_close(raw[key], value, rtol=0, atol=1e-4 * value.std().item())


def names_of_mobilenet_v1_lite_qfgaohao():
    """The names and shapes of pytorch-ssd's mb1-ssd-lite for 21 classes."""
    shapes = {name: shape for name, shape in names_of_mobilenet_v1_qfgaohao().items() if name.startswith("base_net")}
    channels = 1024
    for i, (between, out) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256))):
        shapes |= conv(f"extras.{i}.0", between, channels, 1, 1)
        shapes |= conv(f"extras.{i}.2.0", between, 1, 3, 3) | conv(f"extras.{i}.2.2", out, between, 1, 1)
        channels = out
    for branch, columns in (("classification_headers", 21), ("regression_headers", 4)):
        for i, channels in enumerate((512, 1024, 512, 256, 256)):
            shapes |= conv(f"{branch}.{i}.0", channels, 1, 3, 3) | conv(f"{branch}.{i}.2", 6 * columns, channels, 1, 1)
        shapes |= conv(f"{branch}.5", 6 * columns, 256, 1, 1)
    return shapes


def mobilenet_v1_lite_qfgaohao(state, batch):
    """The numbers of qfgaohao/pytorch-ssd, vision/ssd/mobilenetv1_ssd_lite.py at 2f838d0."""

    def layer(name, features, stride=1):
        weight = state[f"{name}.weight"]
        groups = features.shape[1] if weight.shape[1] == 1 else 1
        return F.conv2d(features, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def normed(name, i, features, stride=1):
        leaves = (state[f"{name}.{i + 1}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(layer(f"{name}.{i}", features, stride), *leaves).relu()

    features = normed("base_net.0", 0, batch, 2)
    maps = []
    for i in range(1, 14):
        if i == 12:
            maps.append(features)
        features = normed(f"base_net.{i}", 3, normed(f"base_net.{i}", 0, features, 2 if i in (2, 4, 6, 12) else 1))
    maps.append(features)
    for i in range(4):
        between = layer(f"extras.{i}.0", maps[-1]).relu()
        maps.append(layer(f"extras.{i}.2.2", layer(f"extras.{i}.2.0", between, 2).relu()))
    outputs = {}
    for key, branch, columns in (
        ("cls_logits", "classification_headers", 21),
        ("bbox_regression", "regression_headers", 4),
    ):
        rows = [layer(f"{branch}.{i}.2", layer(f"{branch}.{i}.0", maps[i]).relu()) for i in range(5)]
        rows.append(layer(f"{branch}.5", maps[5]))
        outputs[key] = torch.cat([row.permute(0, 2, 3, 1).reshape(1, -1, columns) for row in rows], dim=1)
    return outputs


@torch.inference_mode()
def test_mobilenet_v1_lite():
    state = state_of(names_of_mobilenet_v1_lite_qfgaohao())
    model = ssd_zoo.load_checkpoint(state)
    assert model.recipe[0] == "ssdlite300_mobilenet_v1_qfgaohao"
    batch = torch.randn(1, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    raw, expected = model.forward_raw(batch), mobilenet_v1_lite_qfgaohao(state, batch)
    for key, value in expected.items():
        torch.testing.assert_close(raw[key], value, rtol=0, atol=1e-4 * value.std().item())
    assert (model.nms_thresh, model.detections_per_img) == (0.45, 4000)


class LufficcEfficientNet(nn.Module):
    """lufficc/SSD's SSD300 on EfficientNet-B3 (backbone/efficient_net at 01b5818), on timm's network."""

    def __init__(self):
        super().__init__()
        self.network = timm.create_model("tf_efficientnet_b3")
        rows = [(384, 128, 256, 2, 1), (256, 128, 256, 1, 0), (256, 128, 256, 1, 0)]
        self.extras = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, c, 3, stride, padding), nn.ReLU())
            for a, b, c, stride, padding in rows
        )
        maps = list(zip((48, 136, 384, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True))
        self.cls_headers = nn.ModuleList(nn.Conv2d(c, 21 * n, 3, padding=1) for c, n in maps)
        self.reg_headers = nn.ModuleList(nn.Conv2d(c, 4 * n, 3, padding=1) for c, n in maps)

    def checkpoint(self):
        """The state dict as lufficc names it."""
        network = self.network
        state = {}
        modules = {"_conv_stem": network.conv_stem, "_bn0": network.bn1}
        for i, block in enumerate(block for stage in network.blocks for block in stage):
            whole = hasattr(block, "conv_pwl")
            parts = {"_depthwise_conv": "conv_dw", "_bn1": "bn2" if whole else "bn1"}
            parts |= {"_project_conv": "conv_pwl" if whole else "conv_pw", "_bn2": "bn3" if whole else "bn2"}
            if whole:
                parts |= {"_expand_conv": "conv_pw", "_bn0": "bn1"}
            modules |= {f"_blocks.{i}.{name}": getattr(block, part) for name, part in parts.items()}
            modules[f"_blocks.{i}._se_reduce"] = block.se.conv_reduce
            modules[f"_blocks.{i}._se_expand"] = block.se.conv_expand
        modules["extras"] = self.extras
        for name, module in modules.items():
            state |= {f"backbone.{name}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
        for name in ("cls_headers", "reg_headers"):
            heads = getattr(self, name).state_dict()
            state |= {f"box_head.predictor.{name}.{leaf}": tensor for leaf, tensor in heads.items()}
        return {"model": state, "iteration": 160000}

    def forward(self, batch):
        features, maps = self.network.bn1(self.network.conv_stem(batch)), []
        for i, stage in enumerate(self.network.blocks):
            features = stage(features)
            if i in (2, 4, 6):
                maps.append(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        outputs = {}
        for key, heads, columns in (("cls_logits", self.cls_headers, 21), ("bbox_regression", self.reg_headers, 4)):
            rows = [head(of_map).permute(0, 2, 3, 1) for head, of_map in zip(heads, maps, strict=True)]
            outputs[key] = torch.cat([row.reshape(1, -1, columns) for row in rows], dim=1)
        return outputs


@torch.inference_mode()
def test_efficientnet():
    torch.manual_seed(0)
    original = LufficcEfficientNet().eval()
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    checkpoint = original.checkpoint()
    model = ssd_zoo.load_checkpoint(checkpoint)
    assert model.recipe[0] == "ssd300_efficientnet_b3"
    batch = torch.randn(1, 3, 300, 300)
    raw, expected = model.forward_raw(batch), original(batch)
    for key, value in expected.items():
        assert raw[key].shape == (1, 8732, 21 if key == "cls_logits" else 4)
        torch.testing.assert_close(raw[key], value, rtol=0, atol=1e-4 * value.std().item())
    entry = ssd_zoo.SSD300_EfficientNet_B3_Weights.DEFAULT
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.meta["num_params"]
    settings = {name: value for name, value in entry.settings.items() if name not in ("default_boxes", "image_mean")}
    assert {name: getattr(model, name) for name in settings if name != "image_std"} == {
        name: value for name, value in settings.items() if name != "image_std"
    }
    # Convolution weights, their momentum in the optimiser, and a little: the published file has 97.1 MiB.
    buffers = sum(tensor.numel() for tensor in checkpoint["model"].values()) - entry.meta["num_params"]
    assert (2 * entry.meta["num_params"] + buffers) * 4 / 2**20 == pytest.approx(97.1, abs=0.3)


@pytest.mark.parametrize("classes", [91, 4])
@pytest.mark.parametrize(
    ("name", "builder"),
    [("ssd300_vgg16", "ssd300_vgg16d"), ("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large")],
)
def test_torchvision(name, builder, classes):
    with torch.device("meta"):
        original = getattr(torchvision.models.detection, name)(weights_backbone=None, num_classes=classes)
    model = ssd_zoo.load_checkpoint(
        {key: torch.zeros(t.shape, dtype=t.dtype) for key, t in original.state_dict().items()}
    )
    assert model.recipe[0] == builder
    assert len(model.categories) == classes
    assert model.categories[1] == ("person" if classes == 91 else "class 1")
    assert (model.score_thresh, model.nms_thresh, model.topk_candidates) == (
        original.score_thresh,
        original.nms_thresh,
        original.topk_candidates,
    )


def test_either_tail_of_torchvisions_ssdlite(monkeypatch):
    def read(*args, **kwargs):
        return torchvision.models.mobilenet_v3_large().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", read)
    build = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    for weights_backbone, channels in ((None, 480), ("IMAGENET1K_V1", 960)):
        model = ssd_zoo.load_checkpoint(build(weights_backbone=weights_backbone).state_dict())
        assert model.backbone.last.conv.out_channels == channels

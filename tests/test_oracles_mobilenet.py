"""SSDs on MobileNets against the original implementations, and against what is known of them."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from oracles import fill, load_oracle, stand_in_for_downloads

import ssd_zoo
from ssd_zoo.weights.converters import lufficc, qfgaohao, tensorflow


def from_entry(builder, entry):
    def build(oracle):
        with pytest.MonkeyPatch.context() as patch:
            stand_in_for_downloads(patch, lambda url: {"state_dict": oracle.state})
            return ssd_zoo.get_model(builder, weights=entry)

    return build


ORIGINS = {
    "mmdet_ssdlite_mobilenetv2_coco": from_entry("ssdlite320_mobilenet_v2", "COCO_MMDET_V1"),
    "lufficc_mobilenet_v2_ssd320_voc": from_entry("ssdlite320_mobilenet_v2_lufficc", "VOC0712_LUFFICC_V1"),
    "qfgaohao_mb2_ssd_lite_voc": lambda oracle: ssd_zoo.load_checkpoint(oracle.state),
}


@pytest.fixture(scope="module", params=ORIGINS)
def origin(request, test_data):
    """An oracle and the model that is to be equal to it, with its raw output."""
    oracle = load_oracle(test_data, request.param)
    model = ORIGINS[request.param](oracle).eval()
    with torch.inference_mode():
        batch = model.prepare([oracle.image])
        return oracle, model, batch, model.forward_raw(batch)


def test_input(origin):
    oracle, _, batch, _ = origin
    oracle.check_input(batch)


def test_default_boxes(origin):
    oracle, model, _, _ = origin
    oracle.check_default_boxes(model)


def test_raw_output(origin):
    oracle, _, _, raw = origin
    oracle.check_raw(raw)


def test_detections(origin):
    oracle, model, _, _ = origin
    with torch.inference_mode():
        [found] = model([oracle.image])
    oracle.check_detections(found)


def test_number_of_parameters_and_categories(origin):
    oracle, model, _, _ = origin
    # Biases before the norms of heads are in the norms.
    folded = {
        name: shape
        for name, (shape, _) in oracle.facts["state_dict"].items()
        if re.search(r"head(er)?s\.\d\.(conv\.)?0\.bias$", name)
        and "mobilenet" in type(model.backbone).__name__.lower()
    }
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == oracle.facts["num_params"] - sum(size for [size] in folded.values())
    assert [name.lower() for name in model.categories[1:]] == [name.lower() for name in oracle.categories[1:]]


@pytest.mark.parametrize(
    ("builder", "entry", "clip"),
    [
        ("ssdlite320_mobilenet_v2", "COCO_MMDET_V1", "none"),
        ("ssdlite320_mobilenet_v2_lufficc", "VOC0712_LUFFICC_V1", "all"),
        ("ssdlite320_mobilenet_v3_large_lufficc", "VOC0712_LUFFICC_V1", "all"),
    ],
)
def test_entries_tell_what_the_builders_do_anyway(builder, entry, clip):
    with torch.device("meta"):
        model = ssd_zoo.get_model(builder, weights_backbone=None)
    settings = dict(ssd_zoo.get_model_weights(builder)[entry].settings)
    assert settings.pop("default_boxes") == {"clip": clip}
    for name, value in settings.items():
        given = getattr(model, name)
        if isinstance(given, torch.Tensor):
            given, value = given.flatten().tolist(), pytest.approx(value)
        assert given == value, name


# Published: MobileNetV1 for 1000 classes trains 4,231,976 parameters; 1024 · 1000 + 1000 are the classifier's.
TRUNK_V1 = 4231976 - 1025000


def parameters(builder, **arguments):
    with torch.device("meta"):
        model = ssd_zoo.get_model(builder, weights_backbone=None, **arguments)
    return sum(parameter.numel() for parameter in model.parameters())


def test_mobilenet_v1_counts():
    def extra(channels, between, out):
        return channels * between + 2 * between + 9 * between * out + 2 * out

    extras = extra(1024, 256, 512) + extra(512, 128, 256) + extra(256, 128, 256) + extra(256, 64, 128)
    # Three boxes a cell of the first map, six of the others; 91 classes and four coordinates each.
    head = (3 * (512 + 1) + 6 * (1024 + 512 + 256 + 256 + 128 + 5)) * (91 + 4)
    assert parameters("ssd300_mobilenet_v1") == TRUNK_V1 + extras + head
    # The MobileNet paper's table 13.
    assert parameters("ssd300_mobilenet_v1") / 1e6 == pytest.approx(6.8, abs=0.05)


def test_mobilenet_v1_qfgaohao_counts():
    def extra(channels, between, out):
        return channels * between + between + 9 * between * out + out

    extras = extra(1024, 256, 512) + extra(512, 128, 256) + 2 * extra(256, 128, 256)
    head = 6 * (9 * (512 + 1024 + 512 + 256 + 256 + 256) + 6) * (21 + 4)
    assert parameters("ssd300_mobilenet_v1_qfgaohao", num_classes=21) == TRUNK_V1 + extras + head


@pytest.mark.parametrize(
    ("builder", "boxes"), [("ssd300_mobilenet_v1", [3] + [6] * 5), ("ssd300_mobilenet_v1_qfgaohao", [6] * 6)]
)
def test_mobilenet_v1_maps(builder, boxes):
    with torch.device("meta"):
        model = ssd_zoo.get_model(builder)
        shapes = [tuple(features.shape[1:]) for features in model.backbone(torch.empty(1, 3, 300, 300))]
    channels = (512, 1024, 512, 256, 256, 256 if "qfgaohao" in builder else 128)
    assert shapes == [(n, side, side) for n, side in zip(channels, (19, 10, 5, 3, 2, 1), strict=True)]
    assert len(model.default_boxes) == sum(n * side**2 for n, side in zip(boxes, (19, 10, 5, 3, 2, 1), strict=True))


def test_mobilenet_v1_stages():
    with torch.device("meta"):
        model = ssd_zoo.ssd300_mobilenet_v1()
    trunk = 14
    for layers, frozen in ((5, 0), (4, 2), (3, 4), (2, 6), (1, 12), (0, trunk)):
        model.requires_grad_(True)
        model.backbone.freeze(layers)
        names = {
            name.split(".norm")[0].split(".conv")[0] for name, p in model.named_parameters() if not p.requires_grad
        }
        # The stem, and two layers a block.
        assert len(names) == max(0, 2 * frozen - 1)
        assert all(name.startswith(("backbone.stem", "backbone.blocks")) for name in names)


def variables_of_mobilenet_v1():
    """The names of TensorFlow's ssd_mobilenet_v1_coco, with shapes as TensorFlow has them."""
    extractor = "FeatureExtractor/MobilenetV1"
    kernels = {f"{extractor}/Conv2d_0/weights": (3, 3, 3, 32)}
    channels = 32
    for i, out in enumerate((64, 128, 128, 256, 256, *[512] * 6, 1024, 1024), start=1):
        kernels[f"{extractor}/Conv2d_{i}_depthwise/depthwise_weights"] = (3, 3, channels, 1)
        kernels[f"{extractor}/Conv2d_{i}_pointwise/weights"] = (1, 1, channels, out)
        channels = out
    for i, (between, out) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128)), start=2):
        kernels[f"{extractor}/Conv2d_13_pointwise_1_Conv2d_{i}_1x1_{between}/weights"] = (1, 1, channels, between)
        kernels[f"{extractor}/Conv2d_13_pointwise_2_Conv2d_{i}_3x3_s2_{out}/weights"] = (3, 3, between, out)
        channels = out
    return kernels | _norms_and_predictors(kernels, (512, 1024, 512, 256, 256, 128))


def _norms_and_predictors(kernels, channels_of_maps):
    shapes = {}
    for name, shape in kernels.items():
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
            out = shape[2] if name.endswith("depthwise_weights") else shape[3]
            shapes[f"{name.rpartition('/')[0]}/BatchNorm/{leaf}"] = (out,)
    for i, channels in enumerate(channels_of_maps):
        for branch, columns in (("BoxEncodingPredictor", 4), ("ClassPredictor", 91)):
            rows = (6 if i else 3) * columns
            shapes[f"BoxPredictor_{i}/{branch}/weights"] = (1, 1, channels, rows)
            shapes[f"BoxPredictor_{i}/{branch}/biases"] = (rows,)
    return shapes


def test_mobilenet_v1_from_tensorflow():
    shapes = variables_of_mobilenet_v1()
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state["BoxPredictor_0/BoxEncodingPredictor/biases"] = torch.arange(12.0)
    converted = tensorflow.ORIGIN.convert(state)
    with torch.device("meta"):
        own = ssd_zoo.ssd300_mobilenet_v1().state_dict()
    own = {name: tensor.shape for name, tensor in own.items() if not name.endswith("num_batches_tracked")}
    assert {name: tensor.shape for name, tensor in converted.items()} == own
    # y, x, height, width there; x, y, width, height here.
    assert converted["head.bbox_regression.0.bias"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]


def variables_of_mobilenet_v2():
    """The names of TensorFlow's ssd_mobilenet_v2_coco, with shapes as TensorFlow has them."""
    extractor = "FeatureExtractor/MobilenetV2"
    kernels = {f"{extractor}/Conv/weights": (3, 3, 3, 32)}
    channels, block = 32, "expanded_conv"
    outputs = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    for i, out in enumerate(outputs, start=1):
        between = channels if i == 1 else 6 * channels
        if i > 1:
            kernels[f"{extractor}/{block}/expand/weights"] = (1, 1, channels, between)
        kernels[f"{extractor}/{block}/depthwise/depthwise_weights"] = (3, 3, between, 1)
        kernels[f"{extractor}/{block}/project/weights"] = (1, 1, between, out)
        channels, block = out, f"expanded_conv_{i}"
    kernels[f"{extractor}/Conv_1/weights"] = (1, 1, channels, 1280)
    channels = 1280
    for i, (between, out) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128)), start=2):
        kernels[f"{extractor}/layer_19_1_Conv2d_{i}_1x1_{between}/weights"] = (1, 1, channels, between)
        kernels[f"{extractor}/layer_19_2_Conv2d_{i}_3x3_s2_{out}/weights"] = (3, 3, between, out)
        channels = out
    return kernels | _norms_and_predictors(kernels, (576, 1280, 512, 256, 256, 128))


def conv(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name, channels):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (channels,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def names_of_mobilenet_v1_qfgaohao():
    """The names and shapes of pytorch-ssd's mb1-ssd for 21 classes."""
    shapes = {"base_net.0.0.weight": (32, 3, 3, 3), **norm("base_net.0.1", 32)}
    channels = 32
    for i, out in enumerate((64, 128, 128, 256, 256, *[512] * 6, 1024, 1024), start=1):
        shapes |= {f"base_net.{i}.0.weight": (channels, 1, 3, 3), **norm(f"base_net.{i}.1", channels)}
        shapes |= {f"base_net.{i}.3.weight": (out, channels, 1, 1), **norm(f"base_net.{i}.4", out)}
        channels = out
    for i, (between, out) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256))):
        shapes |= conv(f"extras.{i}.0", between, channels, 1, 1) | conv(f"extras.{i}.2", out, between, 3, 3)
        channels = out
    for i, channels in enumerate((512, 1024, 512, 256, 256, 256)):
        shapes |= conv(f"classification_headers.{i}", 6 * 21, channels, 3, 3)
        shapes |= conv(f"regression_headers.{i}", 6 * 4, channels, 3, 3)
    return shapes


def names_of_mobilenet_v3_lufficc():
    """The names and shapes of lufficc's mobilenet_v3_ssd320_voc0712."""

    def block(name, channels, between, out, kernel, squeezed):
        shapes = {f"{name}.0.weight": (between, channels, 1, 1), **norm(f"{name}.1", between)}
        shapes |= {f"{name}.3.weight": (between, 1, kernel, kernel), **norm(f"{name}.4", between)}
        if squeezed:
            shapes |= conv(f"{name}.5.fc.0", squeezed, between) | conv(f"{name}.5.fc.2", between, squeezed)
        return shapes | {f"{name}.7.weight": (out, between, 1, 1), **norm(f"{name}.8", out)}

    features = "backbone.features"
    shapes = {f"{features}.0.0.weight": (16, 3, 3, 3), **norm(f"{features}.0.1", 16)}
    shapes |= {f"{features}.1.conv.0.weight": (16, 1, 3, 3), **norm(f"{features}.1.conv.1", 16)}
    shapes |= {f"{features}.1.conv.4.weight": (16, 16, 1, 1), **norm(f"{features}.1.conv.5", 16)}
    channels = 16
    # Kernel, channels between, channels out, squeezed channels: table 1 of the paper.
    table = [(3, 64, 24, 0), (3, 72, 24, 0), (5, 72, 40, 24), *[(5, 120, 40, 32)] * 2, (3, 240, 80, 0), (3, 200, 80, 0)]
    table += [
        *[(3, 184, 80, 0)] * 2,
        (3, 480, 112, 120),
        (3, 672, 112, 168),
        (5, 672, 160, 168),
        *[(5, 960, 160, 240)] * 2,
    ]
    for i, (kernel, between, out, squeezed) in enumerate(table, start=2):
        shapes |= block(f"{features}.{i}.conv", channels, between, out, kernel, squeezed)
        channels = out
    shapes |= {f"{features}.16.0.weight": (960, 160, 1, 1), **norm(f"{features}.16.1", 960)}
    channels = 960
    for i, (between, out) in enumerate(((192, 512), (128, 256), (128, 256), (64, 64))):
        shapes |= block(f"backbone.extras.{i}.conv", channels, between, out, 1, between // 4)
        channels = out
    for branch, columns in (("cls_headers", 21), ("reg_headers", 4)):
        for i, channels in enumerate((112, 960, 512, 256, 256)):
            name = f"box_head.predictor.{branch}.{i}.conv"
            shapes |= conv(f"{name}.0", channels, 1, 3, 3) | norm(f"{name}.1", channels)
            shapes |= conv(f"{name}.3", 6 * columns, channels, 1, 1)
        shapes |= conv(f"box_head.predictor.{branch}.5", 6 * columns, 64, 1, 1)
    return shapes


# Standard deviations of the class logits and offsets of each map, computed in float64 by networks that were written
# after the originals' sources alone, without this package: pytorch-ssd's vision/ssd/mobilenetv1_ssd.py at 0cc0b6a and
# lufficc/SSD's ssd/modeling/backbone/mobilenetv3.py at 4ca615d. Weights by `fill`; the input is
# `default_rng(0).standard_normal` times the scale.
GOLDEN = {
    "ssd300_mobilenet_v1_qfgaohao": (
        (qfgaohao.ORIGIN.convert, names_of_mobilenet_v1_qfgaohao, 1),
        [0.91113, 1.29199, 1.1756, 0.97014, 0.60193, 0.1873],
        [0.88752, 1.1975, 1.28007, 1.10774, 0.63556, 0.16419],
    ),
    "ssdlite320_mobilenet_v3_large_lufficc": (
        (lufficc.ORIGIN.convert, names_of_mobilenet_v3_lufficc, 60),
        [6.02835, 4.70612, 6.01936, 6.11456, 6.13354, 173.51997],
        [6.24217, 4.97414, 6.23549, 5.09931, 5.33796, 152.81513],
    ),
}


@pytest.mark.parametrize("builder", GOLDEN)
def test_golden(builder):
    (convert, names, scale), logits, offsets = GOLDEN[builder]
    kinds = {name: "int64" if name.endswith("tracked") else "float32" for name in names()}
    state = {name: torch.from_numpy(fill(name, list(shape), kinds[name])) for name, shape in names().items()}
    model = ssd_zoo.get_model(builder, num_classes=21).eval()
    model.load_state_dict(convert(state))
    noise = np.random.default_rng(0).standard_normal((1, 3, *model.size), dtype=np.float32)
    with torch.no_grad():
        raw = model.double().forward_raw(scale * torch.from_numpy(noise).double())
    cells = [6 * math.ceil(model.size[0] / stride) ** 2 for stride in (16, 32, 64, 128, 256, 512)]
    for key, expected in (("cls_logits", logits), ("bbox_regression", offsets)):
        assert [rows.std().item() for rows in raw[key][0].split(cells)] == pytest.approx(expected, rel=1e-4), key


def test_foreign_tensors_are_refused():
    for convert, name in (
        (qfgaohao.ORIGIN.convert, "base_net.99.conv.0.weight"),
        (tensorflow.ORIGIN.convert, "Logits/weights"),
    ):
        with pytest.raises(ValueError, match=f"Unexpected tensor '{name}'"):
            convert({name: torch.zeros(1, 1, 1, 1)})


@pytest.mark.parametrize(
    "builder",
    [
        "ssdlite320_mobilenet_v2",
        "ssdlite320_mobilenet_v2_lufficc",
        "ssdlite300_mobilenet_v2_qfgaohao",
        "ssdlite320_mobilenet_v3_large",
        "ssdlite320_mobilenet_v3_large_lufficc",
    ],
)
def test_other_norms(builder):
    with torch.device("meta"):
        model = ssd_zoo.get_model(builder, weights_backbone=None, norm_layer=partial(torch.nn.GroupNorm, 8))
    kinds = {type(module).__name__ for name, module in model.named_modules() if name.endswith(".norm")}
    assert kinds == {"GroupNorm"}

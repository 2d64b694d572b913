"""What torchvision's detectors promise, asked of every registered model."""

import copy
import inspect
import io
from typing import get_type_hints

import pytest
import torch
import torchvision
from quick import quick
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import ssd_zoo
from ssd_zoo.detector.feature_maps import feature_map_shapes
from ssd_zoo.models.options import Options

# Models of clips take images, too, one by one, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:This model looks back in time:UserWarning")

NAMES = ssd_zoo.list_models()
IMAGES = [
    torch.rand(3, 120, 90, generator=torch.Generator().manual_seed(0)),
    torch.rand(3, 64, 200, generator=torch.Generator().manual_seed(1)),
]
TARGETS = [{"boxes": torch.tensor([[10.0, 20, 60, 90], [5, 5, 20, 25]]), "labels": torch.tensor([1, 3])}]
CATEGORIES = ["background", "person", "dog", "robot"]


def build(name, **kwargs):
    torch.manual_seed(0)
    return ssd_zoo.get_model(name, weights=None, weights_backbone=None, **{"num_classes": 4, **kwargs})


def small_size(name):
    """A size that costs little: 128, or 272 for deep pyramids of maps without padding."""
    try:
        with torch.device("meta"):
            build(name, size=128)
    except ValueError:
        return {"size": 272}
    return {"size": 128}


# A builder of each family; what all share is tested on these.
FAMILIES = [
    "ssd300_resnet18",
    "ssdlite300_mobilenet_v2",
    "ssdlite300_mobilenet_v2_3d",
    "ssdlite320_mobilenet_v2_fpn",
    "ssdlite320_ultraface_rfb",
    "ssdlite_timm",
]
of_families = pytest.mark.parametrize("name", FAMILIES, indirect=True, scope="module")
# Of the others by CI.
of_families_first = pytest.mark.parametrize("name", quick(*FAMILIES, of=NAMES), indirect=True, scope="module")


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """One model for all tests, which may train it: none looks at its weights."""
    return build(name, **small_size(name))


@pytest.fixture(scope="module")
def raw(model):
    model.eval()
    with torch.no_grad():
        return model.forward_raw(model.prepare(IMAGES))


def test_raw_output_belongs_to_the_default_boxes(model, raw):
    assert model.prepare(IMAGES).shape == (2, 3, *model.size)
    boxes = len(model.default_boxes)
    assert raw.keys() == {"cls_logits", "bbox_regression"}
    assert raw["cls_logits"].shape == (2, boxes, 4)
    assert raw["bbox_regression"].shape == (2, boxes, 4)
    assert model.default_boxes.dtype == torch.float32


def test_detects(model):
    model.eval()
    with torch.no_grad():
        detections = model(IMAGES)
    assert len(detections) == 2
    for found, image in zip(detections, IMAGES, strict=True):
        height, width = image.shape[1:]
        count = len(found["scores"])
        assert found.keys() == {"boxes", "labels", "scores"}
        assert found["boxes"].shape == (count, 4)
        assert found["labels"].shape == (count,)
        assert found["labels"].dtype == torch.int64
        assert ((found["labels"] >= 1) & (found["labels"] < 4)).all()
        assert (found["scores"].diff() <= 0).all()
        assert (found["scores"] > model.score_thresh).all()
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert count <= model.detections_per_img


def test_each_module_is_called(name):
    with torch.device("meta"):
        model = build(name).eval()
        called = set()
        for module in model.modules():
            module.register_forward_hook(lambda module, *_: called.add(module))
        model.forward_raw(torch.rand(2, 3, *model.size))
    # timm's networks call their own layers.
    ours = {key: module for key, module in model.named_modules() if key and not key.startswith("backbone.net.")}
    lists = (torch.nn.ModuleList, torch.nn.ModuleDict)
    assert [key for key, module in ours.items() if module not in called and not isinstance(module, lists)] == []


@of_families
def test_each_image_is_alone(model, raw):
    model.eval()
    with torch.no_grad():
        alone = model.forward_raw(model.prepare(IMAGES[1:]))
    for key, value in alone.items():
        # A batch may be added in another order, and deep networks that have not learned give thousands.
        torch.testing.assert_close(raw[key][1], value[0], rtol=1e-3, atol=max(1e-3, 1e-5 * value.std().item()))


# Default boxes by their papers and projects; parameters and multiply-adds of 91 classes by torchvision.
@pytest.mark.parametrize(
    ("published", "boxes", "parameters", "gmacs"),
    [
        ("ssd256_vgg16d", 6132, None, None),
        ("ssd300_vgg16d", 8732, 35641826, 34.858),
        ("ssd512_vgg16d", 24564, None, None),
        ("ssd300_resnet50", 8732, None, None),
        ("ssd300_mobilenet_v1", 1917, None, None),
        ("ssd300_mobilenet_v2", 1917, None, None),
        ("ssdlite300_mobilenet_v2", 1917, None, None),
        ("ssdlite300_mobilenet_v2_qfgaohao", 3000, None, None),
        ("ssdlite320_mobilenet_v2", 3234, None, None),
        ("ssdlite320_mobilenet_v2_lufficc", 3234, None, None),
        ("ssdlite320_mobilenet_v3_large", 3234, 3440060, 0.583),
        ("ssdlite320_mobilenet_v2_fpn", 12804, None, None),
        ("ssdlite640_mobilenet_v2_fpn", 51150, None, None),
        ("ssd640_resnet50_fpn", 51150, None, None),
    ],
)
def test_published_counts(published, boxes, parameters, gmacs):
    with torch.device("meta"):
        model = build(published, num_classes=91).eval()
    assert len(model.default_boxes) == boxes
    if parameters is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.forward_raw(torch.empty(1, 3, *model.size, device="meta"))
        assert round(counter.get_total_flops() / 2e9, 3) == gmacs


@pytest.mark.slow
@of_families
def test_compiles_without_graph_breaks(model, raw):
    torch._dynamo.reset()
    model.eval()
    with torch.no_grad():
        compiled = torch.compile(model.forward_raw, fullgraph=True, backend="eager")(model.prepare(IMAGES))
    for key, value in raw.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-3, atol=1e-3)


@of_families
def test_autocast_gives_float32(model, raw):
    # Only types are computed: a CPU without bfloat16 units takes minutes for numbers.
    model.eval()
    batch = model.prepare(IMAGES)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        fake = model.forward_raw(torch.empty(batch.shape))
    assert {key: (value.shape, value.dtype) for key, value in fake.items()} == {
        key: (value.shape, torch.float32) for key, value in raw.items()
    }


@of_families
def test_trains_on_a_batch_of_one(model):
    model.train()
    losses = model(IMAGES[:1], TARGETS)
    assert losses.keys() == {"bbox_regression", "classification"}
    before = sum(losses.values())
    before.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    model.zero_grad()
    with torch.no_grad():
        assert sum(model(IMAGES[:1], TARGETS).values()) < before


@of_families
def test_saves_and_loads_without_pickle(model, name):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    with torch.device("meta"):
        other = build(name, **small_size(name))
    other.load_state_dict(torch.load(file, weights_only=True), assign=True)
    expected, actual = model.state_dict(), other.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


@of_families
def test_copies_are_independent(model):
    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(next(copied.parameters()), next(model.parameters()))
    assert torch.equal(copied.default_boxes, model.default_boxes)
    assert copied.categories == model.categories


@of_families_first
@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels(name, in_chans):
    with torch.device("meta"):
        model = build(name, in_chans=in_chans)
    assert feature_map_shapes(model.backbone, model.size, in_chans)
    assert model.prepare([torch.rand(in_chans, 20, 30)]).shape == (1, in_chans, *model.size)
    with pytest.raises(ValueError, match=f"this model takes {in_chans}"):
        model(IMAGES)


@of_families_first
def test_other_sizes(name):
    with torch.device("meta"):
        square = build(name)
        oblong = build(name, size=(square.size[0] + 32, square.size[1] + 192))
    assert oblong.size == (square.size[0] + 32, square.size[1] + 192)
    shapes = feature_map_shapes(oblong.backbone, oblong.size)
    per_location = [box_count(oblong, i, shape) for i, shape in enumerate(shapes)]
    cells = [height * width for _, height, width in shapes]
    assert len(oblong.default_boxes) == sum(n * c for n, c in zip(per_location, cells, strict=True))
    assert len(oblong.default_boxes) > len(square.default_boxes)
    centres = (oblong.default_boxes[:, :2] + oblong.default_boxes[:, 2:]) / 2
    # Those of feature pyramids may lie on the edge.
    assert (centres > -1e-4).all()
    assert (centres < torch.tensor([oblong.size[1], oblong.size[0]])).all()


def box_count(model, index, shape):
    """Default boxes in a cell of a map, by the channels of the layer that predicts them."""
    predictors = list(model.head.bbox_regression)
    predictor = predictors[index] if len(predictors) > 1 else predictors[0]
    *_, last = (module for module in predictor.modules() if isinstance(module, torch.nn.Conv2d))
    return last.out_channels // 4


def test_a_default_device_is_that_of_a_context():
    with torch.device("meta"):
        expected = build("ssd300_vgg16d")
    torch.set_default_device("meta")
    try:
        model = build("ssd300_vgg16d")
    finally:
        torch.set_default_device(None)
    for one, other in zip(
        [*model.parameters(), *model.buffers()], [*expected.parameters(), *expected.buffers()], strict=True
    ):
        assert one.device == other.device
        assert one.is_meta or torch.equal(one, other)
    assert next(model.parameters()).is_meta
    assert model.default_boxes[0].tolist() == build("ssd300_vgg16d").default_boxes[0].tolist()


@pytest.mark.parametrize("size", [0, -3, (300,), (1, 2, 3), 300.0, "300"])
def test_bad_sizes(name, size):
    with pytest.raises((ValueError, TypeError), match="size must be a positive int or"):
        build(name, size=size)


@of_families
def test_categories_name_the_classes(name):
    with torch.device("meta"):
        assert build(name, num_classes=None, categories=CATEGORIES).categories == CATEGORIES
        assert len(build(name, num_classes=7).categories) == 7
        assert len(build(name, num_classes=None).categories) == 91
        for bad in ({"num_classes": 1}, {"categories": CATEGORIES, "num_classes": 3}, {"categories": ["a", "b", "b"]}):
            with pytest.raises(ValueError, match=r"class|categories"):
                build(name, **{"num_classes": None, **bad})


def test_signature_is_closed(name):
    with pytest.raises(TypeError, match=rf"{name}\(\) .*score_tresh.*Did you mean score_thresh"), torch.device("meta"):
        build(name, score_tresh=0.5)
    builder = ssd_zoo.get_model_builder(name)
    parameters = inspect.signature(builder).parameters
    assert {"weights", "weights_backbone"} | get_type_hints(Options).keys() <= parameters.keys()
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in parameters.keys() - {"backbone"})
    assert all(f"\n    {key}: " in inspect.getdoc(builder) for key in parameters)


def test_thresholds_are_settings(name):
    with torch.device("meta"):
        model = build(name, score_thresh=0.3, nms_thresh=0.2, detections_per_img=7, topk_candidates=50)
    assert (model.score_thresh, model.nms_thresh, model.detections_per_img, model.topk_candidates) == (0.3, 0.2, 7, 50)


def test_builds_on_meta(name):
    with torch.device("meta"):
        model = build(name)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.default_boxes.device.type == "cpu"
    boxes = model.default_boxes.clone()
    assert torch.equal(model.to_empty(device="cpu").default_boxes, boxes)


def test_is_in_torchvisions_registry(name):
    if hasattr(torchvision.models.detection, name):
        # Its own stays what it is.
        assert torchvision.models.get_model_builder(name) is not ssd_zoo.get_model_builder(name)
    elif torchvision.models.list_models(include=name):
        assert torchvision.models.get_model_builder(name) is ssd_zoo.get_model_builder(name)
    else:
        pytest.skip("this torchvision has no registry to put models in")


def test_weights_say_where_they_come_from(name):
    for entry in ssd_zoo.get_model_weights(name).__members__.values():
        assert ssd_zoo.get_weight(str(entry)) is entry
        assert entry.meta["categories"][0] in ("background", "__background__")
        assert entry.meta["licence"]
        assert entry.meta["origin"]
        assert all(metrics["source"] in ("published", "measured") for metrics in entry.meta["metrics"].values())
        assert callable(entry.transforms)
        if name.endswith("_3d"):
            continue  # the 2-D model's, inflated
        with torch.device("meta"):
            model = ssd_zoo.get_model(name, weights=None, weights_backbone=None, categories=entry.meta["categories"])
        assert sum(parameter.numel() for parameter in model.parameters()) == entry.meta["num_params"]


def test_unknown_weights(name):
    with pytest.raises(ValueError, match="has no (published weights, so not|weights) 'COCO_V999'"):
        ssd_zoo.get_model(name, weights="COCO_V999")
    with pytest.raises(TypeError, match="Expected weights of .*got 3|has no published weights, so not 3"):
        ssd_zoo.get_model(name, weights=3)

"""What a detector refuses, and what it takes, on a small detector of the test's own."""

import copy
import inspect
import re
import warnings
from threading import Thread

import pytest
import torch
import torchvision
from conftest import ROOT
from torch import nn
from torchvision import tv_tensors

import ssd_zoo
from ssd_zoo import SSD, DefaultBoxGenerator
from ssd_zoo.data import read_image
from ssd_zoo.detector.checks import DeferredChecks
from ssd_zoo.detector.inputs import check_device, resize_images


class Backbone(nn.Module):
    def __init__(self, in_chans=3):
        super().__init__()
        self.first = nn.Conv2d(in_chans, 8, 3, stride=8, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, batch):
        first = self.first(batch).relu()
        return [first, self.second(first).relu()]


def make_model(**kwargs):
    torch.manual_seed(0)
    default_boxes = DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9])
    categories = ["background", "cat", "dog"]
    return SSD(Backbone(kwargs.get("in_chans", 3)), default_boxes, (64, 64), categories, **kwargs)


@pytest.fixture
def model():
    return make_model()


IMAGE = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
TARGET = {"boxes": torch.tensor([[5.0, 5, 30, 35]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "the list is empty"),
        (torch.empty(0, 3, 8, 8), ValueError, "Got no images"),
        (IMAGE, ValueError, "pass a list of images: model([image])"),
        ("photo.jpg", TypeError, "Expected a list of image tensors (C, H, W), got str"),
        (None, TypeError, "got NoneType"),
        (["photo.jpg"], TypeError, "images[0] is a str, not a tensor. For a file use ssd_zoo.data.read_image"),
        ([IMAGE, IMAGE[0]], ValueError, "images[1] has shape (40, 60); expected (C, H, W) with C = 3"),
        ([IMAGE, IMAGE[:1]], ValueError, "images[1] has shape (1, 40, 60), so 1 channels; this model takes 3. Repeat"),
        ([torch.rand(4, 8, 8)], ValueError, "so 4 channels; this model takes 3. Convert"),
        (torch.rand(2, 1, 8, 8), ValueError, "images[0] has shape (1, 8, 8)"),
        ([torch.rand(3, 0, 8)], ValueError, "images[0] has shape (3, 0, 8) and no pixels"),
        ([IMAGE.long()], TypeError, "images[0] has dtype torch.int64; expected uint8 (0 to 255) or floating point"),
        ([IMAGE, IMAGE.to("meta")], TypeError, "images[1] is on the meta device and has no values"),
        ([IMAGE, IMAGE.clone().index_fill(1, torch.tensor(3), torch.nan)], ValueError, "images[1] holds NaN"),
        ([IMAGE.clone().index_fill(1, torch.tensor(3), torch.inf)], ValueError, "images[0] holds NaN or infinite"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_images(model, images, error, message, training):
    with pytest.raises(error, match=re.escape(message)):
        model.train(training)(images, [TARGET] * 2)


@pytest.mark.parametrize("score_function", ["softmax", "sigmoid"])
@pytest.mark.parametrize("part", ["first", "cls_logits", "bbox_regression"])
def test_an_output_that_is_nan_is_not_nothing_found(model, part, score_function):
    broken = copy.deepcopy(model).eval()
    broken.score_function = score_function
    next(tensor for name, tensor in broken.state_dict().items() if part in name).fill_(torch.nan)
    for call in (lambda: broken([IMAGE]), lambda: broken([IMAGE], [TARGET], return_losses=True)):
        with pytest.raises(ValueError, match=r"The network's output for images\[0\] is NaN: its weights hold NaN"):
            call()


def test_pixels_up_to_255_are_warned_of(model):
    with pytest.warns(UserWarning, match=re.escape("images[1] has floating-point pixels up to 25")):
        model.eval()([IMAGE, (IMAGE * 255).round()])


@pytest.mark.parametrize("training", [True, False])
def test_negative_pixels_are_warned_of(model, training):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with pytest.warns(UserWarning, match=re.escape("images[1] has floating-point pixels down to -2")):
        model.train(training)([IMAGE, ((IMAGE - mean) / std).clamp(max=1)], [TARGET] * 2)
    model.eval()([IMAGE - 0.05])


def test_warnings_name_the_callers_line(model):
    untrained = {"weights_backbone": None, "trainable_backbone_layers": 1, "size": 96, "num_classes": 2}
    line = inspect.currentframe().f_lineno
    calls = (
        lambda: model.eval()([IMAGE * 255]),
        lambda: model.eval()([IMAGE - 1]),
        lambda: model.train()([IMAGE], with_target(boxes=torch.tensor([[0.1, 0.2, 0.5, 0.9]]))),
        lambda: ssd_zoo.ssdlite300_mobilenet_v2(**untrained),
        lambda: ssd_zoo.get_model("ssdlite300_mobilenet_v2", **untrained),
        lambda: torchvision.models.get_model("ssdlite300_mobilenet_v2", **untrained),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="pixels|fractions|no effect") as caught:
            call()
        assert caught[0].filename == __file__
        assert line < caught[0].lineno < line + 12


CLIP = IMAGE.expand(3, -1, -1, -1)
FRACTIONS = torch.tensor([[0.1, 0.2, 0.5, 1.0]])
# The image has 60 × 40 pixels.
BEYOND = torch.tensor([[5.0, 5, 120, 35]])


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize(
    ("boxes", "message"),
    [(FRACTIONS, "seem to be fractions"), (BEYOND, "beyond its image"), (-BEYOND.flip(1), "beyond")],
)
def test_odd_boxes_are_told_once(model, clips, boxes, message):
    images, target = ([CLIP], {"frame_index": torch.tensor([1])}) if clips else ([IMAGE], {})
    target |= {"boxes": boxes, "labels": torch.tensor([1])}
    with pytest.warns(UserWarning, match=message) as caught:
        model(images, [target])
    assert len(caught) == 1
    model(images, [target])


@pytest.mark.parametrize("boxes", [[[-2.0, -3, 63, 43]], [[0.0, 0, 1, 1], [5, 5, 9, 9]], []])
def test_usual_boxes_are_not_told(model, boxes):
    target = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.ones(len(boxes), dtype=torch.int64)}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model([IMAGE], [target])
    assert told == []


@pytest.mark.parametrize("name", ["score_thresh", "nms_thresh", "iou_thresh", "positive_fraction"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (50, ValueError, "between 0 and 1, got 50. For 50 percent, pass 0.5."),
        (-0.1, ValueError, "between 0 and 1, got -0.1."),
        (float("nan"), ValueError, "between 0 and 1, got nan."),
        (float("inf"), ValueError, "between 0 and 1, got inf."),
        (None, TypeError, "must be a number between 0 and 1, got None."),
        ("0.5", TypeError, "must be a number between 0 and 1, got '0.5'."),
        (True, TypeError, "must be a number between 0 and 1, got True."),
    ],
)
def test_thresholds_out_of_range(name, value, error, message):
    with pytest.raises(error, match=f"{name} is .*{re.escape(message)}"):
        make_model(**{name: value})
    with pytest.raises(error, match=f"{name} is .*{re.escape(message)}"):
        setattr(make_model(), name, value)


@pytest.mark.parametrize("name", ["detections_per_img", "topk_candidates", "min_negatives"])
def test_counts_are_integers(name):
    for value, error in ((-1, ValueError), (2.5, TypeError), ("3", TypeError)):
        with pytest.raises(error, match=name):
            make_model(**{name: value})


@pytest.mark.parametrize("name", ["antialias", "clip_before_nms"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_flags_are_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {value!r}"):
        make_model(**{name: value})


def test_constants_keep_their_values_on_the_meta_device():
    expected = make_model()
    with torch.device("meta"):
        model = make_model()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    for moved in (model, make_model().to("meta")):
        moved = moved.to_empty(device="cpu")
        moved.load_state_dict(expected.state_dict())
        for name, value in expected.named_buffers():
            assert torch.equal(moved.get_buffer(name), value)
        assert moved([IMAGE], [TARGET]) == expected([IMAGE], [TARGET])


def with_target(**change):
    return [{**TARGET, **change}]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (None, TypeError, "Losses need targets"),
        ([], ValueError, "Got 1 images and 0 targets"),
        ([TARGET["boxes"]], TypeError, "targets[0] must be a dict with 'boxes' and 'labels', got Tensor"),
        ([{"boxes": TARGET["boxes"]}], TypeError, "got ['boxes']"),
        (with_target(boxes=[[0, 0, 1, 1]]), TypeError, "targets[0]['boxes'] must be a tensor, got list"),
        (with_target(labels=[1]), TypeError, "targets[0]['labels'] must be a tensor, got list"),
        (with_target(boxes=torch.zeros(0), labels=torch.zeros(0)), ValueError, "shape (0,); expected (G, 4)"),
        (with_target(boxes=torch.zeros(1, 5)), ValueError, "shape (1, 5)"),
        (with_target(labels=torch.tensor([1, 2])), ValueError, "1 boxes and labels of shape (2,)"),
        (with_target(labels=torch.tensor(1)), ValueError, "labels of shape ()"),
        (with_target(labels=torch.tensor([1.0])), TypeError, "dtype torch.float32; expected integers"),
        (with_target(labels=torch.tensor([True])), TypeError, "dtype torch.bool"),
        (with_target(labels=torch.tensor([1], device="meta")), TypeError, "['labels'] is on the meta device"),
        (with_target(labels=torch.tensor([0])), ValueError, "[0] is 0; with 3 classes labels go from 1 to 2 (0 is the"),
        (with_target(labels=torch.tensor([-1])), ValueError, "['labels'][0] is -1"),
        (
            with_target(labels=torch.tensor([3])),
            ValueError,
            "is 3; with 3 classes labels go from 1 to 2 (background is",
        ),
        (with_target(boxes=torch.tensor([[5.0, 5, 5, 35]])), ValueError, "['boxes'][0] is [5.0, 5.0, 5.0, 35.0]"),
        (with_target(boxes=torch.tensor([[30.0, 5, 5, 35]])), ValueError, "x1 < x2 and y1 < y2"),
        (with_target(boxes=torch.tensor([[5.0, 5, torch.nan, 35]])), ValueError, "on_invalid_boxes='drop'"),
        (with_target(boxes=torch.tensor([[5.0, 5, torch.inf, 35]])), ValueError, "expected finite xyxy"),
        (
            with_target(
                boxes=tv_tensors.BoundingBoxes([[5, 5, 30, 30]], format="XYWH", canvas_size=(40, 60)),
            ),
            ValueError,
            "are in the format XYWH; convert them with",
        ),
    ],
)
def test_bad_targets(model, targets, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model([IMAGE], targets)


# Tensors that torch's operators do not take, or take without their values.
ODD = {
    "sparse": torch.Tensor.to_sparse,
    "mkldnn": lambda tensor: tensor.float().to_mkldnn(),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor.float(), 1, 0, torch.quint8),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "meta": lambda tensor: tensor.to("meta"),
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor]),
}
WITHOUT_VALUES = "has the layout|has dtype|is on the meta device|is a nested tensor"


@pytest.mark.filterwarnings("ignore:.*(nested tensors|quantize)")
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused(model, kind):
    clip, on_frames = IMAGE.expand(2, -1, -1, -1), {**TARGET, "frame_index": torch.tensor([0])}
    given = [
        ([ODD[kind](IMAGE)], [TARGET]),
        (ODD[kind](IMAGE.unsqueeze(0)), [TARGET]),
        ([ODD[kind](clip)], [on_frames]),
    ]
    given += [([IMAGE], [{**TARGET, name: ODD[kind](value)}]) for name, value in TARGET.items()]
    given += [
        ([clip], [{**on_frames, name: ODD[kind](torch.tensor([0]))}]) for name in ("frame_index", "labeled_frames")
    ]
    for training in (True, False):
        model.train(training)
        for images, targets in given:
            with pytest.raises(TypeError, match=WITHOUT_VALUES):
                model(images, targets, **({} if training else {"return_losses": True}))


def test_another_device_is_named():
    with pytest.raises(ValueError, match=r"images\[0\] is on cpu, the model on meta. Move one of them"):
        check_device("images[0]", IMAGE, torch.device("meta"))


def test_frames_of_targets_are_tensors(model):
    clip = IMAGE.expand(2, -1, -1, -1)
    for frames in ({"frame_index": [0]}, {"frame_index": torch.tensor([0]), "labeled_frames": [0]}):
        with pytest.raises(TypeError, match=r"targets\[0\]\['\w+'\] must be a tensor, got list"):
            model([clip], [{**TARGET, **frames}])


def test_the_message_names_target_and_box(model):
    boxes = torch.tensor([[5.0, 5, 30, 35], [8, 8, 4, 9]])
    with pytest.raises(ValueError, match=re.escape("targets[1]['boxes'][1] is [8.0, 8.0, 4.0, 9.0]")):
        model([IMAGE, IMAGE], [TARGET, {"boxes": boxes, "labels": torch.tensor([1, 2])}])


def test_invalid_boxes_can_be_dropped():
    boxes = torch.tensor([[8.0, 8, 4, 9], [5, 5, 30, 35], [5, torch.nan, 30, 35]])
    target = {"boxes": boxes, "labels": torch.tensor([2, 1, 2])}
    losses = make_model(on_invalid_boxes="drop")([IMAGE], [target])
    assert losses == make_model()([IMAGE], [TARGET])
    assert target["boxes"] is boxes
    assert len(target["boxes"]) == 3


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_other_integers_are_labels_and_boxes(model, dtype):
    target = {"boxes": TARGET["boxes"].to(dtype), "labels": TARGET["labels"].to(dtype)}
    assert model([IMAGE], [target]) == make_model()([IMAGE], [TARGET])


def test_tv_tensors_give_plain_tensors(model):
    target = {
        "boxes": tv_tensors.BoundingBoxes(TARGET["boxes"], format="XYXY", canvas_size=(40, 60)),
        "labels": TARGET["labels"],
    }
    losses = model([tv_tensors.Image(IMAGE)], [target])
    assert all(type(value) is torch.Tensor for value in losses.values())
    [found] = model.eval()([tv_tensors.Image(IMAGE)])
    assert all(type(value) is torch.Tensor for value in found.values())


def test_images_without_objects_are_legal(model):
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model([IMAGE], [empty])
    assert losses["bbox_regression"] == 0
    assert losses["classification"] > 0
    sum(losses.values()).backward()
    assert model.head.cls_logits[0].weight.grad.abs().sum() > 0
    assert all(value.isfinite() for value in model([IMAGE, IMAGE], [empty, TARGET]).values())


def test_uint8_is_the_float_image(model):
    pixels = (IMAGE * 255).to(torch.uint8)
    torch.testing.assert_close(model.prepare([pixels]), model.prepare([pixels.float() / 255]))


@pytest.mark.parametrize("antialias", [True, False])
def test_bytes_are_resized_as_bytes(antialias):
    photo = read_image(ROOT / "examples" / "coffee.jpg")
    images = [photo, photo[:, :100, :90], photo / 255, (photo / 255).double()]
    exact, _ = resize_images(images, (96, 80), antialias=antialias)
    batch, ranges = resize_images(images, (96, 80), antialias=antialias, dtype=torch.uint8)
    assert batch.dtype == torch.uint8
    # The rows are rounded before the columns are resized.
    assert (batch - exact * 255).abs().max() < 1.01
    assert (batch[2:] - exact[2:] * 255).abs().max() < 0.51
    assert ranges.tolist() == [[0, 0, exact[2].min(), exact[3].min()], [0, 0, exact[2].max(), exact[3].max()]]
    assert resize_images(images[:2], (96, 80), dtype=torch.uint8)[1] is None


def test_a_stacked_batch_is_the_list(model):
    images = torch.stack([IMAGE, IMAGE.flip(2)])
    model.eval()
    for stacked, listed in zip(model(images), model(list(images)), strict=True):
        assert all(torch.equal(stacked[key], listed[key]) for key in listed)


def test_prepare_resizes_and_normalises(model):
    batch = model.prepare([torch.full((3, 10, 20), 0.5), torch.zeros(3, 64, 64)])
    assert batch.shape == (2, 3, 64, 64)
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(batch[0, :, 7, 3], expected)


def test_boxes_come_in_the_images_own_pixels(model):
    model.score_thresh = 0
    [small] = model.eval()([IMAGE])
    [large] = model([nn.functional.interpolate(IMAGE[None], scale_factor=2)[0]])
    assert small["boxes"][:, 0::2].max() <= 60
    assert small["boxes"][:, 1::2].max() <= 40
    assert large["boxes"][:, 0::2].max() > 100
    assert (small["boxes"][:, :2] >= 0).all()


def test_images_are_not_changed(model):
    image, boxes = IMAGE.clone(), TARGET["boxes"].clone()
    model([image], [{"boxes": boxes, "labels": TARGET["labels"]}])
    assert torch.equal(image, IMAGE)
    assert torch.equal(boxes, TARGET["boxes"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8])
@pytest.mark.parametrize("count", [1, 2])
def test_images_of_the_models_size_are_not_changed(model, dtype, count):
    images = (torch.rand(count, 3, 64, 64) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    before = images.clone()
    batch = model.prepare(images)
    assert torch.equal(batch, model.prepare(list(images)))
    assert torch.equal(images, before)
    pixels = before.float() / 255 if dtype == torch.uint8 else before.float()
    expected = (pixels - model.image_mean) / model.image_std
    torch.testing.assert_close(batch, expected)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_pixels_have_gradients(model):
    images = [IMAGE.clone().requires_grad_() for _ in range(2)]
    model.prepare(images)[1].sum().backward()
    assert images[0].grad.abs().max() == 0
    # Each channel's weights of resizing add up to the pixels of the input.
    expected = 64 * 64 / model.image_std.flatten()
    torch.testing.assert_close(images[1].grad.sum((1, 2)), expected)


def test_validation_losses_with_detections(model):
    losses = make_model()([IMAGE], [TARGET])
    detections, validation_losses = model.eval()([IMAGE], [TARGET], return_losses=True)
    assert validation_losses == losses
    [found] = model([IMAGE])
    assert torch.equal(detections[0]["boxes"], found["boxes"])
    with pytest.raises(TypeError, match="Losses need targets"):
        model([IMAGE], return_losses=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_function": "tanh"}, "score_function must be one of 'softmax', 'sigmoid', got 'tanh'"),
        ({"on_invalid_boxes": "ignore"}, "'raise', 'drop'"),
        ({"classification_loss": "hinge"}, "'cross_entropy', 'focal'"),
        ({"box_loss": "l2"}, "'smooth_l1', 'giou', 'ciou'"),
        ({"positive_fraction": 0}, "positive_fraction must lie above 0"),
        ({"image_mean": (0.5,)}, "image_mean has 1 numbers, but images have 3 channels"),
        ({"in_chans": 1, "image_mean": (0.5,)}, "image_std has 3 numbers, but images have 1"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_model(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("score_function", "tanh", ValueError, "'softmax', 'sigmoid', got 'tanh'"),
        ("on_invalid_boxes", "ignore", ValueError, "'raise', 'drop'"),
        ("classification_loss", "hinge", ValueError, "'cross_entropy', 'focal'"),
        ("box_loss", None, ValueError, "'smooth_l1', 'giou', 'ciou'"),
        ("antialias", 1, TypeError, "must be True or False, got 1"),
        ("clip_before_nms", "no", TypeError, "must be True or False, got 'no'"),
        ("min_negatives", -1, ValueError, "min_negatives must be at least 0, got -1"),
        ("detections_per_img", 0, ValueError, "detections_per_img must be at least 1, got 0"),
        ("topk_candidates", 2.5, TypeError, "topk_candidates must be an integer"),
        ("tile", 8, ValueError, "at least 16 pixels, got 8 × 8"),
        ("tile_overlap", 0.95, ValueError, "tile_overlap must be at most 0.9, got 0.95"),
        ("categories", ["background", "cat"], ValueError, "The head has 3 classes, got 2 names"),
        ("categories", ["background"], ValueError, "background and at least one more category"),
        ("categories", None, TypeError, "categories must be a list of names, got None"),
        ("size", (128, 128), ValueError, r"built with size=(64, 64). Build another with size=(128, 128)"),
        ("in_chans", 1, ValueError, "built with in_chans=3. Build another with in_chans=1"),
    ],
)
def test_settings_are_checked_when_they_are_assigned(name, value, error, message):
    model = make_model()
    before = getattr(model, name)
    with pytest.raises(error, match=re.escape(message)):
        setattr(model, name, value)
    assert getattr(model, name) == before
    setattr(model, name, before)
    model.size = [64, 64]
    assert model.size == (64, 64)
    model.tile = 32
    assert model.tile == (32, 32)


def test_categories_need_a_foreground():
    with pytest.raises(ValueError, match="background and at least one more"):
        SSD(Backbone(), DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9]), (64, 64), ["background"])


def test_default_boxes_stay_float32(model):
    boxes = model.default_boxes.clone()
    for changed in (model.half(), model.bfloat16(), model.double(), model.to_empty(device="cpu")):
        assert changed.default_boxes.dtype == torch.float32
        assert torch.equal(changed.default_boxes, boxes)
    assert "default_boxes" not in model.state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(model, dtype):
    model.to(dtype)
    losses = model([IMAGE], [TARGET])
    assert all(value.isfinite() for value in losses.values())
    raw = model.forward_raw(model.prepare([IMAGE]))
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {value.dtype for value in raw.values()} == {wanted}
    [found] = model.eval()([IMAGE])
    assert found["boxes"].isfinite().all()


def test_size_that_is_too_small_names_one_that_is_not():
    class Valid(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 30)

        def forward(self, batch):
            return [self.conv(batch)]

    with pytest.raises(ValueError, match="size is 20 × 40 pixels, but this backbone needs at least 30 × 30"):
        SSD(Valid(), DefaultBoxGenerator([[2]], [0.2, 0.5]), (20, 40), ["background", "cat"])


def test_a_backbone_for_other_channels_is_told_from_a_size():
    with pytest.raises(ValueError, match="takes no images of 3 channels"):
        SSD(Backbone(in_chans=1), DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9]), (64, 64), ["background", "cat"])


def test_asking_for_shapes_leaves_modes_alone():
    backbone = Backbone()
    backbone.second.eval()
    SSD(backbone, DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9]), (64, 64), ["background", "cat"])
    assert backbone.first.training
    assert not backbone.second.training


def test_threads_have_errors_of_their_own():
    class Copied:
        """An event on a GPU whose work is done."""

        def query(self):
            return True

        def synchronize(self):
            pass

    def fail(_):
        raise ValueError("wrong pixels")

    checks = DeferredChecks()
    checks._pending.append((Copied(), torch.zeros(1), fail))
    other = Thread(target=checks.run)
    other.start()
    other.join()
    with pytest.raises(ValueError, match="wrong pixels"):
        checks.run()
    checks._pending.extend([(Copied(), torch.zeros(1), fail)] * 2)
    with pytest.raises(ValueError, match="wrong pixels"):
        checks.run(wait=True)
    checks.run()


@pytest.mark.parametrize("values", [(0.5, float("nan"), 0.5), (float("inf"), 1, 1)])
@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_numbers_that_normalise_are_finite(name, values):
    with pytest.raises(ValueError, match=f"{name} must have finite numbers"):
        make_model(**{name: values})


@pytest.mark.parametrize("values", [(0, 1, 1), (1, 1, -0.1)])
def test_a_standard_deviation_lies_above_zero(values):
    with pytest.raises(ValueError, match="above 0"):
        make_model(image_std=values)


def test_very_tall_images_are_resized_in_little_memory(monkeypatch):
    # The order of the two directions changes with the image, the result does not.
    model = make_model(antialias=True)
    image = torch.rand(3, 300, 20)
    expected = model.prepare([image])
    sizes = []
    interpolate = torch.nn.functional.interpolate

    def spy(images, size, **options):
        sizes.append(tuple(size))
        return interpolate(images, size, **options)

    monkeypatch.setattr("ssd_zoo.detector.inputs.F.interpolate", spy)
    monkeypatch.setattr("ssd_zoo.detector.inputs._MOST_NUMBERS", 10_000)
    torch.testing.assert_close(model.prepare([image]), expected)
    assert sizes == [(64, 20), (64, 64)]

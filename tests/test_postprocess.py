"""Post-processing, against torchvision's and by hand."""

import functools

import pytest
import torch
from quick import quick
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.models.detection import ssd as torchvision_ssd

import ssd_zoo
from ssd_zoo.data import find_images, read_image
from ssd_zoo.detector.boxes import DefaultBoxGenerator, decode_boxes
from ssd_zoo.detector.postprocess import cpu as postprocess_cpu
from ssd_zoo.detector.postprocess import dispatch as postprocess
from ssd_zoo.detector.postprocess import suppress as suppress_module
from ssd_zoo.detector.postprocess.cpu import decode_arrays, suppress_arrays
from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes
from ssd_zoo.detector.postprocess.fixed import postprocess_fixed, try_few_candidates
from ssd_zoo.detector.postprocess.suppress import suppress_by_kernel, suppress_in_rounds
from ssd_zoo.detector.postprocess.thresholds import Thresholds

SIZE = (300, 300)
DEFAULT_BOXES = DefaultBoxGenerator([[2], [2, 3], [2, 3]], [0.1, 0.3, 0.6, 0.9])([(20, 20), (10, 10), (5, 5)], SIZE)


def raw_output(images, num_classes, spread, seed=0):
    # In float64, because equal scores have no order that torchvision and we could share.
    generator = torch.Generator().manual_seed(seed)
    shape = (images, len(DEFAULT_BOXES))
    return {
        "cls_logits": torch.randn(*shape, num_classes, generator=generator, dtype=torch.float64) * spread,
        "bbox_regression": torch.randn(*shape, 4, generator=generator, dtype=torch.float64),
    }


WAYS = ["arrays", "tensors", "rounds", "one by one", "tried", "kernel"]


@pytest.fixture(params=WAYS)
def detect(request, monkeypatch):
    """Each way from raw output to detections: on a CPU, and those of a GPU."""
    if request.param == "kernel":
        monkeypatch.setattr(postprocess, "MOST_CANDIDATES", 0)
    if request.param in ("rounds", "one by one"):
        monkeypatch.setattr(postprocess, "_FEW_CANDIDATES", 0)
    if request.param == "one by one":
        monkeypatch.setattr(postprocess, "MOST_PAIRS", 1)

    def run(raw, default_boxes, size, *, score_function="softmax", **settings):
        if request.param != "arrays":
            # Tensors with gradients go where those on a GPU go.
            raw = {key: value.clone().requires_grad_() for key, value in raw.items()}
        scored, thresholds = score_boxes(raw, score_function), Thresholds(**settings)
        if request.param == "tried":
            scored = try_few_candidates(scored, default_boxes, size, thresholds)
            assert "exact" in scored
        scales = torch.full((len(scored["best"]), 4), 2.0)
        detections = postprocess_detections(scored, default_boxes, size, thresholds, scales)
        detections = [{key: value.detach() for key, value in found.items()} for found in detections]
        for found in detections:
            found["boxes"] /= 2
        return detections

    return run


def detect_fixed(raw, default_boxes, size, *, candidates=1000, **settings):
    scored = score_boxes(raw, "softmax")
    return postprocess_fixed(scored, default_boxes, size, Thresholds(**settings), candidates=candidates)


def torchvision_detections(raw, default_boxes=DEFAULT_BOXES, **settings):
    model = torchvision_ssd.SSD.__new__(torchvision_ssd.SSD)
    torch.nn.Module.__init__(model)
    model.box_coder = torchvision_utils.BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    for name, value in settings.items():
        setattr(model, name, value)
    images = len(raw["cls_logits"])
    return model.postprocess_detections(raw, [default_boxes] * images, [SIZE] * images)


DEFAULTS = {"score_thresh": 0.01, "nms_thresh": 0.45, "detections_per_img": 200, "topk_candidates": 400}


CASES = [
    (2, 0.1, {}),
    (21, 0.1, {}),
    (91, 0.1, {}),
    (2, 4, {}),
    (21, 4, {}),
    (21, 1, {"topk_candidates": 20}),
    (3, 1, {"detections_per_img": 3}),
    (3, 0.1, {"detections_per_img": 1000}),
    (21, 4, {"detections_per_img": 1000}),
    (3, 1, {"nms_thresh": 0.05}),
    (3, 1, {"score_thresh": 0.2}),
    (21, 1, {"score_thresh": 0.0, "topk_candidates": 7, "detections_per_img": 300}),
]
of_cases = pytest.mark.parametrize(("num_classes", "spread", "settings"), CASES)


@functools.cache
def torchvisions(num_classes, spread, settings):
    """Raw output, and what torchvision makes of it; the same for each way."""
    raw = raw_output(2, num_classes, spread)
    return raw, torchvision_detections(raw, **DEFAULTS | dict(settings))


@of_cases
def test_is_torchvisions(detect, num_classes, spread, settings):
    raw, expected = torchvisions(num_classes, spread, tuple(settings.items()))
    assert_as_torchvision(detect(raw, DEFAULT_BOXES, SIZE, **DEFAULTS | settings), expected)


@of_cases
def test_fixed_shapes_are_torchvisions(num_classes, spread, settings):
    raw, expected = torchvisions(num_classes, spread, tuple(settings.items()))
    fixed = detect_fixed(raw, DEFAULT_BOXES, SIZE, candidates=2000, **DEFAULTS | settings)
    if fixed["exact"].all():
        assert_as_torchvision(unpadded(fixed), expected)
    else:
        assert settings


def assert_as_torchvision(detections, expected):
    for ours, theirs in zip(detections, expected, strict=True):
        torch.testing.assert_close(ours["scores"], theirs["scores"])
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=0, atol=1e-4)


def unpadded(fixed):
    """One dict an image from tensors of fixed shapes, whose padding has to be zero."""
    detections = []
    for i, count in enumerate(fixed["count"].tolist()):
        detections.append({key: fixed[key][i, :count] for key in ("boxes", "scores", "labels")})
        assert all(not fixed[key][i, count:].any() for key in ("boxes", "scores", "labels"))
    return detections


@pytest.fixture(scope="module")
def photographs(test_data):
    """A detector's default boxes and raw output for photographs, and what torchvision makes of them."""
    # With one class no image has more candidates than the fixed shapes hold.
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", categories=["background", "person"]).eval()
    files = find_images([test_data / "coco128"])[:32]
    with torch.no_grad():
        raw = model.forward_raw(model.prepare([read_image(file) for file in files]))
    # A sigmoid is a softmax beside a logit of zero. In float64: equal scores have no order.
    logits = raw["cls_logits"].double()
    logits[..., 0] = 0
    raw = {"cls_logits": logits, "bbox_regression": raw["bbox_regression"].double()}
    return model.default_boxes, raw, torchvision_detections(raw, model.default_boxes, **DEFAULTS)


@pytest.mark.parametrize("detect", quick("arrays", "kernel", of=WAYS), indirect=True)
def test_is_torchvisions_on_photographs(detect, photographs):
    default_boxes, raw, expected = photographs
    assert sum(len(found["scores"]) for found in expected) > 300
    fixed = detect_fixed(raw, default_boxes, SIZE, **DEFAULTS)
    assert fixed["exact"].all()
    for detections in (detect(raw, default_boxes, SIZE, **DEFAULTS), unpadded(fixed)):
        for ours, theirs in zip(detections, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def logits_of(scores):
    return torch.logit(torch.tensor(scores))


def test_by_hand_with_clipping_after_nms(detect):
    default_boxes = torch.tensor([[-20.0, 0, 20, 10], [-16, 0, 24, 10], [0, 0, 20, 10], [-30, 0, -5, 10]])
    raw = {
        "cls_logits": torch.stack([torch.zeros(4), logits_of([0.9, 0.8, 0.7, 0.6])], dim=1).unsqueeze(0),
        "bbox_regression": torch.zeros(1, 4, 4),
    }
    settings = {"score_function": "sigmoid", "nms_thresh": 0.6, "topk_candidates": None}
    [after] = detect(raw, default_boxes, (100, 100), clip_before_nms=False, **settings)
    # Unclipped, the second overlaps the first by 36 / 44 and goes, the third by 20 / 40 and stays;
    # the fourth stays in NMS, but nothing of it is within the image.
    assert after["boxes"].tolist() == [[0, 0, 20, 10], [0, 0, 20, 10]]
    assert after["scores"].tolist() == pytest.approx([0.9, 0.7])
    [before] = detect(raw, default_boxes, (100, 100), clip_before_nms=True, **settings)
    # Clipped, the first three are nearly the same box.
    assert before["scores"].tolist() == pytest.approx([0.9, 0.6])


def test_boxes_dropped_after_clipping_are_not_replaced(detect):
    default_boxes = torch.tensor([[-20.0, 0, -10, 10], [0, 0, 10, 10], [20, 0, 30, 10]])
    raw = {
        "cls_logits": torch.stack([torch.zeros(3), logits_of([0.9, 0.8, 0.7])], dim=1).unsqueeze(0),
        "bbox_regression": torch.zeros(1, 3, 4),
    }
    settings = {"score_function": "sigmoid", "clip_before_nms": False, "detections_per_img": 2}
    [found] = detect(raw, default_boxes, (100, 100), **settings)
    assert found["scores"].tolist() == pytest.approx([0.8])


def test_nothing_above_the_threshold(detect):
    raw = raw_output(2, 3, 1)
    for found in detect(raw, DEFAULT_BOXES, SIZE, score_thresh=0.9999):
        assert found["boxes"].shape == (0, 4)
        assert found["labels"].shape == found["scores"].shape == (0,)
        assert found["labels"].dtype == torch.int64


def test_goes_on_until_there_are_enough(detect):
    # The 400 best candidates are one place again and again; what is looked for comes after them.
    default_boxes = torch.cat([torch.tensor([[0.0, 0, 50, 50]]).repeat(1500, 1), torch.tensor([[80.0, 80, 90, 90]])])
    logits = torch.zeros(1, 1501, 2)
    logits[0, :, 1] = torch.linspace(5, 4, 1501)
    raw = {"cls_logits": logits, "bbox_regression": torch.zeros(1, 1501, 4)}
    [found] = detect(raw, default_boxes, (100, 100), detections_per_img=10, topk_candidates=None)
    assert found["boxes"].tolist() == [[0, 0, 50, 50], [80, 80, 90, 90]]
    [found] = detect(raw, default_boxes, (100, 100), detections_per_img=10, topk_candidates=1500)
    assert found["boxes"].tolist() == [[0, 0, 50, 50]]


def test_rows_in_which_each_box_overlaps_the_next(detect):
    # Every other box stays, and each round finds out one more.
    left = torch.arange(100.0) * 5
    default_boxes = torch.stack([left, torch.zeros(100), left + 10, torch.full((100,), 10.0)], dim=1)
    logits = torch.stack([torch.zeros(100), torch.linspace(5, 4, 100)], dim=1).unsqueeze(0)
    raw = {"cls_logits": logits, "bbox_regression": torch.zeros(1, 100, 4)}
    [found] = detect(raw, default_boxes, (600, 600), nms_thresh=0.3)
    assert found["boxes"][:, 0].tolist() == left[::2].tolist()


@pytest.mark.parametrize("bad", [None, torch.nan, torch.inf, 1e30])
def test_images_of_a_batch_are_alone(detect, bad):
    raw = raw_output(4, 5, 2)
    if bad is not None:
        raw["bbox_regression"][0, ::7, 0] = bad
    for clip_before_nms in (True, False):
        together = detect(raw, DEFAULT_BOXES, SIZE, clip_before_nms=clip_before_nms)
        for i, found in enumerate(together[1:], 1):
            one = {key: value[i : i + 1] for key, value in raw.items()}
            [alone] = detect(one, DEFAULT_BOXES, SIZE, clip_before_nms=clip_before_nms)
            assert all(torch.equal(found[key], alone[key]) for key in found)


def test_scores_that_are_no_numbers_are_no_detections(detect):
    raw = raw_output(2, 5, 2)
    bad = torch.arange(len(DEFAULT_BOXES)) % 3 > 0
    expected = detect({key: value[:, ~bad] for key, value in raw.items()}, DEFAULT_BOXES[~bad], SIZE)
    raw["cls_logits"][:, bad, 1] = torch.nan
    for found, of_others in zip(detect(raw, DEFAULT_BOXES, SIZE), expected, strict=True):
        assert len(found["scores"]) > 100
        assert all(torch.equal(found[key], of_others[key]) for key in found)


@pytest.mark.parametrize("branches", [True, False])
@pytest.mark.parametrize(("block", "too_few"), [(48, 1), (1008, 2)])
@pytest.mark.parametrize("nms_thresh", [0.3, 0.6])
def test_rounds_of_suppression_are_the_kernels(nms_thresh, block, too_few, branches, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: not branches)
    for name in ("_BLOCK", "_BLOCK_OF_GRAPH"):
        monkeypatch.setattr(suppress_module, name, block)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 300, 2, generator=generator, dtype=torch.float64) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(3, 300, 2, generator=generator)], dim=-1)
    labels = torch.randint(1, 4, (3, 300), generator=generator)
    eligible = torch.rand(3, 300, generator=generator) < 0.9
    expected = torch.zeros_like(eligible)
    for i in range(3):
        index = eligible[i].nonzero().squeeze(1)
        expected[i, index[suppress_by_kernel(boxes[i, index], labels[i, index], nms_thresh)]] = True
    kept, settled = suppress_in_rounds(boxes, labels, eligible, nms_thresh, most=300, rounds=300)
    assert settled.all()
    assert torch.equal(kept, expected)
    assert 0.02 < kept.float().mean() < 0.8
    # The first ones do not depend on how many are looked for.
    kept, settled = suppress_in_rounds(boxes, labels, eligible, nms_thresh, most=5, rounds=300)
    assert settled.all()
    assert torch.equal(kept & (kept.cumsum(1) <= 5), expected & (expected.cumsum(1) <= 5))
    assert not suppress_in_rounds(boxes, labels, eligible, nms_thresh, most=300, rounds=too_few)[1].any()


@pytest.mark.parametrize(
    ("nms_thresh", "second"), [(0.0, [10.0, 0, 20, 10]), (0.5, [0.0, 0, 10, 5]), (1.0, [0.0, 0, 10, 10])]
)
def test_rounds_keep_boxes_whose_iou_is_the_threshold(nms_thresh, second):
    """By hand: the second box overlaps the first by 0, 1/2 or all of the union; the others have no area."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], second, [3, 3, 3, 3], [3, 3, 3, 3]]])
    ones = torch.ones(1, 4)
    kept, settled = suppress_in_rounds(boxes, ones.long(), ones > 0, nms_thresh, most=4, rounds=9)
    assert kept.all()
    assert settled.all()


def test_fixed_shapes_say_where_candidates_may_be_missing():
    raw = raw_output(2, 3, 0.1)
    few = detect_fixed(raw, DEFAULT_BOXES, SIZE, candidates=250, nms_thresh=0.05)
    assert few["boxes"].shape == (2, 200, 4)
    assert few["count"].max() < 200
    assert not few["exact"].any()
    assert detect_fixed(raw, DEFAULT_BOXES, SIZE, candidates=250, score_thresh=0.5)["exact"].all()
    # All that two classes may have are among them.
    assert detect_fixed(raw, DEFAULT_BOXES, SIZE, candidates=250, topk_candidates=20)["exact"].all()


@pytest.mark.parametrize("classes", [1, 3, 40])
@pytest.mark.parametrize("nms_thresh", [0.0, 0.3, 0.6])
def test_pairs_of_a_class_are_the_kernels(classes, nms_thresh, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(300, 2, generator=generator)], dim=-1)
    # Boxes without any area, and the same box twice.
    boxes[10, 2:] = boxes[10, :2]
    boxes[20] = boxes[21]
    labels = torch.randint(0, classes, (300,), generator=generator)
    by_kernel = suppress_by_kernel(boxes, labels, nms_thresh)
    monkeypatch.setattr(postprocess_cpu, "_FEW_PAIRS", 1)
    kept = suppress_arrays(boxes.T.contiguous().numpy(), labels.numpy(), nms_thresh)
    assert kept.tolist() == by_kernel.tolist()
    assert 5 < len(kept) < 300
    monkeypatch.setattr(postprocess_cpu, "_FEW_PAIRS", 0)
    assert suppress_arrays(boxes.T.contiguous().numpy(), labels.numpy(), nms_thresh).tolist() == kept.tolist()


def test_many_boxes_go_to_the_kernel_group_by_group(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(300, 2, generator=generator)], dim=-1)
    groups = torch.randint(0, 4, (300,), generator=generator)
    together = suppress_by_kernel(boxes, groups, 0.4)
    monkeypatch.setattr(suppress_module, "_MOST_BOXES", 299)
    assert suppress_by_kernel(boxes, groups, 0.4).tolist() == together.tolist()
    assert 5 < len(together) < 300


def test_decodes_arrays_as_tensors():
    raw = raw_output(1, 2, 1)["bbox_regression"][0] * 10
    boxes = decode_arrays(raw.T.contiguous().numpy(), DEFAULT_BOXES.T.contiguous().numpy())
    torch.testing.assert_close(torch.from_numpy(boxes.T), decode_boxes(raw, DEFAULT_BOXES))


def test_detections_have_gradients():
    raw = {key: value.requires_grad_() for key, value in raw_output(2, 3, 1).items()}
    scored = score_boxes(raw, "softmax")
    detections = postprocess_detections(scored, DEFAULT_BOXES, SIZE, Thresholds(), torch.ones(2, 4))
    sum(found["scores"].sum() + found["boxes"].sum() for found in detections).backward()
    assert all(value.grad.abs().sum() > 0 for value in raw.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"detections_per_img": 0}, "detections_per_img must be at least 1, got 0"),
        ({"topk_candidates": -1}, "topk_candidates must be at least 1, got -1"),
        ({"nms_thresh": 45}, "nms_thresh is an IoU and must lie between 0 and 1, got 45"),
    ],
)
def test_thresholds_that_make_no_sense(wrong, message):
    with pytest.raises(ValueError, match=message):
        Thresholds(**wrong)
    with pytest.raises(ValueError, match=message):
        ssd_zoo.get_model("ssdlite300_mobilenet_v2", weights=None, weights_backbone=None, **wrong)


def test_box_that_is_not_finite_suppresses_none():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[[nan, 10, 50, 60], [0, 10, 50, 60], [0, 0, inf, inf], [0, 0, 9e5, 9e5]]])
    one_class, all_take_part = torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)
    kept, settled = suppress_in_rounds(boxes, one_class, all_take_part, 0.5, most=4, rounds=4)
    assert kept.all()
    assert settled.all()
    assert suppress_by_kernel(boxes[0], one_class[0], 0.5).tolist() == [0, 1, 2, 3]

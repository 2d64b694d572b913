"""Matching, on a matrix worked out by hand."""

import pytest
import torch
from torchvision.ops import box_iou as torchvision_box_iou

from ssd_zoo.detector import matcher
from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.detector.overlap import box_iou, match_detections

DEFAULT_BOXES = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 20, 20], [50, 50, 60, 60]])


def match(*images, iou_thresh=0.5):
    most = max(1, *(len(image) for image in images))
    boxes, valid = torch.zeros(len(images), most, 4), torch.zeros(len(images), most, dtype=torch.bool)
    for i, image in enumerate(images):
        if image:
            boxes[i, : len(image)] = torch.tensor(image)
            valid[i, : len(image)] = True
    return match_default_boxes(boxes, valid, DEFAULT_BOXES, iou_thresh).tolist()


def test_iou_by_hand():
    iou = box_iou(torch.tensor([[[0.0, 0, 10, 20]]]), DEFAULT_BOXES)
    assert iou.tolist() == [[pytest.approx([0.5, 0, 0.5, 0])]]


def test_iou_is_torchvisions():
    boxes = torch.rand(2, 7, 4, generator=torch.Generator().manual_seed(0)) * 20
    boxes[..., 2:] += boxes[..., :2] + 0.1
    for iou, image in zip(box_iou(boxes, DEFAULT_BOXES), boxes, strict=True):
        torch.testing.assert_close(iou, torchvision_box_iou(image, DEFAULT_BOXES))


def test_threshold_is_included():
    # IoU 0.5 with the first and the third default box: both answer.
    assert match([[0.0, 0, 10, 20]]) == [[0, -1, 0, -1]]
    assert match([[0.0, 0, 10, 20]], iou_thresh=0.51) == [[0, -1, -1, -1]]


def test_every_object_has_its_best_default_box():
    # A tiny object far below the threshold takes the last default box, and only that.
    assert match([[50.0, 50, 51, 51]]) == [[-1, -1, -1, 0]]


def test_the_forced_match_overrides_a_better_overlap():
    # Object 0 is default box 0; object 1 lies within it and overlaps it most, so takes it.
    assert match([[0.0, 0, 10, 10], [0, 0, 5, 5]]) == [[1, -1, -1, -1]]


def test_each_default_box_answers_for_its_best_object():
    assert match([[0.0, 0, 10, 10], [11, 0, 20, 10]]) == [[0, 1, -1, -1]]


def test_images_without_objects_and_padding():
    assert match([], [[0.0, 0, 10, 10]], [[50.0, 50, 60, 60], [10, 0, 20, 10]]) == [
        [-1, -1, -1, -1],
        [0, -1, -1, -1],
        [-1, 1, -1, 0],
    ]


def test_padding_does_not_take_the_first_default_box():
    # The padded box overlaps nothing, so its best default box would be the first.
    assert match([[50.0, 50, 60, 60]], [[0.0, 0, 10, 10], [10, 0, 20, 10]])[0] == [-1, -1, -1, 0]


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_blocks_of_objects_match_as_all_at_once(at_once, monkeypatch):
    boxes = torch.rand(2, 50, 4, generator=torch.Generator().manual_seed(0)) * 20
    boxes[..., 2:] += boxes[..., :2] + 0.1
    valid = torch.arange(50) < torch.tensor([[50], [7]])
    expected = match_default_boxes(boxes, valid, DEFAULT_BOXES, 0.3)
    seen = []
    monkeypatch.setattr(matcher, "_MOST_PAIRS", at_once * len(boxes) * len(DEFAULT_BOXES))
    monkeypatch.setattr(matcher, "box_iou", lambda *some: seen.append(some[0].shape[1]) or box_iou(*some))
    assert torch.equal(match_default_boxes(boxes, valid, DEFAULT_BOXES, 0.3), expected)
    assert max(seen) == at_once


def test_no_images_match_nothing():
    matched = match_default_boxes(torch.zeros(0, 2, 4), torch.zeros(0, 2, dtype=torch.bool), DEFAULT_BOXES, 0.5)
    assert matched.shape == (0, len(DEFAULT_BOXES))


def test_iou_of_half_precision_does_not_overflow():
    boxes = torch.tensor([[0.0, 0, 640, 480], [0, 0, 320, 480]])
    for dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(box_iou(boxes.to(dtype), boxes.to(dtype)), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


@pytest.mark.parametrize(
    ("next_best", "ignored", "expected"),
    [
        # By hand: the first takes object 0. The second overlaps it most too; the third only object 1, the fourth none.
        (False, None, [0, -1, 1, -1]),
        (True, None, [0, 1, -1, -1]),
        (False, [True, False], [0, 0, 1, -1]),
    ],
)
def test_detections_take_objects_greedily(next_best, ignored, expected):
    iou = torch.tensor([[0.9, 0.6], [0.8, 0.7], [0.1, 0.6], [0.4, 0.4]])
    ignored = None if ignored is None else torch.tensor(ignored)
    assert match_detections(iou, 0.5, ignored=ignored, next_best=next_best).tolist() == expected
    assert match_detections(iou[:0], 0.5, next_best=next_best).tolist() == []
    assert match_detections(iou[:, :0], 0.5, next_best=next_best).tolist() == [-1] * 4

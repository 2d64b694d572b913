"""Pictures of detections, looked at pixel by pixel."""

import numpy as np
import pytest
import torch

from ssd_zoo.data import draw_detections, read_image

CATEGORIES = ["background", "person", "traffic light", "cat"]
BACKGROUND = 200


def draw(boxes, labels, scores=None, size=(200, 200)) -> np.ndarray:
    """Draws on one shade of grey; gives (H, W, 3)."""
    image = torch.full((3, *size), BACKGROUND, dtype=torch.uint8)
    detections = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    if scores is not None:
        detections["scores"] = torch.tensor(scores)
    picture = draw_detections(image, detections, CATEGORIES)
    assert picture.mode == "RGB"
    assert picture.size == size[::-1]
    assert (image == BACKGROUND).all()
    return np.asarray(picture).astype(int)


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != BACKGROUND).any(-1)


def letters(picture: np.ndarray) -> np.ndarray:
    """Says which pixels are dark, as only letters are."""
    return picture.sum(-1) < 200


def test_outline_lies_on_the_box():
    # 200 pixels: lines are one wide. The label stands above the box, from its left.
    picture = draw([[20.0, 50.0, 150.0, 120.0]], [1], [0.5])
    colour = picture[120, 80]
    assert colour.max() == 255
    assert (picture[120, 20:151] == colour).all()
    assert (picture[50:121, 20] == colour).all()
    assert (picture[50:121, 150] == colour).all()
    assert (picture[50, 100:151] == colour).all()
    touched = changed(picture)
    assert not touched[51:120, 21:150].any(), "the inside of the box"
    assert not touched[121:].any(), "below it"
    assert not touched[:, :20].any(), "left of it"
    assert not touched[:, 151:].any(), "right of it"
    label = touched[:50]
    assert label.any()
    assert not label[:25].any(), "the label is at its box"


def test_lines_grow_with_the_picture():
    picture = draw([[200.0, 300.0, 900.0, 900.0]], [1], size=(1000, 1200))
    # 1000 / 200 = 5 pixels, inwards.
    assert changed(picture)[600, 195:210].tolist() == [False] * 5 + [True] * 5 + [False] * 5


def test_each_class_has_its_colour():
    boxes = [[10.0, 30.0, 50.0, 180.0], [70.0, 30.0, 110.0, 180.0], [130.0, 30.0, 190.0, 180.0]]
    colours = [tuple(draw(boxes, [1, 2, 3])[100, x]) for x in (10, 70, 130)]
    for i, one in enumerate(colours):
        for other in colours[:i]:
            assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 80
    again = draw(boxes, [2, 2, 1])
    assert [tuple(again[100, x]) for x in (10, 70, 130)] == [colours[1], colours[1], colours[0]]


def test_label_is_dark_on_the_class_colour():
    picture = draw([[20.0, 50.0, 150.0, 120.0]], [1], [0.5])
    label = picture[30:49, 22:70]
    assert (label == picture[120, 80]).all(-1).mean() > 0.4, "plate"
    assert letters(label).mean() > 0.05


def test_label_says_class_and_score():
    box = [[20.0, 50.0, 150.0, 120.0]]
    bare, scored, better = draw(box, [1]), draw(box, [1], [0.5]), draw(box, [1], [0.99])
    assert changed(scored)[:50].sum() > changed(bare)[:50].sum()
    assert (scored != better).any()
    assert (draw(box, [1], [0.5]) == draw(box, [1], [0.501])).all()


@pytest.mark.parametrize(
    "box",
    [
        [-30.0, -30.0, 60.0, 60.0],
        [150.0, -20.0, 260.0, 80.0],
        [-50.0, 150.0, 40.0, 300.0],
        [190.0, 190.0, 199.0, 199.0],
        [0.0, 0.0, 200.0, 200.0],
        [-10.0, -10.0, 210.0, 210.0],
        [250.0, 250.0, 300.0, 300.0],
        [80.0, 90.0, 80.0, 90.0],
    ],
)
def test_label_stays_whole_inside_the_picture(box):
    # The same label, well inside, is the measure.
    bare = draw([[20.0, 50.0, 150.0, 120.0]], [2], [0.5])
    assert letters(bare).sum() > 100
    assert letters(draw([box], [2], [0.5])).sum() == letters(bare).sum()


def test_parts_of_a_box_outside_are_not_drawn():
    touched = changed(draw([[-30.0, 100.0, 100.0, 250.0]], [1], [0.5]))
    assert touched[150, 100]
    assert touched[199, 100]
    assert not touched[150, :100].any()
    assert not touched[199, :100].any()


def test_labels_of_boxes_at_one_place_do_not_hide_each_other():
    box = [20.0, 80.0, 150.0, 140.0]
    one = letters(draw([box], [1], [0.5])).sum()
    assert letters(draw([box] * 4, [1] * 4, [0.5] * 4)).sum() == 4 * one


def test_where_there_is_no_room_the_better_label_is_seen():
    # A box that fills a picture in which only one label fits.
    size, box = (20, 90), [0.0, 0.0, 89.0, 19.0]
    better = draw([box], [1], [0.9], size)
    assert letters(better).any()
    both = draw([box] * 3, [1, 2, 3], [0.9, 0.8, 0.7], size)
    assert (both == better)[letters(better)].all()


def test_better_boxes_are_drawn_over_worse():
    box = [20.0, 50.0, 150.0, 120.0]
    first, second = draw([box], [1]), draw([box], [2])
    both = draw([box, box], [1, 2], [0.9, 0.8])
    assert (first[80, 20] != second[80, 20]).any()
    assert (both[80, 20] == first[80, 20]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (5, 5)])
def test_tiny_pictures_get_boxes_without_labels(size):
    picture = draw([[0.0, 0.0, size[1], size[0]]], [1], [0.5], size)
    assert changed(picture)[0, 0]
    assert not letters(picture).any()


def test_no_detections_change_nothing():
    assert not changed(draw([], [], [])).any()


def test_photograph_is_left_as_it_was(photo):
    image = read_image(photo)
    before = image.clone()
    detections = {"boxes": torch.tensor([[3.0, 33.0, 379.0, 507.0]]), "labels": torch.tensor([1])}
    picture = np.array(draw_detections(image, detections, CATEGORIES))
    assert torch.equal(image, before)
    inside = (slice(60, 490), slice(20, 360))
    assert (picture[inside] == before.permute(1, 2, 0).numpy()[inside]).all()
    assert (picture[507, 100:300] == picture[507, 100]).all()


def test_contiguous_pixels_are_not_written_to_either():
    # Here Pillow could share the tensor's memory.
    image = torch.full((20, 20, 3), BACKGROUND, dtype=torch.uint8).permute(2, 0, 1)
    draw_detections(image, {"boxes": torch.tensor([[2.0, 2.0, 9.0, 9.0]]), "labels": torch.tensor([1])}, CATEGORIES)
    assert (image == BACKGROUND).all()


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 9, 9),
        torch.zeros(1, 9, 9, dtype=torch.uint8),
        torch.zeros(2, 3, 9, 9, dtype=torch.uint8),
        torch.zeros(3, 0, 9, dtype=torch.uint8),
    ],
)
def test_image_of_another_kind(image):
    with pytest.raises(ValueError, match=r"Expected an RGB image, uint8 \(3, H, W\), got torch\.\w+ \("):
        draw_detections(image, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}, CATEGORIES)


@pytest.mark.parametrize("label", [-1, 4])
def test_label_without_category(label):
    with pytest.raises(ValueError, match=rf"Label {label} .*0 to 3"):
        draw([[1.0, 1.0, 9.0, 9.0]], [label])


@pytest.mark.parametrize("box", [[9.0, 1.0, 1.0, 9.0], [1.0, 9.0, 9.0, 1.0], [1.0, float("nan"), 9.0, 9.0]])
def test_reversed_box(box):
    with pytest.raises(ValueError, match="reversed or not a number"):
        draw([box], [1])

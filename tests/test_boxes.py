"""Default boxes and offsets, on cases worked out by hand."""

import math

import pytest
import torch

from ssd_zoo.detector.boxes import DefaultBoxGenerator, box_shapes, decode_boxes, encode_boxes, tf_box_shapes


def assert_close(actual, expected):
    actual, expected = (torch.as_tensor(values, dtype=torch.float32) for values in (actual, expected))
    torch.testing.assert_close(actual, expected)


def test_shapes_of_the_paper():
    first, second = box_shapes([[2], [2, 3]], [0.2, 0.8, 1.25])
    root = math.sqrt(2)
    assert_close(first, [(0.2, 0.2), (0.4, 0.4), (0.2 * root, 0.2 / root), (0.2 / root, 0.2 * root)])
    assert len(second) == 6
    assert second[1] == pytest.approx((1, 1))
    assert second[4] == pytest.approx((0.8 * math.sqrt(3), 0.8 / math.sqrt(3)))


def test_shapes_of_tensorflow():
    first, second = tf_box_shapes([0.2, 0.5, 0.98])
    assert_close(first, [(0.1, 0.1), (0.2 * 2**0.5, 0.2 / 2**0.5), (0.2 / 2**0.5, 0.2 * 2**0.5)])
    assert second[0] == (0.5, 0.5)
    assert second[-1] == pytest.approx((0.7, 0.7))
    assert second[4][1] / second[4][0] == pytest.approx(1 / 0.3333)


def test_tiles_cells_row_by_row():
    boxes = DefaultBoxGenerator(shapes=[[(0.5, 0.25)]])([(2, 2)], (8, 8))
    assert boxes.tolist() == [[0, 1, 4, 3], [4, 1, 8, 3], [0, 5, 4, 7], [4, 5, 8, 7]]
    assert boxes.dtype == torch.float32


def test_steps_place_the_centres():
    boxes = DefaultBoxGenerator(shapes=[[(0.5, 0.5)]], steps=[3])([(1, 2)], (8, 8))
    assert_close(boxes, [[-0.5, -0.5, 3.5, 3.5], [2.5, -0.5, 6.5, 3.5]])


def test_offsets_place_the_first_centre():
    generator = DefaultBoxGenerator(shapes=[[(0.5, 0.5)]], steps=[3], offsets=[(1, 0)])
    assert_close(generator([(1, 2)], (8, 8)), [[-1, -2, 3, 2], [2, -2, 6, 2]])
    even = DefaultBoxGenerator(shapes=[[(0.5, 0.5)]], offsets=[(0, 2)])
    assert_close(even([(1, 2)], (8, 8)), [[-2, 0, 2, 4], [2, 0, 6, 4]])


def test_squares_stay_square_on_an_oblong_input():
    [box] = DefaultBoxGenerator(shapes=[[(0.5, 0.5)]])([(1, 1)], (8, 16))
    assert box.tolist() == [6, 2, 10, 6]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("none", [[-3, -3, 9, 9], [-3, 3, 9, 15]]),
        ("sizes", [[-1, -1, 7, 7], [-1, 5, 7, 13]]),
        ("all", [[-1, -1, 7, 7], [-1, 4, 7, 12]]),
    ],
)
def test_clips(clip, expected):
    # Boxes of 12 × 12 pixels on an input of 8 × 8, at x = 3 and y = 3 and 9.
    assert_close(DefaultBoxGenerator(shapes=[[(1.5, 1.5)]], steps=[6], clip=clip)([(2, 1)], (8, 8)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspect_ratios": [[2]], "scales": [0.5]}, "need 2 scales"),
        ({"aspect_ratios": [[2]]}, "Give either"),
        ({"aspect_ratios": [[2]], "scales": [0.2, 0.4], "shapes": [[(1, 1)]]}, "shapes replaces"),
        ({"shapes": [[(1, 1)]], "steps": [1, 2]}, "one entry per feature map"),
        ({"shapes": [[(1, 1)]], "offsets": [(1, 2)] * 2}, "offsets must have one entry per feature map"),
        ({"shapes": [[(1, 1)]], "clip": True}, "'sizes', 'all' or 'none'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DefaultBoxGenerator(**arguments)


def test_wrong_number_of_maps():
    with pytest.raises(ValueError, match="Got 2 feature maps, but shapes for 1"):
        DefaultBoxGenerator(shapes=[[(1, 1)]])([(1, 1), (1, 1)], (8, 8))


def test_never_in_half_precision_nor_on_meta():
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            boxes = DefaultBoxGenerator(shapes=[[(0.5, 0.5)]])([(3, 3)], (100, 100))
    finally:
        torch.set_default_dtype(torch.float32)
    assert boxes.dtype == torch.float32
    assert boxes.device.type == "cpu"
    assert boxes[0].tolist() == pytest.approx([100 / 6 - 25, 100 / 6 - 25, 100 / 6 + 25, 100 / 6 + 25])


def test_encodes_by_hand():
    default_boxes = torch.tensor([[10.0, 10, 30, 50]])
    # Centre (20, 30), size (20, 40); the object's centre is (22, 26), its size (20, 80).
    offsets = encode_boxes(torch.tensor([[12.0, -14, 32, 66]]), default_boxes)
    assert offsets.tolist() == [pytest.approx([10 * 2 / 20, 10 * -4 / 40, 0, 5 * math.log(2)])]


def test_decoding_inverts_encoding():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 50, 2, generator=generator, dtype=torch.float64) * 100
    boxes = torch.cat([corner, corner + size + 1], dim=-1)
    default_boxes = boxes[torch.randperm(50, generator=generator)]
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, default_boxes), default_boxes), boxes)


def test_decoding_limits_growth():
    box = decode_boxes(torch.tensor([0.0, 0, 100, -100]), torch.tensor([0.0, 0, 16, 16]))
    assert (box[2] - box[0]).item() == pytest.approx(1000)
    assert 0 <= (box[3] - box[1]).item() < 1e-6

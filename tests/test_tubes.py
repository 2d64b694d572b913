"""Tubes and their metrics, against cases worked by hand."""

import pytest
import torch

from ssd_zoo.video import (
    bootstrap_difference,
    frame_map,
    link_tubes,
    match_frames,
    match_tubes,
    tube_iou,
    tubes_of_target,
    video_map,
)


def detections(*rows):
    """Rows of frame, label, score, x of a box 10 wide and 10 high."""
    frames, labels, scores, xs = zip(*rows, strict=True)
    left = torch.tensor(xs, dtype=torch.float32)
    zeros = torch.zeros_like(left)
    return {
        "boxes": torch.stack([left, zeros, left + 10, zeros + 10], 1),
        "labels": torch.tensor(labels),
        "scores": torch.tensor(scores),
        "frame_index": torch.tensor(frames),
    }


def target(*rows, **more):
    """Rows of frame, label, track, x."""
    found = detections(*((frame, label, 1.0, x) for frame, label, _, x in rows))
    del found["scores"]
    return {**found, "track_ids": torch.tensor([row[2] for row in rows]), **more}


def lefts(tube):
    return tube["boxes"][:, 0].tolist()


def test_links_by_score_and_iou():
    found = detections(
        (0, 1, 0.9, 0), (0, 1, 0.6, 50), (1, 1, 0.5, 3), (1, 1, 0.8, 52), (2, 1, 0.7, 54), (2, 1, 0.9, 5)
    )
    first, second = link_tubes(found)
    assert (lefts(first), lefts(second)) == ([0, 3, 5], [50, 52, 54])
    assert first["score"] == pytest.approx((0.9 + 0.5 + 0.9) / 3)
    assert second["score"] == pytest.approx((0.6 + 0.8 + 0.7) / 3)
    assert first["frame_index"].tolist() == [0, 1, 2]


def test_the_better_tube_chooses_first_and_takes_the_better_box():
    # Both boxes of frame 1 overlap both tubes; the better tube takes the better-scored, not the nearer.
    found = detections((0, 1, 0.9, 0), (0, 1, 0.3, 2), (1, 1, 0.6, 0), (1, 1, 0.8, 2))
    first, second = link_tubes(found)
    assert (lefts(first), lefts(second)) == ([0, 2], [2, 0])


def test_gaps_are_filled_evenly_and_end_tubes():
    found = detections((0, 1, 0.9, 0), (4, 1, 0.5, 4), (8, 1, 0.7, 4))
    [tube] = link_tubes(found, max_gap=3)
    assert lefts(tube) == [0, 1, 2, 3, 4, 4, 4, 4, 4]
    assert tube["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.55, 0.6, 0.65, 0.7])
    assert tube["score"] == pytest.approx(0.7)
    assert len(link_tubes(found, max_gap=2)) == 3
    assert len(link_tubes(found, max_gap=2, min_length=2)) == 0


def test_classes_are_linked_apart():
    tubes = link_tubes(detections((0, 1, 0.9, 0), (1, 2, 0.6, 0), (2, 1, 0.7, 0)))
    assert [(tube["label"], len(tube["boxes"])) for tube in tubes] == [(1, 3), (2, 1)]


def test_no_detections_no_tubes():
    nothing = {key: value[:0] for key, value in detections((0, 1, 0.9, 0)).items()}
    assert link_tubes(nothing) == []
    assert frame_map([nothing], [target((0, 1, 0, 0))]) == 0
    assert video_map([[]], [target((0, 1, 0, 0))], setting="trimmed")["video_map@0.2"] == 0


def test_linking_looks_at_the_past_alone():
    found = detections((0, 1, 0.9, 0), (0, 1, 0.6, 5), (1, 1, 0.5, 3), (1, 1, 0.8, 4), (2, 1, 0.7, 3), (2, 1, 0.9, 5))
    early = {key: value[:4] for key, value in found.items()}
    for tube, longer in zip(link_tubes(early), link_tubes(found), strict=True):
        assert lefts(tube) == lefts(longer)[:2]


def test_tube_iou():
    # Frames 1 and 2 are common, of 0 to 3. There the boxes overlap by 1 and by 5 / 15.
    one, other = tubes_of_target(
        target((0, 1, 0, 0), (1, 1, 0, 0), (2, 1, 0, 0), (1, 1, 1, 0), (2, 1, 1, 5), (3, 1, 1, 5))
    )
    assert tube_iou(one, other) == pytest.approx((1 + 1 / 3) / 4)
    assert tube_iou(one, one) == 1
    [far] = tubes_of_target(target((9, 1, 0, 0)))
    assert tube_iou(one, far) == 0


def test_frame_map():
    truth = target((0, 1, 0, 0), (1, 1, 0, 0), (2, 1, 0, 0), (0, 2, 1, 50))
    # Class 1, best first: right, found before, right, on the wrong frame; 2 of 3 found.
    # Precision 1, 1/2, 2/3, 1/2: at each recall the best is 1 and 2/3, so AP = (1 + 2/3) / 3. Class 2 has AP 1.
    found = detections((0, 1, 0.9, 0), (0, 1, 0.8, 1), (1, 1, 0.7, 2), (5, 1, 0.6, 0), (0, 2, 0.3, 51))
    assert frame_map([found], [truth]) == pytest.approx(((1 + 2 / 3) / 3 + 1) / 2)
    # At IoU 0.7 the shifted boxes, of 8/12 and 9/11, are wrong and right.
    assert frame_map([found], [truth], iou_thresh=0.7) == pytest.approx((1 / 3 + 1) / 2)


def test_frame_map_pools_videos_and_leaves_unlabeled_frames_out():
    truth = target((0, 1, 0, 0), labeled_frames=torch.tensor([0]))
    one, other = detections((0, 1, 0.5, 0), (3, 1, 0.9, 0)), detections((0, 1, 0.7, 90))
    # The box on frame 3 does not count; over both videos the order is wrong, right; 1 of 2 found at precision 1/2.
    assert frame_map([one, other], [truth, truth]) == pytest.approx(0.25)


def test_video_map():
    truth = [target(*((t, 1, 0, 0) for t in range(4))), target(*((t, 2, 7, 0) for t in range(4)))]
    # IoU 1 in two of four frames: 0.5 exactly; in the other video 8/12 in all.
    found = [
        link_tubes(detections((0, 1, 0.9, 0), (1, 1, 0.9, 0))),
        link_tubes(detections(*((t, 2, 0.8, 2) for t in range(4)))),
    ]
    result = video_map(found, truth, setting="untrimmed")
    assert result["setting"] == "untrimmed"
    assert result["video_map@0.2"] == 1
    assert result["video_map@0.5"] == 1
    # The first is right at 0.5 alone; the second at 0.5, 0.55, 0.6 and 0.65.
    assert result["video_map@0.5:0.95"] == pytest.approx((1 / 10 + 4 / 10) / 2)


def test_trimmed_videos_have_objects_in_every_frame():
    truth = target((0, 1, 0, 0), (1, 1, 0, 0), (1, 1, 1, 50))
    with pytest.raises(ValueError, match=r"Objects of video 0 are visible in \[1, 2\] frames: it is untrimmed"):
        video_map([[]], [truth], setting="trimmed")
    with pytest.raises(ValueError, match="'trimmed' or 'untrimmed', got 'cut'"):
        video_map([[]], [truth], setting="cut")


def test_bootstrap():
    truth = target((0, 1, 0, 0))
    right, wrong = (match_frames(detections((0, 1, 0.9, x)), truth) for x in (0, 90))
    assert bootstrap_difference([right, wrong] * 20, [right, wrong] * 20, samples=50) == (0, 0, 0)
    difference, low, high = bootstrap_difference([wrong] * 40, [right, right, right, wrong] * 10, samples=200)
    assert difference > 0.5
    assert 0.3 < low < difference < high <= 1
    # A tube's matches go the same way.
    assert match_tubes(link_tubes(detections((0, 1, 0.9, 0))), truth).right.tolist() == [True]


def test_tubes_of_a_track_that_is_ignored_on_some_frames_or_changes_its_class():
    crowds = torch.tensor([1, 0, 0, 1, 1])
    rows = [(0, 1, 7, 10), (1, 1, 7, 12), (2, 1, 7, 14), (0, 1, 8, 50), (1, 1, 8, 52)]
    first, second = tubes_of_target(target(*rows, iscrowd=crowds))
    assert (first["frame_index"].tolist(), first["iscrowd"], lefts(first)) == ([1, 2], False, [12, 14])
    assert (second["frame_index"].tolist(), second["iscrowd"]) == ([0, 1], True)
    changing = tubes_of_target(target((0, 1, 7, 10), (1, 1, 7, 12), (2, 2, 7, 14)))
    assert [(tube["label"], tube["frame_index"].tolist()) for tube in changing] == [(1, [0, 1]), (2, [2])]

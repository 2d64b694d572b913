"""The examples on degraded videos, with cases worked by hand."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest
import torch
from labelled import colourful, draw

import ssd_zoo

VIDEO = Path(__file__).parents[1] / "examples" / "video"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(VIDEO)
    return importlib.import_module


@pytest.mark.parametrize("kind", ["noise", "blur", "compression", "blanks", "bars"])
def test_stronger_is_worse(example, kind):
    degrade = example("degrade").degrade
    picture = torch.linspace(0, 255, 48).expand(3, 32, 48)
    clip = torch.stack([picture.roll(8 * t, -1) for t in range(8)]).byte()

    def error(strength):
        bad = degrade(clip, kind, strength, torch.Generator().manual_seed(1))
        assert (bad.shape, bad.dtype) == (clip.shape, clip.dtype)
        assert torch.equal(bad, degrade(clip, kind, strength, torch.Generator().manual_seed(1)))
        return (bad.float() - clip.float()).square().mean()

    assert 0 < error(0.1) < error(1.0)


def test_unknown_kind(example):
    with pytest.raises(ValueError, match="no kind 'rain'"):
        example("degrade").degrade(torch.zeros(1, 3, 8, 8).byte(), "rain", 0.5, torch.Generator())


def found_in(*frames):
    """Detections of a person 100 pixels wide and high, by (frame, left, score)."""
    frame, left, score = torch.tensor(frames).float().unbind(1)
    boxes = torch.stack([left, 0 * left, left + 100, 0 * left + 100], 1)
    return {"boxes": boxes, "scores": score, "labels": torch.ones_like(score).long(), "frame_index": frame.long()}


def test_a_lost_person_is_held(example):
    hold = example("persons").hold
    held = hold(found_in((0, 0, 0.8), (1, 10, 0.9), (4, 40, 0.7)), 5, kalman=False)
    assert held["frame_index"].tolist() == [0, 1, 2, 3, 4]
    assert held["boxes"][:, 0].tolist() == [0, 10, 10, 10, 40]
    torch.testing.assert_close(held["scores"], torch.tensor([0.8, 0.9, 0.81, 0.729, 0.7]))
    moved = hold(found_in(*((t, 10 * t, 0.9) for t in range(8))), 9, kalman=True)
    assert 75 < moved["boxes"][8, 0] < 80, "the filter goes on at ten pixels a frame"


def test_flicker_counts_from_the_first_find(example):
    flicker = example("persons").flicker
    target = {"frame_index": torch.arange(5), "boxes": torch.tensor([[0.0, 0, 100, 100]]).expand(5, 4)}
    # Frame 0 comes before the first find, frame 2 is unsure, frame 3 is elsewhere.
    assert flicker(found_in((1, 0, 0.9), (2, 0, 0.2), (3, 60, 0.9), (4, 10, 0.9)), target) == (2, 4)
    assert flicker(found_in((1, 60, 0.9)), target) == (0, 0)


def test_a_pan_moves_between_two_windows(example):
    photo = torch.arange(200).expand(3, 100, 200).byte()
    clip = example("free_labels").pan(photo, 5, torch.Generator().manual_seed(0), size=32)
    assert clip.shape == (5, 3, 32, 32)
    means = clip.float().mean((1, 2, 3))
    assert means.diff().sign().unique().numel() == 1, "from one side to the other"


@pytest.mark.slow
@pytest.mark.parametrize("temporal", ["depthwise", "2-D"])
def test_training_without_labels(monkeypatch, capsys, tmp_path, temporal):
    for picture in colourful(2):
        draw(picture, tmp_path / "photos" / f"{picture.name}.png")
    monkeypatch.syspath_prepend(VIDEO)
    arguments = [tmp_path / "photos", "--output", tmp_path / "student", "--steps", 1, "--batch-size", 1, "--frames", 2]
    monkeypatch.setattr(sys, "argv", ["free_labels.py", *map(str, arguments), "--temporal", temporal])
    runpy.run_path(str(VIDEO / "free_labels.py"), run_name="__main__")
    assert "step 0: " in capsys.readouterr().out
    student = ssd_zoo.from_pretrained(tmp_path / "student")
    assert student.categories == ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").categories

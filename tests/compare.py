"""What "the same detections" means where the same sums are done in another order."""

import torch

SCORE, PIXELS = 1e-5, 0.01


def assert_same_detections(actual, expected):
    """Per image: as many, and to each one of the same label, score and box; equal scores have no order."""
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert len(ours["scores"]) == len(theirs["scores"])
        assert (ours["scores"].diff() <= 0).all()
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=SCORE)
        alike = (ours["labels"].unsqueeze(1) == theirs["labels"]) & (
            (ours["scores"].unsqueeze(1) - theirs["scores"]).abs() <= SCORE
        )
        alike &= ((ours["boxes"].unsqueeze(1) - theirs["boxes"]).abs() <= PIXELS).all(-1)
        # Where two are alike, they are so close that either may stand for the other.
        assert alike.any(0).all()
        assert alike.any(1).all()

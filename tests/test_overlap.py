"""Intersection over union is written three times, for speed and for exporters; all are torchvision's."""

import torch
from torchvision import ops

from ssd_zoo.detector.overlap import box_iou
from ssd_zoo.detector.postprocess.cpu import _overlap
from ssd_zoo.detector.postprocess.suppress import _facts, _overlaps

COUNT = 300
NEAR = 1e-6


def boxes():
    """Boxes in pixels, many of which overlap, some within others, some the same, some side by side."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(COUNT, 2, generator=generator) * 250
    found = torch.cat([corners, corners + 1 + torch.rand(COUNT, 2, generator=generator) * 150], 1)
    found[10:20] = found[:10]
    found[20:30] = found[:10] + torch.tensor([1.0, 2, 0, 0]) * 0.25
    found[30:40] = torch.cat([found[:10, 2:3], found[:10, 1:2], found[:10, 2:] + torch.tensor([20.0, 0])], 1)
    return found


def test_all_formulas_are_torchvisions():
    """The two of NMS answer whether an overlap is above a threshold, of each pair here just below it and just above."""
    some = boxes()
    iou = ops.box_iou(some, some)
    assert (iou > 0.5).sum() > 2 * COUNT
    torch.testing.assert_close(box_iou(some, some), iou, rtol=0, atol=NEAR)
    second, first = torch.tril_indices(COUNT, COUNT, -1)
    facts = _facts(some.unsqueeze(0), torch.zeros(1, COUNT, dtype=torch.int64))
    for thresh, above in ((iou - NEAR, True), (iou + NEAR, False)):
        assert ((_overlaps(facts, facts, thresh)[0, second, first] > 0) == above).all()
        pairs = (first.numpy(), second.numpy(), thresh[first, second].numpy())
        assert (_overlap(some.T.numpy(), *pairs) == above).all()

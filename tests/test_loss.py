"""Losses, against torchvision and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou_loss

from ssd_zoo.detector.box_losses import ciou, giou
from ssd_zoo.detector.boxes import DefaultBoxGenerator, decode_boxes
from ssd_zoo.detector.loss import multibox_loss
from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.detector.targets import batch_targets

SIZE = (64, 64)
DEFAULT_BOXES = DefaultBoxGenerator([[2], [2]], [0.2, 0.5, 0.9], steps=[8, 16])([(8, 8), (4, 4)], SIZE)
NUM_CLASSES = 5


def random_raw(images, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, len(DEFAULT_BOXES))
    return {
        "cls_logits": torch.randn(*shape, NUM_CLASSES, generator=generator, dtype=dtype).requires_grad_(),
        "bbox_regression": torch.randn(*shape, 4, generator=generator, dtype=dtype).requires_grad_(),
    }


def random_targets(*counts, seed=1):
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 20], dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, NUM_CLASSES, (count,), generator=generator)})
    return targets


def loss_of(raw, targets, **settings):
    boxes, labels, valid = batch_targets(targets)
    matched = match_default_boxes(boxes, valid, DEFAULT_BOXES, 0.5)
    return multibox_loss(raw, boxes, labels, matched, DEFAULT_BOXES, **settings)


def torchvision_loss_of(raw, targets):
    model = torchvision_ssd.SSD.__new__(torchvision_ssd.SSD)
    torch.nn.Module.__init__(model)
    model.box_coder = torchvision_utils.BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    model.neg_to_pos_ratio = 3
    matcher = torchvision_utils.SSDMatcher(0.5)
    matched = [
        matcher(box_iou(target["boxes"], DEFAULT_BOXES))
        if len(target["boxes"])
        else torch.full((len(DEFAULT_BOXES),), -1)
        for target in targets
    ]
    return model.compute_loss(targets, raw, [DEFAULT_BOXES] * len(targets), matched)


@pytest.mark.parametrize("counts", [(3,), (1, 4, 2), (0, 3), (12, 1), (0, 0)])
def test_is_torchvisions_with_its_gradients(counts):
    targets = random_targets(*counts)
    ours, theirs = random_raw(len(counts)), random_raw(len(counts))
    losses, expected = loss_of(ours, targets, min_negatives=0), torchvision_loss_of(theirs, targets)
    assert losses.keys() == expected.keys()
    for key, value in losses.items():
        torch.testing.assert_close(value, expected[key])
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for key, value in ours.items():
        torch.testing.assert_close(value.grad, theirs[key].grad)


def test_the_floor_of_negatives_changes_nothing_where_there_are_objects():
    targets = random_targets(3, 1)
    for key, value in loss_of(random_raw(2), targets).items():
        torch.testing.assert_close(value, torchvision_loss_of(random_raw(2), targets)[key])


def test_an_image_without_objects_teaches_its_hardest_negatives():
    raw = random_raw(1)
    losses = loss_of(raw, random_targets(0), min_negatives=2)
    background = raw["cls_logits"][0].log_softmax(-1)[:, 0]
    torch.testing.assert_close(losses["classification"], -background.sort().values[:2].sum())
    assert losses["bbox_regression"] == 0
    losses["classification"].backward()
    assert (raw["cls_logits"].grad[0].abs().sum(-1) > 0).sum() == 2
    assert loss_of(random_raw(1), random_targets(0), min_negatives=0)["classification"] == 0


def test_by_hand():
    # One object on one of two default boxes; logits of 0 make each class as likely.
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    raw = {"cls_logits": torch.zeros(1, 2, 4), "bbox_regression": torch.zeros(1, 2, 4)}
    boxes, labels = torch.tensor([[[1.0, 0, 11, 10]]]), torch.tensor([[2]])
    matched = torch.tensor([[0, -1]])
    losses = multibox_loss(raw, boxes, labels, matched, default_boxes)
    # The centre is off by 1 of 10 pixels, 10 · 0.1 = 1, of which smooth L1 makes 0.5.
    assert losses["bbox_regression"].item() == pytest.approx(0.5)
    assert losses["classification"].item() == pytest.approx(2 * math.log(4))
    sigmoid = multibox_loss(raw, boxes, labels, matched, default_boxes, score_function="sigmoid")
    assert sigmoid["classification"].item() == pytest.approx(2 * 4 * math.log(2))
    focal = multibox_loss(raw, boxes, labels, matched, default_boxes, classification_loss="focal")
    assert focal["classification"].item() == pytest.approx((0.25 + 0.75) * 0.75**2 * math.log(4))
    both = multibox_loss(
        raw, boxes, labels, matched, default_boxes, score_function="sigmoid", classification_loss="focal"
    )
    # Six logits of the foreground: one positive, five negative, each p = 1/2.
    assert both["classification"].item() == pytest.approx((0.25 + 5 * 0.75) * 0.25 * math.log(2))


def test_positive_fraction_says_how_many_negatives():
    targets = random_targets(2)
    raw = random_raw(1)
    loss_of(raw, targets, positive_fraction=0.5, min_negatives=0)["classification"].backward()
    seen = (raw["cls_logits"].grad[0].abs().sum(-1) > 0).sum()
    boxes, _, valid = batch_targets(targets)
    num_positive = (match_default_boxes(boxes, valid, DEFAULT_BOXES, 0.5) >= 0).sum()
    assert seen == 2 * num_positive


@pytest.mark.parametrize(
    ("box_loss", "torchvisions"), [(giou, generalized_box_iou_loss), (ciou, complete_box_iou_loss)]
)
def test_iou_losses_are_torchvisions_with_their_gradients(box_loss, torchvisions):
    # Offsets of three variances: boxes that meet the right ones, and some that do not.
    generator = torch.Generator().manual_seed(0)
    default_boxes = DEFAULT_BOXES.double()
    offsets, target = (3 * torch.randn(2, len(default_boxes), 4, generator=generator).double() for _ in range(2))
    right = decode_boxes(target, default_boxes)
    apart = (box_iou(decode_boxes(offsets[0], default_boxes), right[0]).diag() == 0).float().mean()
    assert 0.02 < apart < 0.5
    ours, theirs = (offsets.clone().requires_grad_() for _ in range(2))
    loss, expected = box_loss(ours, target, default_boxes), torchvisions(decode_boxes(theirs, default_boxes), right)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("classification_loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("score_function", ["softmax", "sigmoid"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "ciou"])
def test_every_loss_falls_and_has_finite_gradients(classification_loss, score_function, box_loss):
    targets = random_targets(3, 0)
    raw = random_raw(2)
    optimizer = torch.optim.Adam(raw.values(), lr=0.1)
    history = []
    for _ in range(20):
        losses = loss_of(
            raw,
            targets,
            classification_loss=classification_loss,
            score_function=score_function,
            box_loss=box_loss,
        )
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert all(value.grad.isfinite().all() for value in raw.values())
        optimizer.step()
        history.append([value.item() for value in losses.values()])
    assert all(last < 0.8 * first for first, last in zip(history[0], history[-1], strict=True))


def test_callables():
    def twice(cls_logits, labels, score_function):
        assert score_function == "softmax"
        return 2 * F.cross_entropy(cls_logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)

    def l1(offsets, target, default_boxes):
        assert default_boxes is DEFAULT_BOXES
        return (offsets - target).abs().sum(-1)

    targets = random_targets(2)
    plain = loss_of(random_raw(1), targets)
    custom = loss_of(random_raw(1), targets, classification_loss=twice, box_loss=l1)
    torch.testing.assert_close(custom["classification"], 2 * plain["classification"])
    assert custom["bbox_regression"] > plain["bbox_regression"]

"""Default boxes fitted to data, on data whose right answer is plain."""

import pytest
import torch
from labelled import colourful, make_coco
from torch import nn
from torchvision import tv_tensors
from torchvision.ops import box_iou

from ssd_zoo import SSD, DefaultBoxGenerator, fit_default_boxes
from ssd_zoo.data import open_dataset

IMAGE = torch.zeros(3, 128, 128)


class Backbone(nn.Module):
    """Maps of stride 8 and 32."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 8, stride=8)
        self.second = nn.Conv2d(4, 4, 4, stride=4)

    def forward(self, batch):
        first = self.first(batch)
        return [first, self.second(first)]


@pytest.fixture
def model():
    boxes = DefaultBoxGenerator(shapes=[[(0.1, 0.1), (0.2, 0.1)], [(0.5, 0.5), (0.9, 0.9)]], steps=[8, 32])
    return SSD(Backbone(), boxes, (128, 128), ["background", "thing"])


def assert_close(actual, expected):
    torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected))


def boxes_of(width, height, count=8):
    corner = torch.linspace(0, 128 - max(width, height), count)
    return torch.stack([corner, corner, corner + width, corner + height], dim=1)


def test_finds_the_shapes_that_there_are(model):
    tall, wide, large = boxes_of(10, 40), boxes_of(40, 10), boxes_of(100, 80)
    dataset = [(IMAGE, {"boxes": torch.cat([tall, wide])}), (IMAGE, {"boxes": large})]
    fit = fit_default_boxes(dataset, model)
    # 10 × 40 falls to the map of stride 8; 100 × 80 to that of stride 32, whose two shapes are alike then.
    assert_close(sorted(fit.default_boxes.shapes[0]), [(10 / 128, 40 / 128), (40 / 128, 10 / 128)])
    assert_close(fit.default_boxes.shapes[1], [(100 / 128, 80 / 128)] * 2)
    assert fit.default_boxes.steps == (8, 32)
    assert fit.objects == 24


def test_counts_what_is_not_reached(model):
    objects = torch.cat([boxes_of(10, 40), boxes_of(64, 64)])
    fit = fit_default_boxes([(IMAGE, {"boxes": objects})], model)
    # Of the squares, those in the corners meet a default box of their size; the tall ones never did.
    before = box_iou(objects, model.default_boxes).amax(1)
    assert (before[:8] < 0.5).all()
    assert fit.unreached_before == (before < 0.5).sum()
    assert fit.mean_iou_before == pytest.approx(before.mean().item())
    after = box_iou(objects, fit.default_boxes([(16, 16), (4, 4)], (128, 128))).amax(1)
    assert fit.unreached_after == (after < 0.5).sum() < fit.unreached_before
    assert f"for {fit.unreached_before} before, {fit.unreached_after} after" in str(fit)


def test_maps_with_few_objects_keep_their_shapes(model):
    fit = fit_default_boxes([(IMAGE, {"boxes": boxes_of(10, 10)})], model)
    assert fit.default_boxes.shapes[1] == model.default_box_generator.shapes[1]


def test_objects_are_measured_in_the_input(model):
    large = tv_tensors.BoundingBoxes(boxes_of(10, 40) * 4, format="XYXY", canvas_size=(512, 512))
    fit = fit_default_boxes([(torch.zeros(3, 512, 512), {"boxes": large})], model)
    assert_close(fit.default_boxes.shapes[0], [(10 / 128, 40 / 128)] * 2)


def test_boxes_may_be_integers(model):
    integers = (boxes_of(10, 40) * 4).long()
    fit = fit_default_boxes([(torch.zeros(3, 512, 512), {"boxes": integers})], model)
    assert fit.objects == 8
    assert_close(fit.default_boxes.shapes[0], [(10 / 128, 40 / 128)] * 2)


def test_an_opened_data_set_is_not_decoded(model, tmp_path, monkeypatch):
    dataset = open_dataset(make_coco(tmp_path, pictures=colourful(12)))
    of_pairs = fit_default_boxes(list(dataset), model)
    monkeypatch.setattr("ssd_zoo.data.annotations.read_image", None)
    assert fit_default_boxes(dataset, model) == of_pairs
    assert of_pairs.objects == 12


def test_crowds_are_no_objects(model):
    boxes, iscrowd = torch.cat([boxes_of(10, 40), boxes_of(90, 5)]), torch.tensor([0] * 8 + [1] * 8)
    fit = fit_default_boxes([(IMAGE, {"boxes": boxes, "iscrowd": iscrowd})], model)
    assert fit == fit_default_boxes([(IMAGE, {"boxes": boxes_of(10, 40)})], model)


def test_the_result_builds_a_model_of_the_same_layers(model):
    fit = fit_default_boxes([(IMAGE, {"boxes": boxes_of(10, 40)})], model)
    other = SSD(Backbone(), fit.default_boxes, (128, 128), model.categories)
    assert other.load_state_dict(model.state_dict()).missing_keys == []
    assert len(other.default_boxes) == len(model.default_boxes)


def test_a_data_set_without_objects(model):
    with pytest.raises(ValueError, match="has no objects"):
        fit_default_boxes([(IMAGE, {"boxes": torch.zeros(0, 4)})], model)
    with pytest.raises(ValueError, match="has no objects"):
        fit_default_boxes([], model)

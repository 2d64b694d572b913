"""Data sets in memory give what their images and targets hold."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from labelled import CATEGORIES, PICTURES, draw, make_coco
from PIL import Image

from ssd_zoo.data import inspect_dataset, open_dataset, usable

NAMES = CATEGORIES[1:]


def picture(one):
    return Image.fromarray(np.full((*one.size, 3), 60, np.uint8))


def check(dataset, pixels=60):
    assert dataset.categories == CATEGORIES
    for (image, target), one in zip(dataset, PICTURES, strict=True):
        assert image.shape == (3, *one.size)
        assert image[:, 0, 0].tolist() == [pixels] * 3
        assert target["boxes"].tolist() == [list(map(float, box)) for _, box in one.things]
        assert target["labels"].tolist() == [label for label, _ in one.things]
    report = inspect_dataset(dataset)
    assert report.problems == []
    assert usable(dataset, report) is dataset
    assert len(pickle.loads(pickle.dumps(dataset))) == 3


@pytest.mark.parametrize("kind", ["pillow", "uint8", "float"])
def test_pairs(kind):
    pairs = []
    for one in PICTURES:
        image = picture(one)
        if kind != "pillow":
            image = torch.full((3, *one.size), 60, dtype=torch.uint8)
            image = image / 255 if kind == "float" else image
        boxes = torch.tensor([box for _, box in one.things]).reshape(-1, 4)
        pairs.append((image, {"boxes": boxes, "labels": torch.tensor([label for label, _ in one.things])}))
    check(open_dataset(pairs, categories=CATEGORIES))
    with pytest.raises(ValueError, match="need the names of classes"):
        open_dataset(pairs)
    with pytest.raises(ValueError, match="Item 0 must have a label from 1 to 1 for each box, got \\[1, 2\\]"):
        open_dataset(pairs, categories=CATEGORIES[:2])
    with pytest.raises(ValueError, match="Item 0 must be a pair"):
        open_dataset([1], categories=CATEGORIES)


def test_supervision(tmp_path):
    supervision = pytest.importorskip("supervision")
    paths, found = [], {}
    for one in PICTURES:
        draw(one, tmp_path / f"{one.name}.png")
        paths.append(str(tmp_path / f"{one.name}.png"))
        boxes = np.array([box for _, box in one.things], float).reshape(-1, 4)
        labels = np.array([thing.label - 1 for thing in one.things], int)
        found[paths[-1]] = supervision.Detections(boxes, class_id=labels)
    check(open_dataset(supervision.DetectionDataset(NAMES, paths, found)))


def test_coco_detection(tmp_path):
    """The official index is not installed here; it is an object whose `dataset` is the file's content."""
    file = make_coco(tmp_path)
    index = SimpleNamespace(dataset=json.loads(file.read_text()))
    check(open_dataset(SimpleNamespace(root=str(tmp_path / "images"), coco=index)))


@pytest.mark.parametrize("corners", [False, True])
def test_hugging_face(corners):
    datasets = pytest.importorskip("datasets")

    def boxes(one):
        return [[x1, y1, x2, y2] if corners else [x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in one.things]

    rows = {
        "image": [picture(one) for one in PICTURES],
        "objects": [{"bbox": boxes(one), "category": [label - 1 for label, _ in one.things]} for one in PICTURES],
    }
    label = datasets.ClassLabel(names=NAMES)
    objects = {"bbox": datasets.Sequence(datasets.Value("float32")), "category": label}
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.Sequence(objects)})
    check(open_dataset(datasets.Dataset.from_dict(rows, features=features)))


def test_other_objects():
    with pytest.raises(TypeError, match="Expected a folder, .* got int"):
        open_dataset(7)

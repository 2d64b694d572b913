"""Data sets in memory give what their images and targets hold."""

import io
import pickle

import numpy as np
import pytest
import torch
from labelled import CATEGORIES, PICTURES, draw, make_coco
from PIL import ExifTags, Image
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection

from ssd_zoo.data import inspect_dataset, open_dataset, usable
from ssd_zoo.prediction.sources import read_pixels

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


def turned_by(orientation, stored):
    """A picture as a camera stores it, with the tag that says how to turn it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    return Image.open(file)


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_pairs_of_pictures_are_upright_as_for_predict(orientation, turns, convert):
    upright = np.zeros((60, 80, 3), np.uint8)
    upright[6:30, 8:40] = 200
    image = turned_by(orientation, np.rot90(upright, turns).copy())
    target = {"boxes": [[8.0, 6, 40, 30]], "labels": [1]}
    dataset = open_dataset([(image.convert("RGB") if convert else image, target)], categories=CATEGORIES)
    assert inspect_dataset(dataset).problems == []
    assert dataset.images[0].read_size() == (60, 80)
    pixels, read = dataset[0]
    assert torch.equal(pixels.as_subclass(torch.Tensor), read_pixels(image))
    assert np.array_equal(pixels.permute(1, 2, 0), upright)
    assert read["boxes"].canvas_size == (60, 80)


def test_boxes_that_name_another_canvas_are_a_problem():
    """As those of a picture that was stored on its side."""
    image = turned_by(6, np.zeros((80, 60, 3), np.uint8))
    boxes = tv_tensors.BoundingBoxes([[8.0, 6, 40, 30]], format="XYXY", canvas_size=(80, 60))
    dataset = open_dataset([(image, {"boxes": boxes, "labels": [1]})], categories=CATEGORIES)
    [problem] = inspect_dataset(dataset).problems
    assert problem == "item 0 has 80 × 60 pixels, but was labelled at 60 × 80"


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


def test_coco_detection(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="COCODETECTION IS NOT TESTED without pycocotools")
    file = make_coco(tmp_path)
    check(open_dataset(CocoDetection(tmp_path / "images", file)))
    capsys.readouterr()  # pycocotools prints.


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets", reason="HUGGING FACE'S DATA SETS ARE NOT TESTED without datasets")


def xywh(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def as_lists(box=xywh, name=lambda label: label - 1):
    return [
        {"bbox": [box(thing.box) for thing in one.things], "category": [name(label) for label, _ in one.things]}
        for one in PICTURES
    ]


def hugging_face(datasets, objects, feature=None, column="image"):
    rows = {column: [picture(one) for one in PICTURES], "objects": objects}
    features = {column: datasets.Image(), "objects": feature}
    return datasets.Dataset.from_dict(rows, features=None if feature is None else datasets.Features(features))


def features(datasets):
    """The ways in which data sets on the Hub declare their objects."""
    label, number = datasets.ClassLabel(names=NAMES), datasets.Value("float32")
    return {
        "sequence": datasets.Sequence({"bbox": datasets.Sequence(number, length=4), "category": label}),
        "lists": {"bbox": datasets.Sequence(datasets.Sequence(number)), "category": datasets.Sequence(label)},
        "list": [{"bbox": datasets.Sequence(number), "category": label}],
    }


@pytest.mark.parametrize("box", [xywh, list])
@pytest.mark.parametrize("declared", ["sequence", "lists", "list"])
def test_hugging_face(box, declared, datasets):
    objects = as_lists(box)
    if declared == "list":
        objects = [[dict(zip(one, pair, strict=True)) for pair in zip(*one.values(), strict=True)] for one in objects]
    source = hugging_face(datasets, objects, features(datasets)[declared])
    check(open_dataset(source))
    check(open_dataset(source.rename_column("image", "img")))
    check(open_dataset(source.with_format("torch")))


def test_a_hugging_face_row_that_is_cut_off_is_named(datasets):
    source = hugging_face(datasets, as_lists(), features(datasets)["lists"])
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    rows = source.cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"] = {"bytes": stream.getvalue()[:200], "path": None}
    broken = datasets.Dataset.from_list(rows, features=source.features)
    with pytest.raises(ValueError, match="Row 1 can't be read: "):
        open_dataset(broken)


def test_hugging_face_pictures_are_turned_once(datasets):
    """The package turns them upright itself, and leaves no orientation."""
    upright, stream = np.zeros((60, 80, 3), np.uint8), io.BytesIO()
    upright[6:30, 8:40] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(upright).copy()).save(stream, "PNG", exif=exif)
    objects = [{"bbox": [[8.0, 6, 32, 24]], "category": ["cat"]}]
    rows = {"image": [{"bytes": stream.getvalue(), "path": None}], "objects": objects}
    source = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    dataset = open_dataset(source)
    assert inspect_dataset(dataset).problems == []
    assert np.array_equal(dataset[0][0].permute(1, 2, 0), upright)


def test_hugging_face_names_of_classes(datasets):
    check(open_dataset(hugging_face(datasets, as_lists(name=lambda label: CATEGORIES[label]))))
    numbers = hugging_face(datasets, as_lists())
    check(open_dataset(numbers, categories=CATEGORIES))
    with pytest.raises(ValueError, match="no ClassLabel; pass their names"):
        open_dataset(numbers)
    with pytest.raises(ValueError, match="Row 0 has the class 1, and there are 1, counted from 0"):
        open_dataset(numbers, categories=CATEGORIES[:2])


def test_hugging_face_splits(datasets):
    source = hugging_face(datasets, as_lists(), features(datasets)["lists"])
    both = datasets.DatasetDict({"train": source, "validation": source.select([0])})
    check(open_dataset(both, "train"))
    assert len(open_dataset(both, "val")) == 1
    check(open_dataset(datasets.DatasetDict({"train": source})))
    for split in (None, "test"):
        with pytest.raises(ValueError, match="has the splits train, validation; choose one"):
            open_dataset(both, split)


def test_hugging_face_rows_that_are_wrong(datasets):
    good = as_lists()
    assert open_dataset(hugging_face(datasets, [*good[:2], None]), categories=CATEGORIES).images[2].objects == ()
    short = [good[0], good[1], {**good[2], "category": []}]
    for objects, message in (
        (short, "Row 2 has 1 boxes and 0 classes"),
        (as_lists(lambda box: [1.0, 2.0]), "Row 0: a box must be four numbers"),
        ([{"area": [1]}] * 3, r"objects needs bbox and category or label, got \['area'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            open_dataset(hugging_face(datasets, objects), categories=CATEGORIES)
    source = hugging_face(datasets, good)
    with pytest.raises(ValueError, match=r"needs a column image, got \['x', 'objects'\]"):
        open_dataset(source.rename_column("image", "x"), categories=CATEGORIES)
    with pytest.raises(ValueError, match="needs a column objects"):
        open_dataset(source.remove_columns("objects"), categories=CATEGORIES)
    with pytest.raises(TypeError, match="is a stream"):
        open_dataset(source.to_iterable_dataset(), categories=CATEGORIES)


def test_other_objects():
    with pytest.raises(TypeError, match="Expected a folder, .* got int"):
        open_dataset(7)


def test_a_target_keeps_all_that_evaluation_reads():
    target = {
        "boxes": torch.tensor([[1.0, 2, 30, 40], [5, 5, 9, 9]]),
        "labels": torch.tensor([1, 2]),
        "iscrowd": torch.tensor([1, 0]),
        "area": torch.tensor([700.0, 16]),
        "difficult": torch.tensor([False, True]),
        "image_id": 77,
    }
    dataset = open_dataset([(picture(PICTURES[0]), target)], categories=CATEGORIES)
    _, read = dataset[0]
    for key in ("iscrowd", "area", "difficult"):
        assert read[key].tolist() == target[key].tolist()
    assert read["image_id"] == 77
    again = open_dataset([dataset[0]], categories=CATEGORIES)
    assert again.images[0].objects == dataset.images[0].objects
    with pytest.raises(ValueError, match=r"Item 0 must have a value of area for each of its 2 boxes, got 1"):
        open_dataset([(picture(PICTURES[0]), {**target, "area": [3.0]})], categories=CATEGORIES)
    with pytest.raises(ValueError, match=r"Item 0: the target lacks boxes; it has labels"):
        open_dataset([(picture(PICTURES[0]), {"labels": [1]})], categories=CATEGORIES)


@pytest.mark.parametrize("kind", ["XYWH", "CXCYWH", "XYXY"])
def test_boxes_are_in_the_format_that_they_name(kind):
    from torchvision.transforms.v2.functional import convert_bounding_box_format

    corners = tv_tensors.BoundingBoxes([[10.0, 10, 30, 40]], format="XYXY", canvas_size=(60, 80))
    boxes = convert_bounding_box_format(corners, new_format=tv_tensors.BoundingBoxFormat[kind])
    dataset = open_dataset([(picture(PICTURES[0]), {"boxes": boxes, "labels": [1]})], categories=CATEGORIES)
    assert dataset.images[0].objects[0].box == (10, 10, 30, 40)


def test_hugging_face_corners_with_an_untidy_box():
    datasets = pytest.importorskip("datasets")
    boxes = [[60.0, 30, 130 + i, 60] for i in range(10)] + [[100.0, 50, 203, 90]]
    rows = {
        "image": [Image.new("RGB", (200, 100))] * len(boxes),
        "objects": [
            {"bbox": [box], "category": ["cat"], "iscrowd": [i == 3], "area": [7.0]} for i, box in enumerate(boxes)
        ],
    }
    dataset = open_dataset(datasets.Dataset.from_dict(rows))
    assert [list(image.objects[0].box) for image in dataset.images] == boxes
    assert [image.objects[0].iscrowd for image in dataset.images] == [i == 3 for i in range(11)]
    assert {image.objects[0].area for image in dataset.images} == {7.0}

"""The report on a data set finds what is wrong with it, and where."""

import json
import random
from difflib import SequenceMatcher
from string import ascii_lowercase

import pytest
import torch
from labelled import Picture, Thing, make_coco, make_yolo
from torchvision.ops import box_iou

import ssd_zoo
from ssd_zoo.data import DataReport, fit_default_boxes, inspect_dataset, open_dataset, usable


@pytest.fixture
def broken(tmp_path):
    """Of four images one can't be opened and one is missing; of seven annotations five are bad."""
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    (tmp_path / "images/second.png").write_bytes(b"no picture")
    content["images"].append({"id": 10, "file_name": "fourth.png", "height": 9, "width": 9})
    content["images"].append({**content["images"][0]})
    bad = [([1, 1, 0, 5], 7), ([1, 1, float("nan"), 5], 7), ([500, 1, 5, 5], 7), ([1, 1, 5, 5], 99)]
    for i, (box, image_id) in enumerate(bad):
        content["annotations"].append({"id": 10 + i, "image_id": image_id, "category_id": 3, "bbox": box})
    content["annotations"].append({**content["annotations"][0]})
    content["categories"].append({"id": 20, "name": "bird"})
    # A line an annotation, so that its line is known.
    lists = {key: ",\n".join(map(json.dumps, value)) for key, value in content.items()}
    file.write_text("{" + ",".join(f'"{key}": [\n{text}\n]' for key, text in lists.items()) + "}")
    return open_dataset(file)


@pytest.mark.parametrize(("right", "bad"), [(120, False), (140, False), (141, True), (5000, True)])
def test_boxes_with_less_than_a_quarter_in_the_image(tmp_path, right, bad):
    """Of a box from 60 to 140, a quarter lies in an image that is 80 pixels wide."""
    file = make_coco(tmp_path, "train", [Picture("a", (60, 80), (Thing(1, (60, 10, right, 20)),))])
    problems = inspect_dataset(open_dataset(file)).problems
    assert ["lies mostly outside the image of 80 × 60" in problem for problem in problems] == [True] * bad


def test_report(broken):
    report = inspect_dataset(broken)
    lines = broken.images[0].source.read_text().splitlines()
    found = {}
    for problem in report.problems:
        place, _, text = problem.partition(": ")
        text = text.partition(": {")[0]
        found[text] = lines[int(place.rpartition(":")[2]) - 1] if ".json" in place else place
    assert '"bbox": [1, 1, 0, 5]' in found["the box (1, 1, 1, 6) has no area"]
    [nan] = [line for text, line in found.items() if "got nan" in text]
    assert "NaN" in nan
    assert '"bbox": [500' in found["the box (500, 1, 505, 6) lies outside the image of 80 × 60"]
    assert '"image_id": 99' in found["the annotation has the image_id 99, which does not match an image"]
    assert '"id": 1,' in found["the annotation has the id 1, which occurs twice"]
    assert "first.png" in found["the image has the id 7, which occurs twice; the first counts"]
    unreadable = sorted(problem.rpartition("/")[2] for problem in report.problems if ".json" not in problem)
    assert unreadable[0] == "fourth.png does not exist"
    assert unreadable[1].startswith("second.png is not an image that can be read. Formats are JPEG")
    assert len(unreadable) == 2
    assert len(report.problems) == 8
    assert report.missing == ["bird"]
    assert report.objects == {"cat": 3, "dog": 2, "bird": 0}
    assert "no object of: bird" in str(report)


def test_what_is_usable(broken):
    report = inspect_dataset(broken)
    with pytest.raises(ValueError, match=r"has 8 problems, and 6 of .*on_invalid='drop'(.|\n)*has no area"):
        usable(broken, report)
    rest = usable(broken, report, "drop")
    assert [entry.file.stem for entry in rest.images] == ["first", "third"]
    assert [len(entry.objects) for entry in rest.images] == [2, 1]
    assert inspect_dataset(rest).bad_objects == set()
    with pytest.raises(ValueError, match="on_invalid must be"):
        usable(broken, report, "ignore")


def test_clean_data_is_returned_as_it_is(tmp_path):
    dataset = open_dataset(make_yolo(tmp_path))
    report = inspect_dataset(dataset)
    assert report.problems == []
    assert usable(dataset, report) is dataset
    assert (report.images, report.empty_images, report.sizes) == (3, 1, {"small": 1, "medium": 2, "large": 0})


def test_another_size_than_labelled(tmp_path):
    file = make_coco(tmp_path)
    file.write_text(file.read_text().replace('"height": 60', '"height": 120'))
    [problem] = inspect_dataset(open_dataset(file)).problems
    assert problem.endswith("first.png has 80 × 60 pixels, but was labelled at 80 × 120")


def test_objects_out_of_reach(tmp_path):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")
    dataset = open_dataset(make_coco(tmp_path))
    boxes = []
    for entry in dataset.images:
        scale = torch.tensor([300 / entry.size[1], 300 / entry.size[0]]).repeat(2)
        boxes += [torch.tensor(thing.box) * scale for thing in entry.objects]
    expected = (box_iou(torch.stack(boxes), model.default_boxes).amax(1) < 0.5).sum()
    assert inspect_dataset(dataset, model).unreached == expected


def test_crowds_are_not_out_of_reach(tmp_path):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")
    model.iou_thresh = 1.0  # No object is reached.
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    dataset = open_dataset(file)
    assert inspect_dataset(dataset, model).unreached == fit_default_boxes(dataset, model).unreached_before == 2


def test_real_data(test_data):
    for split, name in (("train", "BloodImage_00343.xml"), ("val", "BloodImage_00338.xml")):
        [problem] = inspect_dataset(open_dataset(test_data / "bccd", split), read_images=False).problems
        assert name in problem
        assert problem.endswith("has no area")


def test_small_loss_is_dropped_with_a_line(tmp_path, caplog):
    """One box of a hundred may be lost by default; two of a hundred may not."""
    make_yolo(tmp_path)
    file = tmp_path / "labels/train/first.txt"
    good, bad = "0 .5 .5 .2 .2\n", "0 .5 .5 .2 0\n"
    file.write_text(good * 98 + bad)
    dataset = open_dataset(tmp_path)
    report = inspect_dataset(dataset)
    assert sum(report.objects.values()) == 100
    assert sum(len(entry.objects) for entry in usable(dataset, report).images) == 99
    assert "Left out: 1 object, 0 images. The first problem: " in caplog.text
    caplog.clear()
    assert inspect_dataset(usable(dataset, report, "drop")).problems == []
    assert not caplog.records, "it was asked for"
    with pytest.raises(ValueError, match="1 of its objects can't be used"):
        usable(dataset, report, "raise")
    file.write_text(good * 97 + bad + "0 .5 .5\n")
    dataset = open_dataset(tmp_path)
    with pytest.raises(ValueError, match="2 of its objects can't be used"):
        usable(dataset, inspect_dataset(dataset))


@pytest.mark.parametrize(
    ("names", "counts", "noted"),
    [
        (["king", "knig"], [40, 2], "'knig' (2) is nearly 'king' (40)"),
        (["king", "Kings"], [40, 1], "'Kings' (1) is nearly 'king' (40)"),
        (["king", "knig"], [40, 3], None),  # 7 %: it may be a class of its own
        (["king", "queen"], [40, 1], None),
        (["card 10", "card 11"], [40, 1], None),
    ],
)
def test_a_rare_class_that_is_nearly_a_common_one(tmp_path, names, counts, noted):
    labels = [label for label, count in enumerate(counts, 1) for _ in range(count)]
    things = tuple(Thing(label, (10.0, 10.0, 30.0, 30.0 + i)) for i, label in enumerate(labels))
    file = make_coco(tmp_path, pictures=[Picture("a", (100, 100), things)])
    content = json.loads(file.read_text())
    for category, name in zip(reversed(content["categories"]), names, strict=False):
        category["name"] = name
    file.write_text(json.dumps(content))
    text = str(inspect_dataset(open_dataset(file)))
    assert noted is None or f"note: {noted}" in text
    assert ("is nearly" in text) == (noted is not None)


@pytest.mark.parametrize(("unreached", "told"), [(1, False), (3, True)])
def test_a_report_advises_what_can_reach_more(unreached, told):
    """A larger size may reach as many, as for 3 objects of 19 at 300 and at 480 pixels; fitted boxes reach more."""
    text = str(DataReport(images=5, empty_images=0, objects={"cat": 19}, sizes={}, unreached=unreached))
    assert f"no default box reaches {unreached} object" in text
    assert ("default boxes by fit_default_boxes (--fit-default-boxes) may reach more" in text) == told
    assert "larger size" not in text


def test_few_of_thousands_of_names_are_compared_letter_by_letter(monkeypatch):
    """LVIS has 1203 classes, and more than a million pairs."""
    compared = []

    class Counting(SequenceMatcher):
        def ratio(self):
            compared.append(1)
            return super().ratio()

    monkeypatch.setattr("ssd_zoo.data.inspection.SequenceMatcher", Counting)
    names = ["".join(random.Random(i).choices(ascii_lowercase, k=4 + i % 12)) for i in range(1200)]
    objects = {name: 1 + 50 * i for i, name in enumerate(names)} | {"king": 9000, "knig": 2}
    text = str(DataReport(images=1, empty_images=0, objects=objects, sizes={}))
    assert "'knig' (2) is nearly 'king' (9000)" in text
    assert len(compared) < 1000

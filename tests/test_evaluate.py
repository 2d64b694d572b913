"""Scores of detections, against the official COCO code's and against cases worked by hand from the rules."""

import json
import math
from itertools import cycle

import pytest
import torch
import torchvision
from labelled import PICTURES, make_coco, make_yolo
from PIL import Image
from torch import nn

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
from ssd_zoo.training import evaluate, evaluate_results, plot_confusion, plot_precision_recall
from ssd_zoo.training.metrics.confusion import confusion_matrix
from ssd_zoo.training.metrics.records import label_map, make_record
from ssd_zoo.training.metrics.voc import voc_scores
from ssd_zoo.weights.categories import COCO80_CATEGORIES

pytestmark = pytest.mark.usefixtures("one_thread")

# By the official COCO code; see the README of the test data.
OFFICIAL = {
    "AP": 0.503647,
    "AP50": 0.696973,
    "AP75": 0.571667,
    "APsmall": 0.593252,
    "APmedium": 0.557991,
    "APlarge": 0.489363,
    "AR1": 0.386813,
    "AR10": 0.593680,
    "AR100": 0.595353,
    "ARsmall": 0.654764,
    "ARmedium": 0.603130,
    "ARlarge": 0.553744,
}


class Oracle(nn.Module):
    """Finds what it was told, image after image."""

    def __init__(self, found, categories=None):
        super().__init__()
        self.register_buffer("anything", torch.zeros(1))
        self.found = iter(found)
        if categories is not None:
            self.categories = categories

    def forward(self, images):
        return [next(self.found) for _ in images]


def detections(*rows):
    """Rows of box, label and score."""
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "scores": torch.tensor([row[2] for row in rows], dtype=torch.float32),
    }


def record(objects, *found, difficult=None, iscrowd=None):
    target = {
        "boxes": torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label in objects], dtype=torch.int64),
    }
    if difficult is not None:
        target["difficult"] = torch.tensor(difficult)
    if iscrowd is not None:
        target["iscrowd"] = torch.tensor(iscrowd)
    return make_record(target, detections(*found), None, 0)


def test_official_figures(test_data, tmp_path, capsys):
    folder = test_data / "coco_eval_oracle"
    files = ["--annotations", str(folder / "gts/sampled_gts_bbox_area.json")]
    files += ["--results", str(folder / "cocoapi_results.json")]
    assert main(["evaluate", *files, "--json", str(tmp_path / "ap.json"), "--output", str(tmp_path), "--quiet"]) == 0
    written = json.loads((tmp_path / "ap.json").read_text())
    assert {name: written[name] for name in OFFICIAL} == pytest.approx(OFFICIAL, abs=1e-6)
    assert (tmp_path / "precision_recall.png").stat().st_size > 1000
    assert capsys.readouterr().out == ""


def test_what_is_right_scores_one_whatever_the_ids(tmp_path):
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    # An annotation of id 0 and two of the same id: both would be miscounted by faster-coco-eval itself.
    for annotation, number in zip(content["annotations"], (0, 5, 5), strict=True):
        annotation["id"] = number
    file.write_text(json.dumps(content))
    results = [{**annotation, "score": 0.9} for annotation in content["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = evaluate_results(file, tmp_path / "results.json").metrics
    assert metrics["AP"] == metrics["AR100"] == 1
    assert math.isnan(metrics["APlarge"])
    results[0]["image_id"] = 1000
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results.json: \[0\] has the image_id 1000, .* they have 7, 8, 9\."):
        evaluate_results(file, tmp_path / "results.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 0}, "category_id 0, which the annotations do not have; they have 9, 3"),
        ({"category_id": "3"}, "category_id '3', which the annotations do not have"),
        ({"image_id": "7"}, "image_id '7', which the annotations do not have"),
        ({"image_id": [7]}, r"image_id \[7\], which the annotations do not have"),
        ({"bbox": [0, 0, float("nan"), 5]}, "bbox of x, y, width and height must be a finite number .*got nan"),
        ({"bbox": [0, 0, 5]}, "bbox of x, y, width and height must have 4 entries, got 3"),
        ({"bbox": None}, "bbox of .* must be a list, got None"),
        ({"bbox": [0, 0, -5, 5]}, "bbox of .* must be a finite number from 0 .*got -5"),
        ({"bbox": [0, 0, True, 5]}, "bbox of .* got True"),
        ({"category_id": True}, "category_id True, which the annotations do not have"),
        ({"score": True}, "score must be a finite number, got True"),
        ({"score": float("inf")}, "score must be a finite number, got inf"),
        ({"score": "0.9"}, "score must be a finite number, got '0.9'"),
        ({"score": None}, "score must be a finite number, got None"),
    ],
)
def test_results_that_make_no_sense(tmp_path, change, message):
    file = make_coco(tmp_path)
    rows = [{**row, "score": 0.9} for row in json.loads(file.read_text())["annotations"]]
    rows[1] |= change
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=rf"results\.json: \[1\] .*{message}"):
        evaluate_results(file, tmp_path / "results.json")


@pytest.mark.parametrize(
    "content",
    [
        '[{"image_id": 7, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}]',
        *("{}", "[5]", '[{"image_id": 7, "category_id": 3}]', "\x80", "[" * 100_000, "[" + "9" * 5000 + "]"),
        '[{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1' + "0" * 400 + "}]",
        '[{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1' + "0" * 400 + '], "score": 1}]',
    ],
    ids=range(9),
)
def test_results_of_another_format(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="results.json"):
        evaluate_results(make_coco(tmp_path), tmp_path / "results.json")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("annotations", {"image_id": 1000}, "image_id 1000, which the annotations do not have; they have 7, 8, 9"),
        ("annotations", {"category_id": 1}, "category_id 1, which the annotations do not have; they have 9, 3"),
        ("annotations", {"bbox": [0, 0, 5]}, "bbox of x, y, width and height must"),
        ("annotations", {"bbox": [0, 0, 5, float("inf")]}, "bbox of x, y, width and height must"),
        ("annotations", {"bbox": ...}, "needs image_id, category_id and bbox"),
        ("annotations", {"image_id": ...}, "needs image_id, category_id and bbox"),
        ("annotations", {"iscrowd": None}, "iscrowd must be a whole number from 0 up to 1, got None"),
        ("annotations", {"area": "big"}, "area must be a finite number from 0, got 'big'"),
        ("images", {"id": ...}, "needs the id, a number or a text"),
        ("images", {"id": 7}, "has the id 7, which an entry before it has too"),
        ("images", {"id": "8"}, "ids of one type, got 7 and '8'"),
        ("categories", {"id": ...}, "needs the id, a number, got"),
        ("categories", {"id": "3"}, "needs the id, a number, got"),
        ("categories", {"id": 9}, "has the id 9, which an entry before it has too"),
        ("categories", {"name": ...}, "needs the name, a text, got"),
        ("categories", {"name": "dog"}, "has the name 'dog', which an entry before it has too"),
    ],
)
def test_annotations_that_make_no_sense(tmp_path, key, change, message):
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    entry = {**content[key][1], **change}
    content[key][1] = {name: value for name, value in entry.items() if value is not ...}
    file.write_text(json.dumps(content))
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=rf"instances_train\.json: {key}\[1\] .*{message}"):
        evaluate_results(file, tmp_path / "results.json")


def test_results_without_a_row(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    assert evaluate_results(make_coco(tmp_path), tmp_path / "results.json").metrics["AP"] == 0


def test_models_classes_are_found_by_name(tmp_path):
    dataset = open_dataset(make_coco(tmp_path))
    theirs = ["background", "bird", "Dog", "cat"]
    found = [
        detections(*((thing.box, theirs.index("cat" if thing.label == 1 else "Dog"), 0.9) for thing in p.things),
                   ((0, 0, 9, 9), 1, 0.99))
        for p in PICTURES
    ]  # fmt: skip
    evaluation = evaluate(Oracle(found, theirs), dataset, batch_size=2)
    assert evaluation.metrics["AP"] == evaluation.metrics["VOC_AP50"] == evaluation.metrics["VOC_AP50_11"] == 1
    assert evaluation.per_class["dog"]["objects"] == 2
    assert evaluation.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert [one.image_id for one in evaluation.records] == [7, 8, 9]
    plot_precision_recall(evaluation, tmp_path / "curve.png")
    plot_confusion(evaluation, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert (evaluation.model_lacks, evaluation.data_lacks) == ([], ["bird"])
    assert "1 class of the model is not in the data (bird)" in str(evaluation)
    with pytest.raises(ValueError, match="none of the data set's classes: it has bird; the data set has cat, dog"):
        evaluate(Oracle(found, ["background", "bird"]), dataset, all_classes=True)


@pytest.mark.parametrize(("all_classes", "average", "effect"), [(False, 1, "left out of the averages"),
                                                                (True, 1 / 2, "counted as AP 0")])  # fmt: skip
def test_classes_that_the_model_lacks(tmp_path, all_classes, average, effect):
    dataset = open_dataset(make_coco(tmp_path))
    # One cat, found; two dogs, whose name the model does not have.
    cats = [detections(*((thing.box, 1, 0.9) for thing in p.things if thing.label == 1)) for p in PICTURES]
    evaluation = evaluate(Oracle(cats, ["background", "Cat"]), dataset, all_classes=all_classes)
    for name in ("AP", "AP50", "AR100", "VOC_AP50", "VOC_AP50_11"):
        assert evaluation.metrics[name] == average
    assert (evaluation.model_lacks, evaluation.data_lacks) == (["dog"], [])
    assert list(evaluation.per_class) == (["cat", "dog"] if all_classes else ["cat"])
    assert f"1 class of the data is not in the model (dog), {effect}" in str(evaluation)
    evaluation.write_json(tmp_path / "ap.json")
    written = json.loads((tmp_path / "ap.json").read_text())
    assert (written["model_lacks"], written["data_lacks"], written["AP"]) == (["dog"], [], average)
    # Objects of a class that is left out of the averages do not count as not found.
    assert evaluation.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [2 if all_classes else 0, 0, 0]]
    plot_precision_recall(evaluation, tmp_path / "curve.png")
    plot_confusion(evaluation, tmp_path / "confusion.png")


def test_what_has_no_objects_says_so(tmp_path):
    dataset = open_dataset(make_coco(tmp_path, pictures=PICTURES[2:]))  # One dog.
    evaluation = evaluate(Oracle([detections()], ["background", "cat"]), dataset)
    assert all(map(math.isnan, evaluation.metrics.values()))
    assert evaluation.per_class == {}
    assert "  AP           n/a\n" in str(evaluation)
    evaluation.write_json(tmp_path / "ap.json")
    assert json.loads((tmp_path / "ap.json").read_text())["AP"] is None


def test_voc_by_a_model_of_coco(test_data):
    dataset = open_dataset(test_data / "voc_sample")
    dataset = torch.utils.data.Subset(dataset, range(20))
    voc, coco = dataset.dataset.categories, list(COCO80_CATEGORIES)
    theirs = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "sofa": "couch",
              "pottedplant": "potted plant", "tvmonitor": "tv"}  # fmt: skip
    labels = [coco.index(theirs.get(name, name)) if name in theirs or name in coco else 0 for name in voc]
    found = [
        detections(
            *zip(target["boxes"].tolist(), [labels[i] for i in target["labels"]], cycle([0.9]), strict=False),
            ((0, 0, 9, 9), coco.index("zebra"), 0.99),
        )
        for _, target in dataset
    ]
    evaluation = evaluate(Oracle(found, coco), dataset, categories=voc)
    assert evaluation.metrics["AP"] == evaluation.metrics["VOC_AP50"] == 1
    assert set(evaluation.per_class) <= set(voc)
    assert evaluation.model_lacks == []
    assert len(evaluation.data_lacks) == 60
    line = (
        "60 classes of the model are not in the data (truck, traffic light, fire hydrant, stop sign, parking meter, …)"
    )
    assert str(evaluation).splitlines()[1] == line


@pytest.mark.parametrize("ids", [{"cat": 3, "dog": 9}, {"cat": 9, "dog": 1}])
def test_results_count_by_the_names_of_their_classes(tmp_path, ids):
    file = make_coco(tmp_path)
    names = {3: "Cat", 9: "dog"}
    rows = [
        {
            **row,
            "score": 0.9,
            "category": names[row["category_id"]],
            "category_id": ids[names[row["category_id"]].lower()],
        }
        for row in json.loads(file.read_text())["annotations"]
    ]
    rows.append({**rows[0], "category": "bird", "category_id": 3, "score": 0.99})
    (tmp_path / "results.json").write_text(json.dumps(rows))
    evaluation = evaluate_results(file, tmp_path / "results.json")
    assert evaluation.metrics["AP"] == 1
    assert evaluation.data_lacks == ["bird"]
    (tmp_path / "results.json").write_text(json.dumps(rows[-1:]))
    with pytest.raises(ValueError, match="names none of the annotations' classes: it has bird; the annotations have"):
        evaluate_results(file, tmp_path / "results.json")


def test_results_without_a_class_count_it(tmp_path):
    file = make_coco(tmp_path)
    rows = [{**row, "score": 0.9, "category": "cat"} for row in json.loads(file.read_text())["annotations"][:1]]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    evaluation = evaluate_results(file, tmp_path / "results.json")
    assert evaluation.metrics["AP"] == 1 / 2  # One cat, found; two dogs, not found.
    assert evaluation.per_class["dog"]["AP"] == 0
    assert evaluation.model_lacks == ["dog"]
    assert "1 class of the data is not in the results (dog), counted as AP 0" in str(evaluation)


@pytest.mark.parametrize(
    ("of_model", "of_data", "expected"),
    [
        ("a A b", "b a A", [0, 2, 3, 1]),
        ("A a", "a A", [0, 2, 1]),
        ("a A", "a", [0, 1, 0]),
        ("A b", "a A", [0, 2, 0]),
        ("Cat dog", "DOG cat", [0, 2, 1]),
    ],
)
def test_case_is_folded_only_where_no_name_is_the_same(of_model, of_data, expected):
    labels = label_map(["__background__", *of_model.split()], ["background", *of_data.split()])
    assert labels.tolist() == expected
    assert label_map(["__background__", "a", "N/A"], ["background", "a", "N/A"]) is None


def test_unused_ids_are_no_classes_of_an_error():
    with pytest.raises(ValueError, match="it has cat, dog; the data set has cell"):
        label_map(["background", "cat", "N/A", "dog"], ["background", "cell", "N/A"])


def test_any_data_set_and_torchvisions_models():
    torch.manual_seed(0)
    model = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    target = {"boxes": torch.tensor([[5.0, 5, 30, 30]]), "labels": torch.tensor([3])}
    names = ["background", *(f"class {i}" for i in range(1, 91))]
    evaluation = evaluate(model.train(), [(torch.rand(3, 64, 64), target)] * 2, categories=names)
    assert evaluation.images == 2
    assert list(evaluation.per_class) == ["class 3"]
    assert model.training
    with pytest.raises(ValueError, match="does not tell its classes"):
        evaluate(model, [(torch.rand(3, 64, 64), target)])


@pytest.fixture
def astronaut(photo):
    """A detector of COCO, a photograph with two boxes of persons, one of which is nobody, and the names of classes."""
    categories = ["background", *COCO80_CATEGORIES]
    target = {"boxes": torch.tensor([[3.0, 33, 379, 507], [380.0, 0, 512, 120]]), "labels": torch.tensor([1, 1])}
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")
    return model, [(ssd_zoo.data.read_image(photo), target)], categories


def test_a_measurement_counts_all_boxes(astronaut):
    model, data, categories = astronaut
    expected = evaluate(model, data, categories=categories, score_thresh=0.01).metrics
    lower = evaluate(model, data, categories=categories, score_thresh=0.6)
    assert len(lower.records[0].scores) == 1
    assert lower.records[0].scores[0] > 0.6
    assert model.score_thresh < 0.05, "as it was"
    model.score_thresh, model.detections_per_img = 0.7, 1
    evaluation = evaluate(model, data, categories=categories)
    assert evaluation.metrics == pytest.approx(expected, nan_ok=True)
    assert len(evaluation.records[0].scores) > 1
    assert (model.score_thresh, model.detections_per_img) == (0.7, 1)


class Fixed(Oracle):
    """An exported file with NMS inside has a threshold that can't be lowered."""

    @property
    def score_thresh(self):
        return 0.7

    @score_thresh.setter
    def score_thresh(self, value):
        if value != 0.7:
            raise ValueError("scores up to 0.7 are dropped")


def test_a_threshold_that_can_not_be_lowered_is_told(caplog):
    target = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1])}
    found = [detections(((0, 0, 9, 9), 1, 0.9))]
    data, categories = [(torch.rand(3, 64, 64), target)], ["background", "a"]
    assert evaluate(Fixed(found), data, categories=categories).metrics["AP"] == 1
    assert "it needs a score_thresh of 0.01, but the file was exported with 0.7. Export what is" in caplog.text
    assert "Export what is to be measured with --score-thresh 0.01 or --nms outside." in caplog.text
    with pytest.raises(ValueError, match="^scores up to 0.7 are dropped"):
        evaluate(Fixed(found), data, categories=categories, score_thresh=0.5)


def test_a_threshold_of_detectors_that_have_none():
    with pytest.raises(ValueError, match="Oracle has no score_thresh to set to 0.5; leave score_thresh out"):
        evaluate(Oracle([]), [(torch.rand(3, 64, 64), {})], categories=["background", "a"], score_thresh=0.5)


def test_crowds_are_no_objects():
    # A crowd takes any number of detections, and is no object that could be missed.
    box = (0, 0, 50, 50)
    records = [record([(box, 1), ((60, 0, 90, 30), 1)], ((5, 5, 20, 20), 1, 0.9), ((60, 0, 90, 30), 1, 0.8),
                      iscrowd=[True, False])]  # fmt: skip
    from ssd_zoo.training.metrics.coco import score_records

    assert score_records(records, ["background", "a"]).metrics["AP"] == 1
    assert score_records(records, ["background", "a"]).per_class["a"]["objects"] == 1


@pytest.mark.parametrize("found", [(), [((0, 0, 50, 50), 1, 0.9)]])
def test_difficult_objects_count_neither_way(found):
    from ssd_zoo.training.metrics.coco import score_records

    easy = (60, 0, 90, 30)
    records = [record([((0, 0, 50, 50), 1), (easy, 1)], *found, (easy, 1, 0.8), difficult=[True, False])]
    scores = score_records(records, ["background", "a"])
    assert scores.metrics["AP"] == 1
    assert scores.per_class["a"]["objects"] == 1


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (0, 40, 10, 50)


def test_voc_by_hand():
    records = [
        record([(A, 1), (B, 1)], (A, 1, 0.9), (B, 1, 0.8), (A, 1, 0.7), difficult=[False, True]),
        record([(C, 1)], (C, 1, 0.6), (A, 1, 0.5)),
    ]
    # Right, not counted, twice the same, right, wrong: precision 1, 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1/2, 1, 1.
    area, eleven = voc_scores(records, ["background", "a", "none"])["a"]
    assert area == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert eleven == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_voc_takes_no_second_best_object():
    near = (0, 0, 10, 11)
    # Both detections overlap the first object most, so the second is wrong, though it overlaps the other by more than
    # half. COCO's rules give it that one.
    records = [record([(A, 1), (near, 1)], (A, 1, 0.9), (A, 1, 0.8))]
    assert voc_scores(records, ["background", "a"])["a"][0] == pytest.approx(1 / 2)
    from ssd_zoo.training.metrics.coco import score_records

    assert score_records(records, ["background", "a"]).per_class["a"]["AP50"] == 1


def test_confusion_by_hand():
    records = [
        record([(A, 1), (B, 2), (C, 2)], (A, 1, 0.9), (B, 1, 0.8), (A, 2, 0.7), ((70, 70, 80, 80), 2, 0.6), (C, 2, 0.4))
    ]
    # C was found with too low a score; the second detection of A stands where no free object is.
    assert confusion_matrix(records, 3).tolist() == [[0, 0, 2], [0, 1, 0], [1, 1, 0]]


def test_losses_do_not_depend_on_batches(tmp_path):
    dataset = open_dataset(make_coco(tmp_path))
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=64, categories=dataset.categories)
    losses = [evaluate(model, dataset, batch_size=size, losses=True).losses for size in (1, 3)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    model.eval()
    targets = [{key: target[key] for key in ("boxes", "labels")} for _, target in dataset]
    _, expected = model([image for image, _ in dataset], targets, return_losses=True)
    assert losses[1]["validation_loss"] == pytest.approx(sum(expected.values()).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either DATA, or --annotations and --results"),
        (
            ["--annotations", "a.json", "--results", "r.json", "--score-thresh", ".5"],
            "--score-thresh and --model-categories are for models",
        ),
        (["--results", "r.json"], "needs both --annotations and --results"),
        (["tests", "--quiet"], "Nothing is asked for: leave out --quiet, or give --json or --output."),
        (["tests", "--model", "m", "--device", "nonsense"], "Device 'nonsense' can't be used"),
        (["tests", "--model", "m", "--device", "cuda:99"], "Device 'cuda:99' can't be used"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_runs_a_saved_model(tmp_path, capsys):
    make_coco(tmp_path)
    dataset = open_dataset(tmp_path)
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=64, categories=dataset.categories)
    ssd_zoo.save_pretrained(model, tmp_path / "model")
    arguments = ["evaluate", str(tmp_path), "--model", str(tmp_path / "model"), "--json", str(tmp_path / "ap.json")]
    assert main(arguments) == 0
    expected = evaluate(model, dataset)
    assert json.loads((tmp_path / "ap.json").read_text())["AP"] == pytest.approx(expected.metrics["AP"], abs=1e-6)
    assert "3 images" in capsys.readouterr().out


def saved_model(folder):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=64, categories=["background", "cat", "dog"])
    return ssd_zoo.save_pretrained(model, folder / "model")


def test_images_that_are_cut_off(tmp_path, capsys):
    make_coco(tmp_path)
    file = tmp_path / "images/third.png"
    Image.effect_noise((50, 100), 50).save(file, "JPEG")  # Of a PNG the first bytes are enough to tell.
    file.write_bytes(file.read_bytes()[:2000])
    arguments = ["evaluate", str(tmp_path), "--model", str(saved_model(tmp_path))]
    assert main(arguments) == 2
    assert "third.png can't be read" in capsys.readouterr().err
    assert main([*arguments, "--on-invalid", "drop"]) == 0
    printed = capsys.readouterr()
    assert "2 images" in printed.out
    assert "third.png can't be read" in printed.err


def test_categories_where_the_data_has_no_names(tmp_path, capsys):
    (make_yolo(tmp_path) / "data.yaml").unlink()
    arguments = ["evaluate", str(tmp_path), "--model", str(saved_model(tmp_path))]
    assert main(arguments) == 2
    assert "needs the names of its classes" in capsys.readouterr().err
    for names in ("cat, dog", "background, cat, dog"):
        assert main([*arguments, "--categories", names]) == 0
        assert "dog  AP" in capsys.readouterr().out


def test_command_counts_all_classes(tmp_path, capsys):
    make_coco(tmp_path)
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, size=64, categories=["background", "cat", "tree"])
    arguments = ["evaluate", str(tmp_path), "--model", str(ssd_zoo.save_pretrained(model, tmp_path / "model"))]
    others = "; 1 class of the model is not in the data (tree)"
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"1 class of the data is not in the model (dog), left out of the averages{others}" in printed
    assert "2 objects" not in printed
    assert main([*arguments, "--all-classes"]) == 0
    printed = capsys.readouterr().out
    assert f"1 class of the data is not in the model (dog), counted as AP 0{others}" in printed
    assert "dog  AP 0.0000  AP50 0.0000  2 objects" in printed


def test_a_model_that_has_other_names_of_the_classes(tmp_path, capsys):
    make_coco(tmp_path)
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, size=64, categories=["background", "Katze", "Hund"])
    arguments = ["evaluate", str(tmp_path), "--model", str(ssd_zoo.save_pretrained(model, tmp_path / "model"))]
    assert main([*arguments, "--model-categories", "cat,dog", "--quiet", "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["model_lacks"], figures["data_lacks"], list(figures["per_class"])) == ([], [], ["cat", "dog"])
    assert main([*arguments, "--model-categories", "cat"]) == 2
    told = capsys.readouterr().err
    assert "The model has 3 classes with the background (background, Katze, Hund), but --model-categories has" in told
    assert "2 names: background, cat." in told


def test_weights_that_there_are_not(tmp_path, capsys):
    make_coco(tmp_path)
    arguments = ["evaluate", str(tmp_path), "--weights", "NOPE", "--model"]
    assert main([*arguments, "fasterrcnn_resnet50_fpn"]) == 2
    assert "has no weights 'NOPE'; it has COCO_V1, DEFAULT." in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    assert main([*arguments, str(tmp_path / "model")]) == 2
    assert "is a saved model and has its weights; leave out the weights NOPE" in capsys.readouterr().err


def test_names_for_a_model_that_tells_none_are_counted(tmp_path, monkeypatch, capsys):
    make_coco(tmp_path)
    theirs = torch.nn.Identity(), ["background", *"abcd"]
    monkeypatch.setattr("ssd_zoo.cli.evaluate.load_model", lambda *_, **__: theirs)
    assert main(["evaluate", str(tmp_path), "--model", "fcos", "--model-categories", "cat,dog"]) == 2
    assert "The model has 5 classes with the background (background, a, b, c, d), but" in capsys.readouterr().err

"""The command `data` reports and draws; `train` reads any layout, and holds images back for validation."""

import pytest
from labelled import colourful
from layouts import PICTURES, SHAPES, make
from PIL import Image

from ssd_zoo.cli.main import main
from ssd_zoo.data import inspect_dataset, open_dataset, usable
from ssd_zoo.data.divide import divide
from ssd_zoo.data.sheet import contact_sheet


def test_data(tmp_path, capsys):
    make("voc_flat", tmp_path / "pets")
    assert main(["data", str(tmp_path / "pets"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "train: Pascal VOC: XML files beside the images\n" in printed
    assert "3 images, 1 without objects; 3 objects: cat 1, dog 2\n" in printed
    with Image.open(tmp_path / "out/train.jpg") as sheet:
        assert sheet.size[0] > 320
    assert (tmp_path / "out/val.jpg").exists()


def test_data_with_problems(tmp_path, capsys):
    files = make("voc_flat", tmp_path)
    files[0].write_text("<annotation>")
    files[-1].write_text("<annotation/>")
    assert main(["data", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "first.xml:1 is not XML" in printed.out
    assert "val: The data set has no object. Its labels were looked for in" in printed.err


def test_sheet_shows_boxes_where_they_are(tmp_path):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES)
    sheet = contact_sheet(open_dataset(tmp_path), images=1, tile=80)
    # The first picture is 80 × 60; its red cat begins at (8, 6), and the sheet has a margin of 4 and a name below.
    assert sheet.size == (88, 84)
    assert sheet.crop((4, 66, 84, 82)).convert("L").getextrema()[0] < 100
    assert sheet.getpixel((4 + 14, 4 + 26))[0] > 150
    with pytest.raises(ValueError, match="nothing to draw"):
        contact_sheet(open_dataset(tmp_path).with_images([]))


def test_images_are_held_back_by_the_seed(tmp_path):
    SHAPES["voc_flat"](tmp_path, ".", colourful(8))
    dataset = open_dataset(tmp_path)
    train, validation = divide(dataset, 0.25, seed=3)
    assert (len(train), len(validation)) == (6, 2)
    assert sorted(train.images + validation.images) == sorted(dataset.images)
    assert divide(dataset, 0.25, seed=3)[1].images == validation.images
    assert any(divide(dataset, 0.25, seed=i)[1].images != validation.images for i in range(4))
    for fraction in (0, 1, 2):
        with pytest.raises(ValueError, match="Can't take a fraction of"):
            divide(dataset, fraction)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("test", [], "has the split test alone"),
        ("valid", [], "has the split valid alone"),
        ("val", ["--val-fraction", ".2"], "has the split val for validation; leave out --val-fraction"),
    ],
)
def test_splits_that_are_not_for_training(tmp_path, capsys, split, options, message):
    SHAPES["yolo_folders"](tmp_path, split, PICTURES)
    if options:
        SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err


def test_data_without_objects_is_not_trained_on(tmp_path, capsys):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES[1:2])
    options = ["--weights", "scratch", "--output", str(tmp_path / "run")]
    assert main(["train", str(tmp_path), "--categories", "cat,dog", *options]) == 2
    assert "The data set has no object" in capsys.readouterr().err


@pytest.fixture
def pets(tmp_path):
    """Three images, of 4800, 1600 and 5000 pixels; the largest has one of the three objects."""
    SHAPES["voc_flat"](tmp_path / "pets", "train", PICTURES)
    return str(tmp_path / "pets")


COMMANDS = {
    "data": ["--output", "sheets"],
    "evaluate": ["--model", "ssdlite300_mobilenet_v2", "--categories", "cat,dog"],
    "train": ["--output", "run", "--plan", "--weights", "scratch", "--size", "64", "--minutes", "1"],
}


class Evaluated:
    confusion = None


@pytest.mark.parametrize("command", COMMANDS)
def test_images_that_are_too_large(command, pets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssd_zoo.training.evaluate", lambda *args, **options: Evaluated())
    arguments = [command, pets, *COMMANDS[command], "--max-pixels"]
    reason = "third.png can't be read: it has 50 × 100 pixels, and 4900 are allowed"
    assert main([*arguments, "4900"]) == (1 if command == "data" else 2)
    assert reason in "".join(capsys.readouterr())
    if command != "data":
        assert main([*arguments, "4900", "--on-invalid", "drop"]) == 0
        assert reason in "".join(capsys.readouterr())


def test_no_limit_of_pixels(pets, tmp_path, capsys):
    for limit in ("5000", "0"):
        assert main(["data", pets, "--output", str(tmp_path / "sheets"), "--max-pixels", limit]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("name", SHAPES)
def test_no_layout_loses_labels_of_large_images(name, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES)
    dataset = open_dataset(tmp_path, max_pixels=4900)
    report = inspect_dataset(dataset)
    assert [problem for problem in report.problems if "third.png can't be read: it has 50 × 100 pixels" in problem]
    assert len(usable(dataset, report, "drop")) == len(dataset) - 1
    with pytest.raises(ValueError, match="1 of its objects can't be used"):
        usable(dataset, report)
    assert inspect_dataset(open_dataset(tmp_path, max_pixels=None)).problems == []


def test_a_fraction_where_there_is_a_split_for_it(tmp_path, capsys):
    make("voc_flat", tmp_path / "pets")
    for command in ("data", "evaluate"):
        assert main([command, str(tmp_path / "pets"), "--val-fraction", ".2"]) == 2
        assert "pets has the split val for validation; leave out --val-fraction" in capsys.readouterr().err


def test_what_training_holds_back_by_default_is_its_split_for_validation(tmp_path, monkeypatch, capsys):
    SHAPES["voc_flat"](tmp_path / "pets", ".", colourful(60))
    held_back = divide(open_dataset(tmp_path / "pets"), 20 / 60, seed=3)[1]
    seen = []
    monkeypatch.setattr("ssd_zoo.training.evaluate", lambda model, dataset, **_: seen.append(dataset) or Evaluated())
    command = ["evaluate", str(tmp_path / "pets"), "--seed", "3"]
    assert main([*command, "--split", "val"]) == 0
    assert [image.file for image in seen[0].images] == [image.file for image in held_back.images]
    assert "note: these are all images" not in capsys.readouterr().err
    assert main(command) == 0
    assert len(seen[1]) == 60
    assert "note: these are all images; --split val takes those" in capsys.readouterr().err
    assert main([*command, "--split", "test"]) == 2
    assert "has no split 'test'; it has all images in one: leave out the split." in capsys.readouterr().err


def test_no_split_for_validation_of_few_images(tmp_path, capsys):
    SHAPES["voc_flat"](tmp_path / "pets", ".", colourful(8))
    assert main(["evaluate", str(tmp_path / "pets"), "--split", "val"]) == 2
    assert "has no split 'val'; it has all" in capsys.readouterr().err


def test_what_training_holds_back_is_what_is_evaluated(tmp_path, capsys):
    SHAPES["voc_flat"](tmp_path / "pets", "train", colourful(8))
    held_back = divide(open_dataset(tmp_path / "pets"), 0.25, seed=3)[1]
    options = [str(tmp_path / "pets"), "--val-fraction", ".25", "--seed", "3"]
    assert main(["data", *options, "--output", str(tmp_path / "sheets")]) == 0
    printed = capsys.readouterr().out
    assert "train: Pascal VOC: XML files beside the images\n6 images; " in printed
    assert "train-held-back: Pascal VOC: XML files beside the images\n2 images; " in printed
    assert (tmp_path / "sheets/train-held-back.jpg").exists()
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd_zoo.training.evaluate", lambda model, dataset, **_: seen.append(dataset) or Evaluated())
        assert main(["evaluate", *options, "--model", "ssdlite300_mobilenet_v2", "--categories", "cat,dog"]) == 0
    assert [image.file for image in seen[0].images] == [image.file for image in held_back.images]

"""The command `data` reports and draws; `train` reads any layout, and holds images back for validation."""

import pytest
from labelled import colourful
from layouts import PICTURES, SHAPES, make
from PIL import Image

from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
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
    # The first picture is 80 × 60; its red cat begins at (8, 6), and the sheet has a margin of 4.
    assert sheet.size == (88, 68)
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

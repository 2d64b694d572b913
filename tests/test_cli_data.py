"""The command `data` reports and draws; `train` reads any layout, and holds images back for validation."""

from pathlib import Path

import pytest
import torch
from labelled import CATEGORIES, colourful, draw, make_coco
from layouts import PICTURES, SHAPES, make, voc_xml, write
from PIL import Image

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.divide import divide
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.data.inspection import group_problems
from ssd_zoo.data.sheet import contact_sheet
from ssd_zoo.training.batches import describe_data
from ssd_zoo.training.run_state import write_checkpoint
from ssd_zoo.training.timing import Times


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


def test_a_class_that_only_validation_has(tmp_path, capsys):
    """Each split of COCO's layout names its own classes; Pascal VOC's are those of all splits."""
    make("voc_flat", tmp_path / "voc")
    for file in (tmp_path / "voc").rglob("*.xml"):
        if "val" in file.relative_to(tmp_path).parts:
            file.write_text(file.read_text().replace("<name>cat<", "<name>Cats<"))
    make_coco(tmp_path / "coco", "train", colourful(4))
    file = make_coco(tmp_path / "coco", "val", colourful(4))
    file.write_text(file.read_text().replace('"cat"', '"Cats"'))
    for layout in ("voc", "coco"):
        assert main(["data", str(tmp_path / layout), "--output", str(tmp_path / "out")]) == 1
        told = capsys.readouterr().out
        assert "of 'Cats', of which train has none. It may be 'cat': write a class in one way in all files.\n" in told
    assert main(["train", str(tmp_path / "coco"), "--output", str(tmp_path / "run")]) == 2
    assert "which is not among the categories cat, dog. It may be 'cat'" in capsys.readouterr().err


def test_the_same_problem_is_told_once(tmp_path, capsys):
    SHAPES["yolo_yaml"](tmp_path, "train", PICTURES)
    labels = next(file for file in tmp_path.rglob("first.txt"))
    labels.write_text(labels.read_text() + "7 .5 .5 .2 .2\n" * 30 + "8 .5 .5 .2 .2\n")
    assert main(["data", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    of_classes = [line for line in printed.out.splitlines() if "is not among the 2 classes" in line]
    beyond = " is not among the 2 classes, counted from 0"
    assert [line.partition(": class ")[2] for line in of_classes] == [
        f"7{beyond} (and in 29 more places)",
        f"8{beyond}",
    ]
    assert main(["evaluate", str(tmp_path), "--model", "nothing"]) == 2
    assert capsys.readouterr().err.count("class 7") == 1
    with pytest.raises(ValueError, match=r"(?s)has 31 problems.*in 29 more places") as error:
        usable(open_dataset(tmp_path), inspect_dataset(open_dataset(tmp_path)))
    assert str(error.value).count("class 7") == 1


def test_equal_problems_that_name_no_file():
    assert group_problems(["a: x"] * 2 + ["C:\\cells\\a.txt:3: wrong", "C:\\cells\\b.txt:5: wrong"]) == (
        ["a: x (and in 1 more place)", "C:\\cells\\a.txt:3: wrong (and in 1 more place: C:\\cells\\b.txt)"],
        0,
    )


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


def _held_back(dataset, files, seed=0):
    images = [dataset.images[0]._replace(file=Path(file)) for file in files]
    train, validation = divide(dataset.with_images(images), 0.15, seed)
    assert len(train) + len(validation) == len(images)
    return {str(image.file) for image in validation.images}


def test_images_keep_their_side_when_others_come(tmp_path):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES)
    dataset = open_dataset(tmp_path)
    files = [f"/photos/IMG_{i:04d}.jpg" for i in range(300)]
    for grown in (files, files[::-1], [*files[:250], *(f"/photos/more/{i}.jpg" for i in range(50))]):
        before, after = _held_back(dataset, files[:250]), _held_back(dataset, grown)
        assert (len(before), len(after)) == (38, 45)
        # Of the 45, few were training images before; of 45 at random these are 32.
        assert len(after & {*files[:250]} - before) <= 5
    # The least two sums of `printf 0/IMG_0000.jpg | sha256sum` and so on. The folder's own name plays no part.
    assert sorted(_held_back(dataset, files[:10])) == ["/photos/IMG_0000.jpg", "/photos/IMG_0009.jpg"]
    assert {Path(file).name for file in _held_back(dataset, [f"C/{file}" for file in files])} == {
        Path(file).name for file in _held_back(dataset, files)
    }


def test_files_of_one_name_in_many_folders_are_held_back_at_random(tmp_path):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES)
    folders = [f"/photos/{i:03d}/image.jpg" for i in range(100)]
    held_back = _held_back(open_dataset(tmp_path), folders)
    assert len(held_back) == 15
    assert held_back != {*folders[:15]}
    assert len(held_back & {*folders[50:]}) > 3
    pairs = [f"/photos/{i:03d}/{name}.jpg" for i in range(100) for name in ("left", "right")]
    left = [file for file in _held_back(open_dataset(tmp_path), pairs) if "left" in file]
    assert 5 <= len(left) <= 25, "of 30"


@pytest.mark.parametrize("name", ["yolo_folders", "yolo_yaml"])
@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("test", [], "has the split test alone"),
        ("valid", [], "has the split valid alone"),
        ("val", ["--val-fraction", ".2"], "has the split val for validation; leave out --val-fraction"),
    ],
)
def test_splits_that_are_not_for_training(tmp_path, capsys, name, split, options, message):
    SHAPES[name](tmp_path, split, PICTURES)
    if options:
        SHAPES[name](tmp_path, "train", PICTURES)
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
    assert "note: " not in capsys.readouterr().err, "the model has not seen these images"
    folder = tmp_path / "run" / "best"
    ssd_zoo.save_pretrained(ssd_zoo.ssdlite300_mobilenet_v2(weights=None, weights_backbone=None), folder)
    (tmp_path / "run/checkpoint.pt").touch()
    assert main([*command, "--model", str(folder)]) == 0
    assert "note: these are all images; --split val takes those" in capsys.readouterr().err
    assert main([*command, "--split", "test"]) == 2
    assert "has no split 'test'; it has all images in one: leave out the split." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "evaluate"])
def test_no_split_for_validation_of_few_images(tmp_path, capsys, command):
    SHAPES["voc_flat"](tmp_path / "pets", ".", colourful(8))
    assert main([command, str(tmp_path / "pets"), "--split", "val"]) == 2

    told = "it has all images in one: leave out the split, or take a part by "
    assert f"{told}--val-fraction." in capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"{told}ssd_zoo\.data\.divide\.divide"):
        open_dataset(tmp_path / "pets", "val")


def test_data_reports_what_training_holds_back_as_split(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SHAPES["voc_flat"](tmp_path / "pets", ".", colourful(60))
    for options, number in ([], 20), (["--val-fraction", ".25"], 15):
        assert main(["data", "pets", "--split", "val", *options]) == 0
        assert f"val: Pascal VOC: XML files beside the images\n{number} images; " in capsys.readouterr().out


def test_evaluate_says_that_the_run_held_back_others(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssd_zoo.training.evaluate", lambda *args, **options: Evaluated())
    SHAPES["voc_flat"](tmp_path / "pets", ".", colourful(60))
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights=None, weights_backbone=None, categories=CATEGORIES)
    ssd_zoo.save_pretrained(model, "runs/mine/best")
    settings = {"seed": 3, "validation data": describe_data(divide(open_dataset("pets"), 20 / 60, seed=3)[1])}
    state = {"settings": settings, "progress": {}, "model": {}, "optimizer": {}}
    write_checkpoint(state, Path("runs/mine/checkpoint.pt"))
    command, told = ["evaluate", "pets", "--model", "runs/mine/best", "--split", "val"], "mine held back other images"
    assert main([*command, "--seed", "3"]) == 0
    assert told not in capsys.readouterr().err
    for other in (["--seed", "2"], ["--seed", "3", "--val-fraction", ".25"]):
        assert main([*command, *other]) == 0
        assert f"{told} (its --seed is 3), so some of these may be" in capsys.readouterr().err
    write_checkpoint({**state, "settings": {"seed": 3, "validation data": None}}, Path("runs/mine/checkpoint.pt"))
    assert main(command) == 0
    assert "mine held back no images, so some of these may be images that it was trained on" in capsys.readouterr().err
    Path("runs/mine/checkpoint.pt").write_bytes(b"damaged, which is no matter for the model")
    assert main(command) == 0
    assert told not in capsys.readouterr().err


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

        def fit(model, dataset, *, validation, **options):
            seen.append(validation)
            raise ImportError("enough")

        patch.setattr("ssd_zoo.cli.train.fit", fit)
        command = ["--weights", "scratch", "--size", "64", "--no-fit-default-boxes", "--no-tensorboard"]
        assert main(["train", *options, *command, "--output", str(tmp_path / "run")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "validation 2 of 8 images given; evaluate --val-fraction 0.25 --seed 3 measures them" in told
    for part in seen:
        assert [image.file for image in part.images] == [image.file for image in held_back.images]


WHY = {
    **{name: "COCO: JSON files with images, annotations and categories" for name in SHAPES if "coco" in name},
    **{name: "YOLO: text files of labels, class names in classes.txt" for name in SHAPES if "yolo" in name},
    **{name: "YOLO: data.yaml with names and splits" for name in SHAPES if "yolo_yaml" in name},
    **{name: "table: CSV files with columns of image, class and corners" for name in SHAPES if "table" in name},
    **{name: "LabelMe: JSON files with shapes" for name in SHAPES if "labelme" in name},
    **{name: "KITTI: text files with a class name and 14 numbers a line" for name in SHAPES if "kitti" in name},
    **{name: "Pascal VOC: XML files in a folder of their own" for name in SHAPES if "voc" in name},
    **dict.fromkeys(("voc_flat", "voc_roboflow", "voc_images_in_split"), "Pascal VOC: XML files beside the images"),
    "voc_lists": "Pascal VOC: XML files, with splits in ImageSets",
    "yolo_darknet": "YOLO: darknet's obj.data, class names in obj.names",
    **dict.fromkeys(("cvat", "cvat_subsets"), "CVAT: XML files with images"),
    "widerface": "WIDER FACE: text files with numbers of faces",
}


@pytest.fixture
def quick(monkeypatch):
    """What is not about data is left out of `train --plan` and `evaluate`; returns the data that were evaluated."""
    seen = []
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(0.5, 0.1, 0))
    monkeypatch.setattr("ssd_zoo.cli.evaluate.load_model", lambda *_, **__: (torch.nn.Identity(), None))
    monkeypatch.setattr("ssd_zoo.training.evaluate", lambda model, dataset, **_: seen.append(dataset) or Evaluated())
    return seen


@pytest.mark.parametrize("name", SHAPES)
def test_every_command_takes_every_shape_and_says_why(name, tmp_path, monkeypatch, quick, capsys):
    make(name, tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    names = splits("pets")
    train, val = find_split(names, "train"), find_split(names, "val")
    assert main(["data", "pets"]) == 0
    printed = capsys.readouterr().out
    assert f"{train}: {WHY[name]}" in printed
    assert f"{val}: {WHY[name]}" in printed
    assert "; 3 objects: " in printed
    assert "; 2 objects: " in printed

    plan = ["--plan", "--weights", "scratch", "--size", "64×96", "--no-fit-default-boxes", "--output", "run"]
    assert main(["train", "pets", *plan]) == 0
    printed = capsys.readouterr()
    assert printed.err.count(WHY[name]) == 2
    table = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert any(line.startswith(f"validation split {val} 1 image") for line in table)
    assert "input 64 × 96 given" in table

    assert main(["evaluate", "pets", "--split", "val", "--model", "any"]) == 0
    assert WHY[name] in capsys.readouterr().err
    assert [len(image.objects) for image in quick[0].images] == [2]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["valid", "dev"])
def test_a_yaml_names_its_split_for_validation(split, tmp_path, quick, capsys):
    for one in ("train", split):
        SHAPES["yolo_yaml"](tmp_path / "pets", one, PICTURES)
    plan = ["--plan", "--weights", "scratch", "--size", "64", "--no-fit-default-boxes", "--output", "run"]
    assert main(["train", str(tmp_path / "pets"), *plan]) == 0
    assert f"split {split} " in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "pets"), "--split", "val", "--model", "any"]) == 0
    assert len(quick[0]) == 3


def published(root, folder, picture, ending=".JPG", path="C:\\tensorflow1\\models\\object_detection\\images"):
    """An image and its file of labelImg, as public data sets of its users have them."""
    name = f"{picture.name}{ending}"
    draw(picture, root / folder / name)
    head = f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{name}</filename>\n\t<path>{path}\\{name}</path>"
    source = "<source>\n\t\t<database>Unknown</database>\n\t</source>\n\t<segmented>0</segmented>"
    return voc_xml(picture).replace("<annotation>", f"{head}\n\t{source}")


def rows(pictures, ending):
    lines = [
        f"{one.name}{ending},{one.size[1]},{one.size[0]},{CATEGORIES[label]},{','.join(map(str, map(int, box)))}"
        for one in pictures
        for label, box in one.things
    ]
    return "\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *lines, ""])


def test_a_data_set_like_the_playing_cards(tmp_path, quick, capsys):
    """Photographs with labelImg's files beside them, in train/ and test/, and the tables that were made of them."""
    root = tmp_path / "images"
    of = {"train": colourful(60), "test": colourful(7)}
    for split, pictures in of.items():
        for picture in pictures:
            write(root / split / f"{picture.name}.xml", published(root, split, picture))
        write(root / f"{split}_labels.csv", rows(pictures, ".JPG"))
    assert main(["data", str(root), "--output", str(tmp_path / "sheets")]) == 0
    printed = capsys.readouterr().out
    for split, number in (("train", 60), ("test", 7)):
        assert f"{split}: Pascal VOC: XML files beside the images\n{number} images; {number} objects: cat" in printed
    plan = ["--plan", "--weights", "scratch", "--size", "64", "--no-fit-default-boxes", "--output", "run"]
    assert main(["train", str(root), *plan]) == 0
    assert "20 of 60 images" in capsys.readouterr().out
    assert main(["evaluate", str(root), "--split", "test", "--model", "any"]) == 0
    assert len(quick[0]) == 7


def test_a_data_set_like_the_raccoons(tmp_path, quick, capsys):
    """Folders images/ and annotations/ without splits, among tables, programs and settings."""
    root, pictures = tmp_path / "raccoon_dataset", colourful(60)
    for picture in pictures:
        text = published(root, "images", picture, ".jpg", "/Users/datitran/Desktop/raccoon/images")
        write(root / "annotations" / f"{picture.name}.xml", text)
    write(root / "data/raccoon_labels.csv", rows(pictures, ".jpg"))
    write(root / "data/train_labels.csv", rows(pictures[:50], ".jpg"))
    write(root / "data/test_labels.csv", rows(pictures[50:], ".jpg"))
    write(root / "training/object-detection.pbtxt", "item {\n  id: 1\n  name: 'raccoon'\n}\n")
    write(root / "xml_to_csv.py", "import glob\n")
    write(root / "README.md", "# Raccoon Detector Dataset\n")
    assert main(["data", str(root), "--output", str(tmp_path / "sheets")]) == 0
    printed = capsys.readouterr().out
    assert "all: Pascal VOC: XML files in a folder of their own\n60 images; 60 objects: cat 30, dog 30\n" in printed
    plan = ["--plan", "--weights", "scratch", "--size", "64", "--no-fit-default-boxes", "--output", "run"]
    assert main(["train", str(root), *plan]) == 0
    assert "20 of 60 images" in capsys.readouterr().out

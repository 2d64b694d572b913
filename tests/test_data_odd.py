"""Data sets as they come from zips, other systems and careless hands: nothing is lost or counted twice in silence."""

import json
import os
import unicodedata
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from labelled import PICTURES, Picture, Thing, draw
from layouts import SHAPES, VAL, kitti_text, labelme_json, make, voc_xml, write, yolo_text
from PIL import Image
from test_layouts import expected, records

from ssd_zoo.cli._data import open_labelled, splits_of
from ssd_zoo.cli._prepare import open_sets
from ssd_zoo.cli.main import main
from ssd_zoo.data import find_images, inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.formats import coco_files, yolo_labels
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.data.presets import DetectionPresetTrain

ONE = next(picture for picture in PICTURES if picture.things)


def objects(dataset):
    return [len(entry.objects) for entry in dataset.images]


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_below_other_folders_with_files_of_systems(name, tmp_path):
    make(name, tmp_path / "pets/pets")
    for folder, _, files in list(os.walk(tmp_path / "pets/pets")):
        for file in files:
            below = os.path.relpath(folder, tmp_path)
            write(tmp_path / "pets/__MACOSX" / below / f"._{file}", "Mac OS X")
            if file.endswith(".png"):
                draw(ONE, tmp_path / folder / "@eaDir" / f"{file}/SYNOPHOTO_THUMB_M.jpg")
        for junk in (".DS_Store", "Thumbs.db", "desktop.ini"):
            write(tmp_path / folder / junk, "\0")
    write(tmp_path / "README.txt", "Pets, by us.\n")
    for root in (tmp_path, tmp_path / "pets", tmp_path / "pets/pets"):
        names = splits(root)
        assert len(names) == 2
        assert records(root, find_split(names, "train")) == expected(name, PICTURES)
        assert records(root, find_split(names, "val")) == expected(name, VAL)
    assert not any("eaDir" in str(file) for file in find_images([tmp_path]))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_with_images_whose_endings_are_in_upper_case(name, tmp_path):
    make(name, tmp_path)
    for file in list(tmp_path.rglob("*.png")):
        file.rename(file.with_suffix(".PNG"))
    assert records(tmp_path, find_split(splits(tmp_path), "train")) == expected(name, PICTURES)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_in_windows_encodings(name, encoding, tmp_path):
    make(name, tmp_path)
    for file in tmp_path.rglob("*"):
        if file.suffix in (".json", ".csv", ".txt", ".xml", ".yaml", ".data", ".names"):
            file.write_text(file.read_text().replace('encoding="utf-8"', f'encoding="{encoding[:6]}"'), encoding)
    assert records(tmp_path, find_split(splits(tmp_path), "train")) == expected(name, PICTURES)


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "shift_jis", "windows-1251", "iso-8859-1"])
def test_xml_in_the_encoding_that_it_declares(tmp_path, encoding, capsys):
    name = {"gb2312": "汽车", "gbk": "汽車", "shift_jis": "自動車", "windows-1251": "машина"}.get(encoding, "bébé")
    draw(ONE, tmp_path / f"JPEGImages/{ONE.name}.png")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{voc_xml(ONE).replace("cat", name)}'
    file = write(tmp_path / f"Annotations/{ONE.name}.xml", "")
    file.write_bytes(text.encode(encoding))
    write(tmp_path / "ImageSets/Main/train.txt", ONE.name)
    assert main(["data", str(tmp_path), "--output", str(tmp_path / "sheets")]) == 0
    assert f"{name} 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["0,.5,.5,.4,.2", "0, .5, .5, .4, .2,", "0;.5;.5;.4;.2", "0 0,5 0,5 0,4 0,2", "0.0 .5 .5 .4 .2"]
)
def test_yolo_lines_with_commas(tmp_path, line):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    write(tmp_path / "a.txt", f"{line}\n")
    write(tmp_path / "classes.txt", "cat\n")
    [thing] = open_dataset(tmp_path).images[0].objects
    assert thing.box == pytest.approx((60, 40, 140, 60))


def test_yolo_lines_of_pairs_are_not_numbers_with_commas(tmp_path):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    write(tmp_path / f"labels/train/{ONE.name}.txt", "0 0.1,0.2 0.3,0.2 0.3,0.4 0.1,0.4\n")
    [problem] = open_dataset(tmp_path).annotations.problems
    assert f"{ONE.name}.txt:1: each value must be a finite number, got '0.1.0.2'" in problem


@pytest.mark.parametrize("line", ["0 .5 .5 .2 .2 .97 0", "0 .5 .5 .2 .2 1 1", "0 .5 .5 .2 .2 .97 12"])
def test_yolo_lines_with_a_confidence_and_a_track_are_no_outlines(line, tmp_path):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    label = tmp_path / f"labels/train/{ONE.name}.txt"
    write(label, f"{line}\n")
    [problem] = open_dataset(tmp_path).annotations.problems
    assert "remove confidences and numbers of tracks" in problem
    write(label, "0 0.1 0.1 0.3 0.1 0.2 0.4\n0 0.1 0.1 0.3 0.1 0.2 1.0\n0 0.1 0.2 0.5 0.9 0.3 1\n")
    assert open_dataset(tmp_path).annotations.problems == []


def test_a_split_of_which_a_folder_is_missing(tmp_path):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    write(tmp_path / "data.yaml", "train: [images/train, images/more]\nval: images/gone\nnames: [cat, dog]\n")
    assert splits(tmp_path) == ["train"]
    with pytest.raises(
        FileNotFoundError, match=r"names train: images/more, which does not exist .*other images of the"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["yolo_folders", "yolo_yaml", "voc_images_in_split"])
def test_images_of_one_name_in_two_formats(name, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES)
    [image] = tmp_path.rglob(f"{ONE.name}.png")
    Image.new("RGB", (7, 7)).save(image.with_suffix(".bmp"))
    dataset = open_dataset(tmp_path, "train")
    assert len(dataset) == len(PICTURES)
    assert sum(objects(dataset)) == 3
    [note] = dataset.annotations.notes
    assert note.startswith("1 image (")
    assert note.endswith(", left out")


@pytest.mark.parametrize("name", ["yolo_folders", "yolo_yaml", "yolo_darknet", "yolo_beside"])
def test_yolo_labels_without_an_image_are_told(name, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES)
    [label] = tmp_path.rglob(f"{ONE.name}.txt")
    write(label.with_name("gone.txt"), label.read_text())
    write(label.with_name("README.txt"), "No labels.\n")
    [note] = open_dataset(tmp_path, "train").annotations.notes
    assert note == f"1 file ({label.with_name('gone.txt')}) of labels without an image"


def test_labels_of_another_list_have_an_image(tmp_path):
    each_list = {"train": PICTURES, "val": VAL}
    for split, pictures in each_list.items():
        for picture in pictures:
            draw(picture, tmp_path / f"images/{picture.name}.png")
            write(tmp_path / f"labels/{picture.name}.txt", yolo_text(picture))
        write(tmp_path / f"{split}.txt", "".join(f"./images/{picture.name}.png\n" for picture in pictures))
    write(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: train.txt\nval: val.txt\n")
    for split, pictures in each_list.items():
        dataset = open_dataset(tmp_path, split)
        assert len(dataset) == len(pictures)
        assert dataset.annotations.notes == []


@pytest.mark.parametrize(("link", "to"), [("val", "train"), ("a_val", "train"), ("copy", ".")])
def test_linked_folders_are_read_once_and_told(tmp_path, link, to):
    for name in ("yolo_folders", "voc_flat"):
        root = tmp_path / name
        SHAPES[name](root, "train", PICTURES)
        for folder in (root / "images", root / "labels") if name == "yolo_folders" else [root]:
            (folder / link).symlink_to(folder / to)
        assert splits(root) == ["train"]
        dataset = open_dataset(root)
        assert len(dataset) == len(PICTURES)
        assert f"{link} is a link to " in "\n".join(dataset.annotations.notes)


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    SHAPES["voc_flat"](tmp_path / "there", "train", PICTURES)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/train").symlink_to(tmp_path / "there/train")
    dataset = open_dataset(tmp_path / "here")
    assert (len(dataset), dataset.annotations.notes) == (len(PICTURES), [])


def test_two_data_sets_side_by_side(tmp_path):
    for name in ("a", "b"):
        SHAPES["yolo_yaml"](tmp_path / name, "train", PICTURES)
    with pytest.raises(ValueError, match=r"a/data\.yaml and .*b/data\.yaml all describe data sets; open one"):
        open_dataset(tmp_path)


def coco_of(tmp_path, annotation):
    write(tmp_path / "train.json", json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **annotation}],
        "categories": [{"id": 1, "name": "cat"}],
    }))  # fmt: skip
    draw(Picture("a", (4, 5), ()), tmp_path / "a.png")
    return open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("counts", "box"),
    [
        ([5, 2, 2, 2, 9], (1, 1, 3, 3)),  # Two columns of two pixels.
        ([2, 7, 11], (0, 0, 3, 4)),  # A run over three columns has all rows.
        ([0, 1, 19], (0, 0, 1, 1)),
        ([19, 1], (4, 3, 5, 4)),
        # As text 5, 2, 2, then differences to the number two before: 2 + 2, 5 + 2.
        ("52225", (1, 0, 4, 4)),
    ],
)
def test_coco_masks_without_a_box(tmp_path, counts, box):
    [thing] = coco_of(tmp_path, {"segmentation": {"size": [4, 5], "counts": counts}}).images[0].objects
    assert thing.box == box


def test_coco_masks_as_its_own_code_encodes_them(tmp_path):
    mask_code = pytest.importorskip("faster_coco_eval").core.mask
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((4, 5), np.uint8, order="F")
        (y, height), (x, width) = ((int(random.integers(0, n)), int(random.integers(1, 4))) for n in (4, 5))
        mask[y : y + height, x : x + width] = random.integers(0, 2, mask[y : y + height, x : x + width].shape)
        if mask.any():
            encoded = mask_code.encode(mask)
            x, y, width, height = mask_code.toBbox(encoded)
            encoded["counts"] = encoded["counts"].decode()
            [thing] = coco_of(tmp_path, {"segmentation": encoded}).images[0].objects
            assert thing.box == (x, y, x + width, y + height)


@pytest.mark.parametrize(
    "segmentation",
    [
        *[{}, {"size": [4, 5]}, {"size": "45", "counts": ""}, [[]], [], "x", 7],
        *({"size": [4, 5], "counts": counts} for counts in ([20], [-1, 21], "~\x7f", "o" * 99, "52226", None)),
        *({"size": size, "counts": [20]} for size in ([4, -5], [4], None)),
        {"size": [1e9, 1e9], "counts": [1e18]},
    ],
)
def test_coco_masks_that_are_none(tmp_path, segmentation):
    with pytest.raises(ValueError, match=r"train\.json:1: the annotation (needs|has) "):
        coco_of(tmp_path, {"segmentation": segmentation})


def test_images_that_coco_does_not_list_are_told(tmp_path):
    for name, where in (("coco_official", "train2017"), ("coco_images", "images"), ("coco_roboflow", "train")):
        SHAPES[name](tmp_path / name, "train", PICTURES)
        draw(ONE, tmp_path / name / where / "bare.png")
        [note] = open_dataset(tmp_path / name).annotations.notes
        assert f"{where}/bare.png) without an entry in " in note
    make("coco_official", tmp_path / "both")
    for split in ("train2017", "val2017"):
        assert open_dataset(tmp_path / "both", split).annotations.notes == []


@pytest.mark.parametrize("name", ["voc_flat", "coco_images", "table_of_tutorials", "labelme", "cvat"])
def test_one_image_in_fractions(name, tmp_path):
    odd = Picture("odd", (40, 40), (Thing(1, (0.25, 0.25, 0.5, 1)), Thing(2, (0, 0.5, 1, 1))))
    SHAPES[name](tmp_path, "train", (*PICTURES, odd))
    dataset = open_dataset(tmp_path)
    report = inspect_dataset(dataset)
    assert len(report.problems) == 2
    assert all("is in fractions of the image, where pixels are expected" in problem for problem in report.problems)
    with pytest.raises(ValueError, match="2 of its objects can't be used"):
        usable(dataset, report)
    assert sum(objects(usable(dataset, report, "drop"))) == 3


@pytest.mark.parametrize("name", SHAPES)
def test_objects_of_images_that_cannot_be_read_are_lost(name, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES)
    [image] = tmp_path.rglob(f"{ONE.name}.png")
    image.write_bytes(b"no picture")
    dataset = open_dataset(tmp_path)
    report = inspect_dataset(dataset)
    assert [problem for problem in report.problems if f"{ONE.name}.png is not an image" in problem]
    with pytest.raises(ValueError, match="2 of its objects can't be used"):
        usable(dataset, report)
    assert sum(objects(usable(dataset, report, "drop"))) == 1
    for image in tmp_path.rglob("*.png"):
        image.write_bytes(b"no picture")
    dataset = open_dataset(tmp_path)
    with pytest.raises(ValueError, match="The data set has no object left, of "):
        usable(dataset, inspect_dataset(dataset), "drop")


@pytest.mark.parametrize(
    "name", ["yolo_folders", "yolo_yaml", "voc_flat", "labelme", "kitti", "coco_images", "table_of_tutorials"]
)
def test_empty_files_of_labels(name, tmp_path):
    """An empty text file says that there is no object; an empty file of another kind is broken."""
    files = SHAPES[name](tmp_path, "train", PICTURES)
    files[0].write_text("")
    if len(files) == 1:
        with pytest.raises(ValueError, match=r"has no known layout.*is empty"):
            open_dataset(tmp_path)
        return
    dataset = open_dataset(tmp_path)
    if files[0].suffix == ".txt":
        assert (objects(dataset), dataset.annotations.problems) == ([0, 0, 1], [])
    else:
        [problem] = dataset.annotations.problems
        assert files[0].name in problem


@pytest.mark.parametrize(
    "name", ["yolo_yaml", "yolo_darknet", "coco_official", "cvat", "table_of_tutorials", "widerface"]
)
def test_the_file_of_labels_itself_may_be_opened(name, tmp_path):
    files = make(name, tmp_path)
    names = {"yolo_yaml": "data.yaml", "yolo_darknet": "obj.data"}
    file = tmp_path / names[name] if name in names else files[0]
    train = find_split(splits(file), "train") or splits(file)[0]
    assert records(file, train) == expected(name, PICTURES)


def test_voc_names_its_image_among_two(tmp_path):
    xml = voc_xml(ONE).replace("<annotation>", f"<annotation><filename>{ONE.name}.png</filename>")
    write(tmp_path / f"{ONE.name}.xml", xml)
    draw(ONE, tmp_path / f"{ONE.name}.bmp")
    draw(ONE, tmp_path / f"{ONE.name}.png")
    assert open_dataset(tmp_path).images[0].file.suffix == ".png"


def test_images_that_are_trained_and_measured_on_are_told(tmp_path):
    SHAPES["yolo_yaml"](tmp_path, "train", PICTURES)
    (tmp_path / "val").symlink_to(tmp_path / "train")
    args = Namespace(data=[tmp_path], categories=None, layout=None, max_pixels=None)
    write(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: train/images\nval: val/images\n")
    assert "3 of them trained on, too" in open_sets(args, {tmp_path: "train"}, {tmp_path: "val"})[-1].reason


@pytest.mark.parametrize("name", SHAPES)
def test_the_command_opens_every_shape(name, tmp_path):
    """Also CVAT's, whose XML of images begins as that of videos does."""
    files = make(name, tmp_path)
    args = Namespace(layout=None, max_pixels=None)
    for path in (tmp_path, files[0] if name == "cvat" else tmp_path):
        assert splits_of(path) == splits(path)
        split = find_split(splits(path), "train") or splits(path)[0]
        assert len(open_labelled(args, path, split, None)) == len(open_dataset(path, split))


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        # Half sides of 50 and 10 about (100, 50), turned by 90 and by 30 degrees.
        ('<box label="cat" xtl="50" ytl="40" xbr="150" ybr="60" rotation="90.00"/>', (90, 0, 110, 100)),
        ('<box label="cat" xtl="50" ytl="40" xbr="150" ybr="60" rotation="30"/>', (51.70, 16.34, 148.30, 83.66)),
        ('<ellipse label="cat" cx="50" cy="50" rx="20" ry="10" rotation="90"/>', (40, 30, 60, 70)),
        ('<ellipse label="cat" cx="50" cy="50" rx="20" ry="10"/>', (30, 40, 70, 60)),
    ],
)
def test_cvat_turned(tmp_path, shape, box):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    write(tmp_path / "annotations.xml",
          f'<annotations>\n<image name="a.png" width="200" height="100">{shape}</image>\n</annotations>')  # fmt: skip
    [thing] = open_dataset(tmp_path).images[0].objects
    assert thing.box == pytest.approx(box, abs=0.01)


def test_cvat_without_a_size_is_one_problem(tmp_path):
    shape = '<box label="cat" xtl="5" ytl="4" xbr="15" ybr="6"/>'
    entries = ""
    for name, side in (("a", 'width="200"'), ("b", 'width="200" height="100"')):
        draw(Picture(name, (100, 200), ()), tmp_path / f"{name}.png")
        entries += f'<image name="{name}.png" {side}>{shape}</image>\n'
    write(tmp_path / "annotations.xml", f"<annotations>\n{entries}</annotations>")
    dataset = open_dataset(tmp_path)
    assert objects(dataset) == [1, 1]
    assert any("annotations.xml:2: image's height" in problem for problem in inspect_dataset(dataset).problems)


@pytest.mark.parametrize("ending", ["", ".png"])
@pytest.mark.parametrize("table", ["train.csv", "labels/train_labels.csv", "train/labels.csv"])
def test_a_table_takes_the_images_of_its_split(tmp_path, table, ending):
    """Images of two splits have the same names; boxes belong to those of the table's split."""
    for split in ("train", "valid"):
        draw(ONE, tmp_path / f"images/{split}/0.png")
    write(tmp_path / table, f"image_id,class,xmin,ymin,xmax,ymax\n0{ending},cat,1,2,30,40\n")
    [image] = open_dataset(tmp_path).images
    assert image.file == tmp_path / "images/train/0.png"


def test_a_table_tells_the_size(tmp_path):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    write(tmp_path / "train.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,400,200,cat,1,2,30,40\n")
    [problem] = inspect_dataset(open_dataset(tmp_path)).problems
    assert "400" in problem
    write(tmp_path / "train.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,200,100,cat,1,2,30,40\n")
    assert inspect_dataset(open_dataset(tmp_path)).problems == []


def test_an_image_has_one_entry(tmp_path):
    draw(Picture("a", (100, 200), ()), tmp_path / "images/a.png")
    write(tmp_path / "train.csv", "image,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,30,40\nimages/a.png,cat,5,5,9,9\n")
    dataset = open_dataset(tmp_path)
    assert objects(dataset) == [1]
    [problem] = inspect_dataset(dataset).problems
    assert "are one image" in problem
    coco(tmp_path / "coco", ["a.png", "a.png"], [[1, 2, 30, 40], [5, 5, 9, 9]])
    dataset = open_dataset(tmp_path / "coco")
    assert objects(dataset) == [1]
    [problem] = inspect_dataset(dataset).problems
    assert "has two entries; the first is taken" in problem


def coco(folder, names, boxes):
    """A box of the class cat on each image of 100 × 200."""
    images = [{"id": i, "file_name": name, "height": 100, "width": 200} for i, name in enumerate(names)]
    rows = [{"id": i, "image_id": i % len(names), "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    for name in names:
        file = folder / "images" / name.replace("\\", "/").split("../")[-1]
        draw(Picture("a", (100, 200), ()), file)
    return write(folder / "train.json", json.dumps(content))


def test_a_missing_image_is_not_taken_from_another_folder(tmp_path):
    coco(tmp_path, ["cam0/1.png", "cam1/1.png"], [[1, 2, 30, 40], [5, 5, 9, 9]])
    draw(Picture("a", (100, 200), ()), tmp_path / "images/1.png")
    (tmp_path / "images/cam0/1.png").unlink()
    dataset = open_dataset(tmp_path)
    assert [image.file.parent.name for image in dataset.images] == ["cam0", "cam1"]
    assert any("cam0" in problem for problem in inspect_dataset(dataset).problems)


def test_paths_of_two_machines_in_one_file(tmp_path):
    coco(tmp_path, ["1/a.png", "1/b.png"], [[1, 2, 30, 40], [5, 5, 9, 9]])
    file = tmp_path / "train.json"
    content = json.loads(file.read_text())
    content["images"][1]["file_name"] = "..\\..\\label-studio\\media\\1\\b.png"
    write(file, json.dumps(content))
    assert [image.file for image in open_dataset(tmp_path).images] == [tmp_path / f"images/1/{x}.png" for x in "ab"]


def test_files_are_opened_from_within_their_folder(tmp_path, monkeypatch):
    coco(tmp_path / "pets", ["a.png"], [[1, 2, 30, 40]])
    (tmp_path / "pets/annotations").mkdir()
    (tmp_path / "pets/train.json").rename(tmp_path / "pets/annotations/train.json")
    monkeypatch.chdir(tmp_path / "pets/annotations")
    assert objects(open_dataset("train.json")) == [1]
    assert objects(open_dataset("../annotations/train.json")) == [1]


@pytest.mark.parametrize(("number", "beyond"), [(5, 1), (20, 1), (100, 1)])
def test_corners_are_seen_where_one_box_is_untidy(tmp_path, number, beyond):
    """Boxes of 150 to 190 pixels' right edge from 60 pixels on; one ends three pixels beyond the image."""
    boxes = [[60, 30, 150 + i % 40, 60] for i in range(number - beyond)] + [[100, 50, 203, 90]] * beyond
    coco(tmp_path, ["a.png"], boxes)
    with pytest.raises(ValueError, match="the boxes are corners, x1 y1 x2 y2"):
        open_dataset(tmp_path)


def test_boxes_of_coco_that_end_beyond_the_image_are_no_corners(tmp_path):
    boxes = [[120, 30, 70, 60]] * 9 + [[120, 30, 95, 60]]
    coco(tmp_path, ["a.png"], boxes)
    assert objects(open_dataset(tmp_path)) == [10]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["3", "1 2 20 30 0 0 0 0 0 0"], "3 faces are announced, and 1 rows follow"),
        (["0", "1 2 20 30 0 0 0 0 0 0"], "no face is announced, but a box follows: 1 2 20 30"),
        (["0", "0 0 0 0 0 0 0 0 0 0"], None),
        (["1", "1 2 20 30 0 0 0 0 0 0"], None),
        (["0", "0/c.png", "0"], None),
    ],
)
def test_wider_face_tells_what_lacks(tmp_path, rows, problem):
    for name in "abc":
        draw(Picture(name, (100, 200), ()), tmp_path / f"WIDER_train/images/0/{name}.png")
    lines = ["0/b.png", "1", "1 2 20 30 0 0 0 0 0 0", "0/a.png", *rows]
    write(tmp_path / "wider_face_split/wider_face_train_bbx_gt.txt", "\n".join([*lines, ""]))
    problems = inspect_dataset(open_dataset(tmp_path)).problems
    assert len(problems) == (problem is not None)
    assert all(problem in one for one in problems)


@pytest.mark.parametrize(
    "lists", [{"train": "first\n", "val": "third\n"}, {"val": "third.png\n"}, {"train": "gone.png\nfirst.png\n"}]
)
def test_lists_of_splits_that_are_not_read_are_told(tmp_path, lists):
    SHAPES["yolo_beside"](tmp_path, ".", PICTURES)
    for name, text in lists.items():
        write(tmp_path / f"{name}.txt", text)
    assert splits(tmp_path) == ["all"]
    notes = inspect_dataset(open_dataset(tmp_path)).notes
    assert any(f"{next(iter(lists))}.txt" in note and "may list the images of splits" in note for note in notes)


@pytest.mark.parametrize("name", ["yolo_beside", "voc_flat", "labelme", "kitti", "yolo_folders"])
@pytest.mark.parametrize("folder", [".", "train"])
@pytest.mark.parametrize("line", ["data/{}", "C:\\x\\{}\r", "./{} labels/{}", "{}"])
def test_lists_of_images_are_splits(tmp_path, name, folder, line):
    SHAPES[name](tmp_path, folder, PICTURES)
    images = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png"))
    for split, stems in {"train": ("first", "second"), "val": ("third",), "test": ()}.items():
        paths = [path for path in images if os.path.basename(path)[:-4] in stems]
        write(tmp_path / f"{split}.txt", "".join(f"{line.format(path, path)}\n" for path in paths))
    assert splits(tmp_path) == ["train", "val"]
    every = expected(name, PICTURES)
    assert records(tmp_path, "train") == {key: every[key] for key in ("first", "second")}
    assert records(tmp_path, "val") == {"third": every["third"]}
    assert open_dataset(tmp_path, "val").annotations.notes == []


def test_lists_tell_what_they_miss(tmp_path):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES)
    (tmp_path / "second.png").unlink()
    write(tmp_path / "train.txt", "x/first.png\nx/third.png\nx/gone.png\n")
    notes = "\n".join(open_dataset(tmp_path, "train").annotations.notes)
    assert f"{tmp_path / 'train.txt'} has 1 line (x/gone.png) without an image here" in notes
    write(tmp_path / "test.txt", "third.png\n")
    assert [len(open_dataset(tmp_path, name).annotations.problems) for name in ("train", "test")] == [1, 0]
    (tmp_path / "test.txt").unlink()
    write(tmp_path / "train.txt", "first.png\n")
    draw(PICTURES[1], tmp_path / "second.png")
    notes = "\n".join(open_dataset(tmp_path, "train").annotations.notes)
    assert "2 files (" in notes
    assert "in none of train.txt, left out" in notes


def test_folders_of_splits_come_before_lists(tmp_path):
    make("yolo_folders", tmp_path)
    write(tmp_path / "train.txt", "images/train/first.png\n")
    assert records(tmp_path, "train") == expected("yolo_folders", PICTURES)
    [note] = open_dataset(tmp_path, "train").annotations.notes
    assert note == "train.txt not read, because folders are named as splits: train, val"


def test_labels_of_images_that_are_named_as_splits_are_no_lists(tmp_path):
    for i in range(3):
        draw(ONE, tmp_path / f"train_{i}.png")
        write(tmp_path / f"train_{i}.txt", yolo_text(ONE))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert open_dataset(tmp_path).annotations.notes == []


@pytest.mark.parametrize(
    ("images", "labels"),
    [("{}_images", "{}_annots"), ("images_{}", "labels_{}"), ("{}Images", "{}Labels"), ("Img-{}", "{}_annotations"),
     ("a/{}_images", "a/{}_xml"), ("image", "Label")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("text", "ending"), [(voc_xml, ".xml"), (yolo_text, ".txt"), (labelme_json, ".json"), (kitti_text, ".txt")]
)
def test_folders_named_as_a_split_and_a_kind(tmp_path, images, labels, text, ending):
    """Images of both splits have the same names."""
    both = {"train": PICTURES[0], "val": PICTURES[2]._replace(name=PICTURES[0].name)}
    both = both if "{}" in images else {"all": PICTURES[0]}
    write(tmp_path / "classes.txt", "cat\ndog\n")
    for split, picture in both.items():
        draw(picture, tmp_path / images.format(split) / f"{picture.name}.png")
        write(tmp_path / labels.format(split) / f"{picture.name}{ending}", text(picture))
    for split, picture in both.items():
        assert records(tmp_path, find_split(splits(tmp_path), split)) == expected("", [picture])


@pytest.mark.parametrize(
    ("separator", "cells", "box"),
    [
        (";", "1,5;2,25;30,125;40", (1.5, 2.25, 30.125, 40)),
        ("\t", "1,5\t2\t30,0\t40", (1.5, 2, 30, 40)),
        (",", '"1,5","2,25","30,0",40', (1.5, 2.25, 30, 40)),
        (",", '1,2,30,"1,040"', None),
    ],
)
@pytest.mark.parametrize("header", ["filename,class,xmin,ymin,xmax,ymax", ""])
def test_decimal_commas_in_tables(tmp_path, separator, cells, box, header):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    row = separator.join(["a.png", "cat", cells] if header else ["a.png", cells, "cat"])
    ok = separator.join(["a.png", "cat", "5", "6", "7", "8"] if header else ["a.png", "5", "6", "7", "8", "cat"])
    write(tmp_path / "train.csv", "\n".join(filter(None, [header.replace(",", separator), ok, row, ""])))
    dataset = open_dataset(tmp_path)
    if box is None:
        [problem] = dataset.annotations.problems
        assert "'1,040', may be a fraction or thousands; write a point or no comma" in problem
    else:
        assert [thing.box for thing in dataset.images[0].objects][1:] == [box]


@pytest.mark.parametrize("cell", ["1.250", "2.5", "1.250,5"])
def test_points_beside_decimal_commas_in_tables(tmp_path, cell):
    draw(Picture("a", (2000, 2000), ()), tmp_path / "a.png")
    head = "filename;class;xmin;ymin;xmax;ymax"
    write(tmp_path / "train.csv", f"{head}\na.png;cat;1,5;2;30;40\na.png;cat;5;6;{cell};80\n")
    dataset = open_dataset(tmp_path)
    assert [thing.box for thing in dataset.images[0].objects] == [(1.5, 2, 30, 40)]
    [problem] = dataset.annotations.problems
    assert f"a corner, '{cell}', has a point, and others have decimal commas" in problem


@pytest.mark.parametrize("rows", [1, 2, 500])
@pytest.mark.parametrize("words", ["class,label", "label,class", "class_name,category"])
def test_tables_with_numbers_and_names_of_classes(tmp_path, rows, words):
    draw(ONE, tmp_path / "a.png")
    number_first = words in ("class,label", "class_name,category")
    row = "a.png,2,dog,1,2,30,40\n" if number_first else "a.png,dog,2,1,2,30,40\n"
    write(tmp_path / "train.csv", f"filename,{words},xmin,ymin,xmax,ymax\n" + row * rows)
    assert open_dataset(tmp_path).categories == ["background", "dog"]


def test_names_with_blanks_in_kittis_files(tmp_path):
    draw(ONE, tmp_path / "image_2/a.png")
    lines = ["traffic light 0.0 0 -1.57 1 2 30 40 1 1 1 1 1 1 0", "cat 0 0 0 5 6 7 8 1 1 1 1 1 1 0 .9", ""]
    write(tmp_path / "label_2/a.txt", "\n".join(lines))
    dataset = open_dataset(tmp_path)
    assert dataset.categories == ["background", "cat", "traffic light"]
    assert [thing.box for thing in dataset.images[0].objects] == [(1, 2, 30, 40), (5, 6, 7, 8)]


def test_turned_boxes_of_rolabelimg(tmp_path):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    angles = ("0", "1.5707963267948966", "0.7853981633974483")
    box = "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>{}</angle></robndbox>"
    things = "".join(f"<object><type>robndbox</type><name>cat</name>{box.format(angle)}</object>" for angle in angles)
    write(tmp_path / "a.xml", f"<annotation><filename>a.png</filename>{things}</annotation>")
    boxes = [thing.box for thing in open_dataset(tmp_path).images[0].objects]
    half = 15 / 2**0.5  # Of the diagonal one, (20 + 10) / 2 turned by 45 degrees.
    assert np.allclose(boxes, [(40, 35, 60, 45), (45, 30, 55, 50), (50 - half, 40 - half, 50 + half, 40 + half)])


@pytest.mark.parametrize("name", ["table_of_tutorials", "widerface", "cvat", "coco_images"])
def test_no_split_is_described_by_the_file_of_another(tmp_path, name):
    train, val = (SHAPES[name](tmp_path, *split)[0] for split in (("train", PICTURES), ("val", VAL)))
    assert train.stem not in open_dataset(tmp_path, "val").annotations.layout
    assert val.stem not in open_dataset(tmp_path, "train").annotations.layout


@pytest.mark.parametrize("name", ["yolo_yaml", "yolo_darknet", "yolo_yaml_roboflow"])
def test_images_that_a_yolo_file_does_not_name_are_told(tmp_path, name):
    SHAPES[name](tmp_path, "train", PICTURES)
    assert open_dataset(tmp_path).annotations.notes == []
    draw(ONE, tmp_path / "more/images/a.png")
    write(tmp_path / "more/labels/a.txt", yolo_text(ONE))
    [note] = open_dataset(tmp_path).annotations.notes
    file = "obj.data" if name == "yolo_darknet" else "data.yaml"
    assert note == f"1 image ({tmp_path / 'more/images/a.png'}) without a split in {file} that has them, left out"


@pytest.mark.parametrize("name", ["ca\nt", "ca\x1b[31mt", "ca\0t", "ca\u2028t"])
def test_names_of_classes_are_one_line(tmp_path, name):
    file = coco(tmp_path, ["a.png"], [[1, 2, 30, 40]])
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = name
    write(file, json.dumps(content))
    with pytest.raises(ValueError, match="line breaks or control codes|a text as its name"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="line breaks or control codes"):
        open_dataset(tmp_path, categories=["background", name])


def test_labels_that_no_list_names_are_told(tmp_path):
    two = PICTURES[::2]
    SHAPES["voc_lists"](tmp_path / "voc", "train", PICTURES)
    write(tmp_path / "voc/ImageSets/Main/train.txt", f"{two[0].name}\n")
    notes = open_dataset(tmp_path / "voc", "train").annotations.notes
    assert any("2 XML files (" in note and "in no list of ImageSets" in note for note in notes)
    draw(ONE, tmp_path / "faces/WIDER_train/images/0/a.png")
    draw(ONE, tmp_path / "faces/WIDER_train/images/0/b.png")
    write(tmp_path / "faces/wider_face_train_bbx_gt.txt", "0/a.png\n1\n1 2 20 30 0 0 0 0 0 0\n")
    [note] = open_dataset(tmp_path / "faces").annotations.notes
    assert "b.png" in note
    assert "without a place in a list" in note


def test_labelme_groups_are_objects(tmp_path):
    draw(Picture("a", (100, 200), ()), tmp_path / "a.png")
    rows = [("car", 1, (10, 10, 20, 30)), ("car", 1, (40, 20, 60, 25)), ("dog", 1, (5, 5, 9, 9)),
            ("car", None, (70, 70, 80, 80)), ("car", None, (90, 70, 95, 80)), ("car", 2, (1, 2, 3, 4))]  # fmt: skip
    shapes = [
        {"label": name, "group_id": group, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
        for name, group, (x1, y1, x2, y2) in rows
    ]
    write(tmp_path / "a.json", json.dumps({"imagePath": "a.png", "shapes": shapes}))
    dataset = open_dataset(tmp_path)
    found = [(dataset.categories[thing.label], thing.box) for thing in dataset.images[0].objects]
    assert found == [("car", (10, 10, 60, 30)), ("dog", (5, 5, 9, 9)), ("car", (70, 70, 80, 80)),
                     ("car", (90, 70, 95, 80)), ("car", (1, 2, 3, 4))]  # fmt: skip


def test_folders_that_lie_too_deep_are_told(tmp_path):
    deep = tmp_path.joinpath(*"12345678")
    draw(ONE, deep / "a.png")
    write(deep / "a.xml", voc_xml(ONE))
    draw(ONE, deep / "9/b.png")
    write(deep / "9/b.xml", voc_xml(ONE))
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert any("8 folders deep" in note for note in dataset.annotations.notes)


CREATE_ML = [{"image": "a.png", "annotations": [{"label": "x", "coordinates": {}}]}]


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        ("a.csv", "image,xmin,ymin,xmax,ymax\na.png,1,2,30,40\n", "'image,xmin,ymin,xmax,ymax'; a table needs columns"),
        ("a.csv", 'image_id,width,height,bbox\na,9,9,"[1, 2, 3, 4]"\n', "a table needs columns filename, class, xmin"),
        ("a.json", json.dumps(CREATE_ML), "is of CreateML; export"),
        ("data.zip", "PK", "Unpack data.zip and give the folder"),
        ("metadata.jsonl", '{"file_name": "a.png"}', "is of Hugging Face: give datasets.load_dataset"),
    ],
)
def test_what_is_not_read_names_a_way_out(tmp_path, name, content, way):
    draw(ONE, tmp_path / "a.png")
    write(tmp_path / name, content)
    for path in (tmp_path, tmp_path if name == "a.json" else tmp_path / name):
        with pytest.raises(ValueError, match=way):
            open_dataset(path)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(tmp_path, on_disk):
    """macOS has letters and accents apart, also in zips that are unpacked elsewhere."""
    other = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    stem, folder, written = (unicodedata.normalize(form, name)
                             for form, name in ((on_disk, "größe"), (on_disk, "Bücher"), (other, "größe")))  # fmt: skip
    for name in ("voc", "coco", "table"):
        draw(ONE, tmp_path / name / "images" / folder / f"{stem}.png")
    write(tmp_path / "voc/annotations" / folder / f"{written}.xml", voc_xml(ONE))
    box, inner = [1, 2, 30, 40], unicodedata.normalize(other, "Bücher")
    images = [{"id": 1, "file_name": f"{inner}/{written}.png", "height": ONE.size[0], "width": ONE.size[1]}]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    write(tmp_path / "coco/train.json", json.dumps(content))
    write(tmp_path / "table/train.csv", f"image,class,xmin,ymin,xmax,ymax\n{written}.png,cat,1,2,30,40\n")
    for name in ("voc", "coco", "table"):
        dataset = open_dataset(tmp_path / name)
        report = inspect_dataset(dataset)
        assert (len(dataset), report.problems, report.notes) == (1, [], []), name
        assert dataset.images[0].objects


@pytest.mark.parametrize("path", ["/proc", "/", "/sys/.", "/proc/self/cwd/.."])
def test_yolo_walks_no_folder_of_the_system(tmp_path, path, monkeypatch):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    write(tmp_path / "data.yaml", f"path: {path}\ntrain: .\nnames: [cat, dog]\n")
    walked = []
    monkeypatch.setattr(yolo_labels, "find_images", lambda places: walked.extend(places) or find_images([tmp_path]))
    assert records(tmp_path, "train") == expected("yolo_folders", PICTURES)
    assert [place.resolve() for place in walked] == [tmp_path.resolve()] * len(walked)


def test_regions_of_kitti_in_any_case(tmp_path):
    [file, *_] = SHAPES["kitti"](tmp_path, "train", PICTURES)
    write(file, file.read_text().replace("DontCare", "Dontcare"))
    assert records(tmp_path, "train") == expected("kitti", PICTURES)


def test_lists_of_names_that_are_not_read_are_told(tmp_path):
    SHAPES["kitti"](tmp_path, "training", PICTURES)
    for split, name in (("train", "first"), ("val", "third")):
        write(tmp_path / f"ImageSets/{split}.txt", f"{name}\n")
    [note] = open_dataset(tmp_path).annotations.notes
    assert note.startswith("2 files (")
    assert "may list the images of splits" in note


@pytest.mark.parametrize("name", ["widerface", "cvat"])
def test_images_of_one_name_in_two_splits(tmp_path, name):
    """Each file of labels means the images of its own split, and takes none of the other's."""
    other = VAL[0]._replace(name=PICTURES[0].name)
    for split, pictures in (("train", PICTURES), ("val", (other,))):
        [file] = SHAPES[name](tmp_path, split, pictures)
        if name == "cvat":
            write(file, file.read_text().replace(f"{split}/", "").replace(f'subset="{split}"', ""))
    assert records(tmp_path, "train") == expected(name, PICTURES)
    assert records(tmp_path, "val") == expected(name, (other,))
    [image] = [file for file in tmp_path.rglob(f"{other.name}.png") if "train" in str(file.parent)]
    image.unlink()
    [problem] = open_dataset(tmp_path, "train").annotations.problems
    assert "there is no image '" in problem


def test_tags_of_cvat_are_told(tmp_path):
    [file] = SHAPES["cvat"](tmp_path, "train", PICTURES)
    write(file, file.read_text().replace("</image>", '<tag label="cat"></tag></image>'))
    assert open_dataset(tmp_path).annotations.notes == ["3 tags of whole images, left out"]


def test_wider_face_may_begin_with_images_without_faces(tmp_path):
    for name in "abc":
        draw(Picture(name, (100, 200), ()), tmp_path / f"images/{name}.png")
    write(tmp_path / "val.txt", "a.png\n0\nb.png\n0\nc.png\n1\n1 2 20 30 0 0 0 0 0 0\n")
    dataset = open_dataset(tmp_path, "val")
    assert (objects(dataset), dataset.annotations.problems) == ([0, 0, 1], [])


def test_codes_of_open_images_have_names(tmp_path):
    for file, code in (
        ("class-descriptions-boxable.csv", "/m/01"),
        ("metadata/classes.csv", "/m/01"),
        ("oidv7-class-descriptions.csv", "n01"),
        ("classes.csv", "x"),
    ):
        root = tmp_path / file.replace("/", "-")
        draw(ONE, root / "a.png")
        write(root / "labels/detections.csv", f"ImageID,LabelName,XMin,XMax,YMin,YMax\na,{code},.1,.5,.1,.5\n")
        write(root / file, f"{code},Cat\n")
        assert open_dataset(root).categories[1:] == ["x" if code == "x" else "Cat"]


@pytest.mark.parametrize("yes", ["1", "1.0", "True"])
def test_groups_of_open_images_are_crowds(tmp_path, yes):
    """Not trained on, and not counted in evaluation; objects with other marks, and with an unknown one, are."""
    draw(ONE, tmp_path / "a.png")
    marked = ",".join(f"Is{mark}" for mark in ("Occluded", "Truncated", "GroupOf", "Depiction", "Inside"))
    header = f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{marked}"
    marks = (f"0,0,{yes},0,0", "1,1,0,1,1", "-1,-1,-1,-1,-1")
    rows = [f"a,xclick,/m/01,1,.1,.{i}5,.1,.5,{mark}" for i, mark in enumerate(marks, start=2)]
    write(tmp_path / "train-annotations-bbox.csv", "\n".join([header, *rows, ""]))
    dataset = open_dataset(tmp_path)
    assert [thing.iscrowd for thing in dataset.images[0].objects] == [True, False, False]
    _, target = dataset.with_transforms(DetectionPresetTrain("none"))[0]
    assert target["boxes"][:, 2].tolist() == pytest.approx([0.35 * ONE.size[1], 0.45 * ONE.size[1]])


@pytest.mark.parametrize("name", ["yolo_yaml", "voc_flat"])
def test_images_behind_links_are_not_left_out(tmp_path, name):
    SHAPES[name](tmp_path, "train", PICTURES)
    for image in list((tmp_path / "train").rglob("*.png")):
        (tmp_path / "store").mkdir(exist_ok=True)
        image.rename(tmp_path / "store" / f"x{image.name}")
        image.symlink_to(tmp_path / "store" / f"x{image.name}")
    dataset = open_dataset(tmp_path)
    assert (len(dataset), dataset.annotations.notes) == (len(PICTURES), [])


@pytest.mark.parametrize("yaml", [False, True])
def test_yolo_labels_are_not_those_of_two_splits(tmp_path, yaml):
    """`labels/first.txt` may belong to either image, and `labels/third.txt` to one alone."""
    write(tmp_path / "classes.txt", "cat\ndog\n")
    if yaml:
        write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for split, name in (("train", "first"), ("val", "first"), ("train", "third"), ("val", "fourth")):
        draw(ONE, tmp_path / f"images/{split}/{name}.png")
        write(tmp_path / f"labels/{name}.txt", yolo_text(ONE))
    for split, name in (("train", "third"), ("val", "fourth")):
        dataset = open_dataset(tmp_path, split)
        assert [image.file.stem for image in dataset.images] == [name]
        [problem] = dataset.annotations.problems
        assert "of another split" in problem
    (tmp_path / "images/train/third.png").unlink()
    with pytest.raises(ValueError, match=r"No object can be read, 1 problem:\n.*first\.txt would be the labels of "):
        open_dataset(tmp_path, "train")
    (tmp_path / "images/val/first.png").unlink()
    (tmp_path / "images/val/first.png").symlink_to(tmp_path / "images/train/first.png")
    assert len(open_dataset(tmp_path, "val")) == 2


def test_coco_searches_no_files_for_images(tmp_path, monkeypatch):
    for k in range(9):
        write(tmp_path / f"train/train_{k}.png", "")
    searched = []
    monkeypatch.setattr(coco_files, "in_any_case", lambda file, root: searched.append(root) or file)
    with pytest.raises(FileNotFoundError, match="its images"):
        coco_files.image_finder(tmp_path / "train/_annotations.coco.json", ["gone.png"])
    assert not [root for root in searched if root.is_file()]


@pytest.fixture
def unlisted(tmp_path, monkeypatch):
    """Let the folders above a data set be entered, but not listed."""
    listed = Path.iterdir

    def iterdir(folder):
        if folder.absolute() in tmp_path.parents or folder.absolute() == tmp_path:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.mark.usefixtures("unlisted")
def test_coco_below_a_folder_that_can_not_be_listed(tmp_path):
    [file] = SHAPES["coco_roboflow"](tmp_path, "train", PICTURES)
    assert len(open_dataset(file)) == len(PICTURES)
    for image in (tmp_path / "train").glob("*.png"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match="its images"):
        open_dataset(file)


@pytest.mark.parametrize("folder", ["cat_labels", "train_labels"])
def test_a_file_of_labels_beside_its_images(tmp_path, folder):
    for name in (folder, "other"):
        draw(ONE, tmp_path / f"{name}/a.png")
    row = "a.png,cat,1,2,30,40"
    file = write(tmp_path / f"{folder}/boxes.csv", f"filename,class,xmin,ymin,xmax,ymax\n{row}\n")
    assert [image.file for image in open_dataset(file).images] == [file.parent / "a.png"]
    (file.parent / "a.png").unlink()
    assert [image.file for image in open_dataset(file).images] == [tmp_path / "other/a.png"]


def test_yolo_labels_beside_the_image_come_before_those_of_other_folders(tmp_path):
    """`photos/` and `data/` may be folders of images, of which `labels/` has those of `images/` alone."""
    write(tmp_path / "classes.txt", "cat\ndog\n")
    one, two = ONE, PICTURES[0]._replace(things=(Thing(1, (1, 2, 30, 40)),) * 3)
    for folder, labels, picture in (("images", "labels", one), ("photos", "photos", two), ("data", "data", two)):
        draw(picture, tmp_path / f"{folder}/a.png")
        write(tmp_path / f"{labels}/a.txt", yolo_text(picture))
    dataset = open_dataset(tmp_path)
    assert dataset.annotations.problems == []
    assert {image.file.parent.name: len(image.objects) for image in dataset.images} == {
        "images": len(one.things), "photos": 3, "data": 3
    }  # fmt: skip


def test_yolo_images_of_one_name_without_labels_have_no_objects(tmp_path):
    write(tmp_path / "classes.txt", "cat\ndog\n")
    for image, text in (("images/a", ""), ("data/a", ""), ("images/b", "labels/b"), ("data/c", "data/c")):
        draw(ONE, tmp_path / f"{image}.png")
        write(tmp_path / f"{text}.txt", yolo_text(ONE)) if text else None
    dataset = open_dataset(tmp_path)
    assert (len(dataset), dataset.annotations.problems) == (4, [])


@pytest.mark.usefixtures("unlisted")
def test_yolo_lists_no_folder_above_the_data_set(tmp_path):
    SHAPES["yolo_folders"](tmp_path / "data/set", "train", PICTURES)
    images = tmp_path / "data/set/images/train"
    file = write(tmp_path / "data/set/here/data.yaml", f"train: {images}\nnames: [cat, dog]\n")
    assert records(file, "train") == expected("yolo_folders", PICTURES)


def test_drives_of_windows_may_hold_images(tmp_path, monkeypatch):
    assert yolo_labels.locate(tmp_path, "", "/") is None
    monkeypatch.setattr(yolo_labels, "os", Namespace(name="nt", path=os.path))
    assert yolo_labels.locate(tmp_path, "", "/") == Path("/")


@pytest.mark.parametrize("name", ["widerface", "cvat"])
def test_a_file_named_as_a_split_may_name_the_folder_of_another(tmp_path, name):
    [file] = SHAPES[name](tmp_path, "train", PICTURES)
    text = file.read_text().replace("0--Parade/", "WIDER_train/images/0--Parade/").replace('subset="train"', "")
    write(tmp_path / f"val{file.suffix}", text)
    file.unlink()
    assert records(tmp_path, "val") == expected(name, PICTURES)
    [image] = tmp_path.rglob(f"{PICTURES[0].name}.png")
    draw(PICTURES[0], tmp_path / "more" / image.relative_to(tmp_path))
    [problem] = open_dataset(tmp_path, "val").annotations.problems
    assert "there are 2 images '" in problem
    assert "open each folder alone" in problem


def test_a_damaged_list_of_a_split_that_nobody_opens(tmp_path):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    write(tmp_path / "data.yaml", "train: images/train\ntest: test.txt\nnames: [cat, dog]\n")
    (tmp_path / "test.txt").write_bytes(b"\x00\x81\xff\n")
    assert records(tmp_path, "train") == expected("yolo_folders", PICTURES)
    with pytest.raises(ValueError, match=r"test\.txt:1 holds a zero byte"):
        open_dataset(tmp_path, "test")


def test_lists_of_a_yolo_file_are_located_once(tmp_path, monkeypatch):
    """Locating 20,000 paths of another machine takes seconds."""
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    lines = [f"/home/me/images/train/{picture.name}.png\n" for picture in PICTURES]
    write(tmp_path / "train.txt", "".join(lines))
    write(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    draw(ONE, tmp_path / "images/more.png")
    located, locate = [], yolo_labels.locate
    monkeypatch.setattr(yolo_labels, "locate", lambda *args: located.append(args[2]) or locate(*args))
    [note] = open_dataset(tmp_path).annotations.notes
    assert note.startswith(f"1 image ({tmp_path / 'images/more.png'}) without a split in data.yaml")
    assert located == [line.strip() for line in lines]


@pytest.mark.parametrize("train", [False, True])
def test_a_list_of_images_that_is_not_text(tmp_path, train):
    SHAPES["voc_flat"](tmp_path, ".", PICTURES)
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\x00\x81\x00")
    if train:
        write(tmp_path / "train.txt", "".join(f"{picture.name}.png\n" for picture in PICTURES))
    assert records(tmp_path, "train" if train else "all") == expected("voc_flat", PICTURES)
    [note] = open_dataset(tmp_path).annotations.notes
    assert str(tmp_path / "test.txt") in note


@pytest.mark.parametrize("name", ["coco_images", "yolo_yaml"])
def test_lists_are_no_way_out_where_none_is_read(tmp_path, name):
    files = SHAPES[name](tmp_path, "train", PICTURES)
    if name == "coco_images":
        files[0].rename(tmp_path / "annotations/all.json")
    for split in ("train", "val"):
        write(tmp_path / f"{split}.txt", "".join(f"{picture.name}.png\n" for picture in PICTURES))
    notes = open_dataset(tmp_path).annotations.notes
    assert [note.partition(" may list")[0] for note in notes] == ["train.txt, val.txt"] * (name == "coco_images")
    assert not [note for note in notes if "lists are read" in note]


def test_a_folder_of_a_split_comes_before_its_own_list(tmp_path):
    SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    write(tmp_path / "train.txt", "images/train/first.png\nimages/train/second.png\n")
    assert records(tmp_path, "train") == expected("yolo_folders", PICTURES)
    [note] = open_dataset(tmp_path).annotations.notes
    assert note == "train.txt not read, because folders are named as splits: train"


def test_labels_go_to_the_folder_of_images_of_their_name(tmp_path):
    for folder in ("dogs", "dogs_images"):
        draw(ONE, tmp_path / f"data/{folder}/1.png")
    write(tmp_path / "data/dogs_labels/1.xml", voc_xml(ONE))
    assert [image.file.parent.name for image in open_dataset(tmp_path).images] == ["dogs_images"]


def test_tables_tell_none_from_several_of_a_name(tmp_path):
    for image in ("one/a.png", "two/a.png", "b.png"):
        draw(Picture("a", (100, 200), ()), tmp_path / image)
    rows = "".join(f"{name}.png,cat,1,2,30,40\n" for name in "abc")
    write(tmp_path / "labels.csv", f"filename,class,xmin,ymin,xmax,ymax\n{rows}")
    problems = inspect_dataset(open_dataset(tmp_path)).problems
    told = [problem.partition(": ")[2] for problem in problems]
    assert told == ["there are 2 images 'a.png': open each folder alone", "there is no image 'c.png'"]

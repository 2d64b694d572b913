"""One data set in every shape of every layout gives the same records, wherever it lies."""

import json
import logging
import os
import re
from pathlib import Path

import pytest
from labelled import CATEGORIES, PICTURES, draw, make_voc, make_yolo
from layouts import OUTLINE, SHAPES, VAL, make, numbers, voc_xml, write, yolo_text

from ssd_zoo.data import inspect_dataset, open_dataset, splits, usable
from ssd_zoo.data.formats.folders import find_split

# Formats whose images without objects have no entry.
_NO_EMPTY = {"table_of_tutorials", "table_of_roboflow", "table_of_open_images"}


def records(path, split):
    dataset = open_dataset(path, split)
    assert dataset.annotations.problems == []
    assert all(entry.file.is_file() for entry in dataset.images)
    return {
        entry.file.stem: sorted(
            (dataset.categories[thing.label], *(round(value, 3) for value in thing.box)) for thing in entry.objects
        )
        for entry in dataset.images
    }


def expected(name, pictures):
    names = ["background", "face", "face"] if name == "widerface" else CATEGORIES
    return {
        picture.name: sorted((names[label], *map(float, box)) for label, box in picture.things)
        for picture in pictures
        if picture.things or name not in _NO_EMPTY
    }


def check_splits(name, root):
    names = splits(root)
    train, val = find_split(names, "train"), find_split(names, "val")
    assert sorted([train, val]) == sorted(names)
    assert records(root, "train") == expected(name, PICTURES)
    assert records(root, "val") == expected(name, VAL)
    if name != "widerface":
        assert open_dataset(root, "train").categories == CATEGORIES


# Names that mean something below a data set mean nothing above it.
PARENTS = (
    *("images/train", "labels", "val/annotations", "test/JPEGImages", "ImageSets/Main", "train2017/data", "valid"),
    *("my pets (1)/all of them", "Größe/été", "宠物", "train.txt", "data.yaml/obj.data"),
)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_the_same_below_any_folder(name, tmp_path, monkeypatch):
    make(name, root := tmp_path / "pets")
    for parent in PARENTS:
        for place in (tmp_path / parent, tmp_path / parent / "pets"):
            place.parent.mkdir(parents=True, exist_ok=True)
            root = root.rename(place)
            check_splits(name, root)
            root = root.rename(tmp_path / "moved")
    monkeypatch.chdir(root)
    check_splits(name, Path())
    monkeypatch.chdir(tmp_path)
    check_splits(name, Path("moved"))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_records(name, tmp_path):
    labels = make(name, tmp_path / "pets")
    check_splits(name, tmp_path / "pets")
    assert open_dataset(tmp_path / "pets", "train").annotations.layout
    for file in labels:
        file.unlink(missing_ok=True)
    with pytest.raises((ValueError, FileNotFoundError)):
        open_dataset(tmp_path / "pets", "train")


@pytest.mark.parametrize("name", SHAPES)
def test_a_split_without_images_is_an_error(name, tmp_path):
    SHAPES[name](tmp_path / "pets", "train", PICTURES)
    SHAPES[name](tmp_path / "pets", "val", ())
    with pytest.raises(ValueError, match=r"has no (images|split 'val')|No image has a file of labels"):
        open_dataset(tmp_path / "pets", "val")


def test_labels_of_a_split_whose_images_are_gone_are_named(tmp_path):
    SHAPES["voc_lists"](tmp_path, "train", PICTURES)
    # "é" in one and in two characters: the names would be refused, but the images come first.
    for number, name in enumerate(("caf\u00e9", "cafe\u0301")):
        text = voc_xml(PICTURES[0]).replace("cat", name)
        write(tmp_path / "Annotations" / f"gone{number}.xml", text)
    write(tmp_path / "ImageSets/Main/val.txt", "gone0\ngone1\n")
    with pytest.raises(ValueError, match=r"No object can be read, 2 problems:\n  .*gone0\.xml: there is no image"):
        open_dataset(tmp_path, "val")


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_without_objects_is_not_usable(name, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES[1:2])
    SHAPES[name](tmp_path, "val", VAL)

    def use():
        dataset = open_dataset(tmp_path, "train")
        usable(dataset, inspect_dataset(dataset))

    with pytest.raises((ValueError, FileNotFoundError)):
        use()


@pytest.mark.parametrize("name", ["voc_flat", "yolo_beside", "labelme"])
def test_folders_without_splits(name, tmp_path):
    SHAPES[name](tmp_path, ".", PICTURES)
    assert splits(tmp_path) == ["all"]
    assert records(tmp_path, None) == expected(name, PICTURES)


def test_two_layouts_are_not_chosen_from_in_silence(tmp_path):
    SHAPES["voc_lower_case"](tmp_path, "train", PICTURES)
    make_yolo(tmp_path)
    with pytest.raises(ValueError, match=r"two layouts, Pascal VOC \(.*\) and YOLO \(.*layout='voc' or 'yolo'"):
        open_dataset(tmp_path, "train")
    for layout in ("voc", "yolo"):
        assert open_dataset(tmp_path, "train", layout=layout).categories == CATEGORIES
    with pytest.raises(ValueError, match="layout must be one of voc, coco, yolo"):
        open_dataset(tmp_path, layout="pascal")


def test_a_table_beside_the_files_that_it_was_made_of_is_not_read(tmp_path):
    SHAPES["voc_images_in_split"](tmp_path, "train", PICTURES)
    SHAPES["table_of_tutorials"](tmp_path, "train", PICTURES)
    dataset = open_dataset(tmp_path)
    assert "Pascal VOC" in dataset.annotations.layout
    assert open_dataset(tmp_path / "train_labels.csv").annotations.layout.startswith("table")


@pytest.mark.parametrize(
    ("name", "stray", "note"),
    [
        ("yolo_folders", "images/train/bare.png", r"1 image \(.*bare.png\) without a file of labels, taken as without"),
        ("yolo_folders", "preview/bare.png", r"1 image \(.*bare.png\) without labels in their folder, left out"),
        ("voc_lists", "JPEGImages/bare.png", r"1 image \(.*bare.png\) without an XML file, left out"),
        ("labelme", "train/bare.png", r"1 image \(.*bare.png\) without a JSON file, left out"),
        ("kitti", "train/image_2/bare.png", r"1 image \(.*bare.png\) without a text file, left out"),
        ("table_of_tutorials", "images/bare.png", r"without a row in train_labels.csv, left out"),
        ("cvat", "images/bare.png", r"1 image \(.*bare.png\) without an entry in the XML file, left out"),
    ],
)
def test_images_without_labels_are_told(name, stray, note, tmp_path):
    SHAPES[name](tmp_path, "train", PICTURES)
    draw(PICTURES[1], tmp_path / stray)
    assert re.search(note, "\n".join(open_dataset(tmp_path, "train").annotations.notes))


def test_labels_without_images_are_told(tmp_path):
    SHAPES["voc_flat"](tmp_path, "train", PICTURES)
    (tmp_path / "train/third.png").unlink()
    dataset = open_dataset(tmp_path)
    [problem] = dataset.annotations.problems
    assert "third.xml: there is no image third.*" in problem
    SHAPES["yolo_folders"](tmp_path / "yolo", "train", PICTURES)
    (tmp_path / "yolo/images/train/third.png").unlink()
    [note] = [note for note in open_dataset(tmp_path / "yolo").annotations.notes if "third" in note]
    assert note.startswith("1 file ")


def test_unreadable_folders_are_told(tmp_path, monkeypatch):
    """The system refuses by hand, for root may read everything."""
    SHAPES["voc_flat"](tmp_path, "train", PICTURES)
    (tmp_path / "more").mkdir()
    scan = os.scandir

    def refuse(folder):
        if str(folder) == str(tmp_path / "more"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    [note] = open_dataset(tmp_path).annotations.notes
    assert note == f"a folder can't be read: [Errno 13] Permission denied: '{tmp_path / 'more'}'"


def in_fractions(picture):
    height, width = picture.size
    boxes = [(x1 / width, y1 / height, x2 / width, y2 / height) for _, (x1, y1, x2, y2) in picture.things]
    things = [thing._replace(box=box) for thing, box in zip(picture.things, boxes, strict=True)]
    return picture._replace(things=tuple(things))


@pytest.mark.parametrize("name", [name for name in SHAPES if name.startswith("yolo")])
def test_pixels_in_yolo_are_refused(name, tmp_path):
    labels = SHAPES[name](tmp_path, "train", PICTURES)
    for file, picture in zip(labels, PICTURES, strict=True):
        file.write_text(yolo_text(picture._replace(size=(1, 1)), *[OUTLINE] * (name == "yolo_outlines")))
    with pytest.raises(ValueError, match=r"\.txt:1: 3 boxes are not fractions of the image, but pixels; divide x and"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.startswith(("yolo", "table", "wider"))])
def test_fractions_where_pixels_are_expected_are_refused(name, tmp_path):
    SHAPES[name](tmp_path, "train", [in_fractions(picture) for picture in PICTURES])
    with pytest.raises(ValueError, match=r"all 3 boxes lie .* as fractions of the image do, where pixels are expected"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("box", [[0.2, 0.4, 0.8000001, 0.6], [0.5, 0.6, 0.9, 0.9], [-1e-9, 0.1, 0.5, 0.5]])
def test_fractions_in_coco_may_be_rounded_or_corners(box, tmp_path):
    draw(PICTURES[0], tmp_path / "a.png")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i in range(3)]
    write(tmp_path / "train.json", json.dumps(content | {"annotations": boxes}))
    with pytest.raises(ValueError, match="as fractions of the image do"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["table_of_tutorials", "table_of_roboflow", "table_of_retinanet"])
def test_tables_may_be_in_fractions(name, tmp_path):
    SHAPES[name](tmp_path, "train", [in_fractions(picture) for picture in PICTURES])
    assert records(tmp_path, "train") == expected(name, PICTURES)


@pytest.mark.parametrize("areas", [False, True])
@pytest.mark.parametrize("name", [name for name in SHAPES if name.startswith("coco") and name != "coco_outlines"])
def test_corners_in_coco_are_refused(name, areas, tmp_path):
    [file] = SHAPES[name](tmp_path, "train", PICTURES)
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
        if areas:
            entry["area"] = width * height
    if not areas:
        content["annotations"] = [{**entry, "id": i} for i, entry in enumerate(content["annotations"] * 2)]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the boxes are corners, x1 y1 x2 y2"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("line", ["0 .2 .3 .2 .3 .9 7", "0 .2 .3 .2 .3 .9", "0 40 30 120 90", "0 .2 nan .2 .3", "0 .2"])
def test_bad_lines_are_dropped_one_by_one(tmp_path, line):
    [first, *_] = SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    first.write_text(f"{first.read_text()}{line}\n")
    dataset = open_dataset(tmp_path)
    [problem] = dataset.annotations.problems
    assert problem.startswith(f"{first}:3: ")
    assert [len(entry.objects) for entry in dataset.images] == [2, 0, 1]


@pytest.mark.parametrize("box", [[1, 2, 1e308, 4], [1, 2, float("nan"), 4], [1e7, 1, 2, 3], "1234", [True, 1, 2, 3]])
def test_coco_boxes_that_are_not_usable_are_dropped(tmp_path, box):
    [file] = SHAPES["coco_images"](tmp_path, "train", PICTURES)
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 99, "image_id": 0, "category_id": 1, "bbox": box})
    file.write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert len(dataset.annotations.problems) == 1
    assert sum(len(entry.objects) for entry in dataset.images) == 3


def test_a_file_that_was_mended_is_read_anew(tmp_path):
    """A problem names the line of the file as it is now, not as it was when it was opened first."""
    [file] = SHAPES["coco_images"](tmp_path, "train", PICTURES)
    content = json.loads(file.read_text())
    good, bad = content["annotations"], {"id": 99, "image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]}
    for annotations in ([good[0], bad], [*good, bad], [bad, *good], good, [good[0], bad]):
        text = json.dumps({**content, "annotations": annotations}, indent=1)
        file.write_text(text)
        lines = [f"{file}:{text.count(chr(10), 0, text.index('99'))}"] if bad in annotations else []
        problems = open_dataset(tmp_path).annotations.problems
        assert [problem.partition(": ")[0] for problem in problems] == lines


def test_two_files_of_one_split(tmp_path):
    SHAPES["coco_nulls"](tmp_path, "train", PICTURES)
    SHAPES["coco_images"](tmp_path, "train", PICTURES)
    with pytest.raises(ValueError, match=r"train\.json and .*train\.json are both the split 'train'"):
        open_dataset(tmp_path)
    SHAPES["coco_official"](tmp_path / "official", "train", PICTURES)
    SHAPES["coco_keypoints"](tmp_path / "official", "train", PICTURES)
    assert splits(tmp_path / "official") == ["train2017", "person_keypoints_train2017"]


def test_names_of_images_may_end_like_flags(tmp_path):
    pictures = [PICTURES[0]._replace(name=name) for name in ("photo", "photo 1", "photo -1")]
    make_voc(tmp_path, "train", pictures)
    assert [entry.file.stem for entry in open_dataset(tmp_path).images] == ["photo", "photo 1", "photo -1"]


@pytest.mark.parametrize("where", ["objects", "nested", "lists"])
def test_objects_elsewhere_in_the_xml(tmp_path, where):
    make_voc(tmp_path, "train", PICTURES)
    for file in (tmp_path / "Annotations").iterdir():
        text = file.read_text()
        if where == "objects":
            text = text.replace("</size>", "</size><objects>").replace("</annotation>", "</objects></annotation>")
        elif where == "nested":
            text = f"<annotations>{text}</annotations>"
        else:
            text = text.replace("object>", "OBJECT>")
        file.write_text(text)
    with pytest.raises(ValueError, match=r"No object can be read, \d problems"):
        open_dataset(tmp_path)


def test_a_saved_model_beside_the_data_is_no_layout(tmp_path):
    make_yolo(tmp_path)
    write(tmp_path / "model/config.json", '{"name": "ssd", "kwargs": {"shapes": [[1, 2]], "categories": []}}')
    assert open_dataset(tmp_path).categories == CATEGORIES


def test_files_of_other_tools_are_named(tmp_path):
    write(tmp_path / "default.json", '{"items": [], "categories": {}}')
    with pytest.raises(ValueError, match=r"default\.json is of Datumaro; convert it by"):
        open_dataset(tmp_path)
    write(tmp_path / "default.json", "{}")
    write(tmp_path / "x.tfrecord", "")
    with pytest.raises(ValueError, match=r"It holds 1 \.json, 1 \.tfrecord"):
        open_dataset(tmp_path)


def test_the_cases(cases, caplog):
    """Small data sets that real users had; each has one object red at (8, 10, 24, 30)."""
    caplog.set_level(logging.ERROR)
    read = [
        *(f"coco-null/{name}" for name in ("nulliscrowd", "idnull", "nullsize", "nullarea")),
        *(f"utf8-bom/{name}" for name in ("yolo-bomlabel", "yolo-bomclasses", "coco-bom", "voc-bomlist")),
        *(f"layouts-missing/{n}" for n in ("labelimg-yolo", "cvat_voc", "labelme", "voc-lower", "cvat_yolo")),
        *("layouts-missing/voc-noset", "layouts-missing/voc-flat"),
        *("coco-data-folder", "coco-image-id-types", "coco-person-keypoints", "coco-windows-backslash"),
        *("images-in-parent-path/images/set", "json-yaml-crash/folder-x.json", "voc-appledouble"),
        *("voc-encodings/latin1-list", "category-names/parent", "category-names/parent-of-same-name"),
    ]  # fmt: skip
    for name in read:
        dataset = open_dataset(cases / name)
        [thing] = [thing for entry in dataset.images for thing in entry.objects]
        assert (dataset.categories[1], tuple(map(round, thing.box))) == ("red", (8, 10, 24, 30)), name
        assert dataset.images[0].file.is_file(), name


def csv_text(picture):
    _, box = picture.things[0]
    return f"filename,class,xmin,ymin,xmax,ymax\n{picture.name}.png,cat,{','.join(numbers(box))}\n"


def labelme_text(picture):
    _, (x1, y1, x2, y2) = picture.things[0]
    shapes = [{"label": "cat", "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}]
    return json.dumps({"version": "5", "shapes": shapes, "imagePath": f"{picture.name}.png"})


@pytest.mark.parametrize(("text", "ending"), [(voc_xml, ".xml"), (labelme_text, ".json"), (csv_text, ".csv")])
@pytest.mark.parametrize("there", ["valid", "test"])
def test_labels_take_no_image_of_another_split(tmp_path, text, ending, there):
    # The image of train/ is missing, and another split has one of the same name.
    picture = next(picture for picture in PICTURES if picture.things)
    for split in ("train", there):
        write(tmp_path / split / f"{picture.name}{ending}", text(picture))
    draw(picture, tmp_path / there / f"{picture.name}.png")
    assert len(open_dataset(tmp_path, there)) == 1
    with pytest.raises(ValueError, match="there is no image"):
        open_dataset(tmp_path, "train")


def test_an_image_has_one_file_of_labels(tmp_path):
    picture = next(picture for picture in PICTURES if picture.things)
    for folder in ("photos/a", "old"):
        write(tmp_path / folder / f"{picture.name}.xml", voc_xml(picture))
    draw(picture, tmp_path / "photos" / "a" / f"{picture.name}.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "old" in dataset.annotations.problems[0]


def test_yolo_labels_belong_to_one_image(tmp_path):
    picture = next(picture for picture in PICTURES if picture.things)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    write(tmp_path / "labels" / f"{picture.name}.txt", yolo_text(picture))
    for folder in ("a", "b"):
        draw(picture, tmp_path / "images" / folder / f"{picture.name}.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "only the first has them" in dataset.annotations.problems[0]


@pytest.mark.parametrize(
    ("labels", "images", "names"),
    [("Labels", "Images", "classes.txt"), ("LABELS", "IMAGES", "Classes.txt"), ("Labels", "JPEGImages", "Obj.Names")],
)
@pytest.mark.parametrize("ending", [".txt", ".TXT"])
def test_yolo_folders_in_any_case(tmp_path, labels, images, names, ending):
    picture = next(picture for picture in PICTURES if picture.things)
    draw(picture, tmp_path / images / "train" / f"{picture.name}.PNG")
    write(tmp_path / labels / "Train" / f"{picture.name}{ending}", yolo_text(picture))
    write(tmp_path / names, "cat\ndog\n")
    dataset = open_dataset(tmp_path, "train")
    assert [len(image.objects) for image in dataset.images] == [len(picture.things)]


def test_names_of_images_keep_their_case(tmp_path):
    picture = next(picture for picture in PICTURES if picture.things)
    for name in ("a", "A"):
        draw(picture, tmp_path / f"{name}.png")
    write(tmp_path / "a.txt", yolo_text(picture))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    with_objects = [image.file.stem for image in open_dataset(tmp_path).images if image.objects]
    assert with_objects == ["a"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_with_other_separators(tmp_path, separator):
    picture = next(picture for picture in PICTURES if picture.things)
    draw(picture, tmp_path / f"{picture.name}.png")
    write(tmp_path / "t.csv", csv_text(picture).replace(",", separator))
    assert open_dataset(tmp_path).images[0].objects[0].box == tuple(map(float, picture.things[0][1]))


def test_a_table_that_is_no_csv(tmp_path):
    write(tmp_path / "t.csv", f"filename,class,xmin,ymin,xmax,ymax\na.png,{'x' * 200_000},1,2,3,4\n")
    with pytest.raises(ValueError, match=r"t\.csv:2 is not CSV"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("iscrowd", [{}, [1], "0", 2, 0.5])
def test_coco_crowds_that_are_no_truth_values(tmp_path, iscrowd):
    boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]} for i in (1, 2)]
    boxes[1]["iscrowd"] = iscrowd
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    draw(PICTURES[0], tmp_path / "a.png")
    write(tmp_path / "train.json", json.dumps(content | {"annotations": boxes}))
    assert "iscrowd" in open_dataset(tmp_path).annotations.problems[0]


def test_coco_folders_in_any_case(tmp_path):
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]}]
    write(tmp_path / "annotations" / "train.json", json.dumps(content | {"annotations": boxes}))
    draw(PICTURES[0], tmp_path / "Images" / "Train" / "a.png")
    assert open_dataset(tmp_path).images[0].file.is_file()


@pytest.mark.parametrize("split", ["dev", "Validation", "eval", "VAL"])
def test_yaml_with_other_names_of_splits(tmp_path, split):
    picture = next(picture for picture in PICTURES if picture.things)
    for folder in ("train", "other"):
        draw(picture, tmp_path / folder / "images" / f"{picture.name}.png")
        write(tmp_path / folder / "labels" / f"{picture.name}.txt", yolo_text(picture))
    write(tmp_path / "data.yaml", f"names: [cat, dog]\ntrain: train/images\n{split}: other/images\n")
    assert find_split(splits(tmp_path), "val") == split


@pytest.mark.parametrize(
    "text",
    [
        '{"names": ["cat", "dog"], "nc": 2, "train": "train/images"}',
        "{nc: 2, names: [cat, dog], train: train/images}\n",
    ],
)
@pytest.mark.parametrize("folder", ["", "pets"])
def test_a_yaml_of_one_line(tmp_path, text, folder):
    SHAPES["yolo_yaml"](tmp_path / folder, "train", PICTURES)
    write(tmp_path / folder / "data.yaml", text)
    assert records(tmp_path, "train") == expected("yolo_yaml", PICTURES)


def test_a_dead_link_is_a_problem_of_its_image(tmp_path):
    picture = next(picture for picture in PICTURES if picture.things)
    draw(picture, tmp_path / "a.png")
    write(tmp_path / "a.txt", yolo_text(picture))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    dataset = open_dataset(tmp_path)
    report = inspect_dataset(dataset)
    assert report.problems == [f"{tmp_path / 'b.png'} does not exist"]
    assert len(usable(dataset, report)) == 1

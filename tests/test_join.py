"""Several data sets are trained on as one."""

import json
import pickle

import pytest
from labelled import PICTURES, Picture, Thing, colourful, make_coco
from layouts import SHAPES, write
from test_train_clips import write_clips

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import inspect_dataset, join_datasets, open_dataset, open_video_dataset


def coco(folder, names, objects, *, first_id=1):
    """A COCO file of images of 10 × 10; each is a list of (class, box as x, y, w, h)."""
    images = [{"id": first_id + i, "file_name": f"{folder.name}{i}.png", "width": 10, "height": 10}
              for i in range(len(objects))]  # fmt: skip
    every = [(i, *thing) for i, things in enumerate(objects) for thing in things]
    boxes = [{"id": k, "image_id": first_id + i, "category_id": names.index(name) + 1, "bbox": box,
              "area": box[2] * box[3], "iscrowd": 0}
             for k, (i, name, box) in enumerate(every)]  # fmt: skip
    classes = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    return write(folder / "train.json", json.dumps({"images": images, "annotations": boxes, "categories": classes}))


def opened(file):
    from PIL import Image

    for image in json.loads(file.read_text())["images"]:
        Image.new("RGB", (10, 10)).save(file.parent / image["file_name"])
    return open_dataset(file)


def test_classes_are_joined_by_name(tmp_path):
    one = opened(coco(tmp_path / "one", ["cat", "sofa"], [[("sofa", [1, 1, 4, 4])], [("cat", [0, 0, 5, 5])]]))
    two = opened(coco(tmp_path / "two", ["couch", "bird", "Cat"], [[("bird", [2, 2, 3, 3]), ("couch", [1, 2, 3, 4])],
                                                                   [("Cat", [5, 5, 2, 2])]]))  # fmt: skip
    joined = join_datasets([one, two])
    assert joined.categories == ["background", "cat", "sofa", "bird"]
    named = [[(joined.categories[thing.label], thing.box) for thing in image.objects] for image in joined.images]
    assert named == [
        [("sofa", (1, 1, 5, 5))],
        [("cat", (0, 0, 5, 5))],
        [("bird", (2, 2, 5, 5)), ("sofa", (1, 2, 4, 6))],
        [("cat", (5, 5, 7, 7))],
    ]
    assert [image.image_id for image in joined.images] == [1, 2, 3, 4]
    assert joined.annotations.notes == ["objects of 'couch' count as 'sofa'", "objects of 'Cat' count as 'cat'"]
    assert [image.objects for image in one.images] == [image.objects for image in joined.images[:2]], "not changed"
    again = pickle.loads(pickle.dumps(joined))
    assert again.images == joined.images


def test_lines_are_those_of_each_file(tmp_path):
    """COCO's and VOC's problems are told with the line of the file in which they lie."""
    wrong = opened(coco(tmp_path / "one", ["cat"], [[("cat", [1, 1, 4, 4])], [("cat", [1, 1, 0, 4])]]))
    thin = Picture("thin", (20, 20), (Thing(1, (3, 3, 3, 9)),))
    SHAPES["voc_flat"](tmp_path / "two", "train", (*PICTURES, thin))
    second = open_dataset(tmp_path / "two")
    expected = inspect_dataset(wrong).problems + inspect_dataset(second).problems
    assert len(expected) == 2
    assert inspect_dataset(join_datasets([wrong, second])).problems == expected


def test_given_classes_hold(tmp_path):
    one = opened(coco(tmp_path / "one", ["cat", "dog"], [[("cat", [1, 1, 4, 4])]]))
    assert join_datasets([one], ["background", "cat"]).categories == ["background", "cat"]
    two = opened(coco(tmp_path / "two", ["bird"], [[("bird", [1, 1, 4, 4])]]))
    with pytest.raises(ValueError, match=r"objects of bird, which the classes cat, dog lack"):
        join_datasets([one, two], ["background", "cat", "dog"])
    with pytest.raises(ValueError, match="no data set to join"):
        join_datasets([])


def test_videos(tmp_path):
    write_clips(tmp_path / "one")
    write_clips(tmp_path / "two")
    file = tmp_path / "two" / "clips.json"
    file.write_text(file.read_text().replace('"cat"', '"ball"'))
    one, two = (open_video_dataset(tmp_path / name, "train") for name in ("one", "two"))
    joined = join_datasets([one, two])
    assert joined.categories == ["background", "cat", "dog", "ball"]
    labels = [[video.target["labels"].tolist() for video in dataset.videos] for dataset in (one, two)]
    assert any(2 in each for each in labels[1])
    moved = [[{1: 3, 2: 2}[label] for label in each] for each in labels[1]]
    assert [video.target["labels"].tolist() for video in joined.videos] == [*labels[0], *moved]
    make_coco(tmp_path / "images")
    with pytest.raises(ValueError, match="images, others videos"):
        join_datasets([one, open_dataset(tmp_path / "images")])


def run(tmp_path, *options):
    small = ["--size", "64", "--weights", "scratch", "--epochs", "1", "--no-tensorboard"]
    return main(["train", *options, "--output", str(tmp_path / "run"), *small])


def test_the_command_trains_on_several(tmp_path, capsys):
    """As VOC07+12: two folders, and validation images in one of them."""
    make_coco(tmp_path / "a", pictures=colourful(4))
    make_coco(tmp_path / "a", "test", pictures=colourful(2))
    SHAPES["voc_lists"](tmp_path / "b", "trainval", PICTURES)
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run(tmp_path, *folders, "--train-split", "trainval") == 2
    assert "a has no split 'trainval'; it has test, train" in capsys.readouterr().err
    SHAPES["voc_lists"](tmp_path / "b", "train", PICTURES)
    assert run(tmp_path, *folders, "--val-split", "tets") == 2
    told = capsys.readouterr().err
    assert "a has no split 'tets'" in told
    assert "b has no split 'tets'" in told
    assert run(tmp_path, *folders, "--val-split", "test") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "training data: COCO: " in told
    assert "; Pascal VOC: " in told
    assert "7 images, 1 without objects; 7 objects: cat 3, dog 4" in told
    assert f"validation split test 2 images of {folders[0]}" in told
    assert ssd_zoo.from_pretrained(tmp_path / "run/best").categories == ["background", "cat", "dog"]


def test_a_folder_is_not_taken_twice(tmp_path, capsys):
    make_coco(tmp_path / "a")
    assert run(tmp_path, str(tmp_path / "a"), str(tmp_path / "a/../a")) == 2
    assert "given twice" in capsys.readouterr().err


def test_images_and_videos_are_not_mixed(tmp_path, capsys):
    make_coco(tmp_path / "a")
    write_clips(tmp_path / "b")
    assert run(tmp_path, str(tmp_path / "a"), str(tmp_path / "b")) == 2
    assert "images, others videos" in capsys.readouterr().err

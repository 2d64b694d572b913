"""Data sets in every layout give the same targets, and bad files tell where they are bad."""

import inspect
import json
import re

import pytest
import torch
from labelled import CATEGORIES, PICTURES, Picture, Thing, make_coco, make_voc, make_yolo
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from ssd_zoo.data import DetectionPresetEval, DetectionPresetTrain, collate, open_dataset, splits
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.data.formats.coco_files import line_of_annotation
from ssd_zoo.training import fit

MAKERS = {"coco": make_coco, "voc": make_voc, "yolo": make_yolo}


@pytest.fixture(params=MAKERS)
def layout(request):
    return request.param


@pytest.fixture
def folder(layout, tmp_path):
    MAKERS[layout](tmp_path, "train")
    MAKERS[layout](tmp_path, "val", PICTURES[:1])
    return tmp_path


def test_targets_are_those_that_were_written(layout, folder):
    dataset = open_dataset(folder, "train", categories=CATEGORIES if layout == "voc" else None)
    assert dataset.categories == CATEGORIES
    assert len(dataset) == 3
    by_name = {picture.name: picture for picture in PICTURES}
    for entry, (image, target) in zip(dataset.images, dataset, strict=True):
        picture = by_name[entry.file.stem]
        assert isinstance(image, tv_tensors.Image)
        assert image.dtype == torch.uint8
        assert image.shape == (3, *picture.size)
        assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
        assert target["boxes"].canvas_size == picture.size
        expected = torch.tensor([thing.box for thing in picture.things]).reshape(-1, 4).float()
        torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), expected)
        assert target["labels"].tolist() == [thing.label for thing in picture.things]
        assert target["labels"].dtype == torch.int64
        torch.testing.assert_close(target["area"], (expected[:, 2:] - expected[:, :2]).prod(1).float())
        assert target["iscrowd"].tolist() == [0] * len(expected)
        assert target["difficult"].tolist() == [layout == "voc" and thing.label == 2 for thing in picture.things]
        # The red rectangle of a cat lies where its box is, and nowhere else.
        for thing in picture.things[-1:]:
            x1, y1, x2, y2 = map(int, thing.box)
            assert image[:, y1:y2, x1:x2].float().std(dim=(1, 2)).max() == 0


def test_splits(layout, folder):
    assert sorted(splits(folder)) == ["train", "val"]
    assert len(open_dataset(folder, "val")) == 1
    with pytest.raises(ValueError, match="has the splits .*choose one by split=.* \\(--split "):
        open_dataset(folder)
    with pytest.raises(ValueError, match="has no split 'test'; it has"):
        open_dataset(folder, "test")


def test_coco_keeps_its_ids(tmp_path):
    dataset = open_dataset(make_coco(tmp_path))
    assert dataset.category_ids == [0, 3, 9]
    assert [target["image_id"] for _, target in dataset] == [7, 8, 9]
    from_zero = open_dataset(make_coco(tmp_path / "zero", first_id=0))
    assert [entry.image_id for entry in from_zero.images] == [0, 1, 2]


COCO_FILES = [
    ("annotations/annotations_{}.json", "{}"),
    ("annotations/instances_{}2017.json", "{}"),
    ("annotations/instances_{}2017.json", "{}2017"),
    ("annotations/instances_{}2017.json", "images/{}2017"),
    ("instances_{}-2014.json", "{}"),
    ("{}_coco.json", "{}"),
    ("{}2017_annotations.json", "images/{}"),
    ("{}/_annotations.coco.json", "{}"),
    ("annotations/{}.json", "{}_images"),
    ("{}_annots/labels.json", "images_{}"),
]


@pytest.mark.parametrize(("file", "folder"), COCO_FILES)
def test_coco_reads_the_images_of_its_own_split(tmp_path, file, folder):
    for split in ("train", "val"):
        written, images = tmp_path / file.format(split), tmp_path / folder.format(split)
        made = make_coco(tmp_path / "made" / split)
        for old, new in ((made.parent / "images", images), (made, written)):
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    for split in ("train", "val"):
        dataset = open_dataset(tmp_path / file.format(split))
        assert dataset.images[0].file == tmp_path / folder.format(split) / "first.png"
        assert dataset.images[0].file.is_file()


def test_coco_reads_no_other_splits_images(tmp_path):
    file = make_coco(tmp_path, "val")
    (tmp_path / "images").rename(tmp_path / "train")
    with pytest.raises(
        FileNotFoundError,
        match=r"first\.png and so on, are not in .*, nor in .* images, data, val, images/val, data/val",
    ):
        open_dataset(file)


def test_real_data(test_data):
    cells = open_dataset(test_data / "bccd", "train")
    assert cells.categories == ["background", "Platelets", "RBC", "WBC"]
    assert (len(cells), sum(len(entry.objects) for entry in cells.images)) == (205, 2805)
    coco = open_dataset(test_data / "coco128")
    assert sum(len(entry.objects) for entry in coco.images) == 939
    assert (len(coco.categories), coco.category_ids[-1]) == (81, 90)
    assert sum(thing.iscrowd for entry in coco.images for thing in entry.objects) == 10
    voc = open_dataset(test_data / "voc_sample")
    assert (len(voc), len(voc.categories)) == (50, 21)
    boards = open_dataset(test_data / "deeppcb", "val")
    assert (len(boards), sum(len(entry.objects) for entry in boards.images)) == (200, 1416)


def test_voc_names_may_hold_blanks(tmp_path):
    pictures = [PICTURES[0]._replace(name="a photo"), PICTURES[2]._replace(name="a")]
    make_voc(tmp_path, "train", pictures)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a photo  1\na -1\na photo\n\n")
    dataset = open_dataset(tmp_path)
    assert [entry.file.name for entry in dataset.images] == ["a photo.png", "a.png"]
    assert [problem.rpartition("/")[2] for problem in dataset.annotations.problems] == [
        "train.txt:3: a photo occurs twice"
    ]


def test_yolo_folder_without_splits(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "images/.cache").mkdir()
    assert splits(tmp_path) == ["train"]
    for kind in ("images", "labels"):
        for file in (tmp_path / kind / "train").iterdir():
            file.rename(tmp_path / kind / file.name)
    assert splits(tmp_path) == ["all"]
    assert len(open_dataset(tmp_path, categories=CATEGORIES)) == 3
    (tmp_path / "images/first.png").rename(tmp_path / "images/train/first.png")
    with pytest.raises(ValueError, match=r"has the splits train as folders, and 2 labelled files \(.*outside them"):
        splits(tmp_path)


def test_yolo_without_names(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(ValueError, match="needs the names of its classes"):
        open_dataset(tmp_path, "train")
    assert open_dataset(tmp_path, "train", categories=CATEGORIES).categories == CATEGORIES


def test_yolo_classes_are_found_by_their_names(tmp_path):
    make_yolo(tmp_path)
    by_default = open_dataset(tmp_path)
    asked = ["background", "bird", "dog", "cat"]
    dataset = open_dataset(tmp_path, categories=asked)
    assert (by_default.category_ids, dataset.category_ids) == ([0, 0, 1], [0, 2, 1, 0])
    for (_, target), (_, expected) in zip(dataset, by_default, strict=True):
        named = [dataset.categories[label] for label in target["labels"]]
        assert named == [CATEGORIES[label] for label in expected["labels"]]
    with pytest.raises(
        ValueError, match=r"first\.txt:2: .* objects of 'dog', which is not among the categories bird, cat"
    ):
        open_dataset(tmp_path, categories=["background", "bird", "cat"])


def test_background_is_no_class(tmp_path):
    make_yolo(tmp_path)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(yaml.read_text().replace("{0: cat, 1: dog}", "[cat, dog, Background]"))
    assert open_dataset(tmp_path).categories == CATEGORIES
    yaml.write_text(yaml.read_text().replace("cat, dog, Background", "background, dog"))
    with pytest.raises(ValueError, match=r"data\.yaml: 1 objects have the class 'background'.*rename"):
        open_dataset(tmp_path)
    yaml.write_text(yaml.read_text().replace("background, dog", "background, cat, dog"))
    for file in (tmp_path / "labels/train").iterdir():
        lines = file.read_text().splitlines()
        file.write_text("".join(f"{int(line[0]) + 1}{line[1:]}\n" for line in lines))
    dataset = open_dataset(tmp_path)
    assert (dataset.categories, dataset.category_ids) == (CATEGORIES, [0, 1, 2])


def test_yolo_classes_txt_is_obeyed_too(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    _, target = open_dataset(tmp_path, categories=["background", "dog", "cat"])[0]
    assert target["labels"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: {0: a, 2: b}", r"names must be numbered from 0 without gaps, got \['0', '2'\]"),
        ("names: {1: a, 2: b}", r"names must be numbered from 0 without gaps, got \['1', '2'\]"),
        ("names: [true, a, null]", r"not as text but as \[True, None\]; quote them"),
        ("names: [a, a]", "two classes share the name 'a'"),
        ("names: [a, '']", "class 1, counted from 0, has an empty name"),
        ("names: [a, b]\nnc: 3", "nc is 3, but there are 2 names"),
    ],
)
def test_yolo_names_that_are_not_clear(tmp_path, content, message):
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(ValueError, match=rf"data\.yaml: .*{message}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_names_in_any_encoding(tmp_path, encoding):
    make_yolo(tmp_path)
    yaml = tmp_path / "data.yaml"
    yaml.write_bytes(yaml.read_text().replace("cat", "Bär").encode(encoding))
    assert open_dataset(tmp_path).categories == ["background", "Bär", "dog"]


def test_yolo_poses_are_no_outlines(tmp_path):
    make_yolo(tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("kpt_shape: [17, 3]\n")
    with pytest.raises(ValueError, match=r"data\.yaml has kpt_shape: .* leave kpt_shape out"):
        open_dataset(tmp_path)


def test_yolo_outlines_become_boxes(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / "labels/train/first.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.4\n")
    _, target = open_dataset(tmp_path)[0]
    torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), torch.tensor([[8.0, 6, 40, 30]]))


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "message"),
    [
        ("coco", "instances_train.json", '"annotations": [', '"annotations": [,', r"train.json:\d+ is not JSON"),
        ("coco", "instances_train.json", '"category_id": 9', '"category_id": 8', r"train.json:36: .* category_id 8"),
        ("coco", "instances_train.json", '"categories"', '"kinds"', "has no list of categories"),
        (
            "voc",
            "Annotations/first.xml",
            "<xmin>20</xmin>",
            "<xmin>wide</xmin>",
            "first.xml:13: xmin must be a finite number, got 'wide'",
        ),
        ("voc", "Annotations/first.xml", "<ymax>54</ymax>", "", "first.xml:13: bndbox lacks ymax"),
        ("voc", "Annotations/first.xml", "</annotation>", "", "first.xml:23 is not XML"),
        ("voc", "ImageSets/Main/train.txt", "second", "fourth", "train.txt:2: fourth has no annotations"),
        (
            "yolo",
            "labels/train/first.txt",
            "\n1 ",
            "\ndog ",
            "first.txt:2: each value must be a finite number, got 'dog'",
        ),
        ("yolo", "labels/train/first.txt", "\n1 ", "\n2 ", "first.txt:2: class 2 is not among the 2 classes"),
        ("yolo", "labels/train/first.txt", "\n1 ", "\n1 0.5 ", "first.txt:2: expected class, x, y"),
        ("yolo", "data.yaml", "names: {", "names: [{", r"data.yaml:\d is not YAML"),
    ],
)
def test_bad_files_tell_where(tmp_path, layout, file, old, new, message):
    MAKERS[layout](tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    assert re.search(message, told(tmp_path / file if layout == "coco" else tmp_path))


def told(path):
    """Returns the problems of a data set, or the error by which it is refused."""
    try:
        return "\n".join(open_dataset(path, "train").annotations.problems)
    except (ValueError, FileNotFoundError) as error:
        return str(error)


@pytest.mark.parametrize(
    ("key", "field", "value", "message"),
    [
        ("images", "height", "60", "the image needs a number as its height"),
        ("images", "file_name", None, "the image needs a text as its file_name"),
        ("images", "file_name", 7, "the image needs a text as its file_name"),
        ("images", "id", [7], "the image needs a number as its id"),
        ("categories", "id", "x", "the category needs a number as its id and a text as its name"),
        ("categories", "name", None, "the category needs a number as its id and a text as its name"),
        ("categories", "name", 5, "the category needs a number as its id and a text as its name"),
        ("annotations", "image_id", [7], "the annotation needs a number as its image_id"),
        ("annotations", "category_id", "4", "the annotation has the category_id '4', which is not among"),
        ("annotations", "iscrowd", 2, "the annotation needs 0 or 1 as its iscrowd"),
        ("annotations", "area", "7", "the annotation needs a number as its area, or no area"),
        ("annotations", "bbox", None, "the annotation needs four numbers, x, y, width and height, as its bbox"),
        ("annotations", "bbox", [1, 2, 3], "the annotation needs four numbers, x, y, width and height, as its bbox"),
        (
            "annotations",
            "bbox",
            [1, 2, 3, "x"],
            "the annotation needs four numbers, x, y, width and height, as its bbox",
        ),
    ],
)
def test_bad_coco_entries_tell_where(tmp_path, key, field, value, message):
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    content[key][0][field] = value
    file.write_text(json.dumps(content, indent=1))
    line = line_of_annotation(file, 0, key)
    assert re.search(rf"(?m)^{re.escape(str(file))}:{line}: {message}.*: {{'", told(file))


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_coco_entries_that_are_no_objects(tmp_path, key):
    file = make_coco(tmp_path)
    content = json.loads(file.read_text())
    content[key].append("entry")
    file.write_text(json.dumps(content))
    assert re.search(r"train\.json:1: the \w+ needs .*: 'entry'", told(file))


@pytest.mark.parametrize("indent", [None, 1])
def test_lines_of_annotations(tmp_path, indent):
    content = {"images": [{"a": [1, {"]": "["}]}], "annotations": [{"id": i} for i in range(3)], "z": 1}
    file = tmp_path / f"{indent}.json"
    file.write_text(json.dumps(content, indent=indent))
    lines = file.read_text().splitlines()
    for i in range(3):
        line = line_of_annotation(file, i)
        assert line == (1 if indent is None else lines.index(f'   "id": {i}') or 0)


@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "light", "none"])
def test_training_preset(tmp_path, kind):
    preset = DetectionPresetTrain(kind, size=(32, 48))
    dataset = open_dataset(make_coco(tmp_path), transforms=preset)
    torch.manual_seed(0)
    for _ in range(10):
        images, targets = next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate)))
        for image, target in zip(images, targets, strict=True):
            assert type(image) is type(target["boxes"]) is torch.Tensor
            assert image.shape == (3, 32, 48)
            assert image.dtype == torch.float32
            assert 0 <= image.min() <= image.max() <= 1
            lengths = {len(target[key]) for key in ("boxes", "labels", "area", "iscrowd", "difficult")}
            assert len(lengths) == 1
            boxes = target["boxes"]
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes >= 0).all()
            assert (boxes <= torch.tensor([48, 32, 48, 32])).all()
    if kind == "none":
        torch.testing.assert_close(targets[0]["boxes"][0], torch.tensor([8 * 0.6, 6 * 32 / 60, 40 * 0.6, 30 * 32 / 60]))


@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "light", "none"])
def test_training_presets_take_floats_as_bytes(kind):
    """The canvas around an image, too, lies between 0 and 1."""
    preset = DetectionPresetTrain(kind, mean=(0.9, 0.5, 0.1))
    image = torch.randint(0, 256, (3, 40, 60), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    target = {"boxes": torch.tensor([[8.0, 8, 40, 30]]), "labels": torch.tensor([1])}
    for seed in range(20):
        results = []
        for pixels in (image, image / 255):
            torch.manual_seed(seed)
            results.append(preset(pixels, target)[0])
        assert 0 <= results[1].min() <= results[1].max() <= 1
        # Colours are rounded after each change of bytes.
        torch.testing.assert_close(*results, rtol=0, atol=0.04)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "light"])
def test_training_preset_mirrors_what_may_be_mirrored(kind, flip):
    """Of two objects, the first stays on the left."""
    target = {"boxes": torch.tensor([[2.0, 2, 30, 62], [34, 2, 62, 62]]), "labels": torch.tensor([1, 2])}
    preset = DetectionPresetTrain(kind, flip=flip)
    torch.manual_seed(0)
    found = [preset(torch.rand(3, 64, 64), target)[1] for _ in range(40)]
    orders = {bool(two["boxes"][0, 0] < two["boxes"][1, 0]) for two in found if two["labels"].tolist() == [1, 2]}
    assert orders == ({True, False} if flip else {True})


@pytest.mark.parametrize("flip_vertically", [False, True])
def test_training_preset_turns_upside_down_what_has_no_up(tmp_path, flip_vertically):
    picture = Picture("top", (64, 64), (Thing(1, (20, 4, 44, 16)),))
    preset = DetectionPresetTrain("light", flip_vertically=flip_vertically)
    dataset = open_dataset(make_coco(tmp_path, "train", [picture]), transforms=preset)
    torch.manual_seed(0)
    middles = [dataset[0][1]["boxes"][0, 1::2].mean() for _ in range(20)]
    assert {bool(middle > 32) for middle in middles} == {False, flip_vertically}


def test_by_default_training_shows_whole_objects(tmp_path):
    """Of an object in the middle, `light` shows all: at most 1.25 times as large, and a tenth of a side away."""
    picture = Picture("card", (100, 100), (Thing(1, (30, 30, 70, 70)),))
    file = make_coco(tmp_path, "train", [picture])
    default = inspect.signature(fit).parameters["augmentation"].default
    shares = {}
    for kind in (default, "ssdlite"):
        dataset = open_dataset(file, transforms=DetectionPresetTrain(kind))
        torch.manual_seed(0)
        boxes = [dataset[0][1]["boxes"][0] for _ in range(100)]
        sides = torch.stack([box[2:] - box[:2] for box in boxes])
        shares[kind] = (sides.min().item(), sides.max().item())
    assert default == "light"
    # An object of 40 pixels, from .8 to 1.25 times as large.
    assert shares["light"][0] >= 32 - 0.5
    assert shares["light"][1] <= 50 + 0.5
    assert shares["ssdlite"][0] < 32, "crops cut it"


def test_training_preset_leaves_crowds_out(tmp_path):
    file = make_coco(tmp_path)
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    plain, trained = open_dataset(file)[0], open_dataset(file, transforms=DetectionPresetTrain("none"))[0]
    assert plain[1]["labels"].tolist() == [1, 2]
    assert plain[1]["iscrowd"].tolist() == [1, 0]
    assert trained[1]["labels"].tolist() == [2]


def test_evaluation_preset(tmp_path):
    file = make_coco(tmp_path)
    image, target = open_dataset(file, transforms=DetectionPresetEval())[0]
    torch.testing.assert_close(image, open_dataset(file)[0][0].float() / 255, check_dtype=True)
    assert type(target["boxes"]) is torch.Tensor


def test_cache_shrinks_images_with_their_boxes(tmp_path):
    dataset = open_dataset(make_coco(tmp_path))
    cached = CachedDataset(dataset, 40)
    assert cached.categories == dataset.categories
    image, target = cached[0]
    assert image.shape == (3, 30, 40)
    torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), dataset[0][1]["boxes"] / 2)
    torch.testing.assert_close(target["area"], dataset[0][1]["area"] / 4)
    torch.testing.assert_close(cached[1][0], dataset[1][0])


def test_unknown_layouts(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(ValueError, match="has no known layout"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="kind must be one of"):
        DetectionPresetTrain("strong")

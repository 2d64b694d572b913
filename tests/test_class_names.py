"""Names of classes in two lists, matched by hand."""

import json

import pytest
from labelled import PICTURES, draw

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
from ssd_zoo.weights.categories import (
    COCO_CATEGORIES,
    VOC_CATEGORIES,
    check_names,
    is_background,
    list_names,
    match_classes,
)


def match(names, known):
    return match_classes(["background", *names], ["__background__", *known])


# Written down from the label files of Pascal VOC 2012 and of COCO 2017.
COCO_IDS_OF_VOC = {
    "aeroplane": 5,
    "bicycle": 2,
    "bird": 16,
    "boat": 9,
    "bottle": 44,
    "bus": 6,
    "car": 3,
    "cat": 17,
    "chair": 62,
    "cow": 21,
    "diningtable": 67,
    "dog": 18,
    "horse": 19,
    "motorbike": 4,
    "person": 1,
    "pottedplant": 64,
    "sheep": 20,
    "sofa": 63,
    "train": 7,
    "tvmonitor": 72,
}


def test_all_classes_of_voc_are_in_coco():
    matched = match_classes(VOC_CATEGORIES, COCO_CATEGORIES)
    assert {VOC_CATEGORIES[label]: coco for label, coco in matched.items()} == COCO_IDS_OF_VOC
    assert match_classes(COCO_CATEGORIES, VOC_CATEGORIES) == {coco: label for label, coco in matched.items()}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Person", "person"),
        (" person ", "person"),
        ("traffic_light", "traffic light"),
        ("traffic-light", "Traffic  Light"),
        ("TV-monitor", "tv"),
        ("tvmonitor", "TV"),
        ("Dining_Table", "diningtable"),
        ("potted-plant", "PottedPlant"),
        ("cellphone", "cell phone"),
    ],
)
def test_one_class(name, other):
    assert match([name], ["x", other]) == {1: 2}
    assert match(["x", other], [name]) == {2: 1}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("-5", "5"),
        ("temp -5", "temp 5"),
        ("_", "-"),
        ("1 1", "11"),  # Signs and part numbers: space is not left out.
        ("hot dog", "dog"),
        ("sofa bed", "couch"),
        ("N/A", "N/A"),
        ("n/a", "N/A "),
    ],
)
def test_two_classes(name, other):
    assert match([name], [other]) == {}


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        (["a", "A"], ["A", "a"], {1: 2, 2: 1}),
        (["sofa", "couch"], ["couch", "sofa"], {1: 2, 2: 1}),
        # The nearer name is taken, and the other stays alone.
        (["sofa", "couch"], ["Couch"], {2: 1}),
        (["aeroplane"], ["airplane", "Aeroplane"], {1: 2}),
        # Two are equally near: neither is taken.
        (["Dog", "DOG"], ["dog"], {}),
        (["sofa"], ["Couch", "couch"], {}),
        (["tvmonitor", "tv monitor"], ["tv"], {}),
        # What a class has taken, no other gets.
        (["dog", "Dog"], ["dog"], {1: 1}),
    ],
)
def test_classes_of_one_list_are_never_merged(names, known, expected):
    assert match(names, known) == expected


def test_background_is_no_class():
    assert match_classes(["person", "dog"], ["background", "person", "dog"]) == {1: 2}
    assert all(map(is_background, ("background", "__background__", "Background", "BG", " _background_ ")))
    assert not any(map(is_background, ("", "person", "backgrounds", "back ground")))


def test_lists_of_names():
    assert list_names(list("abcde")) == "a, b, c, d, e"
    assert list_names(list("abcdef")) == "a, b, c, d, e, …"
    assert list_names(list("abc"), most=2) == "a, b, …"


def test_accents_may_be_characters_of_their_own():
    assert match_classes(["background", "cafe\u0301"], ["background", "caf\u00e9"]) == {1: 1}


# Lists in which two names are one, and what the error says.
TWO_IN_ONE = {
    ("background", "dog", "Background"): "two names of the background, 'background' and 'Background'",
    ("bg", "__background__", "dog"): "two names of the background, 'bg' and '__background__'",
    ("background", "dog ", " dog"): "dog occurs twice",
    ("background", "caf\u00e9", "cafe\u0301"): "caf\u00e9 occurs twice",
    ("dog", "Background"): r"write categories=\['background', 'dog'\]",
}


@pytest.mark.parametrize("categories", TWO_IN_ONE, ids=str)
def test_two_names_of_one_class_are_refused(categories, tmp_path, capsys):
    entry = ssd_zoo.Weights("", None, {"categories": list(categories)})
    draw(PICTURES[0], tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,xmin,ymin,xmax,ymax,label\na.png,1,2,9,8,dog\n")
    for read in (
        lambda: ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, categories=categories),
        lambda: ssd_zoo.ssdlite320_ultraface_slim(weights=entry, size=64),
        lambda: open_dataset(tmp_path, categories=list(categories)),
    ):
        with pytest.raises(ValueError, match=TWO_IN_ONE[categories]):
            read()


def test_the_command_refuses_two_names_of_one_class(tmp_path, capsys):
    draw(PICTURES[0], tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,xmin,ymin,xmax,ymax,label\na.png,1,2,9,8,dog\n")
    assert main(["data", str(tmp_path), "--categories", "dog,Background"]) == 2
    assert "two names of the background" in capsys.readouterr().err


@pytest.mark.parametrize("second", ["dog ", "caf\u00e9"])
def test_a_data_set_has_each_class_once(second, tmp_path):
    first = {"dog ": "dog", "caf\u00e9": "cafe\u0301"}[second]
    draw(PICTURES[0], tmp_path / "a.png")
    (tmp_path / "data.yaml").write_text(json.dumps({"names": [first, second], "train": "."}))
    with pytest.raises(ValueError, match="two classes share the name"):
        open_dataset(tmp_path / "data.yaml")


def test_accents_of_two_encodings_are_not_two_classes(tmp_path):
    draw(PICTURES[0], tmp_path / "a.png")
    rows = [f"a.png,1,2,9,8,{name}\n" for name in ("caf\u00e9", "cafe\u0301")]
    (tmp_path / "labels.csv").write_text("image,xmin,ymin,xmax,ymax,label\n" + "".join(rows))
    with pytest.raises(ValueError, match=r"two classes share the name .* another encoding of its accents"):
        open_dataset(tmp_path)


def test_upper_and_lower_case_are_two_classes():
    assert check_names(["background", "A", "a"]) == ["background", "A", "a"]


def test_the_background_of_label_maps_gets_its_name():
    assert check_names(["???", "Bicycle"]) == ["background", "Bicycle"]
    model = ssd_zoo.ssdlite320_ultraface_slim(categories=["???", "Bicycle"], size=64, weights=None)
    assert model.categories == ["background", "Bicycle"]

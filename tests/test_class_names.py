"""Names of classes in two lists, matched by hand."""

import pytest

from ssd_zoo.weights.categories import COCO_CATEGORIES, VOC_CATEGORIES, is_background, list_names, match_classes


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

"""Options that no builder can take: each builder says what came and what is allowed, before it builds anything."""

import numpy
import pytest
import torch
from torch import nn

import ssd_zoo
from ssd_zoo.data import open_dataset

NAMES = ["background", "cat"]
WRONG = [
    ({"categories": [0, 1]}, TypeError, "categories must be names; number 0 is 0"),
    ({"categories": ["background", None]}, TypeError, "categories must be names; number 1 is None"),
    ({"categories": {"background": 0, "cat": 1}}, TypeError, "categories must be a list of names"),
    ({"categories": {"background", "cat"}}, TypeError, "categories must be a list of names"),
    ({"categories": (name for name in NAMES)}, TypeError, "categories must be a list of names.*generator"),
    ({"categories": "cat"}, TypeError, "categories must be a list of names.*'cat'"),
    ({"categories": 3}, TypeError, "categories must be a list of names.*3"),
    ({"categories": [*NAMES, "cat"]}, ValueError, "categories must be different names.*cat occurs twice"),
    ({"categories": [*NAMES, " "]}, ValueError, "number 2 is empty"),
    ({"categories": []}, ValueError, "background and at least one class"),
    ({"categories": ["background"]}, ValueError, "background and at least one class"),
    ({"categories": ["cat", "dog"]}, ValueError, r"write categories=\['background', 'cat', 'dog'\]"),
    ({"categories": ["nothing", "crack"]}, ValueError, r"write categories=\['background', 'nothing', 'crack'\]"),
    ({"categories": NAMES, "num_classes": 3}, ValueError, "num_classes=3, but there are 2 categories"),
    ({"num_classes": "3"}, TypeError, "num_classes must be a whole number, got '3'"),
    ({"num_classes": 3.0}, TypeError, "num_classes must be a whole number, got 3.0"),
    ({"num_classes": True}, TypeError, "num_classes must be a whole number, got True"),
    ({"num_classes": torch.ones(2)}, TypeError, "num_classes must be a whole number, got tensor"),
    ({"num_classes": 1}, ValueError, "num_classes counts the background, so it is at least 2.*got 1"),
    ({"num_classes": 10**9}, ValueError, "at most 1000000, got 1000000000"),
    ({"in_chans": None}, TypeError, "in_chans must be a whole number, got None"),
    ({"in_chans": 3.0}, TypeError, "in_chans must be a whole number, got 3.0"),
    ({"in_chans": True}, TypeError, "in_chans must be a whole number, got True"),
    ({"in_chans": 0}, ValueError, "in_chans must be at least 1"),
    ({"in_chans": 10**6}, ValueError, "in_chans must be at least 1 and at most 10000"),
    ({"trainable_backbone_layers": 1.5}, TypeError, "trainable_backbone_layers must be a whole number, got 1.5"),
    ({"trainable_backbone_layers": "2"}, TypeError, "trainable_backbone_layers must be a whole number, got '2'"),
    ({"size": "300"}, ValueError, "size must be a positive int or .height, width., got '300'"),
    ({"size": (300,)}, ValueError, "size must be a positive int or .height, width., got .300,."),
    ({"size": (0, 300)}, ValueError, "size must be a positive int or"),
    ({"size": True}, ValueError, "size must be a positive int or"),
    ({"size": 1e9}, ValueError, "size must be a positive int or"),
    ({"size": 10**9}, ValueError, "size 1000000000 × 1000000000 is larger than 16384"),
    ({"size": (300, 16385)}, ValueError, "size 300 × 16385 is larger than 16384"),
    ({"norm_layer": "batch"}, TypeError, "norm_layer must be a class or function.*'batch'"),
    ({"norm_layer": nn.BatchNorm2d(3)}, TypeError, "norm_layer must be a class or function"),
    ({"default_boxes": [[0.1, 0.2]]}, TypeError, "default_boxes must be a DefaultBoxGenerator"),
    ({"weights": 3}, TypeError, "Expected weights of|no published weights"),
]  # fmt: skip


@pytest.mark.parametrize("name", ssd_zoo.list_models())
def test_wrong_options(name):
    for options, error, message in WRONG:
        options = dict(options)
        if not isinstance(options.get("categories", ()), (str, int, list, tuple, dict, set)):
            options["categories"] = (text for text in NAMES)
        with pytest.raises(error, match=message):
            ssd_zoo.get_model(name, **{"weights_backbone": None, **options})


@pytest.mark.parametrize("layers", [-1, 99])
@pytest.mark.parametrize("name", ["ssd300_resnet18", "ssdlite_timm", "ssd300_vgg16d_3d"])
def test_numbers_of_stages(name, layers):
    message = f"trainable_backbone_layers must lie between 0 and .*got {layers}"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ssd_zoo.get_model(name, weights_backbone=None, num_classes=2, trainable_backbone_layers=layers)


def test_whole_numbers_of_other_libraries():
    with torch.device("meta"):
        model = ssd_zoo.ssd300_resnet18(weights_backbone=None, num_classes=numpy.int64(3), in_chans=numpy.int32(1))
    assert (model.categories, model.in_chans) == (["background", "class 1", "class 2"], 1)


@pytest.mark.parametrize(("categories", "error", "message"), [
    (["cat", "dog"], ValueError, r"write categories=\['background', 'cat', 'dog'\]"),
    ([0, 1], TypeError, "number 0 is 0"),
    ("cat", TypeError, "must be a list"),
])  # fmt: skip
def test_data_sets_take_the_same_lists(tmp_path, categories, error, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(error, match=message):
        open_dataset(tmp_path, categories=categories)

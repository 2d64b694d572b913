"""What users of torchvision's detectors look for, and where it is."""

import copy
import importlib
import inspect
import pickle
import re

import pytest
import torch
import torchvision

import ssd_zoo
from ssd_zoo.detector.torchvision_names import _WAYS_OUT

ROOMS = ("data", "deploy", "prediction", "saved", "training", "video")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def theirs():
    return torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=3)


@pytest.fixture(scope="module")
def model():
    return ssd_zoo.ssdlite320_ultraface_slim().eval()


def test_attributes_of_torchvision_tell_the_way_out(theirs, model):
    fpn = ssd_zoo.ssdlite320_mobilenet_v2_fpn(weights_backbone=None, num_classes=2)
    for name in _WAYS_OUT:
        of_head = name.endswith("_head")
        assert hasattr(theirs.head if of_head else theirs, name), "torchvision's has it"
        for ours in [model.head, fpn.head] if of_head else [model]:
            assert not hasattr(ours, name)
            assert getattr(ours, name, None) is None
            with pytest.raises(AttributeError, match=f"no attribute '{name}', unlike torchvision's") as caught:
                getattr(ours, name)
            assert (caught.value.name, caught.value.obj) == (name, ours)
            with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
                setattr(ours, name, torch.nn.Identity())


def test_what_they_name_is_there(model):
    for way in _WAYS_OUT.values():
        for name in re.findall(r"model\.(\w+)", way):
            assert hasattr(model, name), way
        for name in re.findall(r"(\w+)=", way):
            assert name in ("return_losses", *ssd_zoo.Options.__annotations__), way
    assert {"cls_logits", "bbox_regression"} <= dict(model.head.named_children()).keys()
    assert {"encode_boxes", "decode_boxes"} <= vars(ssd_zoo.detector.boxes).keys()


def test_other_attributes_are_missing_as_ever(model):
    with pytest.raises(AttributeError, match=r"^'SSD' object has no attribute 'rpn'$"):
        _ = model.rpn
    for again in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.default_boxes.equal(model.default_boxes)


def test_state_dicts_of_torchvision(theirs):
    ours = ssd_zoo.ssd300_vgg16d(weights_backbone=None, num_classes=3)
    with pytest.raises(
        RuntimeError, match=r"^These tensors have other names .*load_checkpoint\(state_dict\)"
    ) as caught:
        ours.load_state_dict(theirs.state_dict())
    assert "Missing key(s)" in str(caught.value.__cause__)
    assert "head.cls_logits.0.weight" in ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys
    loaded = ssd_zoo.load_checkpoint(theirs.state_dict())
    assert list(ours.load_state_dict(loaded.state_dict())) == [[], []]
    with pytest.raises(RuntimeError, match=r"^Error\(s\) in loading"):
        ours.load_state_dict(ssd_zoo.ssd300_vgg16d(weights_backbone=None, num_classes=4).state_dict())


def test_models_that_are_built_train_and_checkpoints_detect(theirs, model, tmp_path):
    assert ssd_zoo.ssdlite320_ultraface_slim().training
    assert ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path)).training
    assert not ssd_zoo.load_checkpoint(theirs.state_dict()).training


def keywords(function, **unknown):
    with pytest.raises(TypeError) as caught:
        function(**unknown)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "unknown", "message"),
    [
        (ssd_zoo.predict, "score_threshold", "predict() got an unexpected keyword argument 'score_threshold'. Did you "
         "mean score_thresh?"),
        (ssd_zoo.predict, "conf", "Known are: model, images, score_thresh, batch_size, device."),
        (ssd_zoo.load_checkpoint, "category", "Did you mean categories?"),
        (ssd_zoo.training.fit, "epoch", "Did you mean epochs?"),
        (ssd_zoo.training.evaluate, "batchsize", "Did you mean batch_size?"),
        (ssd_zoo.deploy.export, "formats", "Did you mean format?"),
        (ssd_zoo.video.detect_stream, "batch", "Did you mean batch_size?"),
        (ssd_zoo.ssd300_vgg16d, "score_threshold", "Did you mean score_thresh"),
        (ssd_zoo.ssd300_vgg16d, "pretrained", "'pretrained'. Write weights=\"DEFAULT\"."),
        (ssd_zoo.ssd300_vgg16d, "pretrained_backbone", "Write weights_backbone=\"DEFAULT\"."),
    ],
)  # fmt: skip
def test_near_keywords(function, unknown, message):
    assert message in keywords(function, **{unknown: 1})


@pytest.mark.parametrize("room", ["ssd_zoo", *(f"ssd_zoo.{name}" for name in ROOMS)])
def test_public_functions_propose_near_keywords(room):
    public = importlib.import_module(room)
    functions = [one for name in public.__all__ if inspect.isfunction(one := getattr(public, name))]
    below = ("ssd_zoo.detector", "ssd_zoo.weights")  # the registry's room
    checked = 0
    for function in functions:
        known = inspect.signature(function).parameters.values()
        options = [one.name for one in known if one.default is not one.empty]
        open_ended = any(one.kind is one.VAR_KEYWORD for one in known)  # What it calls refuses these.
        if options and not open_ended and not function.__module__.startswith(below):
            checked += 1
            assert options[-1] in keywords(function, **{f"{options[-1]}_": 1}).partition("Did you mean ")[2], function
    assert checked


def test_names_of_torchvision_lead_to_ours():
    with pytest.raises(AttributeError, match=r"no attribute 'ssd300_vgg16'. Did you mean ssd300_vgg16d"):
        _ = ssd_zoo.ssd300_vgg16
    with pytest.raises(AttributeError, match=r"no attribute 'other'$"):
        _ = ssd_zoo.other
    with pytest.raises(ValueError, match="Unknown model 'ssd300_vgg16'. Did you mean ssd300_vgg16d"):
        ssd_zoo.get_model("ssd300_vgg16")


def test_categories_begin_with_the_background(theirs):
    without, written = ["cat", "dog"], r"; got 2\. Write categories=\['background', 'cat', 'dog'\]\.$"
    for names, way_out in ((without, written), (["BG", "dog"], r"; got 2\.$")):
        with pytest.raises(ValueError, match=f"must be 3 names, the background's first{way_out}"):
            ssd_zoo.load_checkpoint(theirs.state_dict(), categories=names)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_own_tensors_under_a_prefix_are_not_taken_for_others(model, prefix):
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({})

"""Weights in models that differ from them, with the detector of COCO that ships."""

import copy
import io
import logging
import pickle
import re

import pytest
import torch

import ssd_zoo
import ssd_zoo.deploy
from ssd_zoo.models.loading import fit_state
from ssd_zoo.weights.categories import COCO80_CATEGORIES, COCO_CATEGORIES, VOC_CATEGORIES

LOGITS = "head.cls_logits.0.1"


@pytest.fixture(scope="module")
def coco():
    return ssd_zoo.SSDLite300_MobileNet_V2_Weights.COCO_TF_V1.get_state_dict()


def build(**kwargs):
    return ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", **kwargs)


def rows(state, classes):
    return state[f"{LOGITS}.weight"].unflatten(0, (-1, classes))


def test_same_classes_load_everything_in_silence(coco, caplog):
    report = ssd_zoo.load_report(build())
    assert set(report.tensors.values()) == {"loaded"}
    assert report.tensors.keys() == coco.keys()
    assert not caplog.records


def test_classes_are_copied_by_name(coco, caplog):
    with caplog.at_level(logging.WARNING, "ssd_zoo"):
        model = build(categories=["background", "crack", "Person", "robot"])
    ours, theirs = rows(model.state_dict(), 4), rows(coco, 91)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    assert torch.equal(ours[:, 2], theirs[:, 1])
    assert not torch.equal(ours[:, 1], theirs[:, 1])
    objects = [label for label, name in enumerate(COCO_CATEGORIES) if label and name != "N/A"]
    assert len(objects) == 80
    for other in (1, 3):  # Fresh rows, of a deviation of .03, plus the mean.
        assert 0.025 < (ours[:, other] - theirs[:, objects].mean(1)).std() < 0.035
    bias, given = (state[f"{LOGITS}.bias"].unflatten(0, (3, -1)) for state in (model.state_dict(), coco))
    assert torch.equal(bias[:, [0, 2]], given[:, [0, 1]])
    torch.testing.assert_close(bias[:, [1, 3]], given[:, objects].mean(1, keepdim=True).expand(-1, 2))
    report = ssd_zoo.load_report(model)
    assert report.classes == ("background", "Person")
    copied = [name for name, what in report.tensors.items() if what == "copied by class name"]
    assert copied == [f"head.cls_logits.{i}.1.{kind}" for i in range(6) for kind in ("weight", "bias")]
    assert all(what == "loaded" for name, what in report.tensors.items() if name not in copied)
    [record] = caplog.records
    assert "392 loaded" in record.message
    assert "12 copied by class name (background, Person)" in record.message
    assert "\n" not in record.message


def fresh(categories):
    return ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, size=64, categories=categories)


def test_all_classes_of_voc_are_copied_from_coco():
    source, model = fresh(COCO80_CATEGORIES), fresh(VOC_CATEGORIES)
    report = fit_state(model, source.state_dict(), COCO80_CATEGORIES, source="COCO")
    theirs = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "sofa": "couch",
              "pottedplant": "potted plant", "tvmonitor": "tv"}  # fmt: skip
    wanted = [COCO80_CATEGORIES.index(theirs.get(name, name)) for name in VOC_CATEGORIES]
    assert torch.equal(rows(model.state_dict(), 21), rows(source.state_dict(), 81)[:, wanted])
    assert report.classes == tuple(VOC_CATEGORIES)
    assert report.synonyms == theirs
    assert f"copied by class name ({VOC_CATEGORIES[0]}, aeroplane from airplane, bicycle, bird, " in str(report)
    assert "new" not in str(report)


def test_another_name_of_the_background_changes_nothing():
    source, model = fresh(["background", "a", "N/A"]), fresh(["__background__", "a", "N/A"])
    report = fit_state(model, source.state_dict(), source.categories, source="weights")
    assert set(report.tensors.values()) == {"loaded"}


@pytest.mark.parametrize("weights", ["DEFAULT", None])
@pytest.mark.parametrize(
    "categories", [["person", "dog"], ["Person", "dog"], ["sofa", "dog"], ["crack", "background"], ["crack", "hole"]]
)
def test_a_class_is_no_background(weights, categories):
    mended = ["background", *(name for name in categories if name != "background")]
    with pytest.raises(ValueError, match=re.escape(f"background, got {categories[0]!r}: write categories={mended}.")):
        ssd_zoo.ssdlite300_mobilenet_v2(weights=weights, weights_backbone=None, categories=categories)


def test_a_class_of_the_weights_is_no_background():
    with pytest.raises(ValueError, match="got 'rbc'"):
        ssd_zoo.ssdlite300_mobilenet_v2(weights="BCCD_V1", categories=["rbc", "WBC"])


@pytest.mark.parametrize("name", ["background", "__background__", "BG"])
def test_names_of_the_background(name, caplog):
    assert fresh([name, "person"]).categories == [name, "person"]
    assert not caplog.records


def test_a_model_whose_first_name_is_not_the_background_is_not_saved(tmp_path):
    model = fresh(["background", "helmet"])
    model.categories[0] = "nothing"
    with pytest.raises(ValueError, match="The first of the categories is the background, got 'nothing'"):
        ssd_zoo.save_pretrained(model, tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_mere_number_of_classes_has_no_known_names(tmp_path, caplog):
    folder = ssd_zoo.save_pretrained(fresh(["background", "class 1", "class 2"]), tmp_path / "model")
    # The names of four classes are made up, "class 1" among them.
    other = ssd_zoo.from_pretrained(folder, num_classes=5)
    assert ssd_zoo.load_report(other).tensors[f"{LOGITS}.weight"] == "averaged over classes"
    assert "12 averaged over classes" in caplog.text
    named = ssd_zoo.from_pretrained(folder, categories=["background", "class 2"])
    assert ssd_zoo.load_report(named).classes == ("background", "class 2")
    assert set(ssd_zoo.load_report(ssd_zoo.from_pretrained(folder, num_classes=3)).tensors.values()) == {"loaded"}


def test_saved_models_of_other_builders_are_refused(tmp_path):
    folder = ssd_zoo.save_pretrained(fresh(["background", "a"]), tmp_path / "model")
    for name in ("ssd300_mobilenet_v2", "ssdlite300_mobilenet_v2_qfgaohao", "ssdlite320_mobilenet_v3_large_3d"):
        with pytest.raises(ValueError, match=f"is a model of ssdlite300_mobilenet_v2, not of {name}.*from_pretrained"):
            ssd_zoo.get_model(name, weights=folder)
    # Models of clips start from those of images.
    ssd_zoo.ssdlite300_mobilenet_v2_3d(weights=folder)


def test_the_report_goes_with_the_model():
    model = build(categories=["background", "person"])
    report = ssd_zoo.load_report(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = {
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "torch.save": torch.load(file, weights_only=False),
        "optimize": ssd_zoo.deploy.optimize(copy.deepcopy(model).eval(), compile=False),
        "compile": torch.compile(model),
        "parallel": torch.nn.DataParallel(model),
        "average": torch.optim.swa_utils.AveragedModel(model),
    }
    for name, other in others.items():
        assert ssd_zoo.load_report(other) == report, name
    del model
    assert ssd_zoo.load_report(others["deepcopy"]) == report


def test_the_copied_class_detects_as_before(photo):
    image = ssd_zoo.data.read_image(photo)
    model = build(categories=["background", "crack", "person"], score_thresh=0.5, detections_per_img=2000).eval()
    before = build(score_thresh=0.5).eval()
    with torch.no_grad():
        [found], [expected] = model([image]), before([image])
    assert expected["labels"].tolist() == [1]
    torch.testing.assert_close(found["boxes"][found["labels"] == 2], expected["boxes"])


def test_num_classes_alone_averages_the_classes(coco):
    model = build(num_classes=4)
    report = ssd_zoo.load_report(model)
    averaged = [name for name, what in report.tensors.items() if what == "averaged over classes"]
    assert averaged == [f"head.cls_logits.{i}.1.{kind}" for i in range(6) for kind in ("weight", "bias")]
    ours, theirs = rows(model.state_dict(), 4), rows(coco, 91)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    assert not torch.equal(ours[:, 1], ours[:, 2])
    assert torch.equal(model.state_dict()["head.cls_logits.0.0.conv.weight"], coco["head.cls_logits.0.0.conv.weight"])
    assert "12 averaged over classes" in str(report)


def test_num_classes_of_the_weights_keeps_everything():
    model = build(num_classes=91)
    assert model.categories[:2] == ["__background__", "person"]
    assert set(ssd_zoo.load_report(model).tensors.values()) == {"loaded"}


def test_no_known_name_averages_the_classes(photo):
    model = build(categories=["background", "crack"], score_thresh=0.5).eval()
    report = ssd_zoo.load_report(model)
    assert report.tensors[f"{LOGITS}.weight"] == "averaged over classes"
    assert report.classes == ()
    with torch.no_grad():
        [found] = model([ssd_zoo.data.read_image(photo)])
    assert len(found["scores"]) < 10, "a class that was never trained does not show up everywhere"


def test_weights_bring_their_size_and_default_boxes():
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="BCCD_V1")
    assert model.size == (480, 640)
    assert model.default_box_generator.shapes[0][0] == (36 / 480, 35 / 480)
    assert set(ssd_zoo.load_report(model).tensors.values()) == {"loaded"}
    assert ssd_zoo.ssdlite300_mobilenet_v2(weights="BCCD_V1", size=300).size == (300, 300)
    assert ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").size == (300, 300)
    assert ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="BCCD_V1").size == (480, 640)


def test_other_sizes_keep_everything():
    model = build(size=(160, 256))
    assert set(ssd_zoo.load_report(model).tensors.values()) == {"loaded"}
    assert len(model.default_boxes) < 1917


def test_grey_images_give_what_grey_rgb_gave(photo):
    image = ssd_zoo.data.read_image(photo)[:1]
    rgb, grey = build().eval(), build(in_chans=1).eval()
    assert ssd_zoo.load_report(grey).tensors["backbone.stem.conv.weight"] == "adapted to channels"
    with torch.no_grad():
        expected = rgb.forward_raw(rgb.prepare([image.expand(3, -1, -1)]))
        actual = grey.forward_raw(grey.prepare([image]))
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-3, atol=1e-3)


def test_other_default_boxes_start_the_predictors_of_their_maps_fresh():
    shapes = [[(0.1, 0.1)] * 3, *[[(0.3, 0.3)] * 6] * 4, [(0.9, 0.9)] * 2]
    report = ssd_zoo.load_report(build(default_boxes=ssd_zoo.DefaultBoxGenerator(shapes=shapes)))
    new = {name for name, what in report.tensors.items() if what == "new"}
    assert new == {
        f"head.{branch}.5.1.{kind}" for branch in ("cls_logits", "bbox_regression") for kind in ("weight", "bias")
    }


def test_other_norms_keep_the_convolutions():
    model = build(norm_layer=lambda channels: torch.nn.GroupNorm(channels // 8, channels))
    report = ssd_zoo.load_report(model)
    assert report.tensors["backbone.blocks.3.expand.conv.weight"] == "loaded"
    assert "backbone.blocks.3.expand.norm.running_mean" in report.unused
    model([torch.rand(3, 64, 64)], [{"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([1])}])


def test_weights_of_another_model_are_refused(coco):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for wrong in (
        {name: tensor for name, tensor in coco.items() if name != "backbone.stem.conv.weight"},
        {**coco, "backbone.stem.conv.weight": torch.zeros(32, 5, 3, 3)},
        {**coco, "backbone.blocks.99.weight": torch.zeros(1)},
        {},
    ):
        with pytest.raises(
            ValueError, match="does not fit this model: .* tensors of other names or shapes, among them"
        ):
            fit_state(model, wrong, ["background", "person"], source="a file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_started_fresh_has_no_report():
    with pytest.raises(ValueError, match="No builder loaded weights"):
        ssd_zoo.load_report(ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2))


def test_a_finer_map_leaves_the_others_as_they_are(tmp_path):
    """The predictors of the weights stay with their maps, from weights that ship and from saved models, both ways."""
    batch = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    usual = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=(96, 128)).eval()
    finer = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=(96, 128), finest_stride=8).eval()
    new = 3 * 12 * 16
    with torch.no_grad():
        expected, found = usual.forward_raw(batch), finer.forward_raw(batch)
    assert found["cls_logits"].shape[1] == expected["cls_logits"].shape[1] + new
    for key, value in expected.items():
        torch.testing.assert_close(found[key][:, new:], value, rtol=0, atol=0)
    report = ssd_zoo.load_report(finer)
    assert {name for name, what in report.tensors.items() if what == "new"} == {
        name for name in finer.state_dict() if re.match(r"head\.\w+\.0\.", name) and "num_batches" not in name
    }
    ssd_zoo.save_pretrained(finer, tmp_path)
    again = ssd_zoo.from_pretrained(tmp_path).eval()
    back = ssd_zoo.from_pretrained(tmp_path, finest_stride=16).eval()
    clips = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights=tmp_path).eval()
    with torch.no_grad():
        for key, value in found.items():
            assert torch.equal(again.forward_raw(batch)[key], value)
            torch.testing.assert_close(clips.forward_raw(batch)[key], value, rtol=1e-4, atol=1e-4)
            assert torch.equal(back.forward_raw(batch)[key], value[:, new:])
    with pytest.raises(ValueError, match="finest_stride must be 8 or 16, got 4"):
        ssd_zoo.ssdlite300_mobilenet_v2(finest_stride=4)

"""Models as folders: what is saved is what is loaded, and what can't be trusted is refused."""

import logging
import shutil
import signal
import time
from functools import partial

import accelerate
import numpy as np
import pytest
import torch
from configs import change_config, write_config
from launch import fork, join
from safetensors.torch import load_file, save_file
from test_models import small_size
from torch import nn

import ssd_zoo
from ssd_zoo.weights.files import write_safetensors
from ssd_zoo.weights.formats.safetensors_file import pack

DETECTIONS = ("boxes", "labels", "scores")


@pytest.fixture(autouse=True)
def use_one_thread(one_thread):
    """These models are small."""


def small(**kwargs):
    return ssd_zoo.ssdlite320_mobilenet_v3_large(
        weights_backbone=None, **{"num_classes": 3, "size": 64, **kwargs}
    ).eval()


def assert_same(model, loaded):
    expected, actual = model.state_dict(), loaded.state_dict()
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name
    for name in ("default_boxes", "image_mean", "image_std"):
        assert torch.equal(getattr(model, name), getattr(loaded, name)), name
    assert (model.categories, model.size) == (loaded.categories, loaded.size)
    # A clip, for models of clips warn of images.
    frames = torch.rand(1, model.in_chans, *model.size)
    with torch.inference_mode():
        [expected], [found] = model([frames]), loaded.eval()([frames])
    assert all(torch.equal(expected[key], found[key]) for key in DETECTIONS)


def test_what_changes_training_alone_can_be_saved(tmp_path):
    pytest.importorskip("timm")
    model = ssd_zoo.ssd_timm("resnet18", weights_backbone=None, num_classes=3, size=64)
    model.backbone.net.set_grad_checkpointing(True)
    ssd_zoo.save_pretrained(model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ssd_zoo.list_models())
def test_every_model_comes_back_bit_for_bit(name, tmp_path):
    torch.manual_seed(0)
    # A threshold that leaves little for post-processing, and a size that leaves little for the network.
    options = {"categories": ["background", "a", "b"], "score_thresh": 0.5, **small_size(name)}
    model = ssd_zoo.get_model(name, weights_backbone=None, **options).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.1, 0.1)
    assert_same(model, ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path / "model")))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"size": (96, 64), "in_chans": 4, "reduced_tail": False},
        {"norm_layer": partial(nn.GroupNorm, 4), "box_loss": "ciou", "topk_candidates": None},
        {"image_mean": (0.1, 0.2, 1 / 3), "nms_thresh": 0.3, "antialias": True, "score_function": "sigmoid"},
        {"default_boxes": ssd_zoo.DefaultBoxGenerator([[1.7]] * 6, [k / 7 for k in range(1, 8)], clip="none")},
    ],
    ids=["form", "parts", "settings", "boxes"],
)
def test_arguments_come_back(kwargs, tmp_path):
    model = small(**kwargs)
    model.detections_per_img = 7  # set on the model, not asked of the builder
    loaded = ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path))
    assert loaded.detections_per_img == 7
    for name in ("nms_thresh", "box_loss", "antialias", "score_function", "default_box_generator", "topk_candidates"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert_same(model, loaded)


@pytest.mark.slow
def test_builders_take_what_was_saved(tmp_path, caplog):
    model = small(size=96, categories=["background", "cat", "dog"], score_thresh=0.2)
    folder = ssd_zoo.save_pretrained(model, tmp_path / "cats")
    for address in (str(folder), folder, str(folder / "model.safetensors")):
        assert_same(model, ssd_zoo.ssdlite320_mobilenet_v3_large(weights=address))
    assert_same(model, ssd_zoo.get_model("ssdlite320_mobilenet_v3_large", weights=str(folder)))
    assert_same(model, ssd_zoo.get_model("ssdlite320_mobilenet_v3_large", weights=str(folder), size=None))
    other = ssd_zoo.from_pretrained(folder, categories=["background", "dog", "cow"], size=64, score_thresh=0.5)
    assert (other.size, other.score_thresh, other.nms_thresh) == ((64, 64), 0.5, 0.55)
    report = ssd_zoo.load_report(other)
    assert report.classes == ("background", "dog")
    assert not [name for name, what in report.tensors.items() if what == "new"]
    assert "copied by class name" in caplog.text


@pytest.mark.slow
def test_a_loaded_model_is_saved_and_copied_like_any_other(tmp_path):
    import copy

    model = small(reduced_tail=False)
    again = copy.deepcopy(ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path / "a")))
    assert_same(model, ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(again, tmp_path / "b")))


@pytest.mark.slow
def test_lone_file_is_the_whole_model(tmp_path):
    model = small()
    ssd_zoo.save_pretrained(model, tmp_path / "a")
    (tmp_path / "a/model.safetensors").rename(tmp_path / "cats.safetensors")
    assert_same(model, ssd_zoo.from_pretrained(tmp_path / "cats.safetensors"))


def test_models_of_own_builders_are_saved_once_registered(tmp_path):
    from ssd_zoo.models import mobilenet_v3

    unregistered = mobilenet_v3.ssdlite320_mobilenet_v3_large.__wrapped__
    with pytest.raises(ValueError, match=r"No registered builder made this model.*register_model"):
        ssd_zoo.save_pretrained(unregistered(weights_backbone=None, size=64), tmp_path)
    with pytest.raises(ValueError, match=r"norm_layer=.*can't be saved.*partial\(torch.nn.GroupNorm, 32\)"):
        ssd_zoo.save_pretrained(small(norm_layer=lambda channels: nn.GroupNorm(4, channels)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_own_losses_are_left_out_with_a_word(tmp_path, caplog):
    model = small(box_loss=lambda *args: torch.zeros(()))
    assert ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path)).box_loss == "smooth_l1"
    assert "box_loss is a custom function" in caplog.text


def test_half_precision_is_kept_and_read_as_single(tmp_path):
    folder = ssd_zoo.save_pretrained(small().half(), tmp_path)
    assert load_file(folder / "model.safetensors")[_first(folder)].dtype == torch.float16
    assert next(ssd_zoo.from_pretrained(folder).parameters()).dtype == torch.float32


def test_numbers_that_lose_digits_are_told(tmp_path, caplog):
    ssd_zoo.save_pretrained(small().double(), tmp_path)
    assert caplog.messages == ["The model is in float64, and will be loaded in float32."]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_name_what_they_hold(wrap, tmp_path):
    with pytest.raises(
        TypeError, match=r"A detector of ssd_zoo can be saved, got \w+\. .* as model.module, or as model"
    ):
        ssd_zoo.save_pretrained(wrap(small()), tmp_path)


@pytest.mark.parametrize("move", [lambda model: model.to("meta"), accelerate.cpu_offload])
def test_a_model_without_values_is_not_saved(move, tmp_path):
    model = small()
    move(model)
    with pytest.raises(ValueError, match=r"is on the meta device .* accelerate\.hooks\.remove_hook_from_module"):
        ssd_zoo.save_pretrained(model, tmp_path)


def test_settings_of_other_libraries_are_plain_numbers(tmp_path):
    model = small(nms_thresh=np.float32(0.5), detections_per_img=np.int64(7), score_thresh=torch.tensor(0.25))
    assert len(model([torch.rand(3, 64, 64)])[0]["scores"]) <= 7
    model.tile, model.tile_overlap, model.topk_candidates = 32, np.float64(0.5), torch.tensor(9)
    loaded = ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path))
    assert (loaded.nms_thresh, loaded.tile_overlap, loaded.topk_candidates) == (0.5, 0.5, 9)


def _first(folder):
    return next(name for name in load_file(folder / "model.safetensors") if name.endswith("weight"))


def test_card_tells_what_is_known_and_its_code_runs(tmp_path, photo, monkeypatch, capsys):
    from huggingface_hub import ModelCard

    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", categories=["background", "person"])
    monkeypatch.chdir(tmp_path)
    metrics = {"COCO128, person": {"AP": 30.8, "AP50": 55.7, "source": "measured"}}
    ssd_zoo.save_pretrained(model, "person", licence="MIT", trained_on="COCO", metrics=metrics, notes="Of 2018.")
    card = ModelCard.load("person/README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == ("mit", "ssd_zoo", "object-detection")
    assert [(r.dataset_type, r.dataset_name, r.metric_name, r.metric_value) for r in card.data.eval_results] == [
        ("coco128-person", "COCO128, person", "AP", 30.8),
        ("coco128-person", "COCO128, person", "AP50", 55.7),
    ]
    for text in (
        "| COCO128, person | AP50 | 55.7 | measured |",
        "## Training data\n\nCOCO",
        "Of 2018.",
        "1 person",
        "3.0 million",
    ):
        assert text in card.text, text
    [code] = [block.partition("```")[0] for block in card.text.split("```python\n")[1:]]
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("person 0.62 [")


def test_classes_that_have_moved_since_are_found(tmp_path):
    saved = ssd_zoo.save_pretrained(small(norm_layer=ssd_zoo.layers.basic.BatchNorm2d), tmp_path)
    text = (saved / "config.json").read_text()
    assert '"ssd_zoo.layers.basic.BatchNorm2d"' in text
    write_config(saved, text.replace("ssd_zoo.layers.basic", "ssd_zoo.detector.layers"))
    assert ssd_zoo.from_pretrained(saved).recipe[1]["norm_layer"].func is ssd_zoo.layers.basic.BatchNorm2d


def test_a_card_that_is_there_stays_until_there_is_news(tmp_path):
    ssd_zoo.save_pretrained(small(), tmp_path)
    (tmp_path / "README.md").write_text("Mine.")
    ssd_zoo.save_pretrained(small(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "Mine."
    ssd_zoo.save_pretrained(small(), tmp_path, licence="MIT")
    assert "MIT" in (tmp_path / "README.md").read_text()


def save_again_and_again(folder):
    torch.set_num_threads(1)
    model = small()
    while True:
        torch.nn.init.constant_(next(model.parameters()), torch.rand(()).item())
        ssd_zoo.save_pretrained(model, folder / "model")
        (folder / "saved").touch()


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_model_or_the_new(tmp_path):
    for delay in (0.0, 0.05):
        process = fork(save_again_and_again, tmp_path)
        while not (tmp_path / "saved").exists() and process.is_alive():
            time.sleep(0.001)
        process.join(delay)
        process.kill()
        assert join(process) == -signal.SIGKILL
        (tmp_path / "saved").unlink()
        value = next(ssd_zoo.from_pretrained(tmp_path / "model").parameters())
        assert torch.equal(value, value.flatten()[0].expand_as(value))


@pytest.mark.slow
def test_a_save_cut_off_between_files_is_the_new_model(tmp_path, caplog):
    old, new = small(score_thresh=0.1), small(score_thresh=0.3)
    text = (ssd_zoo.save_pretrained(old, tmp_path) / "config.json").read_text()
    ssd_zoo.save_pretrained(new, tmp_path)
    (tmp_path / "config.json").write_text(text)
    loaded = ssd_zoo.from_pretrained(tmp_path)
    assert loaded.score_thresh == 0.3
    assert "config.json is of another save than model.safetensors" in caplog.text
    assert_same(new, loaded)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return ssd_zoo.save_pretrained(small(), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builder": "ssd300_vgg17"}, r"Unknown model 'ssd300_vgg17'. Did you mean ssd300_vgg16d"),
        ({"format": 2, "version": "9.0"}, r"has format 2, saved by ssd_zoo 9.0; .* pip install --upgrade"),
        ({"format": None}, r"is not of ssd_zoo: it lacks 'format'"),
        ({"categories": "abc"}, r"categories must be a list, got 'abc'"),
        ({"settings": {"score_tresh": 1}}, r"unknown settings 'score_tresh'; known are .*score_thresh"),
        ({"settings": None}, r"can't be used"),
        (
            {"arguments": {"size": [64, 64], "norm_layer": {"callable": "os.system", "args": [], "keywords": {}}}},
            "os.system",
        ),
        (
            {"arguments": {"size": [64, 64], "norm_layer": {"callable": "torch.nn.functional.os.system"}}},
            r"torch.nn.functional.os.system.* is not a norm or an activation of torch.nn",
        ),
        ({"arguments": {"size": [10**6, 10**6]}}, r"larger than 16384"),
        ({"builder": "ssd_timm", "arguments": {"size": [64, 64], "backbone": "local-dir:/etc"}}, r"read a folder"),
        ({"arguments": {}}, r"it lacks 'size'"),
        ({"default_boxes": {"shapes": [[[1, 1]]] * 6, "steps": [1], "clip": "none"}}, r"steps must have one entry"),
    ],
)
def test_bad_configs_are_refused(change, message, folder):
    change_config(folder, **change)
    with pytest.raises(ValueError, match=message):
        ssd_zoo.from_pretrained(folder)


def test_what_is_no_saved_model_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nothing.*hf-hub:owner/name"):
        ssd_zoo.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing.safetensors"):
        ssd_zoo.ssd300_vgg16d(weights=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ValueError, match=r"has no weights 'COCO_V9'; it has .*no folder of that name"):
        ssd_zoo.ssd300_vgg16d(weights="COCO_V9")
    with pytest.raises(ValueError, match=r"only the Hub has revisions"):
        ssd_zoo.from_pretrained(folder, revision="main")
    with pytest.raises(TypeError, match="score_tresh"):
        ssd_zoo.from_pretrained(folder, score_tresh=0.5)
    with pytest.raises(ValueError, match=r"is a model of ssdlite320_mobilenet_v3_large, not of ssd300_vgg16d"):
        ssd_zoo.ssd300_vgg16d(weights=str(folder), size=300)
    shutil.copytree(folder, tmp_path / "run" / "best")
    with pytest.raises(FileNotFoundError, match=r"run has no config.json.*Did you mean .*run.best\?"):
        ssd_zoo.from_pretrained(tmp_path / "run")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        ssd_zoo.from_pretrained(folder)
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"does not say what model its tensors are.*load_checkpoint"):
        ssd_zoo.from_pretrained(tmp_path / "bare.safetensors")


def test_damaged_files_are_refused(folder):
    file, whole = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    for data in (whole[:-100], whole[:1000], b"", b"\x80\x04pickled", (2 * 10**7).to_bytes(8, "little") + b" " * 10**7):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"cut off or not a safetensors file.*Download or save it again"):
            ssd_zoo.from_pretrained(folder)


def test_a_header_of_100_mb_is_not_parsed(folder):
    file = folder / "model.safetensors"
    with file.open("wb") as sparse:
        sparse.write((10**8).to_bytes(8, "little") + b"{")
        sparse.truncate(2 * 10**8)
    with pytest.raises(ValueError, match=r"announces a header of 100000000; at most 10485760 are allowed"):
        ssd_zoo.from_pretrained(folder)


def test_wrong_shapes_and_nan_are_refused(folder):
    file = folder / "model.safetensors"
    state, name = load_file(file), _first(folder)
    change_config(folder, weights_id=None)
    write_safetensors(file, pack({**state, name: torch.zeros(3, 2, 1, 1)}), {})
    with pytest.raises(ValueError, match=rf"does not fit this model: .*{name}"):
        ssd_zoo.from_pretrained(folder)
    for value in (float("nan"), 1e39):
        write_safetensors(file, pack({**state, name: torch.full_like(state[name], value, dtype=torch.double)}), {})
        with pytest.raises(ValueError, match=rf"Tensor .{name}. holds .* NaN, infinite or beyond float32"):
            ssd_zoo.from_pretrained(folder)


def test_a_model_that_diverged_is_not_saved(folder):
    model = small()
    nn.init.constant_(next(model.parameters()), float("inf"))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="NaN, infinite"):
        ssd_zoo.save_pretrained(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_saving_says_nothing_when_all_is_well(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(small(), tmp_path))
    assert not caplog.records

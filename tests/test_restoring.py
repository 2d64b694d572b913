"""A saved model is restored whole, or there is an error that says why not."""

import functools
import io
import json
import logging
import os
import socket
import threading
from pathlib import Path

import accelerate
import pytest
import torch
from configs import change_config, write_config
from launch import fork, join
from safetensors.torch import load_file, save_file

import ssd_zoo
from ssd_zoo.prediction.opening import open_detector
from ssd_zoo.training import fit
from ssd_zoo.training.optimizers import synchronise_norms
from ssd_zoo.weights.files import read_safetensors, write_safetensors
from ssd_zoo.weights.formats.checkpoint import read_checkpoint
from ssd_zoo.weights.formats.safetensors_file import pack
from ssd_zoo.weights.hub import _copy_tensors
from ssd_zoo.weights.saved_models import open_saved

CATEGORIES = ["background", "a", "b"]


def tiny(**options):
    options = {"categories": CATEGORIES, "size": 64, **options}
    return ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, **options).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return ssd_zoo.save_pretrained(tiny(), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change_tensors(folder, change):
    """Write other tensors without a digest, as other programs do."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, weights_id=None)


def every(folder):
    """Ways to restore a model."""
    yield lambda: ssd_zoo.from_pretrained(folder)
    yield lambda: ssd_zoo.from_pretrained(folder / "model.safetensors")
    yield lambda: ssd_zoo.ssdlite320_ultraface_slim(weights=str(folder))
    yield lambda: ssd_zoo.get_model("ssdlite320_ultraface_slim", weights=folder, score_thresh=0.5)
    # Who asks for other classes still wants the rest.
    yield lambda: ssd_zoo.from_pretrained(folder, categories=["background", "c"])


CHANGES = {
    "one missing": (
        lambda state: state.pop("head.cls_logits.0.0.conv.weight", None) or state.popitem(),
        "1 are missing",
    ),
    "most missing": (lambda state: [state.pop(name) for name in sorted(state)[5:]], "are missing"),
    "one more": (lambda state: state.update(new=torch.zeros(1)), r"1 are left over \(new\)"),
    "other shape": (lambda state: state.update({k: v[:1] for k, v in state.items() if v.ndim == 4}), "another shape"),
    "other type": (lambda state: state.update({k: v.int() for k, v in state.items() if v.ndim == 4}), "type"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_incomplete_tensors_are_refused(case, folder):
    change, told = CHANGES[case]
    change_tensors(folder, change)
    for restore in every(folder):
        with pytest.raises(ValueError, match=f"does not fit this model.*{told}"):
            restore()


@pytest.mark.parametrize("categories", [[*CATEGORIES, "c"], CATEGORIES[:2]])
def test_categories_that_the_head_does_not_have_are_refused(categories, folder):
    change_config(folder, categories=categories)
    with pytest.raises(ValueError, match=f"with {len(categories)} categories .*head"):
        ssd_zoo.from_pretrained(folder)


def test_a_damaged_block_is_refused_wherever_it_lies(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in torch.linspace(start, len(whole) - 4096, 10).long().tolist():
        file.write_bytes(whole[:place] + bytes(4096) + whole[place + 4096 :])
        with pytest.raises(ValueError, match="does not have|do not have the digest"):
            ssd_zoo.from_pretrained(folder)
    for flipped in (b'"F32"', b"[3,"):
        at = whole.index(flipped) if flipped in whole else start - 30
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"model.safetensors"):
            ssd_zoo.from_pretrained(folder)


def test_a_file_of_other_tensors_than_the_config_names_is_refused(folder):
    write_safetensors(folder / "model.safetensors", pack(tiny().state_dict()), {})
    with pytest.raises(ValueError, match=r"does not hold the tensors of its config.*remove weights_id"):
        ssd_zoo.from_pretrained(folder)


def test_files_without_a_digest_load_and_say_so(folder, caplog):
    expected = ssd_zoo.from_pretrained(folder).state_dict()
    change_tensors(folder, lambda state: None)
    found = ssd_zoo.from_pretrained(folder).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "has no digest" in caplog.text


def test_fine_tuning_keeps_what_fits(folder):
    model = ssd_zoo.from_pretrained(folder, categories=["background", "b", "c"])
    assert ssd_zoo.load_report(model).classes == ("background", "b")


def test_published_weights_that_lack_tensors_are_refused(monkeypatch):
    entry = ssd_zoo.get_weight("SSDLite300_MobileNet_V2_Weights.COCO_TF_V1")
    state = {name: tensor for name, tensor in entry.get_state_dict().items() if "head.cls_logits.0" not in name}
    monkeypatch.setattr(type(entry), "get_state_dict", lambda self, progress=True: state)
    with pytest.raises(ValueError, match=r"COCO_TF_V1 lacks \d+ tensors"):
        ssd_zoo.ssdlite300_mobilenet_v2(weights=entry)
    ssd_zoo.ssdlite300_mobilenet_v2(weights=entry, categories=["background", "person"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"backbone": "hf-hub:owner/evil"},
        {"backbone": "hf_hub:owner/evil"},
        {"backbone": "local-dir:/etc"},
        {"backbone": "timm/resnet18"},
        {"backbone": "../resnet18"},
        {"backbone": "https://example.org/x"},
        {"weights_backbone": "DEFAULT"},
        {"weights": "hf-hub:owner/evil"},
        {"weights_backbone": True},
        {"trainable_backbone_layers": 0},
        {"categories": ["background", "x"]},
        {"pretrained_cfg": {"callable": "torch.nn.modules.activation.ReLU", "args": [], "keywords": {}}},
        {"norm_layer": {"callable": "torch.nn.modules.sparse.Embedding", "args": [10**9], "keywords": {}}},
        {"norm_layer": {"callable": "ssd_zoo.detector.ssd.SSD", "args": [], "keywords": {}}},
        {"norm_layer": {"callable": "torch.nn.modules.batchnorm.BatchNorm2d", "args": [10**12], "keywords": {}}},
        {"norm_layer": {"callable": "torch.nn.modules.linear.Linear", "args": [16000, 16000], "keywords": {}}},
        {"norm_layer": {"callable": "torch.nn.modules.batchnorm.BatchNorm2d", "args": [], "keywords": {"x": 1}}},
        {"in_chans": 10**6},
        {"in_chans": 1000},
    ],
    ids=str,
)
def test_a_folder_makes_no_request_and_builds_only_what_is_allowed(arguments, folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a local folder must not make requests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    config = json.loads((folder / "config.json").read_text())
    builder = "ssdlite_timm" if "backbone" in arguments or "weights_backbone" in arguments else config["builder"]
    change_config(folder, builder=builder, arguments={**config["arguments"], **arguments})
    with pytest.raises(ValueError, match=r"can't be used|does not fit"):
        ssd_zoo.from_pretrained(folder)


def test_a_path_is_never_a_repository(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a path must not make requests")

    monkeypatch.setattr("ssd_zoo.weights.saved_models.fetch_model", refuse)
    monkeypatch.chdir(tmp_path)
    missing = Path("runs/best")
    for opens in (
        ssd_zoo.from_pretrained,
        open_detector,
        lambda path: ssd_zoo.ssdlite300_mobilenet_v2(weights=path),
        lambda path: ssd_zoo.predict(path, torch.zeros(3, 8, 8)),
    ):
        with pytest.raises(FileNotFoundError, match="There is no folder runs/best"):
            opens(missing)
    with pytest.raises(ValueError, match="runs/best is a folder; only the Hub has revisions"):
        ssd_zoo.from_pretrained(missing, revision="v2")


SHAPE = [0.1, 0.1]


@pytest.mark.parametrize(
    "change",
    [
        {"default_boxes": {"shapes": [[SHAPE] * 200] * 4, "steps": None, "clip": "none"}},
        {"default_boxes": {"shapes": [[SHAPE] * 10**4] * 4, "steps": None, "clip": "none"}},
        {"default_boxes": {"shapes": [["ab"]] * 4, "steps": None, "clip": "none"}},
        {"default_boxes": {"shapes": 5, "steps": None, "clip": "none"}},
        {"default_boxes": {"shapes": [[SHAPE]] * 4, "steps": [0] * 4, "clip": "none"}},
        {"default_boxes": []},
        {"settings": {"iou_thresh": 1e36}},
        {"settings": {"nms_thresh": "high"}},
        {"settings": {"detections_per_img": 2.5}},
        {"settings": {"antialias": 1}},
        {"settings": {"image_std": [0, 0, 0]}},
        {"settings": {"image_mean": [0.5] * 4}},
        {"categories": ["background", 1]},
        {"categories": ["background"]},
        {"categories": ["background", "a", "a"]},
        {"categories": ["background", "a", " a"]},
        {"categories": ["background", "a", "Background"]},
        {"categories": ["a", "b", "c"]},
        {"categories": ["background", "", "a"]},
        {"default_boxes": {"shapes": [[SHAPE]] * 3}},
        {"default_boxes": {"clip": "some"}},
        {"library": "timm"},
        {"version": 1},
        {"format": 0},
        {"weights_id": 5},
        {"meta": {"licence": 5}},
        {"meta": {"metrics": []}},
        *({"settings": {name: "other"}} for name in ("score_function", "box_loss", "on_invalid_boxes")),
        {"categories": {"background": 1}},
        {"builder": ["a"]},
        {"builder": None},
        {"format": 1e300},
        {"arguments": {"size": [16384, 16384]}},
        {"arguments": {"size": [64, 64, 64]}},
        {"arguments": {"size": "64"}},
        {"arguments": []},
        {"meta": 5},
    ],
    ids=lambda change: str(change)[:60],
)
def test_values_of_a_config_are_checked(change, folder):
    change_config(folder, **change)
    with pytest.raises(ValueError, match=r"can't be used|does not fit|is not of ssd_zoo|has format") as caught:
        ssd_zoo.from_pretrained(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("part", ["settings", "default_boxes", "arguments", None])
def test_each_part_of_a_config_must_be_there(part, folder):
    config = json.loads((folder / "config.json").read_text())
    may_lack = {"classification_loss", "box_loss", "offsets", "in_chans", "norm_layer", "meta"}
    may_lack |= {"weights_id", "config_id"}
    for name in ({} if part is None else config[part]).keys() - may_lack or config.keys() - may_lack:
        changed = json.loads(json.dumps(config))
        del (changed if part is None else changed[part])[name]
        write_config(folder, json.dumps(changed))
        with pytest.raises(ValueError, match=rf"lacks? '?{name}|it lacks 'format' or 'builder'"):
            ssd_zoo.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"categories": ["background", "b", "a"]},
            r"categories, \['background', 'b', 'a'\] and \['background', 'a', 'b'\]",
        ),
        ({"settings": {"score_thresh": 0.25}}, r"settings score_thresh, 0.25 and 0.7"),
        ({"default_boxes": {"clip": "none"}}, r"default_boxes clip, 'none' and 'all'"),
        ({"arguments": {"in_chans": 3, "norm_layer": None, "size": [64, 96]}}, r"arguments size, \[64, 96\] and"),
        ({"builder": "ssdlite320_ultraface_rfb"}, r"builder, 'ssdlite320_ultraface_rfb' and"),
        ({"meta": {"licence": "MIT", "trained_on": None, "metrics": {}}}, r"meta licence, 'MIT' and None"),
        ({"version": "0.0.1"}, r"version, '0.0.1' and"),
        ({"notes": "mine"}, r"notes, 'mine' and None"),
        ({"config_id": "sha256:00"}, r"config_id, 'sha256:00' and 'sha256:"),
    ],
)
def test_the_two_configs_of_a_folder_agree(changes, told, folder):
    change_config(folder, in_both=False, **changes)
    with pytest.raises(ValueError, match=rf"config.json and the header of model.safetensors disagree on {told}"):
        ssd_zoo.from_pretrained(folder)
    assert ssd_zoo.from_pretrained(folder / "model.safetensors").categories == CATEGORIES


def test_a_config_of_another_save_gives_way_to_the_header(folder, caplog):
    text = (folder / "config.json").read_text()
    model = ssd_zoo.from_pretrained(folder)
    model.score_thresh = 0.25  # and the same tensors
    ssd_zoo.save_pretrained(model, folder)
    (folder / "config.json").write_text(text)
    assert ssd_zoo.from_pretrained(folder).score_thresh == 0.25
    assert "config.json is of another save than model.safetensors" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"setings": {}}, "unknown key 'setings'; known are format, library, .*, settings, .*"),
        ({"default_boxes": {"ofsets": None}}, "unknown key of default_boxes 'ofsets'; known are shapes, steps, "),
        (
            {"arguments": {"size": [64, 64], "norm_layer": {"callable": "torch.nn.BatchNorm2d", "kwargs": {}}}},
            "unknown key of norm_layer 'kwargs'; known are callable, args, keywords",
        ),
    ],
)
def test_unknown_keys_are_refused(changes, told, folder):
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=told):
        ssd_zoo.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "length"), [("config.json", 40), ("model.safetensors", 40), ("model.safetensors", -9)]
)
def test_a_damaged_download_is_named(name, length, folder, tmp_path):
    """The Hub's cache has links to files of other names."""
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs/0a1b"
    blob.write_bytes((folder / name).read_bytes()[:length])
    (folder / name).unlink()
    (folder / name).symlink_to(blob)
    with pytest.raises(ValueError, match=rf"{name}.* If the download is damaged, delete {blob}: it is made again"):
        ssd_zoo.from_pretrained(folder)


def test_what_could_not_be_opened_is_not_saved(tmp_path):
    model = tiny()
    vars(model)["nms_thresh"] = 7.0  # past the check of settings
    with pytest.raises(ValueError, match="nms_thresh"):
        ssd_zoo.save_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())


def swap(kind):
    def change(model):
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, torch.nn.ReLU):
                    setattr(module, name, kind())

    return change


def set_all(kind, **values):
    def change(model):
        for module in model.modules():
            if isinstance(module, kind):
                vars(module).update(values)

    return change


def replace(path, method, with_):
    """Replaces a method of one module, by what is made of it."""

    def change(model):
        module = model.get_submodule(path)
        setattr(module, method, with_(getattr(module, method)))

    return change


def other_class(model):
    model.__class__ = type("Mine", (type(model),), {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (replace("backbone", "forward", lambda run: lambda batch: run(batch)[::-1]), "backbone has another forward"),
        (replace("head", "forward", functools.partial), "head has another forward than"),
        (replace("", "_detections", lambda run: lambda *given: run(*given)[:1]), "the model has another _detections"),
        (other_class, "it is Mine in the model and SSD there"),
        (swap(torch.nn.SiLU), r"module backbone\.\S+ is SiLU in the model and ReLU there; .* and \d+ more"),
        (set_all(torch.nn.BatchNorm2d, eps=0.5), r"\.eps is 0.5 in the model and 1e-05 there"),
        (set_all(torch.nn.Conv2d, dilation=(2, 2)), r"\.dilation is \(2, 2\) in the model and \(1, 1\) there"),
        (
            lambda model: model.head.add_module("extra", torch.nn.Dropout()),
            "head.extra is Dropout .* and missing there",
        ),
    ],
)
def test_changed_modules_are_not_saved(change, told, tmp_path):
    model = tiny()
    change(model)
    with pytest.raises(ValueError, match=f"would not build it again.* it builds another model: .*{told}"):
        ssd_zoo.save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match=told):
        fit(model, [], output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_changes_no_detection_may_differ(tmp_path):
    model = synchronise_norms(tiny())
    set_all(torch.nn.modules.batchnorm._BatchNorm, momentum=0.5)(model)
    set_all(torch.nn.ReLU, inplace=False)(model)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    model.compile(backend="eager")
    model.forward_raw = torch.compile(model.forward_raw, backend="eager")
    model.backbone.forward = model.backbone.forward
    accelerate.Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    ssd_zoo.from_pretrained(ssd_zoo.save_pretrained(model, tmp_path))


def test_hooks_are_not_saved_and_that_is_told_once(tmp_path, caplog):
    model = tiny()
    model.backbone.register_forward_hook(lambda *_: None)
    next(model.head.children()).register_forward_pre_hook(lambda *_: None)
    for _ in range(2):
        ssd_zoo.save_pretrained(model, tmp_path)
    assert caplog.messages == ["Hooks are not saved; 2 modules have some, backbone among them."]


def test_a_model_that_is_replaced_while_it_is_opened_is_refused(folder):
    opened = open_saved(folder)
    ssd_zoo.save_pretrained(tiny(), folder)
    with pytest.raises(ValueError, match="replaced while it was opened"):
        opened.weights.get_state_dict()


def test_what_is_loaded_is_what_was_checked(folder, tmp_path, monkeypatch):
    expected = next(ssd_zoo.from_pretrained(folder).parameters())
    other = ssd_zoo.save_pretrained(tiny(), tmp_path / "other")
    from_file = torch.UntypedStorage.from_file

    def replaced(*args, **kwargs):
        """Replaces the file when safetensors' reader opens it, after the check of the digest."""
        (other / "model.safetensors").replace(folder / "model.safetensors")
        return from_file(*args, **kwargs)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", replaced)
    assert torch.equal(next(ssd_zoo.from_pretrained(folder).parameters()), expected)


def save_constant(value, folder, times):
    """Save a model all of whose parameters have one value, several times."""
    model = tiny()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    for _ in range(times):
        ssd_zoo.save_pretrained(model, folder)


@pytest.mark.parametrize("writers", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_writers_and_readers_of_one_folder_see_whole_models(folder, writers):
    save_constant(0, folder, 1)
    if writers == "threads":
        started = [threading.Thread(target=save_constant, args=(value, folder, 5)) for value in (0, 1)]
        for thread in started:
            thread.start()
    else:
        started = [fork(save_constant, value, folder, 10) for value in (0, 1)]
    seen, errors = 0, []
    while any(writer.is_alive() for writer in started) or not seen:
        # A model that was replaced while it was opened is an error.
        try:
            loaded = ssd_zoo.from_pretrained(folder)
        except ValueError as error:
            errors.append(str(error))
            continue
        seen += 1
        of_model = {value for parameter in loaded.parameters() for value in parameter.unique().tolist()}
        assert of_model in ({0.0}, {1.0})
    assert all("was replaced" in error or "is damaged" in error for error in errors), errors
    if writers == "processes":
        assert [join(process) for process in started] == [0, 0]
    assert {parameter.unique().item() for parameter in ssd_zoo.from_pretrained(folder).parameters()} in ({0.0}, {1.0})


def test_old_parts_of_the_cache_are_made_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SSD_ZOO_HOME", str(tmp_path / "home"))
    source = tmp_path / "x.pth"
    torch.save({"a": torch.ones(2000)}, source)
    entry = ssd_zoo.Weights(source.as_uri(), None, {})
    expected = {name: tensor.clone() for name, tensor in entry.get_state_dict(progress=False).items()}
    [kept] = (tmp_path / "home").glob("*.safetensors")
    whole = kept.read_bytes()
    for damaged in (whole[:-400] + bytes(400), whole[:100], b"", b"<html>" * 100):
        kept.write_bytes(damaged)
        assert torch.equal(entry.get_state_dict(progress=False)["a"], expected["a"])
        assert kept.read_bytes() == whole
    assert "made again" in caplog.text


def test_packaged_weights_have_their_hash(monkeypatch):
    entry = ssd_zoo.get_weight("SSDLite300_MobileNet_V2_Weights.BCCD_V1").value
    monkeypatch.setattr(entry, "sha256", "0" * 64)
    with pytest.raises(ValueError, match="SHA-256"):
        entry.get_state_dict()


def test_a_written_file_is_read_by_safetensors(tmp_path):
    state = {"b": torch.rand(2, 3), "a": torch.tensor(7), "c": torch.rand(3).half(), "e": torch.zeros(0, 4)}
    state |= {"d": torch.rand(3).bfloat16(), "f": torch.tensor([True, False, True]), "g": torch.rand(1).double()}
    write_safetensors(tmp_path / "x.safetensors", pack(state), {"told": "é"})
    for found in (load_file(tmp_path / "x.safetensors"), read_checkpoint(tmp_path / "x.safetensors")):
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
        assert {name: tensor.dtype for name, tensor in found.items()} == {k: v.dtype for k, v in state.items()}
    assert read_safetensors(tmp_path / "x.safetensors")["c"].dtype == torch.float32


def test_no_log_line_when_all_is_well(folder, caplog):
    with caplog.at_level(logging.INFO):
        ssd_zoo.from_pretrained(folder)
    assert not caplog.records
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def _file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _one(**entry):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}


REMOTE = {
    "not JSON": _file(b"{" * 9, bytes(8)),
    "a list": _file([1], bytes(8)),
    "no entry": _file({"a": 5}, bytes(8)),
    "unknown type": _file(_one(dtype="F99"), bytes(8)),
    "type by number": _file(_one(dtype=[1]), bytes(8)),
    "negative side": _file(_one(shape=[-2]), bytes(8)),
    "side as text": _file(_one(shape=["2"]), bytes(8)),
    "other shape": _file(_one(shape=[3]), bytes(8)),
    "offsets beyond": _file(_one(data_offsets=[8, 16]), bytes(8)),
    "offsets as text": _file(_one(data_offsets=["0", "8"]), bytes(8)),
    "one offset": _file(_one(data_offsets=[0]), bytes(8)),
    "huge offset": _file(_one(data_offsets=[0, 2**70]), bytes(8)),
    "overlap": _file({**_one(), "b": _one()["a"]}, bytes(8)),
    "cut off": _file(_one(), bytes(7)),
    "too long": _file(_one(), bytes(9)),
    "header cut off": _file(_one())[:20],
    "web page": b"<!DOCTYPE html><html>Not found</html>",
    "empty": b"",
    "deep": _file(b"[" * 10**5, bytes(8)),
    "name twice": _file(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":5}', bytes(4)),
    "metadata of numbers": _file({**_one(), "__metadata__": {"format": 5}}, bytes(8)),
}


@pytest.mark.parametrize("case", REMOTE)
def test_a_part_of_a_malformed_file_is_not_kept(case, tmp_path):
    class Remote(io.BytesIO):
        size = len(REMOTE[case])

    with pytest.raises(ValueError, match=r"model.safetensors of owner/x is cut off or not a safetensors file"):
        _copy_tensors(Remote(REMOTE[case]), tmp_path / "kept.safetensors", ("a",), what="owner/x", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layer",
    [
        {"callable": "torch.nn.modules.batchnorm.BatchNorm2d", "args": [], "keywords": {"device": "meta"}},
        {"callable": "torch.nn.modules.batchnorm.BatchNorm2d", "args": [], "keywords": {"dtype": "x"}},
        {"callable": "torchvision.ops.misc.MLP", "args": [], "keywords": {"hidden_channels": [16384] * 64}},
        {"callable": "torch.nn.modules.container.Sequential", "args": [], "keywords": {}},
    ],
)
def test_norms_of_a_config_are_single_layers_where_the_model_is(layer, folder):
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, arguments={**config["arguments"], "norm_layer": layer})
    with pytest.raises(ValueError, match="is not a norm or an activation|has no keyword '(device|dtype)'"):
        ssd_zoo.from_pretrained(folder)

"""How runs begin, continue, share a folder, and report; what their workers receive."""

import json
import pickle
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from labelled import PICTURES, colourful, draw, make_coco, make_voc, make_yolo
from launch import fork, join
from layouts import SHAPES
from train_tiny import build, data, train

from ssd_zoo.cli.main import main
from ssd_zoo.data import DetectionPresetEval, DetectionPresetTrain, clip_augmentation, open_dataset
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.training import fit, loop, ready
from ssd_zoo.training.batches import Place, SeededSamples
from ssd_zoo.training.run_state import lock_folder

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"batch_size": 8, "augmentation": "none", "tensorboard": False, "progress": False, "device": "cpu"}


@pytest.mark.slow
def test_resume_lengthens_a_run(tmp_path, capsys):
    train_data, _ = data(tmp_path / "data")
    run = {**SETTINGS, "output": tmp_path / "run", "progress": True}
    first = fit(build(), train_data, epochs=1, **run)
    capsys.readouterr()
    again = fit(build(), train_data, epochs=1, resume=True, **run)
    assert again.history == first.history
    assert "All 1 epochs are done. More epochs (--epochs N) continue the run." in capsys.readouterr().err
    longer = fit(build(), train_data, epochs=2, resume=True, **run)
    assert "The run began with 1 epochs and continues to 2" in capsys.readouterr().err
    assert [row["epoch"] for row in longer.history] == [1, 2]
    assert longer.history[0] == first.history[0]
    with pytest.raises(ValueError, match=r"began with epochs=2, so it can't go on with 1. Only more epochs"):
        fit(build(), train_data, epochs=1, resume=True, **run)
    with pytest.raises(ValueError, match=r"ssd-zoo train DATA --model .*last --output OTHER, or fit\(from_pretrained"):
        fit(build(), train_data, epochs=2, learning_rate=0.5, resume=True, **run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one step, whose AP was measured."""
    folder = tmp_path_factory.mktemp("finished")
    train(folder / "run", folder / "data", epochs=1, batch_size=11)
    return folder


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: (run / "checkpoint.pt").unlink(), "holds a run without its checkpoint.pt, so it can't be"),
        (lambda run: (run / "checkpoint.pt").write_bytes(b""), "checkpoint.pt is not a checkpoint of a training"),
        (lambda run: (run / "best").rename(run / "kept"), "can't be continued: There is no folder .*run/best"),
    ],
    ids=["no checkpoint", "an empty checkpoint", "no best model"],
)
def test_a_run_that_lacks_something_is_left_alone(finished, tmp_path, monkeypatch, capsys, damage, told):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run = Path("run")
    damage(run)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=f"{told}.* begin another run from its weights: --model run/last --output"):
        train(run, tmp_path / "data", epochs=1, batch_size=11, resume=True)
    monkeypatch.setattr("ssd_zoo.cli._prepare.open_labelled", lambda *_: pytest.fail("data was read"))
    assert main(["train", "data", "--output", "run", "--resume"]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_run_without_a_model_yet(finished, tmp_path, monkeypatch, capsys):
    """As after Ctrl-C before the first evaluation: there is a checkpoint, but neither `best` nor `last`."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("best", "last"):
        shutil.rmtree(f"run/{name}")
    state = torch.load("run/checkpoint.pt", weights_only=True)
    state["progress"]["history"] = []
    torch.save(state, "run/checkpoint.pt")
    with pytest.raises(ValueError, match=r"go on with 4\. Use the same setting, or another folder\.$"):
        train(Path("run"), tmp_path / "data", epochs=1, batch_size=4, resume=True)
    told = "The run in run has saved no model yet; its ssd-zoo train command goes on with --resume."
    for name in ("run", "run/best", "run/last"):
        assert main(["evaluate", "data", "--split", "val", "--model", name]) == 2
        assert told in capsys.readouterr().err
    Path("run/checkpoint.pt").write_bytes(b"of another project")
    assert main(["evaluate", "data", "--split", "val", "--model", "run/best"]) == 2
    assert told not in capsys.readouterr().err


def test_a_run_goes_on_with_the_same_data_and_model(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    train_data, val_data = data(tmp_path / "data")
    others = train_data.with_images([*reversed(train_data.images)])
    frozen, other_norm = build(), build(norm_layer=torch.nn.BatchNorm2d)
    frozen.head.requires_grad_(False)
    for model, images, validation, told in (
        (build(), others, val_data, "began with training data='sha256:"),
        (build(), train_data, val_data.with_images(val_data.images[:4]), "began with validation data='sha256:"),
        (build(), train_data, None, r"began with validation data=.*, so it can't go on with None"),
        (frozen, train_data, val_data, r"began with frozen=\[\], so it can't go on with \['head"),
        (other_norm, train_data, val_data, "began with norm_layer of the builder=None, so it can't"),
    ):
        with pytest.raises(ValueError, match=told):
            fit(
                model,
                images,
                validation=validation,
                output=tmp_path / "run",
                **{**SETTINGS, "batch_size": 11, "augmentation": "ssd", "optimizer": "sgd"},
                epochs=1,
                resume=True,
            )


def test_a_run_of_an_older_version_goes_on(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "run/checkpoint.pt"
    state = torch.load(file, weights_only=True)
    new = ("training data", "validation data", "frozen")
    kept = {k: v for k, v in state["settings"].items() if k not in new and not k.endswith(" of the builder")}
    torch.save({**state, "settings": kept}, file)
    assert len(train(tmp_path / "run", tmp_path / "data", epochs=2, batch_size=11, resume=True).history) == 2


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "_save", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            train(tmp_path / "run", tmp_path / "data", epochs=1, batch_size=11)
    (tmp_path / "run/metrics.csv").write_text("epoch\n1\n")
    assert len(train(tmp_path / "run", tmp_path / "data", epochs=1, batch_size=11, resume=True).history) == 1


def test_what_fit_leaves_out_is_logged(tmp_path, caplog):
    train_data, val_data = data(tmp_path / "data")
    first = train_data.images[0]
    bad = first._replace(objects=(first.objects[0]._replace(box=(5.0, 5, 5, 5)), *first.objects))
    broken = train_data.with_images([bad, *train_data.images[1:]])
    empty = val_data.with_images([entry._replace(objects=()) for entry in val_data.images])
    model = build(on_invalid_boxes="drop")
    fit(model, broken, validation=empty, output=tmp_path / "run", **{**SETTINGS, "batch_size": 11}, epochs=1)
    assert "Left out: 1 object, 0 images. The first problem: " in caplog.text


def test_two_trainings_of_one_folder(tmp_path):
    train_data, _ = data(tmp_path / "data")
    run = tmp_path / "run"
    run.mkdir()
    with lock_folder(run), pytest.raises(ValueError, match="Another training writes to .*run now"):
        fit(build(), train_data, output=run, epochs=1, **SETTINGS)
    assert not (run / "checkpoint.pt").exists()


def hold_lock(folder):
    with lock_folder(folder):
        (folder / "held").touch()
        time.sleep(600)


@pytest.mark.slow
def test_a_killed_training_leaves_no_lock(tmp_path):
    process = fork(hold_lock, tmp_path)
    while not (tmp_path / "held").exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(ValueError, match="Another training"), lock_folder(tmp_path):
        pass
    process.kill()
    assert join(process) == -signal.SIGKILL
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_progress_in_plain_lines_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    train(tmp_path / "run", tmp_path / "data", epochs=1, batch_size=4, progress=True, evaluate_every=9)
    lines = [line for line in capsys.readouterr().err.splitlines() if "left of the epoch" in line]
    assert len(lines) == 2, "of three steps; the last is the epoch's own line"
    assert lines[0].startswith("epoch 1/1  step 1/3  loss ")


def test_all_that_is_missing_is_told_at_once(tmp_path, monkeypatch, capsys):
    make_yolo(tmp_path / "data", "train")
    missing = ("tensorboard", "faster_coco_eval")
    find = ready.importlib.util.find_spec
    monkeypatch.setattr(ready.importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    monkeypatch.setattr("ssd_zoo.cli._prepare.open_labelled", lambda *_: pytest.fail("data was read"))
    (tmp_path / "file").write_text("")
    wrong = ["--model", "ssdlite300_mobilenet_v3", "--train-split", "tran", "--output", str(tmp_path / "file/run")]
    assert main(["train", str(tmp_path / "data"), *wrong]) == 2
    told = capsys.readouterr().err
    assert "The training can't begin:" in told
    assert "no split 'tran'; it has train" in told
    assert "ssdlite300_mobilenet_v3" in told
    assert "needs tensorboard: pip install" in told, "without a split nobody knows whether AP is measured"
    assert "file is a file, not a folder" in told
    # AP may be measured on a part that is held back.
    run = ["train", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    for fraction in ([], ["--val-fraction", ".2"]):
        assert main([*run, *fraction]) == 2
        assert "needs faster_coco_eval, tensorboard" in capsys.readouterr().err
    assert main([*run, "--val-fraction", "0"]) == 2
    assert "needs tensorboard: pip install" in capsys.readouterr().err
    make_yolo(tmp_path / "data", "val")
    assert main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--weights", "COCO_V9"]) == 2
    told = capsys.readouterr().err
    assert "needs faster_coco_eval, tensorboard" in told
    assert "ssdlite300_mobilenet_v2 has no weights 'COCO_V9'; it has 'COCO_TF_V1'" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("there", ["film.mp4", "frames"])
def test_clips_need_what_reads_their_files(tmp_path, monkeypatch, capsys, there):
    """A package that reads video files, if there are such; and COCO's metrics where a part is held back."""
    folder = tmp_path / "clips"
    folder.mkdir()
    if there == "film.mp4":
        (folder / there).write_bytes(b"")
    else:
        draw(colourful(1)[0], folder / there / "1.png")
    video = {"file": there, "objects": [{"frame": 0, "category": "cat", "box": [1, 2, 30, 40]}]}
    (folder / "clips.json").write_text(json.dumps({"categories": ["cat"], "videos": [video]}))
    lacking = {"av", "torchcodec", "faster_coco_eval", "tensorboard"}
    find = ready.importlib.util.find_spec
    for place in ("ssd_zoo.training.ready.importlib.util.find_spec", "ssd_zoo.data.video_layouts.find_spec"):
        monkeypatch.setattr(place, lambda name: None if name in lacking else find(name))
    monkeypatch.setattr("ssd_zoo.cli._prepare.open_labelled", lambda *_: pytest.fail("data was read"))
    run = ["train", str(folder), "--output", str(tmp_path / "run")]
    for fraction, lacks in (([], "tensorboard"), (["--val-fraction", ".2"], "faster_coco_eval, tensorboard")):
        assert main([*run, *fraction]) == 2
        told = capsys.readouterr().err
        assert f"needs {lacks}: pip install" in told
        assert ("Videos need PyAV or torchcodec" in told) == (there == "film.mp4")


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("name", ["model.pth", "frozen.pb", "net.tflite"])
def test_a_checkpoint_as_the_model(tmp_path, capsys, command, name):
    make_coco(tmp_path / "data")
    file = tmp_path / name
    file.write_bytes(b"weights")
    more = ["--output", str(tmp_path / "run")] if command == "train" else []
    assert main([command, str(tmp_path / "data"), "--model", str(file), *more]) == 2
    assert f"ssd-zoo convert {file} --output DIR" in capsys.readouterr().err


def test_a_folder_that_is_not_a_model(tmp_path, capsys):
    make_coco(tmp_path / "data")
    train(tmp_path / "run", tmp_path / "other", epochs=1, batch_size=11)
    again = ["--output", str(tmp_path / "again")]
    assert main(["train", str(tmp_path / "data"), "--model", str(tmp_path / "run"), *again]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'run'} has no config.json, so it is not a saved model. Did you mean " in told
    assert str(tmp_path / "run" / "best") in told
    assert main(["train", str(tmp_path / "data"), "--weights", str(tmp_path / "run"), *again]) == 2
    assert "so it is not a saved model. Did you mean " in capsys.readouterr().err
    assert main(["evaluate", "--annotations", str(tmp_path), "--results", str(tmp_path / "found.json")]) == 2
    assert f"{tmp_path} is a folder, but a file is needed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["old.pth", "old.safetensors", "old.tflite", "model.json"])
def test_a_folder_with_a_checkpoint_of_another_project(tmp_path, photo, capsys, name):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / name).write_bytes(b"weights")
    assert main(["detect", str(photo), "--model", str(tmp_path / "old")]) == 2
    assert f"first: ssd-zoo convert {tmp_path / 'old' / name} --output DIR." in capsys.readouterr().err


def test_the_report_is_told_once(tmp_path, capsys, caplog):
    make_coco(tmp_path / "data", "train", colourful(4))
    options = ["--epochs", "1", "--batch-size", "4", "--size", "64", "--no-tensorboard", "--device", "cpu"]
    options += ["--fit-default-boxes", "--augmentation", "none"]
    assert main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), *options]) == 0
    told = capsys.readouterr().err
    assert re.search(r"default boxes +fitted to the data +\d of 4 objects out of reach", told)
    assert "may reach more" not in told
    assert len([record for record in caplog.records if "COCO_TF_V1" in record.getMessage()]) <= 1
    assert "\n# run\n" in (tmp_path / "run/best/README.md").read_text()


@pytest.mark.parametrize(
    ("shape", "transforms"),
    [
        *((shape, None) for shape in SHAPES),
        *(
            ("coco_official", made)
            for made in (DetectionPresetTrain("ssd"), DetectionPresetEval(), clip_augmentation())
        ),
    ],
)
def test_what_workers_receive_can_be_pickled(tmp_path, shape, transforms):
    SHAPES[shape](tmp_path, "train", PICTURES)
    dataset = open_dataset(tmp_path).with_transforms(transforms)
    for received in (dataset, CachedDataset(dataset), SeededSamples(dataset, None, 0)):
        copy = pickle.loads(pickle.dumps(received))
        key = Place(0, 0, 0) if isinstance(received, SeededSamples) else 0
        torch.manual_seed(0)
        random.seed(0)
        expected = received[key][1]
        torch.manual_seed(0)
        random.seed(0)
        assert all(torch.equal(copy[key][1][name], expected[name]) for name in ("boxes", "labels"))


@pytest.mark.slow
def test_fit_with_spawned_workers(tmp_path):
    make_voc(tmp_path / "data", "train", colourful(8))
    make_voc(tmp_path / "data", "val", colourful(4))
    sets = [open_dataset(tmp_path / "data", split, categories=build().categories) for split in ("train", "val")]
    before = torch.multiprocessing.get_start_method(allow_none=True)
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        result = fit(build(), sets[0], validation=sets[1], output=tmp_path / "run", epochs=1, num_workers=1, **SETTINGS)
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
    assert "AP" in result.history[0]

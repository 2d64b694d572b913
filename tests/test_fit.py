"""Training learns, loses nothing when it is killed, and is the same on several processes."""

import csv
import importlib.util
import math
import os
import resource
import signal
import time
from functools import partial

import pytest
import torch
import train_tiny
from labelled import Picture, Thing, colourful, make_coco
from launch import finish, fork, free_port, join, start
from torch.utils.data import Subset
from torchvision.transforms.v2 import functional as F
from train_tiny import build, data, train

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
from ssd_zoo.training import evaluate, fit
from ssd_zoo.training.balance import count_positives
from ssd_zoo.training.batches import Place, Plan, SeededSamples, make_loader
from ssd_zoo.training.logs import describe_row
from ssd_zoo.training.optimizers import make_optimizer, make_schedule, synchronise_norms
from ssd_zoo.training.run_state import read_run_state, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_equal(state, other):
    assert state.keys() == other.keys()
    different = [name for name in state if not torch.equal(state[name], other[name])]
    assert not different


@pytest.mark.slow
def test_learns(tmp_path):
    make_coco(tmp_path / "data", "train", colourful(16))
    options = "--val-split train --size 64 --epochs 40 --batch-size 8 --optimizer adamw --learning-rate .003"
    options += " --augmentation none --box-loss giou --score-thresh .02 --nms-thresh .6"
    command = ["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), *options.split()]
    command += ["--evaluate-every", "20", "--quiet"]
    assert main(command) == 0
    run = tmp_path / "run"
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(1, 41)]
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert float(rows[-1]["AP50"]) > 0.5
    saved = ssd_zoo.from_pretrained(run / "best")
    assert (saved.score_thresh, saved.nms_thresh) == (0.02, 0.6)
    metrics = evaluate(saved, open_dataset(tmp_path / "data", "train")).metrics
    best = max(float(row["AP"]) for row in rows if row["AP"])
    assert metrics["AP"] == pytest.approx(best, abs=1e-4)
    assert f"| AP | {best:.4f}"[:10] in (run / "best/README.md").read_text()
    for file in ("curves.png", "pictures/00000.jpg", "last/model.safetensors", "checkpoint.pt"):
        assert (run / file).stat().st_size > 1000
    assert list((run / "tensorboard").iterdir())
    with pytest.raises(ValueError, match="holds a run; continue it by resume=True"):
        fit(build(), data(tmp_path / "other")[0], output=run)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    assert join(fork(train_tiny.main, folder / "run")) == 0
    return torch.load(folder / "run/final.pt")


def interrupt(process, run, number):
    """Waits for a new checkpoint, after that of the beginning, and sends the signal a moment later."""
    while not (run / "checkpoint.pt").exists() and process.is_alive():
        time.sleep(0.005)
    before = (run / "checkpoint.pt").stat().st_mtime_ns
    while process.is_alive():
        if (run / "checkpoint.pt").stat().st_mtime_ns != before:
            time.sleep(0.05)
            os.kill(process.pid, number)
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_and_resumed_is_as_not_killed(unbroken, tmp_path):
    run = tmp_path / "run"
    train = partial(train_tiny.main, run, resume=True, checkpoint_seconds=0)
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = fork(partial(train, num_workers=1))
        interrupt(process, run, number)
        assert join(process) == code
        steps = torch.load(run / "checkpoint.pt")["progress"]["step"]
        assert 0 < steps < 9
    assert join(fork(train)) == 0
    assert_equal(torch.load(run / "final.pt"), unbroken)
    with (run / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def accelerate_launch(run, **options):
    # It starts several processes for GPUs alone; that they train on the CPU is the script's choice.
    launcher = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
    return finish(start(run, "-m", "accelerate.commands.launch", *launcher, **options))


def two_machines(*runs, code=0, **options):
    """Started as torchrun starts a process on each of two machines; tests of clips have torchrun itself."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    log = runs[0].parent / "told"
    processes = [
        fork(partial(train_tiny.main, run, **options), log=log, **place, RANK=rank)
        for run, rank in zip(runs, "01", strict=True)
    ]
    told = [join(process) for process in processes], log.read_text()
    assert told[0] == [code, code], told
    return told[1]


# Batch norm sees its own part of a batch only, so it is frozen.
AS_ONE = {"batch_norm": "frozen", "epochs": 2, "ema_decay": 0, "optimizer": "sgd"}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return train(folder / "run", folder / "data", **AS_ONE)


def assert_close(weights, one):
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)
    # A hundred times the tolerance.
    weight = "head.cls_logits.0.1.weight"
    assert (one.model.state_dict()[weight] - build().state_dict()[weight]).abs().max() > 0.001


# Of one of pytest's processes, which trains `one` once.
beside_one = pytest.mark.xdist_group("one")


@beside_one
@pytest.mark.slow
def test_parts_train_as_one(one, tmp_path):
    assert_close(train(tmp_path / "parts", tmp_path / "data", **AS_ONE, accumulate=2).model.state_dict(), one)


@beside_one
@pytest.mark.slow
@pytest.mark.parametrize("launch", [accelerate_launch, lambda run, **options: two_machines(run, run, **options)])
def test_processes_train_as_one(launch, one, tmp_path):
    assert "trained by 2 processes" in launch(tmp_path / "two", **AS_ONE)
    assert_close(torch.load(tmp_path / "two/final.pt"), one)
    with (tmp_path / "two/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, one.history, strict=True):
        for name in ("loss", "validation_loss", "AP", "AR100", "VOC_AP50"):
            assert float(row[name]) == pytest.approx(expected[name], rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_processes_train_as_one_on_clips(tmp_path):
    options = {**AS_ONE, "of_clips": True, "augmentation": "light", "learning_rate": 0.2}
    one = train(tmp_path / "one", tmp_path / "data", **options)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finish(start(tmp_path / "two", *launcher, **options))
    assert_close(torch.load(tmp_path / "two/final.pt"), one)
    with (tmp_path / "two/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, one.history, strict=True):
        for name in ("loss", "validation_loss", "AP", "video_map@0.5"):
            assert float(row[name]) == pytest.approx(expected[name], rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_machines_that_share_no_folder(tmp_path):
    train(tmp_path / "mine", tmp_path / "data", **AS_ONE)
    told = two_machines(tmp_path / "mine", tmp_path / "other", code=1, **AS_ONE, resume=True)
    assert told.count("steps 6, 0") == 2


# At smaller sizes the extra layers reach maps of one cell. There oneDNN's gradient of a depthwise kernel of stride 2 in
# bfloat16 reads memory that was never written (torch 2.6 to 2.14): github.com/uxlfoundation/oneDNN/issues/5717.
@pytest.mark.slow
def test_half_precision_trains_nearly_the_same(tmp_path):
    # One after another in a process, as in a notebook.
    options = {"epochs": 1, "augmentation": "none", "size": 288, "learning_rate": 1e-4}
    plain, half = (
        train(tmp_path / kind, tmp_path / "data", mixed_precision=kind, **options) for kind in ("no", "bf16")
    )
    assert half.history[0]["loss"] != plain.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.03)
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("wrong", [{"mixed_precision": "fp16"}, {"batch_norm": "sync"}])
def test_what_a_cpu_has_not(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"fp16.*(needs a GPU|requires a)|'sync' needs GPUs; use 'frozen'"):
        train(tmp_path / "run", tmp_path / "data", **wrong)
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_finite_names_its_images(tmp_path):
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+ .*/data/images/p0\d\d.png, .*/p0"):
        train(tmp_path / "run", tmp_path / "data", learning_rate=1e20, warmup_steps=0, clip_norm=None)


@pytest.mark.slow
def test_resuming_something_else(tmp_path):
    train_data = data(tmp_path / "data")[0]
    settings = {"output": tmp_path / "run", "tensorboard": False, "progress": False, "device": "cpu"}
    fit(build(), train_data, epochs=1, batch_size=11, **settings)
    assert (tmp_path / "run/best/model.safetensors").exists()
    with pytest.raises(ValueError, match=r"began with batch_size=11, so it can't go on with 4"):
        fit(build(), train_data, epochs=1, batch_size=4, resume=True, **settings)
    with pytest.raises(ValueError, match=r"began with flip=True, so it can't go on with False"):
        fit(build(), train_data, epochs=1, batch_size=11, flip=False, resume=True, **settings)
    with pytest.raises(ValueError, match=r"began with flip_vertically=False, so it can't go on with True"):
        fit(build(), train_data, epochs=1, batch_size=11, flip_vertically=True, resume=True, **settings)
    # A run of an older version, which says nothing of flips, has flipped.
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    checkpoint["settings"]["flip"] = None
    torch.save(checkpoint, tmp_path / "run/checkpoint.pt")
    for flip in (None, True):
        fit(build(), train_data, epochs=1, batch_size=11, flip=flip, resume=True, **settings)
    with pytest.raises(ValueError, match=r"began with flip=True, so it can't go on with False"):
        fit(build(), train_data, epochs=1, batch_size=11, flip=False, resume=True, **settings)
    other_loss, other_model = (
        build(),
        ssd_zoo.ssdlite320_mobilenet_v3_large(weights_backbone=None, size=64, categories=train_data.categories),
    )
    other_loss.box_loss = "giou"
    for model, message in (
        (other_loss, "began with box_loss='smooth_l1', so it can't go on with 'giou'"),
        (build(size=96), r"began with size=\[64, 64\], so it can't go on with \[96, 96\]"),
        (other_model, "began with builder='ssdlite300_mobilenet_v2', so it can't go on with 'ssdlite320_mobilenet_v3"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(model, train_data, epochs=1, batch_size=11, resume=True, **settings)
    (tmp_path / "run/checkpoint.pt").unlink()
    with pytest.raises(ValueError, match="holds a run"):
        fit(build(), train_data, **settings)


def test_what_cannot_end_well_does_not_begin(tmp_path):
    train_data, val_data = data(tmp_path / "data")
    settings = {"tensorboard": False, "progress": False, "device": "cpu"}
    with pytest.raises(ValueError, match="evaluate_every counts epochs and must be at least 1, got 0"):
        fit(build(), train_data, output=tmp_path / "run", evaluate_every=0, **settings)
    with pytest.raises(ValueError, match="The validation data has no images"):
        fit(build(), train_data, output=tmp_path / "run", validation=Subset(val_data, []), **settings)
    nameless = build()
    nameless.recipe = None
    with pytest.raises(ValueError, match="No registered builder made this model"):
        fit(nameless, train_data, output=tmp_path / "run", **settings)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The run's folder .*file/run can't be made: .*file is a file, not a folder"):
        fit(build(), train_data, output=tmp_path / "file/run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_found_before_training(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faster_coco_eval" else find(name))
    with pytest.raises(ImportError, match="Training needs faster_coco_eval: pip install"):
        train(tmp_path / "run", tmp_path / "data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--clip-norm=-1", "a number from 0"),
        ("--learning-rate=nan", "a number from 0"),
        ("--weight-decay=inf", "a number from 0"),
        ("--ema-decay=1.5", "a number from 0 to 1"),
        ("--warmup-steps=-5", "a whole number from 0"),
        ("--seed=-1", "a whole number from 0"),
    ],
)
def test_numbers_that_make_no_sense(option, allowed, capsys):
    with pytest.raises(SystemExit):
        main(["train", "data", "--output", "run", option])
    name, _, value = option.partition("=")
    assert f"argument {name}: must be {allowed}, got '{value}'" in capsys.readouterr().err


def test_data_without_names_or_objects(tmp_path):
    train_data, val_data = data(tmp_path / "data")
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}
    nothing = [(image, {**empty, "image_id": i}) for i, (image, _) in enumerate(val_data)]
    settings = {"epochs": 1, "batch_size": 4, "tensorboard": False, "progress": False, "device": "cpu"}
    result = fit(build(), Subset(train_data, range(8)), output=tmp_path / "a", validation=nothing, **settings)
    assert math.isnan(result.best)
    assert "AP" not in describe_row(result.history[-1], 1)
    assert (tmp_path / "a/best/model.safetensors").exists()
    assert "Validation data" not in (tmp_path / "a/best/README.md").read_text()
    fit(build(), Subset(train_data, range(8)), output=tmp_path / "b", validation=Subset(val_data, [0, 1]), **settings)
    assert (tmp_path / "b/best/model.safetensors").exists()
    assert "Validation data" in (tmp_path / "b/best/README.md").read_text()


def test_boxes_of_another_format_are_an_error_before_they_are_pinned(tmp_path):
    image, target = data(tmp_path / "data")[0][0]
    wrong = {**target, "boxes": F.convert_bounding_box_format(target["boxes"], new_format="XYWH")}
    with pytest.raises(ValueError, match=r"targets\[0\]\['boxes'\] are in the format XYWH"):
        list(make_loader(SeededSamples([(image, wrong)], None, 0), Plan(1, 1, 1, 0), 0, 0))


def test_fit_leaves_out_what_the_command_leaves_out(tmp_path, caplog):
    """One object of 101 has no area; of eleven objects, one is too many."""
    good, bad = Thing(1, (4, 4, 40, 40)), Thing(1, (5, 5, 5, 9))
    make_coco(tmp_path / "many", "train", [Picture("one", (64, 64), (*[good] * 100, bad))])
    make_coco(tmp_path / "few", "train", [Picture("one", (64, 64), (*[good] * 10, bad))])
    many, few = (open_dataset(tmp_path / name) for name in ("many", "few"))
    settings = {"epochs": 1, "batch_size": 1, "tensorboard": False, "progress": False, "device": "cpu"}
    fit(build(), many, validation=many, output=tmp_path / "run", **settings)
    assert "Left out: 1 object, 0 images. The first problem: " in caplog.text
    with pytest.raises(ValueError, match=r"1 of its objects can't be used; .*\n.*instances_train.json.*has no area"):
        fit(build(), few, output=tmp_path / "next", **settings)
    model = build()
    model.on_invalid_boxes = "drop"
    fit(model, few, output=tmp_path / "next", **settings)


def test_synchronised_norms_keep_their_activations():
    model = ssd_zoo.ssdlite_timm("mobilenetv3_small_050", weights_backbone=None, size=64, num_classes=3).eval()
    batch = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model.forward_raw(batch)
        synchronised = synchronise_norms(model)
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in synchronised.modules())
        torch.testing.assert_close(synchronised.forward_raw(batch), before)


@pytest.mark.slow
def test_a_seed_is_all_of_a_run_by_command(tmp_path):
    data(tmp_path / "data")
    weights = []
    for name in ("a", "b"):
        torch.manual_seed(len(weights))
        options = f"train {tmp_path}/data --output {tmp_path}/{name} --size 64 --epochs 1 --batch-size 11 --quiet"
        assert main([*options.split(), "--device", "cpu", "--no-tensorboard"]) == 0
        weights.append(ssd_zoo.from_pretrained(tmp_path / name / "last").state_dict())
    assert_equal(*weights)


def test_a_lone_validation_split_is_not_trained_on(tmp_path, capsys):
    make_coco(tmp_path / "data", "val", colourful(2))
    assert main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "run")]) == 2
    assert "has the split val alone" in capsys.readouterr().err


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    file = tmp_path / "checkpoint.pt"
    write_checkpoint({"step": 1}, file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint.pt can't be written: File too large. The last good one stays"):
            write_checkpoint({"weights": torch.zeros(10_000)}, file)
        with pytest.raises(OSError, match=r"File too large: '.*run/model.safetensors'"):
            ssd_zoo.save_pretrained(build(), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["checkpoint.pt"]
    assert not list((tmp_path / "run").iterdir())


def test_a_changed_byte_of_a_checkpoint_is_seen(tmp_path):
    file = tmp_path / "checkpoint.pt"
    write_checkpoint({"settings": {}, "progress": {}, "model": torch.ones(10_000), "optimizer": {}}, file)
    assert read_run_state(file)["model"].sum() == 10_000
    whole = file.read_bytes()
    file.write_bytes(whole[:20_000] + bytes([whole[20_000] ^ 1]) + whole[20_001:])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
        read_run_state(file)


def test_every_process_takes_its_share_of_every_batch():
    plan = Plan(num_images=11, batch_size=4, epochs=2, seed=0)
    assert (plan.steps_per_epoch, plan.steps) == (3, 6)
    batches = [plan.batch(step) for step in range(6)]
    for epoch in (0, 1):
        places = [place for batch in batches[3 * epoch : 3 * epoch + 3] for place in batch]
        assert [place.position for place in places] == list(range(12))
        assert sorted(place.item for place in places[:11]) == list(range(11))
        assert places[11].item == places[0].item
    assert [place.item for place in batches[0]] != [place.item for place in batches[3]]
    shares = [list(Plan(11, 4, 2, 0, accumulate=2, rank=rank, world=2).shares(4)) for rank in (0, 1)]
    for step in (0, 1):
        parts = [part for first in (2 * step, 2 * step + 1) for share in shares for part in share[first]]
        assert parts == batches[4 + step]
    with pytest.raises(ValueError, match="2 processes × 3 parts must divide it; got 4"):
        Plan(11, 4, 2, 0, accumulate=3, world=2)


def test_augmentation_depends_on_the_place_alone(tmp_path):
    dataset = data(tmp_path)[0]
    from ssd_zoo.data import DetectionPresetTrain

    samples = SeededSamples(dataset, DetectionPresetTrain("ssd", size=(32, 32)), seed=3)
    torch.manual_seed(0)
    first, _ = samples[Place(0, 5, 2)]
    state = torch.random.get_rng_state()
    second, _ = samples[Place(0, 5, 2)]
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(first, samples[Place(1, 5, 2)][0])


def test_optimizer_spares_norms_and_biases():
    model = build()
    optimizer = make_optimizer(model, "sgd", learning_rate=0.1, weight_decay=0.01, backbone_scale=0.5)
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[parameter] = (group["weight_decay"], group["lr_scale"])
    for name, parameter in model.named_parameters():
        decay, scale = seen.pop(parameter)
        assert decay == (0.0 if "norm" in name or name.endswith("bias") else 0.01), name
        assert scale == (0.5 if name.startswith("backbone.") and "extra" not in name else 1.0), name
    assert not seen
    schedule = make_schedule(optimizer, "step", steps=90, warmup_steps=10)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}, "as they were"
    rates = []
    for step in (0, 5, 10, 59, 60, 79, 80):
        schedule.step_update(step)
        rates.append(next(group["lr"] for group in optimizer.param_groups if group["lr_scale"] == 1))
    assert rates == pytest.approx([1e-6, 0.05, 0.1, 0.1, 0.01, 0.01, 0.001], rel=1e-3)


def test_positives_are_those_of_the_loss(tmp_path):
    model = build()
    image, target = data(tmp_path)[0][0]
    # A box loss of one for each positive default box gives their number over itself.
    model.box_loss = lambda offsets, *_: torch.ones_like(offsets[..., 0])
    model.classification_loss = lambda logits, labels, _: (labels > 0).float()
    plain = {key: target[key].as_subclass(torch.Tensor) for key in ("boxes", "labels")}
    losses = model([image], [plain], return_losses=True)
    assert losses["classification"] == 1
    doubled = {key: value.repeat(*[2] + [1] * (value.ndim - 1)) for key, value in plain.items()}
    assert count_positives(model, [image], [plain]) == count_positives(model, [image], [doubled]) > 0

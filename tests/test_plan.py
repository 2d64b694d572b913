"""What a training without options chooses; expected values are worked out by hand from the rules in the docstrings."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from labelled import Picture, Thing, colourful, make_coco
from quick import quick
from train_tiny import build, data, train

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import DetectionPresetTrain, open_dataset
from ssd_zoo.training import budget, fit, loop, ready
from ssd_zoo.training.batches import Plan
from ssd_zoo.training.budget import Budget
from ssd_zoo.training.optimizers import make_schedule
from ssd_zoo.training.plan import (
    DataFacts,
    evaluation_interval,
    look_at,
    plan_finest_stride,
    plan_size,
    plan_table,
    plan_training,
    plan_validation,
)
from ssd_zoo.training.recipes import RECIPES
from ssd_zoo.training.run_state import read_run_state

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "every", "decay"),
    [
        (205, 8, 38, 7, 0.998),  # 26 steps an epoch; 68 √205 = 974 steps
        (10, 4, 100, 20, 0.998),  # 3 steps an epoch, 300 steps
        (16, 8, 150, 30, 0.998),  # 2 steps an epoch
        (160, 8, 44, 8, 0.998),  # 20 steps an epoch; 68 √160 = 860.1 steps
        (20_000, 8, 4, 1, 0.999),  # 2500 steps an epoch; 68 √20000 = 9617 steps
        (1, 4, 300, 60, 0.998),
    ],
)
def test_training_by_number_of_images(images, batch, epochs, every, decay):
    plan = plan_training(images)
    assert (plan.batch_size, plan.epochs, plan.evaluate_every) == (batch, epochs, every)
    assert plan.ema_decay == pytest.approx(decay)
    assert (plan.patience, plan.learning_rate) == (3, 0.001)


def test_what_is_given_is_kept():
    plan = plan_training(205, batch_size=16, epochs=7, ema_decay=0, evaluate_every=2, optimizer="sgd")
    assert (plan.batch_size, plan.epochs, plan.ema_decay, plan.evaluate_every) == (16, 7, 0, 2)
    assert (plan.patience, plan.learning_rate) == (0, 0.01), "the length was given"
    assert plan_training(205, epochs=7, patience=2).patience == 2
    assert plan_training(205, parts=3).batch_size == 9, "three processes share a batch"
    assert plan_training(205, parts=16).batch_size == 16


def test_the_papers_recipe():
    """Section 3.1 and the authors' solver for VOC07+12; 16,551 images are 5011 of VOC2007 and 11,540 of VOC2012."""
    paper = RECIPES["paper"]
    sgd = ("sgd", 1e-3, 0.9, 5e-4, 32)
    assert tuple(paper[k] for k in ("optimizer", "learning_rate", "momentum", "weight_decay", "batch_size")) == sgd
    assert (paper["augmentation"], paper["ema_decay"], paper["patience"]) == ("ssd", 0, 0)
    assert paper["epochs"] * math.ceil((5011 + 11_540) / 32) == pytest.approx(120_000, abs=519), "to a whole epoch"
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=paper["learning_rate"])
    options = {"steps": 120_000, "warmup_steps": 0, "milestones": paper["milestones"]}
    schedule = make_schedule(optimizer, paper["schedule"], **options)
    rates = []
    for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # References/detection: 8 processes of 4 images, 120 epochs, drops after 80 and 110.
        ("torchvision-ssd300", (8 * 4, 120, 0.002, 5e-4, "step", [80, 110])),
        # 8 processes of 24 images, 660 epochs.
        ("torchvision-ssdlite320", (8 * 24, 660, 0.15, 4e-5, "cosine", [])),
    ],
)
def test_torchvisions_recipes(name, expected):
    recipe = RECIPES[name]
    names = ("batch_size", "epochs", "learning_rate", "weight_decay", "schedule")
    drops = [round(recipe["epochs"] * share) for share in recipe["milestones"]]
    assert (*(recipe[key] for key in names), drops) == expected


@pytest.mark.parametrize("name", ["left arrow", "turn_Right", "arrowLeft", "b", "7", "RIGHT"])
def test_classes_that_a_mirror_changes_are_not_flipped(name):
    plan = plan_training(205, classes=["car", name])
    assert not plan.flip
    [line] = [choice.reason for choice in plan.choices if choice.name == "augmentation"]
    assert line == f"shifts, no flips; a mirror changes {name!r}; see --flip"
    assert plan_training(205, classes=["car", name], flip=True).flip


@pytest.mark.parametrize("name", ["car", "bright", "Copyright sign", "10", "人", "leftover"])
def test_other_classes_are_flipped(name):
    plan = plan_training(205, classes=[name])
    assert plan.flip
    assert not plan_training(205, classes=[name], flip=False).flip


def test_flips_are_told():
    texts = {
        flips: plan_training(205, flip=flips[0], flip_vertically=flips[1]).choices[4].reason
        for flips in ((True, False), (True, True), (False, True), (False, False))
    }
    assert texts == {
        (True, False): "shifts, flips left to right; upside down by --flip-vertically",
        (True, True): "shifts, flips left to right and upside down",
        (False, True): "shifts, flips upside down",
        (False, False): "shifts, no flips; upside down by --flip-vertically",
    }


def test_evaluations():
    assert [evaluation_interval(epochs) for epochs in (1, 4, 9, 10, 25, 100)] == [1, 1, 1, 2, 5, 20]
    assert [evaluation_interval(20, most) for most in (1, 2, 4)] == [20, 10, 5]
    assert [plan_validation(n) for n in (2, 59, 60, 160, 296, 20_000)] == [0, 0, 20, 24, 44, 1000]


@pytest.mark.parametrize(
    ("picture", "small", "typical", "size"),
    [
        ((480, 640), 0.0756, 0.184, (480, 640)),  # BCCD: 40 / .0756 = 529 = √(458 · 611), up to multiples of 32
        ((600, 600), 0.2, 0.4, (300, 300)),  # 40 / .2 = 200 and 96 / .4 = 240: the model's own
        ((400, 800), 0.15, 0.2, (352, 704)),  # 96 / .2 = 480 = √(339 · 679)
        ((800, 400), 0.15, 0.2, (704, 352)),
        ((640, 640), 0.0445, 0.0538, (576, 576)),  # DeepPCB: as large as is allowed, √(480 · 640) = 554
        ((480, 640), 0.001, 0.002, (480, 640)),
        ((100, 2000), 0.001, 0.002, (320, 960)),  # no flatter than 1:3; 554 = √(320 · 960)
        ((3000, 4000), 1.0, 1.0, (300, 300)),
    ],
)
def test_input(picture, small, typical, size):
    chosen, why = plan_size(DataFacts(picture, small, typical))
    assert chosen == size
    assert f"the median object {round(typical * math.sqrt(size[0] * size[1]))}" in why


@pytest.mark.parametrize(
    ("small", "size", "stride"),
    [
        (0.0756, (480, 640), 16),  # BCCD: 42 pixels
        (0.0445, (576, 576), 8),  # DeepPCB: 26 pixels
        (0.1, (320, 320), 16),  # 32 pixels
        (0.1, (300, 320), 8),  # 31 pixels
    ],
)
def test_finest_map(small, size, stride):
    assert (plan_finest_stride(DataFacts((480, 640), small, 0.3), size) or (16,))[0] == stride


@pytest.mark.parametrize("height", range(100, 2000, 50))
def test_the_largest_input(height):
    """480 × 640 pixels of the images' shape, whose sides are then rounded up."""
    (rows, columns), _ = plan_size(DataFacts((height, 640), small=0.001, typical=0.002))
    assert (rows % 32, columns % 32) == (0, 0)
    assert (rows - 32) * (columns - 32) < 480 * 640 <= 1.01 * rows * columns


def test_input_within_less_time():
    facts = DataFacts((480, 640), small=0.0756, typical=0.184)
    assert plan_size(facts, 96_000)[0] == (288, 384)  # √(96000 · 3 / 4) = 268, √(96000 · 4 / 3) = 358
    assert plan_size(facts, 90_000)[0] == (300, 300)


def test_facts_of_a_data_set(tmp_path):
    large = [Picture(f"l{i}", (100, 100), (Thing(1, (0.0, 0.0, 50.0, 50.0)),)) for i in range(90)]
    small = [Picture(f"s{i}", (100, 100), (Thing(2, (0.0, 0.0, 10.0, 10.0)),)) for i in range(3)]
    dataset = open_dataset(make_coco(tmp_path / "a", pictures=[*large, *small]))
    # Three objects are too few for a class of their own.
    assert look_at(dataset) == DataFacts((100, 100), pytest.approx(0.5), pytest.approx(0.5))
    small += [Picture(f"t{i}", (100, 100), (Thing(2, (0.0, 0.0, 20.0, 20.0)),)) for i in range(8)]
    (tmp_path / "a/images/l7.png").write_bytes(b"broken")
    facts = look_at(open_dataset(make_coco(tmp_path / "b", pictures=[*large, *small])))
    assert facts == DataFacts((100, 100), pytest.approx(0.2), pytest.approx(0.5)), "the median of the smaller class"
    empty = open_dataset(make_coco(tmp_path / "c", pictures=[Picture("e", (10, 10), ())]))
    assert look_at(empty) is None


def test_one_class_and_one_object(tmp_path):
    picture = Picture("p", (60, 80), (Thing(1, (0.0, 0.0, 30.0, 40.0)),))
    facts = look_at(open_dataset(make_coco(tmp_path, pictures=[picture])))
    assert facts == DataFacts((60, 80), pytest.approx(0.5), pytest.approx(0.5))
    assert plan_size(facts)[0] == (300, 300)


def test_a_plan_is_short():
    lines = plan_table(plan_training(205).choices).splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= 120
    assert " ".join(lines[0].split()) == "length 38 epochs, 988 steps at least 300 steps, more for more images"


def skip_evaluation(monkeypatch, ap):
    """Gives the AP of each evaluation, and writes no models, nor looks for them."""
    monkeypatch.setattr(ready, "check_run", lambda _: None)
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: SimpleNamespace(metrics={"AP": ap()}, losses={}))
    for name in ("_save", "_write_report"):
        monkeypatch.setattr(loop.Trainer, name, lambda *_: None)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("images", "step", "pause"), [(8, 1.0, 5.0), (200, 2.0, 10.0), (20_000, 0.5, 60.0)])
@pytest.mark.parametrize("slower", [1.0, 2.0, 0.5])
def test_a_budget_is_kept(images, step, pause, slower):
    """A training of 10 minutes on a machine that becomes slower or faster half-way."""
    clock = Clock()
    plan = Plan(images, 8, epochs=10**6, seed=0)
    chosen = Budget(600, evaluated=10, clock=clock)
    done, every, evaluated, totals = 0, 10**6, 0, []
    while done < plan.steps:
        seconds = step * (slower if clock.now > 400 else 1)
        clock.now += seconds
        done += 1
        if chosen.took_step(seconds):
            plan, every = chosen.plan(plan, done)
            totals.append(plan.steps)
        if done >= plan.steps or done % (plan.steps_per_epoch * every) == 0:
            clock.now += pause
            chosen.took_pause(pause)
            evaluated += 1
    assert 600 * 0.9 <= clock.now - 100 <= 600 * 1.1
    assert 1 <= evaluated <= 12
    assert plan.epochs == math.ceil(plan.steps / plan.steps_per_epoch)


@pytest.mark.slow
def test_fit_says_if_the_machine_became_slower(tmp_path, monkeypatch, capsys):
    clock = Clock()

    def tick():
        clock.now += 10 if clock.now < 300 else 30
        return clock.now

    skip_evaluation(monkeypatch, lambda: 0.1)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(budget.Budget.__init__, "__kwdefaults__", {**Budget.__init__.__kwdefaults__, "clock": clock})
    options = {"epochs": None, "evaluate_every": None, "checkpoint_seconds": 1e9, "minutes": 20, "patience": 0}
    train(tmp_path / "run", tmp_path / "data", **options, progress=True)
    told = capsys.readouterr().err
    [announced] = re.findall(r"(\d+) steps of .* s fit into 20 minutes", told)
    [(done, of)] = re.findall(r"Ended after (\d+) of (\d+) steps: the time was over\.", told)
    assert of == announced
    assert 0 < int(done) < int(of)


@pytest.mark.slow
def test_fit_ends_in_time_and_resumes(tmp_path, monkeypatch, capsys):
    """Each reading of the clock takes ten seconds of ten minutes."""
    clock = Clock()

    def tick():
        clock.now += 10
        return clock.now

    skip_evaluation(monkeypatch, lambda: 0.1)
    # Not in all modules: threads that earlier tests leave would move the clock.
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(budget.Budget.__init__, "__kwdefaults__", {**Budget.__init__.__kwdefaults__, "clock": clock})
    options = {"epochs": None, "evaluate_every": None, "checkpoint_seconds": 1e9, "minutes": 10, "patience": 0}
    result = train(tmp_path / "run", tmp_path / "data", **options)
    assert clock.now - 100 <= 660
    first, *rates = [row["learning_rate"] for row in result.history]
    assert 0.001 < first < rates[0], "a twentieth of the steps is a warm-up, also before their number is known"
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.002, "the cosine has come to its end"
    state = read_run_state(tmp_path / "run/checkpoint.pt")
    assert state["progress"]["planned"] == state["progress"]["step"] == result.history[-1]["step"]
    capsys.readouterr()
    again = train(tmp_path / "run", tmp_path / "data", resume=True, **options, progress=True)
    assert again.history == result.history
    told = capsys.readouterr().err
    assert re.search(r"minutes are over, \d+ steps. To train on, .*: --model \S*last --output OTHER", told), told
    with pytest.raises(ValueError, match=r"began with minutes=…. Continue it with the same keyword"):
        train(tmp_path / "run", tmp_path / "data", epochs=3, resume=True)
    with pytest.raises(ValueError, match="began with minutes=…"):
        train(tmp_path / "run", tmp_path / "data", epochs=None, resume=True)


def test_minutes_and_epochs(tmp_path, capsys):
    with pytest.raises(ValueError, match="epochs or minutes, not both; got 3 and 2"):
        train(tmp_path / "run", tmp_path / "data", minutes=2)
    with pytest.raises(ValueError, match="minutes must be more than 0, got 0"):
        train(tmp_path / "run", tmp_path / "data", epochs=None, minutes=0)
    for options in ("--minutes 2 --epochs 3", "--minutes 0"):
        assert main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), *options.split()]) == 2
        assert "give more than 0, and no --epochs with it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_ends_when_ap_stops_improving(tmp_path, monkeypatch, capsys):
    aps = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    skip_evaluation(monkeypatch, lambda: next(aps))
    options = {"epochs": 6, "batch_size": 11, "patience": 3, "progress": True}
    result = train(tmp_path / "run", tmp_path / "data", **options)
    assert [row["AP"] for row in result.history] == [0.1, 0.3, 0.2, 0.3, 0.25]
    assert result.best == 0.3
    assert "AP has not improved in the last 3 evaluations" in capsys.readouterr().err
    again = train(tmp_path / "run", tmp_path / "data", resume=True, **options)
    assert again.history == result.history
    longer = train(tmp_path / "run", tmp_path / "data", resume=True, **{**options, "patience": 0})
    assert len(longer.history) == 6


def test_of_models_that_find_nothing_the_latest_is_best(tmp_path, monkeypatch):
    aps, saved = iter([0.0, 0.0, 0.0, 0.0, 0.2, 0.1]), []
    skip_evaluation(monkeypatch, lambda: next(aps))
    monkeypatch.setattr(loop.Trainer, "_save", lambda _, evaluation, better: saved.append(better))
    result = train(tmp_path / "run", tmp_path / "data", epochs=6, batch_size=11, patience=3)
    assert result.best == 0.2, "it may have begun slowly, so it is not ended"
    assert saved == [True] * 5 + [False]


def test_fit_chooses_and_a_resumed_run_keeps_it(tmp_path, capsys, monkeypatch):
    dataset = data(tmp_path / "data")[0]
    settings = {"output": tmp_path / "run", "tensorboard": False, "device": "cpu", "augmentation": "none"}
    fit(build(), dataset, epochs=1, **settings)
    told = capsys.readouterr().err
    assert "batch size        4 " in told
    assert "evaluation        none" in told, "there are no data for it"
    kept = read_run_state(tmp_path / "run/checkpoint.pt")["settings"]
    assert {name: kept[name] for name in ("batch_size", "epochs", "ema_decay", "learning_rate", "optimizer")} == {
        "batch_size": 4, "epochs": 1, "ema_decay": 0.998, "learning_rate": 0.001, "optimizer": "adamw",
    }  # fmt: skip
    # A later version may choose otherwise.
    monkeypatch.setattr("ssd_zoo.training.plan._LEARNING_RATES", {"adamw": 0.001, "sgd": 0.5})
    monkeypatch.setattr("ssd_zoo.training.plan.round", lambda _: 3, raising=False)
    fit(build(), dataset, resume=True, **settings)
    assert read_run_state(tmp_path / "run/checkpoint.pt")["settings"] == kept


def run(tmp_path, *options):
    return main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--device", "cpu", *options])


@pytest.fixture
def small(monkeypatch):
    """Sizes that a test can train."""
    monkeypatch.setattr("ssd_zoo.cli._prepare.plan_size", lambda *_: ((64, 96), "small for a test"))


def test_the_plan_is_printed_and_nothing_is_trained(tmp_path, small, capsys):
    make_coco(tmp_path / "data", pictures=colourful(60))
    assert run(tmp_path, "--plan") == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) <= 15
    assert max(map(len, told)) <= 120
    expected = ("input 64 × 96 small for a test", "training split train 40 of 60 images", "validation 20 of 60 images")
    for line in (*expected, "length 87 epochs, 435 steps", "batch size 8 rate and steps were found with 8, on CPUs"):
        assert any(" ".join(row.split()).startswith(line) for row in told), line
    assert told[-2].split()[:2] == ["time", "about"]
    memory = told[-1].split()
    assert memory[:2] == ["memory", "about"]
    assert 0.2 < float(memory[2]) < 24, "GB"
    assert not (tmp_path / "run").exists()


def test_the_plan_tells_what_is_left_out(tmp_path, small, capsys):
    flat = Picture("flat", (64, 64), (Thing(1, (5, 5, 5, 9)), Thing(2, (4, 4, 40, 40))))
    make_coco(tmp_path / "data", "train", [*colourful(12), flat])
    make_coco(tmp_path / "data", "val", [flat._replace(name="other")])
    assert run(tmp_path, "--plan") == 2
    assert "1 of its objects can't be used" in capsys.readouterr().err
    assert run(tmp_path, "--plan", "--on-invalid", "drop") == 0
    told = capsys.readouterr()
    assert told.err.splitlines().count("left out: 1 object, 0 images") == 2
    rows = [" ".join(line.split()) for line in told.out.splitlines()]
    assert "training split train 13 images; left out: 1 object, 0 images" in rows
    assert "validation split val 1 image; left out: 1 object, 0 images" in rows


def test_left_and_right_are_trained_without_flips(tmp_path, small, capsys, monkeypatch):
    presets = []

    def preset(*args, **options):
        presets.append(DetectionPresetTrain(*args, **options))
        return presets[-1]

    monkeypatch.setattr("ssd_zoo.training.batches.DetectionPresetTrain", preset)
    make_coco(tmp_path / "data", pictures=colourful(4))
    file = tmp_path / "data/instances_train.json"
    file.write_text(file.read_text().replace('"cat"', '"turn left"'))
    assert run(tmp_path, "--epochs", "1", "--no-tensorboard") == 0
    assert "no flips; a mirror changes 'turn left'; see --flip" in capsys.readouterr().err
    assert read_run_state(tmp_path / "run/checkpoint.pt")["settings"]["flip"] is False
    [steps] = [str(made.transforms) for made in presets]
    assert "ColorJitter" in steps
    assert "Flip" not in steps
    assert run(tmp_path, "--resume", "--flip", "--epochs", "1", "--no-tensorboard") == 2
    assert "began with flip=False, so it can't go on with True" in capsys.readouterr().err


def test_the_plan_tells_the_steps_in_the_minutes(tmp_path, small, monkeypatch, capsys):
    from ssd_zoo.training.timing import Times

    make_coco(tmp_path / "data", pictures=colourful(60))
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(0.5, 0.1, 2_000_000_000))
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    assert run(tmp_path, "--plan", "--minutes", "2") == 0
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # 120 s less five evaluations of 20 images, in steps of half a second.
    assert told[-2:] == ["time 2 min about 220 steps of 0.50 s, measured",
                         "memory about 2.0 GB measured; --accumulate 2 needs less"]  # fmt: skip
    monkeypatch.setattr("os.getloadavg", lambda: (999.0, 0.0, 0.0), raising=False)
    assert run(tmp_path, "--plan") == 0
    told = capsys.readouterr().out
    assert re.search(r"0.50 s a step, measured; see --minutes; busy: load 999 on \d+ cores?\n", told)


def test_reach_is_told_once(tmp_path, small, capsys):
    """Objects out of reach of default boxes that are replaced are no news of the data."""
    make_coco(tmp_path / "data", pictures=colourful(60))
    assert run(tmp_path, "--plan") == 0
    told = capsys.readouterr()
    assert "no default box reaches" not in told.err, "also not of validation images, after the boxes are chosen"
    assert "out of reach" in told.out
    assert run(tmp_path, "--plan", "--no-fit-default-boxes") == 0
    told = capsys.readouterr()
    assert "no default box reaches" in told.err.split("validation data")[0]
    assert "out of reach" not in told.out


def test_classes_that_the_weights_know_are_told(tmp_path, small, capsys):
    told = "classes all known to the weights ssd-zoo evaluate DATA measures the detector without training"
    make_coco(tmp_path / "data", pictures=colourful(60))
    assert run(tmp_path, "--plan") == 0
    assert told in " ".join(capsys.readouterr().out.split())
    file = tmp_path / "data/instances_train.json"
    file.write_text(file.read_text().replace('"cat"', '"platelet"'))
    assert run(tmp_path, "--plan") == 0
    assert "all known to the weights" not in capsys.readouterr().out


def test_options_override_the_plan(tmp_path, small, capsys):
    make_coco(tmp_path / "data", pictures=colourful(60))
    options = "--size 64 --no-fit-default-boxes --box-loss smooth_l1 --val-fraction 0 --batch-size 30 --epochs 1"
    options += " --optimizer sgd --ema-decay 0 --augmentation none --no-tensorboard"
    assert run(tmp_path, *options.split()) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "input 64 × 64 given" in told
    assert "validation none" in told
    assert "default boxes fitted" not in told
    settings = read_run_state(tmp_path / "run/checkpoint.pt")["settings"]
    expected = {
        "size": [64, 64],
        "box_loss": "smooth_l1",
        "batch_size": 30,
        "epochs": 1,
        "ema_decay": 0,
        "num_images": 60,
    }
    expected |= {"optimizer": "sgd", "learning_rate": 0.01, "augmentation": "none"}
    assert {name: settings[name] for name in expected} == expected


FINER = ("", "finest map of stride 8: small objects get", 7)


@pytest.mark.parametrize(
    ("options", "told", "maps"),
    quick(FINER, of=[FINER, ("--finest-stride 16", "finest map of stride 16, given", 6)]),
)
def test_small_objects_get_a_finer_map(tmp_path, small, capsys, options, told, maps):
    make_coco(tmp_path / "data", pictures=colourful(4))
    assert run(tmp_path, "--epochs", "1", "--no-tensorboard", *options.split()) == 0
    assert told in " ".join(capsys.readouterr().err.split())
    saved = ssd_zoo.from_pretrained(tmp_path / "run/last")
    assert len(saved.default_box_generator.shapes) == maps
    assert main(["train", str(tmp_path / "data"), "--output", str(tmp_path / "next"), "--epochs", "1", "--model",
                 str(tmp_path / "run/last"), "--quiet", "--no-tensorboard"]) == 0  # fmt: skip
    assert len(ssd_zoo.from_pretrained(tmp_path / "next/last").default_box_generator.shapes) == maps


def test_a_high_threshold_of_scores_is_told(tmp_path, small, monkeypatch, capsys):
    from ssd_zoo.training.timing import Times

    make_coco(tmp_path / "data", pictures=colourful(4))
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(1.0, 0.1))
    assert run(tmp_path, "--plan", "--model", "ssdlite320_ultraface_slim", "--weights", "scratch") == 0
    assert "scores from 0.7 the model's, for detecting; AP counts all" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("order", quick(1, of=[1, -1]))
def test_a_recipe_gives_way_to_options(tmp_path, small, order):
    make_coco(tmp_path / "data", pictures=colourful(4))
    first, then = ["--recipe paper", "--epochs 1 --optimizer adamw --size 64 --no-tensorboard"][::order]
    assert run(tmp_path, *first.split(), *then.split()) == 0
    settings = read_run_state(tmp_path / "run/checkpoint.pt")["settings"]
    expected = {"batch_size": 32, "epochs": 1, "ema_decay": 0, "augmentation": "ssd", "optimizer": "adamw"}
    expected |= {"learning_rate": 0.001, "schedule": "step", "milestones": [80 / 120, 100 / 120]}
    assert {name: settings[name] for name in expected} == expected
    assert settings["box_loss"] == "smooth_l1"


def test_few_minutes_make_the_input_smaller(tmp_path, monkeypatch, capsys):
    from ssd_zoo.training.timing import Times

    make_coco(tmp_path / "data", pictures=colourful(20, (480, 640)))
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(1.0, 0.1))
    begun = []

    def begin(model, *_, choices, **__):
        begun.extend([model, choices])
        pytest.fail("begins")

    monkeypatch.setattr("ssd_zoo.cli.train.fit", begin)
    # Objects of 20 to 40 of 555 pixels need the largest input; 100 steps of a second are half of 200.
    with pytest.raises(pytest.fail.Exception, match="begins"):
        run(tmp_path, "--minutes", str(100 / 48))
    told = capsys.readouterr().err
    assert "fits the time" in told
    assert "reading 20 images of the training data …\n" in told
    assert "timing a few steps at 480 × 640 pixels …\n" in told
    assert begun[1][-1][:2] == ("time", "2.08333 minutes")
    assert re.fullmatch(r"given; \S+ of 2.08333 minutes went into looking at the data", begun[1][-1].reason)
    assert "too few steps for a finest map of stride 8" in told, "its predictors would start from nothing"
    assert (begun[0].size, len(begun[0].default_box_generator.shapes)) == ((352, 480), 6)


@pytest.mark.parametrize(("steps", "maps"), [(250, 6), (400, 7)])
def test_a_finer_map_needs_steps(tmp_path, monkeypatch, steps, maps):
    """The size is given, so it stays."""
    from ssd_zoo.training.timing import Times

    make_coco(tmp_path / "data", pictures=colourful(20, (480, 640)))
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(1.0, 0.1))
    begun = []
    monkeypatch.setattr("ssd_zoo.cli.train.fit", lambda model, *_, **__: begun.append(model) or pytest.fail("begins"))
    with pytest.raises(pytest.fail.Exception, match="begins"):
        run(tmp_path, "--minutes", str(steps / 48), "--size", "64")
    assert (begun[0].size, len(begun[0].default_box_generator.shapes)) == ((64, 64), maps)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_map_that_the_time_chose(tmp_path, monkeypatch):
    from ssd_zoo.training.timing import Times

    make_coco(tmp_path / "data", pictures=colourful(20, (480, 640)))
    monkeypatch.setattr("ssd_zoo.cli._prepare.time_training", lambda *_, **__: Times(1.0, 0.1))
    options = ["--minutes", "0.05", "--size", "64", "--no-tensorboard", "--quiet"]
    assert run(tmp_path, *options) == 0
    assert run(tmp_path, *options, "--resume") == 0
    assert len(ssd_zoo.from_pretrained(tmp_path / "run/last").default_box_generator.shapes) == 6


@pytest.mark.parametrize(("batch", "timed"), [(8, 2), (11, 3), (2, 2)])
def test_a_rough_timing_needs_little_memory(tmp_path, monkeypatch, batch, timed):
    from ssd_zoo.training import timing

    plans, load = [], timing.make_loader
    monkeypatch.setattr(timing, "make_loader", lambda samples, *rest: plans.append(rest[0]) or load(samples, *rest))
    clock = Clock()
    monkeypatch.setattr(timing.time, "monotonic", clock)
    monkeypatch.setattr(timing, "_detecting", lambda *_: 0.0)
    monkeypatch.setattr(timing, "to_device", lambda part, _: setattr(clock, "now", clock.now + len(part[0])) or part)
    times = timing.time_training(build(), data(tmp_path)[0], batch_size=batch, device="cpu", steps=1, rough=True)
    assert plans[0].batch_size == timed
    assert times.step == pytest.approx(batch), "a second for each image"


def test_timing_leaves_the_model_as_it_is(tmp_path):
    from ssd_zoo.training.timing import time_training

    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    times = time_training(model, data(tmp_path)[0], batch_size=2, device="cpu", steps=1)
    assert times.step > times.image > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

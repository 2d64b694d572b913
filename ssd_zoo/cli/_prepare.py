"""Prepare a training: open data, build the model, print the plan."""

import argparse
import inspect
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, cast

from ssd_zoo.cli._data import Data, classes_of, hold_back, open_labelled
from ssd_zoo.cli._models import DEFAULT_MODEL, build_model
from ssd_zoo.data import VideoDataset, fit_default_boxes, inspect_dataset, join_datasets, usable
from ssd_zoo.data.annotations import number_of
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.data.drop import left_out
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import load_report
from ssd_zoo.training.plan import (
    LEAST_STEPS,
    OWN_SIZE,
    SMALLEST_AREA,
    Choice,
    DataFacts,
    look_at,
    plan_finest_stride,
    plan_size,
    plan_table,
    plan_tile,
    plan_training,
)
from ssd_zoo.training.processes import process
from ssd_zoo.training.ready import check_norms
from ssd_zoo.training.recipes import RECIPES
from ssd_zoo.training.run_state import read_run_state
from ssd_zoo.training.timing import Times, busy, time_training

__all__ = ["Splits", "build_for", "fit_options", "open_sets", "prepared", "print_plan", "usable_part"]

Splits = dict[Path, str | None]
"""Splits by the folder or file of a data set; None for its only one."""

# With fewer steps than that, a smaller input is the better use of the time.
_LEAST_STEPS = 200
# Most evaluations within the minutes of a training.
_EVALUATIONS = 5
# Least score of detections that are shown by default.
_SHOWN = 0.5
_WHY_SCORES = "the model's, for detecting; AP counts all; see --score-thresh"
# Options that are arguments of builders.
_ASKED = ("backbone", "classification_loss", "score_thresh", "nms_thresh")


class _Built(TypedDict, total=False):
    size: tuple[int, int]
    box_loss: str
    tile: tuple[int, int] | None
    tile_overlap: float
    default_boxes: DefaultBoxGenerator
    finest_stride: int


def fit_options(args: argparse.Namespace, names: Sequence[str]) -> dict[str, object]:
    """Return the keywords of `fit` that the recipe and the options set."""
    given = {name: value for name, value in vars(args).items() if name in names}
    of_recipe = dict(RECIPES[args.recipe]) if args.recipe else {}
    if args.minutes:
        of_recipe.pop("epochs", None)
    return {**of_recipe, **given}


def open_sets(args: argparse.Namespace, of_train: Splits, of_val: Splits) -> tuple[Data, Data | None, Choice, Choice]:
    """Open training and validation data, with their lines of the plan.

    Validation may be a part of the training data.
    """
    train = _open_joined(args, of_train, classes_of(args))
    if of_val:
        validation = _open_joined(args, of_val, train.categories)
        both = _in_both(train, validation)
        where = "" if len(of_val) == len(of_train) else f" of {', '.join(map(str, of_val))}"
        why = f"{_counted(validation)}{where}"
        why += f", {both} of them trained on, too: AP says little" if both else ""
        return train, validation, _of_training(of_train, _counted(train)), Choice("validation", _named(of_val), why)
    whole = _counted(train)
    train, held_back = hold_back(train, args.val_fraction, args.seed)
    if held_back is None:
        without = Choice("validation", "none", "no split for it, so AP is not measured; see --val-fraction")
        return train, None, _of_training(of_train, whole), without
    asked = args.val_fraction
    why, way = ("no split for it", "--split val") if asked is None else ("given", f"--val-fraction {asked}")
    one = len(args.data) == 1 and args.train_split is None
    why += f"; evaluate {way} --seed {args.seed} measures them" if one else f", by seed {args.seed}"
    of_training = _of_training(of_train, f"{len(train)} of {whole}")
    return train, held_back, of_training, Choice("validation", f"{len(held_back)} of {whole}", why)


def _of_training(splits: Splits, number: str) -> Choice:
    return Choice("training", _named(splits), number)


def _named(splits: Splits) -> str:
    return ", ".join(dict.fromkeys(f"split {split}" for split in splits.values() if split)) or "data without splits"


def _counted(data: Data) -> str:
    return number_of(len(data), "video" if isinstance(data, VideoDataset) else "image")


def _open_joined(args: argparse.Namespace, of: Splits, categories: Sequence[str] | None) -> Data:
    if len(args.data) == 1:
        [(path, split)] = of.items()
        return open_labelled(args, path, split, categories)
    given = classes_of(args)
    return join_datasets([open_labelled(args, path, split, given) for path, split in of.items()], categories)


def _in_both(one: Data, other: Data) -> int:
    """Return the number of image files, links followed, that both data sets have; 0 if one holds videos."""
    if isinstance(one, VideoDataset) or isinstance(other, VideoDataset):
        return 0
    files = [{os.path.realpath(entry.file) for entry in dataset.images} for dataset in (one, other)]
    return len(files[0] & files[1])


def build_for(
    args: argparse.Namespace, train: Data, of_training: Choice, options: dict[str, object], talks: bool
) -> tuple[SSD, Data, list[Choice]]:
    """Build the model for the training data without its unusable objects.

    A saved model keeps its input, its default boxes and its box loss; so does any model with a recipe.
    """
    plans = args.recipe is None and not Path(args.model).exists()
    config: _Built = {}
    if args.box_loss or plans:
        config["box_loss"] = args.box_loss or "giou"
    looked = look_at(train) if plans and args.model == DEFAULT_MODEL else None
    facts, of_tiles = _settle_tiles(args, train, looked if args.size is None else None, config)
    why = "the model's own"
    if args.size is not None:
        config["size"], why = args.size, "given"
    elif facts is not None:
        config["size"], why = plan_size(facts)
        if begun := _begun(args):
            config["size"], why = cast("tuple[int, int]", tuple(cast("list[int]", begun["size"]))), "as the run began"
    finest = _settle_finest(args, looked, config)
    model = _build(args, train.categories, config)
    check_norms(model)
    if args.tile_overlap is not None and model.tile is None:
        raise ValueError("--overlap is of tiles: give --tile too.")
    fits = plans if args.fit_default_boxes is None else args.fit_default_boxes
    train, of_training = usable_part(train, of_training, args, talks, reached_by=None if fits else model)
    area = model.size[0] * model.size[1]
    # Few steps can use neither a large input nor a map whose predictors are new.
    finer = args.finest_stride is None and "finest_stride" in config
    if args.minutes and (finer or (facts is not None and area > SMALLEST_AREA)):
        steps = _steps_in_time(args, model, train, options)
        if facts is not None and area > SMALLEST_AREA and steps < _LEAST_STEPS:
            config["size"], why = plan_size(facts, max(SMALLEST_AREA, area * steps / _LEAST_STEPS))
            why = f"fits the time; {why}"
        if steps < LEAST_STEPS:
            finest = _settle_finest(args, looked, config, steps)
            model = _build_again(args, train.categories, config)
    kept = "" if plans else ", as in the saved model" if args.recipe is None else f", recipe {args.recipe}"
    choices = [
        Choice("model", args.model, f"box loss {config.get('box_loss', 'of the model')}{kept}{finest}"),
        Choice("input", " × ".join(map(str, model.size)), why),
        *([] if model.tile is None else [Choice("tiles", " × ".join(map(str, model.tile)), of_tiles)]),
        *(_known_classes(model) if plans else []),
        *([Choice("scores", f"from {model.score_thresh:g}", _WHY_SCORES)] if model.score_thresh > _SHOWN else []),
    ]
    if fits:
        fitted = fit_default_boxes(train, model)
        reached = f"{fitted.unreached_after} of {fitted.objects} objects out of reach; {fitted.unreached_before} before"
        if args.fit_default_boxes or fitted.unreached_after < fitted.unreached_before:
            config["default_boxes"] = fitted.default_boxes
            model = _build_again(args, train.categories, config)
            choices.append(Choice("default boxes", "fitted to the data", reached))
        else:
            choices.append(Choice("default boxes", "the model's", f"{fitted.unreached_before} objects out of reach"))
    return model, train, [*choices, of_training]


def _known_classes(model: SSD) -> list[Choice]:
    """Return a line of the plan if the weights know every class, because they may do without a training."""
    try:
        report = load_report(model)
    except ValueError:  # No weights were loaded.
        return []
    if set(report.classes) != set(model.categories):
        return []
    return [
        Choice("classes", "all known to the weights", "ssd-zoo evaluate DATA measures the detector without training")
    ]


def print_plan(
    model: SSD,
    train: Data | CachedDataset,
    validation: Data | None,
    args: argparse.Namespace,
    options: dict[str, object],
) -> None:
    """Print to stdout what `fit` would choose, and time and memory, measured by steps on a copy of the model."""
    names = inspect.signature(plan_training).parameters
    given = {name: value for name, value in options.items() if name in names}
    given |= {"classes": model.categories[1:], "validates": validation is not None}
    plan = plan_training(len(train), **given)  # type: ignore[arg-type]
    print(plan_table(plan.choices))
    load = busy()
    times = _times(args, model, train, {**options, "batch_size": plan.batch_size})
    evaluation = 0 if validation is None else times.image * len(validation)
    if args.minutes:
        steps = max(0, 60 * args.minutes - _EVALUATIONS * evaluation) / times.step
        last = [
            Choice("time", f"{args.minutes:g} min", f"about {steps:.0f} steps of {times.step:.2f} s, measured{load}")
        ]
    else:
        steps = plan.epochs * math.ceil(len(train) / plan.batch_size)
        seconds = steps * times.step + math.ceil(plan.epochs / plan.evaluate_every) * evaluation
        why = f"{times.step:.2f} s a step, measured; see --minutes{load}"
        last = [Choice("time", f"about {_duration(seconds)}", why)]
    if times.memory:
        last.append(Choice("memory", f"about {times.memory / 1e9:.1f} GB", "measured; --accumulate 2 needs less"))
    print(plan_table(last))


def usable_part(
    dataset: Data, choice: Choice, args: argparse.Namespace, talks: bool, *, reached_by: SSD | None = None
) -> tuple[Data, Choice]:
    """Inspect a data set and print the report; return its usable part, and the plan's line about it."""
    if talks:
        print(f"reading {_counted(dataset)} of the {choice.name} data …", file=sys.stderr)
    report = inspect_dataset(dataset, reached_by)
    if talks:
        print(f"{choice.name} data: {report}", file=sys.stderr)
    kept = usable(dataset, report, args.on_invalid)
    if not (lost := left_out(dataset, report)):
        return kept, choice
    if talks and args.on_invalid == "drop":
        print(f"left out: {lost}", file=sys.stderr)
    return kept, choice._replace(reason=f"{choice.reason}; left out: {lost}")


def prepared(dataset: Data, args: argparse.Namespace, *, training: bool) -> Data | CachedDataset:
    """Cache a data set if asked for; cut videos into clips."""
    caches = args.cache or args.cache_longest is not None
    if isinstance(dataset, VideoDataset):
        videos = dataset.in_memory(args.cache_longest if training else None) if caches else dataset
        return videos.clips(args.clip_length, [args.clip_stride]) if training else videos.pieces(args.clip_length)
    return CachedDataset(dataset, args.cache_longest if training else None) if caches else dataset


def _build(args: argparse.Namespace, categories: Sequence[str], config: _Built) -> SSD:
    asked = {name: getattr(args, name) for name in _ASKED}
    asked = {name: value for name, value in asked.items() if value is not None}
    return build_model(args.model, args.weights, categories=categories, progress=args.progress, **asked, **config)


def _build_again(args: argparse.Namespace, categories: Sequence[str], config: _Built) -> SSD:
    with _silent():  # What was loaded is in the log already.
        return _build(args, categories, config)


@contextmanager
def _silent() -> Iterator[None]:
    log = logging.getLogger("ssd_zoo")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _settle_tiles(
    args: argparse.Namespace, train: Data, facts: DataFacts | None, config: _Built
) -> tuple[DataFacts | None, str]:
    """Set the tiles that are asked for, or that small objects need, in a config.

    Returns:
        The facts from which the input's size is to be chosen, or None if the tiles decide on it; and the reason for the
        tiles.
    """
    if args.tile_overlap is not None:
        config["tile_overlap"] = args.tile_overlap
    if args.tile and isinstance(train, VideoDataset):
        raise ValueError(f"--tile is for images, and {args.data[0]} holds videos. Leave it out.")
    if args.tile is not None:
        config["tile"] = args.tile or None
        return facts.in_tiles(args.tile) if facts and args.tile else facts, "given"
    planned = None if facts is None else plan_tile(facts)
    if planned is None:
        return facts, "as in the saved model"
    config["tile"] = planned[0]
    return None, f"{planned[1]}; --tile 0 takes pictures whole"


def _settle_finest(args: argparse.Namespace, facts: DataFacts | None, config: _Built, steps: float = math.inf) -> str:
    """Set the finest map's stride in a config, as asked for or needed; return words for the plan.

    A training with time for few `steps` gets no finer map. The words are empty if the map is the model's own.
    """
    if args.finest_stride is not None:
        config["finest_stride"] = args.finest_stride
        return f"; finest map of stride {args.finest_stride}, given"
    tile = config.get("tile")
    shown = facts.in_tiles(tile) if facts and tile else facts
    config.pop("finest_stride", None)
    planned = None if shown is None else plan_finest_stride(shown, config.get("size", OWN_SIZE))
    if planned is None or _begun(args).get("finest_stride of the builder") == 16:
        return ""
    if steps < LEAST_STEPS:
        return f"; too few steps for a finest map of stride {planned[0]}"
    config["finest_stride"] = planned[0]
    return f"; finest map of stride {planned[0]}: {planned[1]}"


def _begun(args: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the resumed run, which count in place of new choices; empty if none is resumed."""
    file = args.output / "checkpoint.pt"
    return read_run_state(file)["settings"] if args.resume and file.exists() else {}


def _steps_in_time(args: argparse.Namespace, model: SSD, train: Data, options: dict[str, object]) -> float:
    """Return the number of steps that `--minutes` allow; infinite for a resumed run or several processes."""
    # Several processes would measure several times, but have to choose one model.
    if _begun(args) or process()[1] > 1:
        return math.inf
    batch_size = plan_training(len(train), batch_size=cast("int | None", options.get("batch_size"))).batch_size
    rough = {**options, "batch_size": batch_size, "rough": True}
    return 0.8 * 60 * args.minutes / _times(args, model, train, rough).step


def _times(args: argparse.Namespace, model: SSD, train: Data | CachedDataset, options: dict[str, object]) -> Times:
    if args.progress:
        print(f"timing a few steps at {' × '.join(map(str, model.size))} pixels …", file=sys.stderr)
    names = inspect.signature(time_training).parameters
    given = {name: value for name, value in options.items() if name in names}
    return time_training(model, train, **given)  # type: ignore[arg-type]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{max(1, minutes)} min" if minutes < 100 else f"{seconds / 3600:.1f} h"

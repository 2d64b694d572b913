"""Find everything that a training lacks before it reads data."""

import importlib.util
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from torch import nn
from torch.utils.data import Dataset

from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.drop import left_out, usable
from ssd_zoo.data.inspection import inspect_dataset
from ssd_zoo.data.video_datasets import AnnotatedVideo, VideoDataset
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.folded import folded_norms
from ssd_zoo.training.batches import Sample
from ssd_zoo.training.run_state import check_run
from ssd_zoo.weights.files import check_folder

__all__ = ["BatchNormMode", "check_call", "check_norms", "obstacles", "raise_together", "usable_data"]

_log = logging.getLogger("ssd_zoo")
D = TypeVar("D", bound=Dataset[Sample] | None)
BatchNormMode = Literal["train", "frozen", "sync"]


def obstacles(output: Path, *, resume: bool, evaluates: bool, tensorboard: bool) -> list[Exception]:
    """Return an error for each thing that a run lacks; none is raised.

    These may be packages, the right to write, a free folder, or a whole checkpoint.

    Args:
        output: The run's folder.
        resume: Whether a run in it may continue.
        evaluates: Whether the run measures AP.
        tensorboard: Whether it writes events for TensorBoard.
    """
    needed = ["accelerate", "matplotlib", *(["faster_coco_eval"] if evaluates else [])]
    needed += ["tensorboard"] if tensorboard else []
    found: list[Exception] = []
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        without = "" if missing != ["tensorboard"] else ", or train with tensorboard=False (--no-tensorboard)"
        found.append(ImportError(f'Training needs {", ".join(missing)}: pip install "ssd_zoo[train]"{without}.'))
    try:
        check_folder(output, "The run's folder")
    except OSError as error:
        found.append(error)
    if any((output / name).exists() for name in ("checkpoint.pt", "best", "last", "metrics.csv")):
        try:
            if not resume:
                raise ValueError(f"{output} holds a run; continue it by resume=True (--resume), or use another folder.")
            check_run(output)
        except ValueError as error:
            found.append(error)
    return found


def raise_together(errors: Sequence[Exception]) -> None:
    """Raise one error with the messages of all; do nothing for none.

    It has the first one's type.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise type(errors[0])("\n  ".join(["The training can't begin:", *map(str, errors)]))


def check_norms(model: nn.Module) -> None:
    """Raise ValueError if a model's norms are folded into convolutions."""
    if folded := folded_norms(model):
        raise ValueError(
            f"{len(folded)} norms of the model were folded away at its source, {folded[0]!r} among them. To train "
            "it, restore them by ssd_zoo.restore_norms(model, images) or ssd-zoo convert FILE --images DIR, where FILE "
            "is the source or the saved model."
        )


def check_call(
    model: object,
    dataset: Dataset[Sample],
    validation: Dataset[Sample] | None,
    batch_norm: str,
    evaluate_every: int | None,
    epochs: int | None,
    minutes: float | None,
) -> None:
    """Check arguments of `fit`.

    Raises:
        TypeError: If the model is not an SSD.
        ValueError: If the model can't be trained, a name or number is not allowed, validation data are empty, both
            `epochs` and `minutes` are given, or classes differ.
    """
    if not isinstance(model, SSD):
        raise TypeError(f"fit trains an SSD, got {type(model).__name__}; examples/finetune.py trains any detector.")
    check_norms(model)
    if batch_norm not in get_args(BatchNormMode):
        raise ValueError(
            f"batch_norm must be one of {', '.join(map(repr, get_args(BatchNormMode)))}, got {batch_norm!r}."
        )
    if evaluate_every is not None and evaluate_every < 1:
        raise ValueError(f"evaluate_every counts epochs and must be at least 1, got {evaluate_every}.")
    if epochs is not None and minutes is not None:
        raise ValueError(f"The length of a training is epochs or minutes, not both; got {epochs} and {minutes:g}.")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be more than 0, got {minutes:g}.")
    if validation is not None and len(validation) == 0:  # type: ignore[arg-type]
        raise ValueError("The validation data has no images. Give other data, or None to measure no AP.")
    for data in (dataset, validation):
        categories = getattr(data, "categories", None)
        # The background bears many names.
        if categories is not None and list(categories)[1:] != model.categories[1:]:
            raise ValueError(
                f"The model's categories are {model.categories}, the data set's {list(categories)}. Build the model "
                "with categories=dataset.categories, or open the data set with categories=model.categories."
            )


def usable_data(model: SSD, data: D, *, may_be_empty: bool = False) -> D:
    """Leave unusable objects out of a data set, as `usable` does.

    Data sets other than those of `open_dataset` and `open_video_dataset` are returned unchanged.

    Args:
        model: The model, which may ask to drop all that is invalid.
        data: The data set.
        may_be_empty: Whether it may have no object at all; it is then returned unchanged.

    Raises:
        ValueError: As `usable`: too many objects can't be used and the model does not drop them, or none is left.
    """
    # A subclass may do more than its labels say.
    if type(data) not in (DetectionDataset, VideoDataset):
        return data
    once, videos = cast("DetectionDataset | VideoDataset", data), list[AnnotatedVideo]()
    if isinstance(once, VideoDataset):
        # Of clips, each video is listed many times.
        videos = once.videos
        once = once.with_videos(list({id(video): video for video in videos}.values()))
    report, drops = inspect_dataset(once, read_images=False), model.on_invalid_boxes == "drop"
    if may_be_empty and not any(report.objects.values()):
        return data
    kept = usable(once, report, "drop" if drops else None)
    if isinstance(kept, VideoDataset) and isinstance(once, VideoDataset):
        known = (id(video) for i, video in enumerate(once.videos) if i not in report.bad_images)
        new = dict(zip(known, kept.videos, strict=True))
        kept = kept.with_videos([new[id(video)] for video in videos if id(video) in new])
    if drops and report.problems:
        _log.warning("Left out: %s. The first problem: %s", left_out(once, report), report.problems[0])
    return cast(D, kept)

"""Checks of a detector's settings."""

import math
import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.detector.ranges import check_choice, check_count, check_fraction
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.tiles import check_tiles

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = ["check_normalization", "checked_setting"]


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {reprlib.repr(value)}.")


def _check_loss(name: str, value: object, allowed: Sequence[str]) -> None:
    if not callable(value):
        check_choice(name, value, allowed)


def _check_share(name: str, value: object) -> None:
    check_fraction(name, value, "a share")
    if value == 0:
        raise ValueError(f"{name} must lie above 0 and not above 1, got 0.")


def _check_threshold(name: str, value: object) -> None:
    Thresholds(**{name: value})  # type: ignore[arg-type]


_CHECKS: dict[str, Callable[[str, object], object]] = {
    **dict.fromkeys(Thresholds.__annotations__, _check_threshold),
    "score_function": partial(check_choice, allowed=("softmax", "sigmoid")),
    "on_invalid_boxes": partial(check_choice, allowed=("raise", "drop")),
    "classification_loss": partial(_check_loss, allowed=get_args(ClassificationLossName)),
    "box_loss": partial(_check_loss, allowed=get_args(BoxLossName)),
    "iou_thresh": partial(check_fraction, what="an IoU"),
    "positive_fraction": _check_share,
    "min_negatives": partial(check_count, least=0),
    "tile_overlap": lambda _, value: check_tiles(None, value),
    "antialias": _check_flag,
    "clip_before_nms": _check_flag,
}


def checked_setting(model: "SSD", name: str, value: object) -> object:
    """Check a detector's setting; return the value to store.

    For example, a size of 300 becomes (300, 300). Attributes that are not settings pass unchanged.

    Raises:
        TypeError: If the value has the wrong type.
        ValueError: If it is out of range, or the existing layers were built for another size, number of channels or
            number of classes.
    """
    if name == "size":
        value = parse_size(value)
    if name in _CHECKS:
        _CHECKS[name](name, value)
        # A number of numpy, or a tensor of one.
        return value.item() if hasattr(value, "item") else value
    if name == "tile":
        return check_tiles(value, 0)
    if name == "categories":
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"categories must be a list of names, got {reprlib.repr(value)}.")
        if len(value) < 2:
            raise ValueError(f"A detector needs the background and at least one more category, got {value}.")
        if _is_built(model) and len(value) != len(model.categories):
            names = f"{len(value)} names"
            raise ValueError(f"The head has {len(model.categories)} classes, got {names}. Build a model with them.")
        return list(value)
    if name in ("size", "in_chans") and _is_built(model) and value != (present := getattr(model, name)):
        raise ValueError(f"The model was built with {name}={present}. Build another with {name}={value}.")
    return value


def _is_built(model: "SSD") -> bool:
    return "head" in model._modules


def check_normalization(image_mean: Sequence[float], image_std: Sequence[float], in_chans: int) -> None:
    """Raise ValueError unless mean and deviation have one valid number per channel.

    Deviations must be above 0.
    """
    for name, values in (("image_mean", image_mean), ("image_std", image_std)):
        if len(values) != in_chans:
            raise ValueError(f"{name} has {len(values)} numbers, but images have {in_chans} channels.")
        if not all(map(math.isfinite, values)) or (name == "image_std" and min(values) <= 0):
            above = " above 0" if name == "image_std" else ""
            raise ValueError(f"{name} must have finite numbers{above}, got {list(values)}.")

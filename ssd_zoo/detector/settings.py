"""Checks of a detector's settings."""

import math
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName
from ssd_zoo.detector.values import check_choice, check_count, check_fraction

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = ["check_settings"]


def check_settings(model: "SSD", image_mean: Sequence[float], image_std: Sequence[float]) -> None:
    """Check a detector's settings before its layers are built."""
    choices = {
        "score_function": ("softmax", "sigmoid"),
        "on_invalid_boxes": ("raise", "drop"),
        "classification_loss": get_args(ClassificationLossName),
        "box_loss": get_args(BoxLossName),
    }
    for name, allowed in choices.items():
        value = getattr(model, name)
        if not (name.endswith("_loss") and callable(value)):
            check_choice(name, value, allowed)
    check_fraction("iou_thresh", model.iou_thresh, "an IoU")
    check_fraction("positive_fraction", model.positive_fraction, "a share")
    if model.positive_fraction == 0:
        raise ValueError("positive_fraction must lie above 0 and not above 1, got 0.")
    check_count("min_negatives", model.min_negatives, least=0)
    for name in ("antialias", "clip_before_nms"):
        if not isinstance(value := getattr(model, name), bool):
            raise TypeError(f"{name} must be True or False, got {reprlib.repr(value)}.")
    model._thresholds()
    if len(model.categories) < 2:
        raise ValueError(f"A detector needs the background and at least one more category, got {model.categories}.")
    for name, values in (("image_mean", image_mean), ("image_std", image_std)):
        if len(values) != model.in_chans:
            raise ValueError(f"{name} has {len(values)} numbers, but images have {model.in_chans} channels.")
        if not all(map(math.isfinite, values)) or (name == "image_std" and min(values) <= 0):
            above = " above 0" if name == "image_std" else ""
            raise ValueError(f"{name} must have finite numbers{above}, got {list(values)}.")

"""Checks of a detector's settings."""

from collections.abc import Sequence
from typing import get_args

from ssd_zoo.detector.box_losses import BoxLossName
from ssd_zoo.detector.loss import ClassificationLossName

__all__ = ["check_choice", "check_count", "check_fraction", "check_settings"]


def check_settings(
    categories: Sequence[str],
    in_chans: int,
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    score_function: str,
    iou_thresh: float,
    classification_loss: object,
    box_loss: object,
    positive_fraction: float,
    min_negatives: int,
    on_invalid_boxes: str,
) -> None:
    """Check the settings of `SSD`, except the thresholds of post-processing."""
    check_choice("score_function", score_function, ("softmax", "sigmoid"))
    check_choice("on_invalid_boxes", on_invalid_boxes, ("raise", "drop"))
    if not callable(classification_loss):
        check_choice("classification_loss", classification_loss, get_args(ClassificationLossName))
    if not callable(box_loss):
        check_choice("box_loss", box_loss, get_args(BoxLossName))
    check_fraction("iou_thresh", iou_thresh, "an IoU")
    check_fraction("positive_fraction", positive_fraction, "a share")
    if positive_fraction == 0:
        raise ValueError(f"positive_fraction must lie above 0 and not above 1, got {positive_fraction}.")
    check_count("min_negatives", min_negatives, least=0)
    if len(categories) < 2:
        raise ValueError(f"A detector needs the background and at least one more category, got {list(categories)}.")
    for name, values in (("image_mean", image_mean), ("image_std", image_std)):
        if len(values) != in_chans:
            raise ValueError(f"{name} has {len(values)} numbers, but images have {in_chans} channels.")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError if a value is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def check_fraction(name: str, value: object, what: str) -> None:
    """Raise an error if a value is not a number between 0 and 1.

    Args:
        name: Name of the setting.
        value: Its value.
        what: What the number is, such as "an IoU".

    Raises:
        TypeError: If the value is not a number.
        ValueError: If it does not lie between 0 and 1, or is NaN.
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {what} and must be a number between 0 and 1, got {value!r}.")
    number = float(value)
    if not 0 <= number <= 1:
        way_out = f" For {number:g} percent, pass {number / 100:g}." if 1 < number <= 100 else ""
        raise ValueError(f"{name} is {what} and must lie between 0 and 1, got {value}.{way_out}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Raise TypeError if a value is not an integer, and ValueError if it is below the least one."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if value.__index__() < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")

"""Which settings of an exported detector can be changed."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from ssd_zoo.deploy.description import Description
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.detector.tiles import check_tiles

__all__ = ["check_file_setting"]

# What the file computes, or was trained for.
_FIXED = ("size", "in_chans", "antialias", "image_mean", "image_std", "score_function")


def check_file_setting(described: Description, file: Path, name: str, value: object) -> None:
    """Check that an exported detector's attribute can have a value.

    The value must have an effect, or be the file's own.

    Args:
        described: What the file says about its detector.
        file: The file, for messages.
        name: Name of an attribute.
        value: Its new value.

    Raises:
        TypeError: If the value of a threshold has the wrong type.
        ValueError: If the setting would have no effect, or is out of range.
    """
    if name in Thresholds.__annotations__:
        _check_threshold(described, file, name, value)
    elif name in _FIXED and value != (own := getattr(described, name)):
        raise ValueError(f"{file} has {name}={own}. Export a model with {name}={value}.")
    elif name == "tile":
        check_tiles(value, 0)
    elif name == "categories" and len(cast(list[str], value)) != (classes := len(described.categories)):
        raise ValueError(f"{file} has {classes} classes with the background, got {len(cast(list[str], value))} names.")


def _check_threshold(described: Description, file: Path, name: str, value: object) -> None:
    own = getattr(described.thresholds, name)
    replace(described.thresholds, **{name: value})  # type: ignore[arg-type]
    if described.nms == "outside" or value == own:
        return
    if name != "score_thresh":
        raise ValueError(
            f"NMS is inside {file}, so its {name} stays {own}. Export the model with {name}={value}, or with "
            "nms='outside' (--nms outside)."
        )
    if cast(float, value) < own:
        raise ValueError(
            f"{file} drops scores up to {own} by itself, so score_thresh can't be {value}. Export the "
            "model with a lower score_thresh (--score-thresh), or with nms='outside' (--nms outside)."
        )

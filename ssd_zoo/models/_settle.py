"""What a builder was asked for, settled before anything is built."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from statistics import fmean
from typing import Any, TypeVar

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.models._weights import COCO_CATEGORIES, WeightsEnum

__all__ = [
    "settle_default_boxes",
    "settle_keywords",
    "settle_pixels",
    "settle_size",
    "settle_trainable_layers",
    "settle_weights",
]

W = TypeVar("W", bound=WeightsEnum)
B = TypeVar("B", bound=WeightsEnum)


def settle_weights(
    weights_enum: type[W],
    weights: W | str | None,
    backbone_enum: type[B],
    weights_backbone: B | str | None,
    num_classes: int | None,
    categories: Sequence[str] | None,
) -> tuple[W | None, B | None, list[str]]:
    """Settles what a builder was asked for.

    Weights of the whole detector make those of the backbone needless. Categories are the ones given, or those of the
    weights, or names made up for `num_classes`, or COCO's.

    Returns:
        The weights, the backbone's weights and the categories, background first.

    Raises:
        ValueError: If `num_classes` and `categories` contradict each other.
    """
    weights = weights_enum.verify(weights)
    backbone = backbone_enum.verify(weights_backbone) if weights is None else None
    known = COCO_CATEGORIES if weights is None else weights.meta["categories"]
    if categories is not None:
        # COCO's ids that are not in use all bear the same name.
        names = [name for name in categories if name != "N/A"]
        if isinstance(categories, str) or len(set(names)) < len(names):
            raise ValueError(f"categories must be a list of different names, background first, got {categories!r}.")
        if num_classes not in (None, len(categories)):
            raise ValueError(
                f"num_classes={num_classes}, but there are {len(categories)} categories (background counted)."
            )
        return weights, backbone, list(categories)
    if num_classes is None or (weights is not None and num_classes == len(known)):
        return weights, backbone, list(known)
    if num_classes < 2:
        raise ValueError(f"num_classes counts the background, so it is at least 2, got {num_classes}.")
    return weights, backbone, ["background", *(f"class {i}" for i in range(1, num_classes))]


def settle_trainable_layers(asked: int | None, *, pretrained: bool, default: int, most: int) -> int:
    """Settles how many of a backbone's stages train. Without pretrained weights all do, as in torchvision.

    Raises:
        ValueError: If the number asked for is not between 0 and `most`.
    """
    if asked is not None and not 0 <= asked <= most:
        raise ValueError(f"trainable_backbone_layers must lie between 0 and {most}, got {asked}.")
    if not pretrained:
        if asked not in (None, most):
            warnings.warn(
                f"trainable_backbone_layers={asked} has no effect without pretrained weights: all layers train.",
                stacklevel=3,
            )
        return most
    return default if asked is None else asked


def settle_size(
    size: int | tuple[int, int] | None, weights: WeightsEnum | None = None, default: int | None = None
) -> tuple[int, int]:
    """Gives (height, width); an int is the side of a square, and None the weights' own size, or else the default.

    Raises:
        ValueError: If it is none of these, or not positive.
    """
    if size is None:
        size = default if weights is None else weights.settings.get("size", default)
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size must be a positive int or (height, width), got {size!r}.")
    return sides


def settle_default_boxes(
    asked: DefaultBoxGenerator | None, weights: WeightsEnum | None, **recipe: Any
) -> DefaultBoxGenerator:
    """Gives the default boxes asked for, or else the recipe's, changed to what the weights were trained with.

    Weights of a saved model tell all of them, which serve as long as the model has as many feature maps.

    Args:
        asked: The builder's argument.
        weights: Weights of the whole detector.
        **recipe: Keywords of `DefaultBoxGenerator`.
    """
    if asked is not None:
        return asked
    of_weights = {} if weights is None else weights.settings.get("default_boxes", {})
    if "shapes" not in of_weights:
        return DefaultBoxGenerator(**{**recipe, **of_weights})
    of_recipe = DefaultBoxGenerator(**recipe)
    if len(of_weights["shapes"]) != len(of_recipe.shapes):
        return of_recipe
    return replace(of_recipe, **of_weights)


def settle_keywords(
    asked: Mapping[str, Any], weights: WeightsEnum | None, in_chans: int, **recipe: Any
) -> dict[str, Any]:
    """Gives the keywords of `SSD`: those asked for, or else those of the weights, or else the recipe's.

    Args:
        asked: The builder's own keyword arguments.
        weights: Weights of the detector, or of its backbone.
        in_chans: Channels of an image; see `settle_pixels`.
        **recipe: Keywords of `SSD`, `image_mean` and `image_std` among them, for RGB.

    Raises:
        ValueError: If there is no channel.
    """
    of_weights = {} if weights is None else weights.settings
    # Whoever builds the network settles the others.
    of_detector = {name: value for name, value in of_weights.items() if name not in ("size", "default_boxes")}
    defaults = {**recipe, **of_detector}
    pixels = settle_pixels(in_chans, mean=defaults["image_mean"], std=defaults["image_std"])
    return {**defaults, **pixels, **asked}


def settle_pixels(
    in_chans: int, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> dict[str, tuple[float, ...]]:
    """Gives `SSD` the normalisation of RGB weights for images of other channels.

    One channel gets the average of the three; more than three go round: red, green, blue, red, …

    Raises:
        ValueError: If there is no channel.
    """
    if in_chans < 1:
        raise ValueError(f"in_chans must be at least 1, got {in_chans}.")
    if in_chans == 1:
        return {"image_mean": (fmean(mean),), "image_std": (fmean(std),)}
    return {"image_mean": tuple(islice(cycle(mean), in_chans)), "image_std": tuple(islice(cycle(std), in_chans))}

"""Steps that builders share: settle the arguments, and finish the detector."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import fmean
from typing import Any

from torch import nn
from typing_extensions import Unpack

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import NormLayer
from ssd_zoo.models.load import load, load_backbone
from ssd_zoo.models.options import DEFAULTS, Options, Settings
from ssd_zoo.weights.categories import COCO_CATEGORIES, is_background, match_classes
from ssd_zoo.weights.entries import WeightsEnum

__all__ = ["Settled", "finish", "settle"]

_log = logging.getLogger("ssd_zoo")


@dataclass(frozen=True)
class Settled:
    """A builder's arguments, complete and consistent.

    Attributes:
        weights: Weights of the whole detector.
        weights_backbone: Weights of the backbone; None where `weights` is given.
        categories: Names of the classes, background first.
        size: (height, width) of the input.
        in_chans: Channels of an image.
        norm_layer: Makes a norm from a number of channels; None for the norm of the recipe.
        options: The caller's options, completed by the defaults.
    """

    weights: WeightsEnum | None
    weights_backbone: WeightsEnum | None
    categories: list[str]
    size: tuple[int, int]
    in_chans: int
    norm_layer: NormLayer | None
    options: Options

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the weights that differ from the recipe's."""
        weights = self.weights or self.weights_backbone
        return {} if weights is None else weights.settings

    def trainable(self, stages: int, *, default: int | None = None, pretrained: bool = False) -> int:
        """Return how many stages of a backbone train.

        Without pretrained weights all stages train, as in torchvision.

        Args:
            stages: Number of stages.
            default: Number that trains by default; None for all.
            pretrained: Whether the backbone has weights without an entry here, such as timm's.

        Raises:
            ValueError: If `trainable_backbone_layers` is not between 0 and `stages`.
        """
        asked = self.options["trainable_backbone_layers"]
        if asked is not None and not 0 <= asked <= stages:
            raise ValueError(f"trainable_backbone_layers must lie between 0 and {stages}, got {asked}.")
        if pretrained or self.weights is not None or self.weights_backbone is not None:
            return next(number for number in (asked, default, stages) if number is not None)
        if asked not in (None, stages):
            warn_caller(
                f"trainable_backbone_layers={asked} has no effect without pretrained weights: all layers train."
            )
        return stages

    def default_boxes(self, **recipe: Any) -> DefaultBoxGenerator:
        """Return the caller's default boxes, or the recipe's with the weights' changes.

        A saved model holds the shapes of all default boxes. They are used where the model to build has the same number
        of feature maps.

        Args:
            **recipe: Keywords of `DefaultBoxGenerator`.
        """
        asked = self.options["default_boxes"]
        if asked is not None:
            return asked
        of_weights = self.settings.get("default_boxes", {})
        if "shapes" not in of_weights:
            return DefaultBoxGenerator(**{**recipe, **of_weights})
        of_recipe = DefaultBoxGenerator(**recipe)
        if len(of_weights["shapes"]) != len(of_recipe.shapes):
            return of_recipe
        return replace(of_recipe, **of_weights)


def settle(
    weights_enum: type[WeightsEnum],
    weights: WeightsEnum | str | None,
    backbone_enum: type[WeightsEnum],
    weights_backbone: WeightsEnum | str | None,
    options: Options,
    *,
    size: int | tuple[int, int],
) -> Settled:
    """Settle a builder's arguments before the model is built.

    Weights of the backbone are left out where weights of the whole detector are given.

    Args:
        weights_enum: Enum of the builder's weights; `WeightsEnum` itself where it has none.
        weights: The builder's argument of that name.
        backbone_enum: Enum of the backbone's weights.
        weights_backbone: The builder's argument of that name.
        options: The builder's keywords.
        size: Side, or (height, width), of the input where neither options nor weights give one.

    Raises:
        TypeError: If weights belong to another builder.
        ValueError: If weights are unknown, options contradict each other, or the first category is a class.
    """
    complete: Options = {**DEFAULTS, **options}
    if complete["in_chans"] < 1:
        raise ValueError(f"in_chans must be at least 1, got {complete['in_chans']}.")
    of_detector = weights_enum.verify(weights)
    of_weights = {} if of_detector is None else of_detector.settings
    return Settled(
        weights=of_detector,
        weights_backbone=backbone_enum.verify(weights_backbone) if of_detector is None else None,
        categories=_settle_categories(complete["num_classes"], complete["categories"], of_detector),
        size=parse_size(next(given for given in (complete["size"], of_weights.get("size"), size) if given is not None)),
        in_chans=complete["in_chans"],
        norm_layer=complete["norm_layer"],
        options=complete,
    )


def finish(asked: Settled, backbone: nn.Module, default_boxes: DefaultBoxGenerator, **recipe: Unpack[Settings]) -> SSD:
    """Build the detector and load its weights.

    Args:
        asked: The builder's arguments.
        backbone: Module that returns the feature maps.
        default_boxes: The default boxes of these maps.
        **recipe: Keywords of `SSD`, with mean and standard deviation of RGB. Settings of the weights override them,
            and the caller's options override both.

    Raises:
        ValueError: If the size is too small for the backbone, or the weights belong to another model.
    """
    of_weights = {name: value for name, value in asked.settings.items() if name not in ("size", "default_boxes")}
    own = {name: value for name, value in asked.options.items() if name in Settings.__annotations__}
    settings = {**recipe, **of_weights}
    pixels = {name: _repeat(settings[name], asked.in_chans) for name in ("image_mean", "image_std")}
    arguments: dict[str, Any] = {**settings, **pixels, **own, "in_chans": asked.in_chans}
    model = SSD(backbone, default_boxes, asked.size, asked.categories, **arguments)
    load_backbone(model, asked.weights_backbone, progress=asked.options["progress"])
    return load(model, asked.weights, progress=asked.options["progress"])


def _settle_categories(
    num_classes: int | None, categories: Sequence[str] | None, weights: WeightsEnum | None
) -> list[str]:
    """Return the names of the classes, background first.

    Without `categories` they are those of the weights, or COCO's without weights. If `num_classes` asks for another
    number, they are made up.
    """
    known = COCO_CATEGORIES if weights is None else weights.meta["categories"]
    if categories is not None:
        # COCO's unused ids share this name.
        names = [name for name in categories if name != "N/A"]
        if isinstance(categories, str) or len(set(names)) < len(names):
            raise ValueError(f"categories must be a list of different names, background first, got {categories!r}.")
        if num_classes not in (None, len(categories)):
            raise ValueError(
                f"num_classes={num_classes}, but there are {len(categories)} categories (background counted)."
            )
        _check_background(categories, known)
        return list(categories)
    if num_classes is None or (weights is not None and num_classes == len(known)):
        return list(known)
    if num_classes < 2:
        raise ValueError(f"num_classes counts the background, so it is at least 2, got {num_classes}.")
    return ["background", *(f"class {i}" for i in range(1, num_classes))]


def _check_background(categories: Sequence[str], known: Sequence[str]) -> None:
    """Check that the first category is a background; warn in doubt.

    Args:
        categories: The caller's names.
        known: Names of the weights; the first of them is a background.

    Raises:
        ValueError: If the first name is a known class, or a later one is a background's.
    """
    first = categories[0] if categories else "background"
    if is_background(first) or first == known[0]:
        return
    is_class = any(match_classes(["background", first], names) for names in (known, COCO_CATEGORIES))
    if is_class or any(map(is_background, categories)):
        raise ValueError(
            f"The first of the categories is the background, got {first!r}: write categories=['background', …]."
        )
    _log.warning("The first category, %r, is the background. If it is a class, put 'background' before it.", first)


def _repeat(rgb: Sequence[float], in_chans: int) -> tuple[float, ...]:
    """Return numbers of RGB channels for another number of channels.

    One channel gets the mean of the three. For other numbers red, green and blue repeat in turn.
    """
    return (fmean(rgb),) if in_chans == 1 else tuple(islice(cycle(rgb), in_chans))

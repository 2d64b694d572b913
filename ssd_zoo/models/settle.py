"""Steps that builders share: settle the arguments, and finish the detector."""

import inspect
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean
from typing import Any, SupportsIndex, cast

from torch import Tensor, nn
from typing_extensions import Unpack

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import NormLayer
from ssd_zoo.models.loading import load_backbone, load_weights
from ssd_zoo.models.options import DEFAULTS, Options, Settings
from ssd_zoo.weights.categories import COCO_CATEGORIES, check_names
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.settings import BoxSettings

__all__ = ["Settled", "finish", "settle"]


@dataclass(frozen=True)
class Settled:
    """A builder's arguments, complete and consistent.

    Attributes:
        weights: Weights of the whole detector; None for none.
        weights_backbone: Weights of the backbone; None for none, and where `weights` is given.
        categories: Names of the classes, background first.
        size: (height, width) of the input in pixels.
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
    def settings(self) -> Mapping[str, object]:
        """Settings of `SSD` that the chosen weights bring."""
        weights = self.weights or self.weights_backbone
        return {} if weights is None else weights.settings

    def trainable(self, stages: int, *, default: int | None = None, pretrained: bool = False) -> int:
        """Return the number of a backbone's stages that train.

        Without pretrained weights all stages train, as in torchvision; asking for fewer is warned of.

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

    def default_boxes(self, **recipe: Unpack[BoxSettings]) -> DefaultBoxGenerator:
        """Return the caller's default boxes, or the recipe's with the weights' changes.

        A saved model holds the shapes of all default boxes. They are used where the model to build has the same number
        of feature maps.

        Args:
            **recipe: Keywords of `DefaultBoxGenerator`, whose errors pass.
        """
        asked = self.options["default_boxes"]
        if asked is not None:
            return asked
        of_weights = cast(BoxSettings, self.settings.get("default_boxes", {}))
        if "shapes" not in of_weights:
            merged: BoxSettings = {**recipe, **of_weights}
            return DefaultBoxGenerator(**merged)
        of_recipe = DefaultBoxGenerator(**recipe)
        if len(of_weights["shapes"]) != len(of_recipe.shapes):
            return of_recipe
        others: BoxSettings = {"steps": of_recipe.steps, "offsets": of_recipe.offsets, "clip": of_recipe.clip}
        merged = {**others, **of_weights}
        return DefaultBoxGenerator(**merged)


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
        TypeError: If weights belong to another builder, or an option has the wrong type.
        ValueError: If weights are unknown, an option is out of range, options contradict each other, or the first
            category is not the background.
    """
    complete: Options = {**DEFAULTS, **options}
    _check_numbers(complete)
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
        **recipe: Keywords of `SSD`; mean and standard deviation are of RGB. Settings of the weights override them,
            and the caller's options override both.

    Raises:
        ValueError: If the size is too small for the backbone, or the weights belong to another model.
    """
    of_weights = {name: value for name, value in asked.settings.items() if name not in ("size", "default_boxes")}
    own = {name: value for name, value in asked.options.items() if name in Settings.__annotations__}
    of_ssd = inspect.signature(SSD).parameters
    settings = {**{name: of_ssd[name].default for name in ("image_mean", "image_std")}, **recipe, **of_weights}
    pixels = {name: _repeat(settings[name], asked.in_chans) for name in ("image_mean", "image_std")}
    arguments: dict[str, Any] = {**settings, **pixels, **own, "in_chans": asked.in_chans}
    model = SSD(backbone, default_boxes, asked.size, asked.categories, **arguments)
    load_backbone(model, asked.weights_backbone, progress=asked.options["progress"])
    return load_weights(model, asked.weights, asked.options)


def _check_numbers(options: Options) -> None:
    """Check the numbers and flags among the options, before anything is built.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If a number is too small or too large.
    """
    whole_numbers = {name: options[name] for name in ("num_classes", "in_chans", "trainable_backbone_layers")}
    for name, value in whole_numbers.items():
        may_be_none = value is None and name != "in_chans"
        tensor = isinstance(value, Tensor) and value.ndim > 0
        if not may_be_none and (isinstance(value, bool) or tensor or not isinstance(value, SupportsIndex)):
            raise TypeError(f"{name} must be a whole number, got {reprlib.repr(value)}.")
    num_classes, in_chans = options["num_classes"], options["in_chans"]
    if num_classes is not None and not 2 <= num_classes <= 10**6:
        raise ValueError(
            f"num_classes counts the background, so it is at least 2 and at most {10**6}, got {num_classes}."
        )
    if not 1 <= in_chans <= 10**4:
        raise ValueError(f"in_chans must be at least 1 and at most {10**4}, got {in_chans}.")
    norm_layer, default_boxes = options["norm_layer"], options["default_boxes"]
    if norm_layer is not None and (not callable(norm_layer) or isinstance(norm_layer, nn.Module)):
        raise TypeError(
            "norm_layer must be a class or function that makes a norm from a number of channels, such as "
            f"torch.nn.BatchNorm2d, got {reprlib.repr(norm_layer)}."
        )
    if default_boxes is not None and not isinstance(default_boxes, DefaultBoxGenerator):
        raise TypeError(f"default_boxes must be a DefaultBoxGenerator, got {reprlib.repr(default_boxes)}.")


def _settle_categories(
    num_classes: int | None, categories: Sequence[str] | None, weights: WeightsEnum | None
) -> list[str]:
    """Return the names of the classes, background first.

    Without `categories` they are those of the weights, or COCO's without weights. If `num_classes` asks for another
    number, they are made up.
    """
    known = COCO_CATEGORIES if weights is None else weights.meta["categories"]
    if categories is not None:
        names = check_names(categories)
        if num_classes not in (None, len(names)):
            raise ValueError(f"num_classes={num_classes}, but there are {len(names)} categories (background counted).")
        return names
    if num_classes is None or (weights is not None and num_classes == len(known)):
        return check_names(known)
    return ["background", *(f"class {i}" for i in range(1, num_classes))]


def _repeat(rgb: Sequence[float], in_chans: int) -> tuple[float, ...]:
    """Convert one number per RGB channel to another number of channels.

    One channel gets the mean of the three. For other numbers red, green and blue repeat in turn.
    """
    return (fmean(rgb),) if in_chans == 1 else tuple(islice(cycle(rgb), in_chans))

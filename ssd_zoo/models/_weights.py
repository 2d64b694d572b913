"""Weights entries, and what builders do with them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor, nn

from ssd_zoo.detector.ssd import SSD

__all__ = [
    "COCO_CATEGORIES",
    "Weights",
    "WeightsEnum",
    "detection_transforms",
    "load",
    "load_backbone",
    "set_weights_reader",
    "settle_trainable_layers",
    "settle_weights",
]

COCO_CATEGORIES: list[str] = torchvision.models.detection.SSD300_VGG16_Weights.COCO_V1.meta["categories"]
"""The 91 names of COCO's category ids, background first; ten of the ids are unused ("N/A")."""


def detection_transforms() -> Callable[[Any], Tensor]:
    """Gives what turns an image (PIL, array or tensor) into the tensor `(C, H, W)`, 0 to 1, that a model takes."""
    from torchvision.transforms import v2

    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])


@dataclass(eq=False)
class Weights(torchvision.models.Weights):
    """One set of weights: where it lies, how to feed it, and what is known of it.

    Args:
        url: An address, or `package:FILE` for a file that ships with ssd_zoo.
        transforms: Makes the preprocessing.
        meta: `categories`, `num_params`, `licence`, `origin`, `recipe`, and `metrics`: per data set its figures, each
            with `source`, either `"published"` or `"measured"`.
        layout: Whose names the file's tensors have: a converter's name, or None for our own.
    """

    layout: str | None = None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


WeightsReader = Callable[[Weights, bool], dict[str, Tensor]]
_reader: list[WeightsReader] = []


def set_weights_reader(reader: WeightsReader) -> None:
    """Tells this room, which must not import the zoo, how the zoo reads weights."""
    _reader[:] = [reader]


Self = TypeVar("Self", bound="WeightsEnum")


class WeightsEnum(torchvision.models.WeightsEnum):
    """The weights that a builder offers; members are `Weights`."""

    @classmethod
    def verify(cls: type[Self], obj: Any) -> Self | None:
        """Finds a member by itself, its name, or its full name.

        Raises:
            ValueError: If a name is unknown.
            TypeError: If it is something else.
        """
        if obj is None or isinstance(obj, cls):
            return obj
        if isinstance(obj, str):
            name = obj.removeprefix(f"{cls.__name__}.")
            if name in cls.__members__:
                return cls.__members__[name]
            known = ", ".join(repr(member) for member in cls.__members__) or "none"
            raise ValueError(f"{cls.__name__} has no weights {obj!r}; it has {known}.")
        raise TypeError(f"Expected weights of {cls.__name__}, one of their names, or None, got {obj!r}.")

    def get_state_dict(self, progress: bool = True) -> dict[str, Tensor]:
        """Reads the tensors under the names that the builder's model has; downloads them first where needed.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        return _reader[-1](self.value, progress)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


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
        if isinstance(categories, str) or len(set(categories)) < len(categories):
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


def load_backbone(backbone: nn.Module, weights: WeightsEnum | None, *, progress: bool) -> None:
    """Loads a classifier's weights into a detector's backbone, whose extra layers they do not know."""
    if weights is not None:
        missing, unexpected = backbone.load_state_dict(weights.get_state_dict(progress=progress), strict=False)
        strange = unexpected + [name for name in missing if not name.startswith(("extras.", "l2_norm."))]
        if strange:
            raise ValueError(f"{weights} does not fit {type(backbone).__name__}: {', '.join(strange[:5])}")


def load(model: SSD, weights: WeightsEnum | None, *, progress: bool) -> SSD:
    """Loads a detector's weights, strictly."""
    if weights is not None:
        model.load_state_dict(weights.get_state_dict(progress=progress))
    return model

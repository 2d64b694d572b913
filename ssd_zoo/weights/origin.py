"""What is known of a project whose files are read: its names for our tensors, and the builders of its models."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.weights.categories import COCO80_CATEGORIES, VOC_CATEGORIES
from ssd_zoo.weights.tables import Match, Table, Tables, match_names

__all__ = ["Checkpoint", "Origin", "Recipe", "boxes_per_cell", "count_head", "settings_of", "vgg16_boxes"]

_KNOWN = {len(names): names for names in (VOC_CATEGORIES, COCO80_CATEGORIES)}
_VGG16_RATIOS = {
    300: [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    512: [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
}
_VGG16_STEPS = {300: [8, 16, 32, 64, 100, 300], 512: [8, 16, 32, 64, 128, 256, 512]}


@dataclass(frozen=True)
class Checkpoint:
    """What a recipe is read from.

    Args:
        state: The file's tensors.
        tensors: The same, converted; only their shapes are meant.
        table: The key table that converted them.
        size: (height, width) of the input where it is not the origin's.
    """

    state: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    table: Table
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Recipe:
    """A builder's name and what it is called with.

    Args:
        builder: The registered name.
        arguments: Keywords of the builder: what the origin has otherwise than the builder by itself.
        known: Per number of classes, the names that the origin's own models of so many classes have.
    """

    builder: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    known: Mapping[int, Sequence[str]] = field(default_factory=lambda: _KNOWN)


def _as_it_is(name: str, tensor: Tensor) -> Tensor:  # noqa: ARG001
    return tensor


def _no_detector(checkpoint: Checkpoint) -> Recipe:
    raise ValueError(f"No builder makes a detector of these {len(checkpoint.tensors)} tensors of a classifier.")


@dataclass(frozen=True)
class Origin:
    """A project whose files are read.

    Args:
        tables: The key tables of its models.
        describe: Names the builder of a checkpoint and its arguments.
        adapt: Turns a tensor to PyTorch's order of axes; called with the project's name for it.
        finish: Called with the tensors by our names; reorders rows, and adds what the project leaves out.
    """

    tables: Tables
    describe: Callable[[Checkpoint], Recipe] = _no_detector
    adapt: Callable[[str, Tensor], Tensor] = _as_it_is
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    def match(self, names: Collection[str]) -> Match:
        """Match the names of a file's tensors with the table of the model that they tell of."""
        return match_names(names, self.tables)

    def convert(self, state: Mapping[str, Tensor], match: Match | None = None) -> dict[str, Tensor]:
        """Rename tensors, and bring them to the order that our models have.

        Args:
            state: Tensors by the project's names.
            match: What `match` returned for these names; by default they are matched here.

        Raises:
            ValueError: If a tensor is of another model, or two are for the same place.
        """
        kept = (match or self.match(state)).kept()
        return self.finish({ours: self.adapt(theirs, state[theirs]) for ours, theirs in kept.items()})


def count_head(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Counts the feature maps and the classes, background counted, that the tensors of a head tell.

    Args:
        tensors: Tensors by our names.

    Raises:
        ValueError: If there are no predictors of the first feature map.
    """
    rows = {}
    for name, tensor in sorted(tensors.items()):
        if name.startswith("head.") and name.endswith(".bias") and "norm" not in name:
            _, branch, index, *_ = name.split(".")
            rows[branch, int(index)] = math.prod(tensor.shape[:1])
    maps = [index for branch, index in rows if branch == "cls_logits"]
    boxes, left = divmod(rows.get(("bbox_regression", 0), 0), 4)
    if 0 not in maps or not boxes or left or rows["cls_logits", 0] % boxes:
        raise ValueError("The head of the first feature map is missing or has no whole number of boxes and classes.")
    return len(maps), rows["cls_logits", 0] // boxes


def boxes_per_cell(tensors: Mapping[str, Tensor], name: str) -> int:
    """Gives the number of default boxes in a cell that a tensor of a head's last layer is for.

    Args:
        tensors: Tensors by our names.
        name: The tensor, of either branch.

    Raises:
        ValueError: If the same tensor of the box branch is missing, or not of whole boxes.
    """
    partner = name.replace("cls_logits", "bbox_regression")
    rows, own = (tensors[key].shape[:1] if key in tensors else () for key in (partner, name))
    if not rows or not own or rows[0] < 4 or rows[0] % 4 or own[0] % (rows[0] // 4):
        raise ValueError(f"{name!r} and {partner!r} are not the predictions of the same number of default boxes.")
    return rows[0] // 4


def settings_of(origin: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Gives the keywords of `SSD` among an origin's settings."""
    return {**{name: value for name, value in origin.items() if name != "default_boxes"}, **others}


def vgg16_boxes(sides: Sequence[float], clip: str, size: tuple[int, int] | None) -> DefaultBoxGenerator:
    """Gives the default boxes of SSD300 or SSD512, whichever has as many sides.

    Args:
        sides: Sides of the smaller squares in pixels of the nominal input, and one more.
        clip: See `DefaultBoxGenerator`.
        size: (height, width) of the input where it is not the nominal one.
    """
    nominal = 300 if len(sides) == 7 else 512
    return DefaultBoxGenerator(
        aspect_ratios=_VGG16_RATIOS[nominal],
        scales=[side / nominal for side in sides],
        steps=_VGG16_STEPS[nominal] if size in (None, (nominal, nominal)) else None,
        clip=clip,  # type: ignore[arg-type]
    )

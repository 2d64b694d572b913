"""What a converted checkpoint asks its builder for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ssd_zoo.converters._tables import Table
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.models._weights import COCO80_CATEGORIES, VOC_CATEGORIES

__all__ = ["Checkpoint", "Recipe", "boxes_per_cell", "count_head", "settings_of", "vgg16_boxes"]

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

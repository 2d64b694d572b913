"""Origins of checkpoints: key tables and builders of other projects' models."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor

from ssd_zoo.weights.categories import COCO80_CATEGORIES, VOC_CATEGORIES
from ssd_zoo.weights.key_tables import Match, Table, Tables, match_names

__all__ = ["Checkpoint", "Origin", "Recipe", "boxes_per_cell", "count_head"]

_KNOWN = {len(names): names for names in (VOC_CATEGORIES, COCO80_CATEGORIES)}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of another project, its names matched with a key table.

    Args:
        state: Tensors by the names in the file.
        tensors: The same tensors by our names; only their shapes are valid.
        table: The key table that the names matched.
        size: (height, width) of the input in pixels where it differs from the origin's; else None.
    """

    state: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    table: Table
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Recipe:
    """How to build a checkpoint's model: a builder's name and arguments.

    Args:
        builder: The builder's name.
        arguments: Keywords of the builder for which the origin differs from the builder's defaults.
        known: Class names by their number, both with the background, for callers who give none; by default those of VOC
            and COCO.
        default_boxes: `(D, 4)`, xyxy as fractions of the input; None if the file holds none.
    """

    builder: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    known: Mapping[int, Sequence[str]] = field(default_factory=lambda: _KNOWN)
    default_boxes: Tensor | None = None


def _as_it_is(name: str, tensor: Tensor) -> Tensor:  # noqa: ARG001
    return tensor


def _no_detector(checkpoint: Checkpoint) -> Recipe:
    raise ValueError(f"No builder makes a detector of these {len(checkpoint.tensors)} tensors of a classifier.")


@dataclass(frozen=True)
class Origin:
    """A project whose checkpoints can be read.

    Args:
        tables: The key tables of its models.
        describe: Returns a checkpoint's builder and arguments; by default a ValueError, as for classifiers.
        adapt: Called with the project's name and the tensor; returns the tensor with PyTorch's order of axes.
        finish: Called with the tensors by our names; reorders rows and adds tensors that the project leaves out.
    """

    tables: Tables
    describe: Callable[[Checkpoint], Recipe] = _no_detector
    adapt: Callable[[str, Tensor], Tensor] = _as_it_is
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    def match(self, state: Mapping[str, Tensor]) -> Match:
        """Match the names of tensors with the key table of their model."""
        return match_names(state, self.tables)

    def convert(self, state: Mapping[str, Tensor], match: Match | None = None) -> dict[str, Tensor]:
        """Convert tensors to our names and layout.

        Args:
            state: Tensors by the project's names.
            match: Match of these names; by default it is made here.

        Returns:
            Tensors by our names, without those that the table drops.

        Raises:
            ValueError: If a tensor's name is unknown, or two tensors get the same name.
        """
        kept = (match or self.match(state)).kept()
        return self.finish({ours: self.adapt(theirs, state[theirs]) for ours, theirs in kept.items()})


def count_head(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Count the feature maps and classes of a head, background included.

    Args:
        tensors: Tensors by our names.

    Returns:
        The number of feature maps, then of classes.

    Raises:
        ValueError: If predictors of the first feature map are missing, or have fractional boxes or classes.
    """
    rows: dict[tuple[str, int], int] = {}
    for name, tensor in sorted(tensors.items()):
        if name.startswith("head.") and name.endswith(".bias") and "norm" not in name:
            _, branch, number, *_ = name.split(".")
            rows[branch, int(number)] = math.prod(tensor.shape[:1])
    maps = range(1 + max((index for _, index in rows), default=-1))
    for branch, index in product(("cls_logits", "bbox_regression"), maps):
        if (branch, index) not in rows:
            raise ValueError(f"The file lacks the bias of head.{branch}.{index}, which the other maps have.")
    boxes, left = divmod(rows.get(("bbox_regression", 0), 0), 4)
    if not boxes or left or rows["cls_logits", 0] % boxes:
        raise ValueError("The head of the first feature map is missing or has no whole number of boxes and classes.")
    return len(maps), rows["cls_logits", 0] // boxes


def boxes_per_cell(tensors: Mapping[str, Tensor], name: str) -> int:
    """Return the number of default boxes per cell of a head's tensor.

    Args:
        tensors: Tensors by our names.
        name: Our name of a tensor of a last layer, for classes or boxes.

    Raises:
        ValueError: If its counterpart for boxes is missing, or the two do not fit each other.
    """
    partner = name.replace("cls_logits", "bbox_regression")
    rows, own = (tensors[key].shape[:1] if key in tensors else () for key in (partner, name))
    if not rows or not own or rows[0] < 4 or rows[0] % 4 or own[0] % (rows[0] // 4):
        raise ValueError(f"{name!r} and {partner!r} are not the predictions of the same number of default boxes.")
    return rows[0] // 4

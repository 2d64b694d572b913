"""How key tables are applied."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["Table", "rename", "unwrap"]

Table = Sequence[tuple[str, str]]


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Gives the tensors of a model out of a checkpoint of its training.

    They lie there beside the optimiser's state, under `model` or `state_dict`, and from training on several devices
    their names may begin with `module.`.
    """
    for key in ("model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    return {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}


def rename(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Renames tensors.

    Args:
        state: Tensors by their names.
        table: Pairs of a regular expression, which must match a whole name, and its replacement; the first that
            matches decides, and an empty replacement drops the tensor.

    Raises:
        ValueError: If a name matches nothing, or two get the same name.
    """
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        matches = ((pattern.fullmatch(name), replacement) for pattern, replacement in rows)
        ours = next((match.expand(replacement) for match, replacement in matches if match), None)
        if ours is None:
            raise ValueError(f"Unexpected tensor {name!r}: the file is not of the origin that it was taken for.")
        if ours in renamed:
            raise ValueError(f"Two tensors go to {ours!r}, the second is {name!r}.")
        if ours:
            renamed[ours] = tensor
    return renamed

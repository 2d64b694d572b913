"""Key tables: types, unwrapping of checkpoints, and matching of names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Match", "Table", "Tables", "match_names", "unwrap"]

Table = Sequence[tuple[str, str]]
"""Pairs of a regular expression, which must match a tensor's whole name, and its replacement.

The first row that matches decides. An empty replacement drops the tensor.
"""

Tables = Sequence[tuple[str | Callable[[Mapping[str, Tensor]], bool] | None, Table]]
"""The tables of an origin's models. A mark before each is the name of a tensor in its files, or a check of the tensors.

The first mark that fits decides; the last table needs none.
"""

# NVIDIA's examples wrap a model twice.
_PARALLEL = re.compile(r"^module\.(1\.)?")
_WRAPPERS = ("model", "state_dict", "ema", "model_ema", "state_dict_ema")


def unwrap(checkpoint: Mapping[str, object]) -> dict[str, Any]:
    """Return the state dict within a training checkpoint.

    It lies beside the optimiser's state under `model` or `state_dict`, or under `ema` if averaged. Without such a key
    the checkpoint itself is the state dict. Values are not checked. The prefix `module.` of training on several devices
    is removed.
    """
    # The depth is limited because a file may contain itself.
    for _ in range(4):
        found = map(checkpoint.get, _WRAPPERS)
        inner = next((value for value in found if isinstance(value, Mapping)), None)
        if inner is None:
            break
        checkpoint = inner
    # torch.optim.swa_utils stores its counter among the tensors.
    return {_PARALLEL.sub("", str(name)): value for name, value in checkpoint.items() if name != "n_averaged"}


@dataclass(frozen=True)
class Match:
    """Result of matching tensor names with a key table.

    Attributes:
        table: The table.
        names: Our names by those in the file: empty if the table drops the tensor, None if no row matches.
    """

    table: Table
    names: Mapping[str, str | None]

    @property
    def unknown(self) -> list[str]:
        """Names in the file that have no match.

        If no tensor is of a head, the file is not a detector's, and all names count.
        """
        of_head = any((ours or "").startswith("head.") for ours in self.names.values())
        return [theirs for theirs, ours in self.names.items() if ours is None or not of_head]

    def kept(self) -> dict[str, str]:
        """Return the file's names by ours, without dropped tensors.

        Raises:
            ValueError: If no row of the table matches a name, or two tensors get the same name. Unlike in `unknown`, a
                file without a head passes.
        """
        kept: dict[str, str] = {}
        for theirs, ours in self.names.items():
            if ours is None:
                raise ValueError(f"Unexpected tensor {theirs!r}: the file is not of the origin that it was taken for.")
            if ours in kept:
                raise ValueError(f"Two tensors go to {ours!r}, {kept[ours]!r} and {theirs!r}.")
            if ours:
                kept[ours] = theirs
        return kept


def match_names(state: Mapping[str, Tensor], tables: Tables) -> Match:
    """Translate the names of tensors by the first table whose mark fits."""
    table = next(table for mark, table in tables if mark is None or (mark(state) if callable(mark) else mark in state))
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    matched: dict[str, str | None] = {}
    for name in state:
        matches = ((pattern.fullmatch(name), replacement) for pattern, replacement in rows)
        matched[name] = next((match.expand(replacement) for match, replacement in matches if match), None)
    return Match(table, matched)

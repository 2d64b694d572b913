"""How key tables are applied."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

__all__ = ["Table", "Tables", "choose", "key_names", "match_names", "rename", "unwrap"]

Table = Sequence[tuple[str, str]]
"""Pairs of a regular expression, which must match a tensor's whole name, and its replacement; see `rename`."""

Tables = Sequence[tuple[str | None, Table]]
"""The tables of an origin's models, each with the name of a tensor that tells its files from those of later ones."""

# NVIDIA's examples wrap a model twice.
_PARALLEL = re.compile(r"^module\.(1\.)?")
_WRAPPERS = ("model", "state_dict", "ema", "model_ema", "state_dict_ema")


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the tensors of a model out of a checkpoint of its training.

    They lie there beside the optimiser's state, under `model` or `state_dict`, or averaged ones under `ema`; from
    training on several devices their names may begin with `module.`.
    """
    # So deep and no deeper: a file may hold itself.
    for _ in range(4):
        inner = next((checkpoint[key] for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)
        if inner is None:
            break
        checkpoint = inner
    # torch.optim.swa_utils counts what it has averaged among the tensors.
    return {_PARALLEL.sub("", str(name)): value for name, value in checkpoint.items() if name != "n_averaged"}


def choose(names: Container[str], tables: Tables) -> Table:
    """Gives the table of the model that the names tell of; the last needs no mark."""
    return next(table for mark, table in tables if mark is None or mark in names)


def match_names(names: Iterable[str], table: Table) -> dict[str, str | None]:
    """Gives each name what the table makes of it: empty where it drops the tensor, None where nothing matches."""
    rows = [(re.compile(pattern), replacement) for pattern, replacement in table]
    matched: dict[str, str | None] = {}
    for name in names:
        matches = ((pattern.fullmatch(name), replacement) for pattern, replacement in rows)
        matched[name] = next((match.expand(replacement) for match, replacement in matches if match), None)
    return matched


def key_names(names: Iterable[str], table: Table) -> dict[str, str]:
    """Gives the new names of the tensors that are kept; see `rename`."""
    renamed: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name, ours in match_names(names, table).items():
        if ours is None:
            raise ValueError(f"Unexpected tensor {name!r}: the file is not of the origin that it was taken for.")
        if ours in taken:
            raise ValueError(f"Two tensors go to {ours!r}, {taken[ours]!r} and {name!r}.")
        if ours:
            renamed[name], taken[ours] = ours, name
    return renamed


def rename(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Renames tensors.

    Args:
        state: Tensors by their names.
        table: Pairs of a regular expression, which must match a whole name, and its replacement; the first that
            matches decides, and an empty replacement drops the tensor.

    Raises:
        ValueError: If a name matches nothing, or two get the same name.
    """
    return {ours: state[theirs] for theirs, ours in key_names(state, table).items()}

"""Checkpoints of other projects into models that detect what the originals detect."""

import logging
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from ssd_zoo.converters import amdegroot, lufficc, mmdet, nvidia, qfgaohao, tensorflow, torchvision, ultraface
from ssd_zoo.converters._files import check_finite, check_state, read_checkpoint
from ssd_zoo.converters._recipe import Checkpoint, Recipe, count_head
from ssd_zoo.converters._tables import choose, key_names, match_names
from ssd_zoo.detector.layers import folded_norms
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._registry import get_model
from ssd_zoo.models._settle import settle_size

__all__ = ["ORIGINS", "load_checkpoint", "recognise"]

ORIGINS: dict[str, ModuleType] = {
    "amdegroot": amdegroot,
    "lufficc": lufficc,
    "mmdet": mmdet,
    "nvidia": nvidia,
    "qfgaohao": qfgaohao,
    "tensorflow": tensorflow,
    "torchvision": torchvision,
    "ultraface": ultraface,
}
"""Converters by the names of the projects whose files they know."""

_log = logging.getLogger("ssd_zoo")


def load_checkpoint(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    origin: str | None = None,
    *,
    categories: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
) -> SSD:
    """Makes a model of another project's checkpoint.

    It has the builder, the number of classes, the normalisation, the default boxes, the order of classes and the
    thresholds that the file and its origin ask for, so that it detects what the original detects.

    Args:
        path_or_state_dict: A file of `torch.save` (nothing but tensors and plain values is unpickled), a `.safetensors`
            file, a frozen TensorFlow graph (`.pb`), a TensorFlow.js model (`model.json` or its folder), or tensors by
            name. Training checkpoints are unwrapped.
        origin: The project that the file is from, one of `amdegroot`, `lufficc`, `mmdet`, `nvidia`, `qfgaohao`,
            `tensorflow`, `torchvision` and `ultraface`; by default the one that its names tell of.
        categories: Names of the classes, background first; by default those of the origin's own models of as many
            classes, or else "class 1" and so on.
        size: Side, or (height, width), of the input, where the file is for another than the origin's usual one: the
            tensors do not tell it.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is damaged, would have to be unpickled, or is of no known origin; if tensors are
            missing, unexpected, of a wrong shape, or not finite; if `categories` are not as many as the classes.
    """
    if isinstance(path_or_state_dict, (str, os.PathLike)):
        state = read_checkpoint(path_or_state_dict)
    else:
        state = check_state(path_or_state_dict)
    converter = ORIGINS[recognise(state, origin)]
    table = choose(state, converter.TABLES)
    names = key_names(state, table)
    state = {name: tensor.float() if tensor.dtype.itemsize == 2 else tensor for name, tensor in state.items()}

    # Shapes come first: nothing is computed with tensors before they are known to fit.
    shapes = converter.convert({name: tensor.to("meta") for name, tensor in state.items()})
    settled = None if size is None else settle_size(size)
    model = _build(converter.describe(Checkpoint(state, shapes, table, settled)), shapes, categories, settled)
    _check_shapes(model, shapes, {ours: theirs for theirs, ours in names.items()})
    check_finite({name: state[name] for name in names})
    model.load_state_dict(converter.convert(state))
    if folded := folded_norms(model):
        _log.warning(
            "The source has %d norms folded into convolutions. The model detects as it does. Before you train it, "
            "restore them by ssd_zoo.restore_norms(model, images), or by ssd-zoo convert --images DIR.",
            len(folded),
        )
    return model.eval()


def recognise(state: Mapping[str, Tensor], origin: str | None = None) -> str:
    """Gives the origin of a state dict, one of `ORIGINS`.

    Args:
        state: Tensors by their names.
        origin: Where they are said to be from, to make sure of it.

    Raises:
        ValueError: If it is not the given one, or, without one given, if there are none or several.
    """
    if origin is not None and origin not in ORIGINS:
        raise ValueError(f"Unknown origin {origin!r}; known are {', '.join(ORIGINS)}.")
    unknown = {name: _unknown(state, ORIGINS[name]) for name in ([origin] if origin else ORIGINS)}
    fitting = [name for name, of_origin in unknown.items() if not of_origin]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"The tensors' names fit several origins, {', '.join(fitting)}: give one as origin.")
    if origin is None and any(name.startswith("head.cls_logits.") for name in state):
        raise ValueError(
            "These names are ssd_zoo's own. A saved model loads by ssd_zoo.from_pretrained, a bare state dict by the "
            "model's load_state_dict."
        )
    nearest = min(unknown, key=lambda name: len(unknown[name]))
    examples = ", ".join(map(repr, unknown[nearest][:3]))
    if origin is not None:
        raise ValueError(
            f"The file is not of the origin {origin!r}, or not of a detector that it is known for: "
            f"{len(unknown[origin])} of {len(state)} names are unknown there, among them {examples}."
        )
    raise ValueError(
        f"The file is of no known origin: its tensors' names fit none of {', '.join(ORIGINS)}. "
        + (
            f"Nearest is {nearest}, which does not know {examples}."
            if len(unknown[nearest]) < len(state)
            else f"They begin with {examples}."
        )
    )


def _unknown(state: Mapping[str, Tensor], converter: ModuleType) -> list[str]:
    """Lists the names that an origin's detector does not have; all of them if no name is one of a detector's head."""
    matched = match_names(state, choose(state, converter.TABLES))
    unknown = [name for name, ours in matched.items() if ours is None]
    return unknown if any((ours or "").startswith("head.") for ours in matched.values()) else list(state)


def _build(
    recipe: Recipe, tensors: Mapping[str, Tensor], categories: Sequence[str] | None, size: tuple[int, int] | None
) -> SSD:
    _, classes = count_head(tensors)
    if categories is None:
        categories = recipe.known.get(classes)
    elif len(categories) != classes:
        raise ValueError(
            f"The file has {classes} classes, background counted, but there are {len(categories)} categories; "
            "the background's name comes first."
        )
    arguments = dict(recipe.arguments)
    if size is not None:
        arguments["size"] = size
    if categories is None:
        arguments["num_classes"] = classes
    else:
        arguments["categories"] = list(categories)
    return get_model(recipe.builder, weights_backbone=None, **arguments)


def _check_shapes(model: SSD, tensors: Mapping[str, Tensor], theirs: Mapping[str, str]) -> None:
    """Makes sure that a model gets exactly the tensors that it has.

    Args:
        model: The model.
        tensors: What it is to get.
        theirs: The names that these have in the file.

    Raises:
        ValueError: Naming the tensors that are missing, unexpected, or of a wrong shape.
    """
    own = model.state_dict()
    # Files from before PyTorch 0.4.1, and TensorFlow's, do not count batches.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [theirs.get(name, name) for name in tensors if name not in own]
    for what, names in (
        ("lacks tensors of this model", missing),
        ("holds tensors that it has no place for", unexpected),
    ):
        if names:
            listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            raise ValueError(f"The file {what}: {len(names)} of them, {listed}.")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"Tensor {theirs.get(name, name)!r} ({name!r} here) must have shape {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}."
            )

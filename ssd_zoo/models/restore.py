"""Checks that a restored model has all its tensors.

What the caller did not ask to change must be in the file. Fine-tuning, where the caller asks for other classes or
parts, is lenient; see `ssd_zoo.models.loading`.
"""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import find_report, without_tensors
from ssd_zoo.models.options import Settings
from ssd_zoo.weights.config import SavedModel, check_arguments, is_plain_word
from ssd_zoo.weights.files import read_header
from ssd_zoo.weights.formats.safetensors_file import TYPES, Entry
from ssd_zoo.weights.settings import BoxSettings

__all__ = ["OF_THE_CALL", "check_restored", "check_whole", "rebuild"]

# Arguments about tensors and training: a saved model has its tensors already.
OF_THE_CALL = {"weights", "weights_backbone", "progress", "trainable_backbone_layers"}
_SETTINGS = Settings.__annotations__.keys()
_OTHERWISE = {"num_classes", "categories", "default_boxes"}


def check_whole(saved: SavedModel, builder: Callable[..., SSD], given: Mapping[str, object]) -> None:
    """Check that a saved model's file has exactly the tensors of its config.

    The model is built on the meta device. So a config that asks for more memory than the file has is refused before
    memory is taken.

    Args:
        saved: The saved model.
        builder: Its builder.
        given: The caller's arguments; see `rebuild`.

    Raises:
        ValueError: If the config can't be built, or tensors are missing, left over, or of another shape or type.
    """
    source = saved.weights.url
    try:
        model = rebuild(saved, builder, given)
    # Builders, timm and modules raise errors of many types for wrong arguments.
    except Exception as error:
        raise ValueError(f"The config of {source} can't be used: {str(error)[:500]}") from error
    boxes = cast(BoxSettings, saved.weights.settings["default_boxes"])
    if len(boxes["shapes"]) != (maps := len(model.default_box_generator.shapes)):
        raise ValueError(
            f"The config of {source} can't be used: it has default boxes of {len(boxes['shapes'])} feature maps, but "
            f"the model has {maps} maps."
        )
    _compare(model.state_dict(), read_header(Path(source)).entries, len(saved.weights.meta["categories"]), source)


def rebuild(saved: SavedModel, builder: Callable[..., SSD], given: Mapping[str, object]) -> SSD:
    """Build a saved model on the meta device, without memory for tensors.

    Args:
        saved: The saved model.
        builder: Its builder.
        given: The caller's arguments. They are not checked. Where the config's value is an address or path, the
            caller's is taken.

    Raises:
        ValueError: If the config has arguments that are unknown or not allowed.
        Exception: Of any type, from the builder.
    """
    known = inspect.signature(builder).parameters.keys() - OF_THE_CALL - _SETTINGS - _OTHERWISE
    check_arguments({name: value for name, value in saved.arguments.items() if name not in given}, known)
    allowed = {name: given.get(name, value) for name, value in saved.arguments.items() if not is_plain_word(value)}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builder(**{**saved.arguments, **allowed}, weights=without_tensors(saved.weights))


def _compare(asked: Mapping[str, Tensor], found: Mapping[str, Entry], num_classes: int, source: str) -> None:
    """Raise ValueError if a file's tensors differ from the model's in names, shapes or kind of number."""
    wanted = {name: tensor for name, tensor in asked.items() if name in found or not _is_counter(name)}
    missing = [name for name in wanted if name not in found]
    other = [name for name, tensor in wanted.items() if name in found and not _fits(found[name], tensor)]
    unused = [name for name in found if name not in asked]
    if missing or other or unused:
        kinds = ((missing, "are missing"), (other, "have another shape or type"), (unused, "are left over"))
        what = [f"{len(names)} {told} ({_few(names)})" for names, told in kinds if names]
        raise ValueError(
            f"{source} does not fit this model: of {len(wanted)} tensors of its config with {num_classes} categories "
            f"{', '.join(what)}. The file or the config is damaged, cut off, or of another model."
        )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _fits(entry: Entry, tensor: Tensor) -> bool:
    return entry.shape == tuple(tensor.shape) and TYPES[entry.dtype].is_floating_point == tensor.is_floating_point()


def _few(names: Collection[str]) -> str:
    return ", ".join(list(names)[:3]) + (", …" if len(names) > 3 else "")


def check_restored(model: SSD, asked: Mapping[str, object]) -> None:
    """Check that weights filled a model that the caller left unchanged.

    Weights of clips in an inflated model, and entries of settings alone, pass.

    Raises:
        ValueError: If a tensor started fresh, or one of the weights was not used.
    """
    changed = [name for name, value in asked.items() if value is not None and name not in {*OF_THE_CALL, *_SETTINGS}]
    if asked.get("weights") is None or changed:
        return
    report = find_report(model)
    if report is None:  # An entry of settings alone loads nothing.
        return
    fresh = [name for name, what in report.tensors.items() if what == "new"]
    if "inflated" not in report.tensors.values() and (fresh or report.unused):
        raise ValueError(
            f"{report.source} lacks {len(fresh)} tensors of this model ({_few(fresh)}) and has {len(report.unused)} "
            "that it does not need: the file is damaged or of another version."
        )

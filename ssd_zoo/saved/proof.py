"""Proof that a model can be loaded, before it is saved."""

import inspect
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.plugins import package_of
from ssd_zoo.models.registry import get_model_builder
from ssd_zoo.models.restore import rebuild
from ssd_zoo.weights.config import describe, is_plain_word, open_config

__all__ = ["check_rebuild", "package_of_model"]

_log = logging.getLogger("ssd_zoo")


def package_of_model(model: SSD) -> dict[str, dict[str, str]]:
    """Return the config's entry `package` on the package of a model's builder.

    It is empty for our own builders.
    """
    package = {} if model.recipe is None else package_of(get_model_builder(model.recipe[0]))
    return {"package": package} if package else {}


def check_rebuild(model: SSD, text: str) -> None:
    """Check that a config rebuilds its model.

    Modules, shapes of tensors, settings and default boxes must be the same.

    Arguments that are not plain names, and hooks, are only warned of in the log.

    Args:
        model: The model.
        text: Its config, as JSON.

    Raises:
        ValueError: If its builder fails or builds another model; the message says how it differs.
    """
    saved = open_config(text, Path(), "the model to save")
    try:
        rebuilt = rebuild(saved, get_model_builder(saved.builder), saved.arguments)
    except Exception as error:
        raise ValueError(f"{_REFUSED.format(saved.builder)}it fails: {type(error).__name__}: {error}") from error
    for name, value in saved.arguments.items():
        if not is_plain_word(value):
            _log.warning("%s=%r is not a plain name; from_pretrained will need it as an argument again.", name, value)
    differences = [
        *_shape_differences(model, rebuilt),
        *_config_differences(text, rebuilt),
        *_module_differences(model, rebuilt),
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"{_REFUSED.format(saved.builder)}it builds another model: {'; '.join(differences[:3])}{more}."
        )
    _tell_of_hooks(model, rebuilt)


# Attributes of modules that change no detection.
_OF_TRAINING = ("training", "momentum", "inplace", "grad_checkpointing", "drop_prob")
_DROPPING = (nn.modules.dropout._DropoutNd, StochasticDepth)
_REFUSED = "The model can't be saved, because {} would not build it again from its arguments, settings and categories: "


def _shape_differences(model: SSD, rebuilt: SSD) -> list[str]:
    """Return messages about tensors of different shapes, and about different default boxes."""
    ours, theirs = ({k: tuple(v.shape) for k, v in of.state_dict().items()} for of in (model, rebuilt))
    differences = [f"tensor {name} is {ours.get(name, 'missing')} in the model and {theirs.get(name, 'missing')} there"
                   for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]  # fmt: skip
    if not torch.equal(model.default_boxes.cpu(), rebuilt.default_boxes.cpu()):
        differences.append(f"default boxes differ, {len(model.default_boxes)} and {len(rebuilt.default_boxes)}")
    return differences


def _module_differences(model: SSD, rebuilt: SSD) -> Iterator[str]:
    """Yield messages about modules that differ in type, or in attributes that are plain values or functions."""
    ours, theirs = (dict(of.named_modules(remove_duplicate=False)) for of in (model, rebuilt))
    for name in {**ours, **theirs}:
        mine, other = ours.get(name), theirs.get(name)
        # A norm whose statistics processes share detects as the norm that it was made of.
        is_shared = isinstance(mine, nn.SyncBatchNorm) and isinstance(other, nn.modules.batchnorm._BatchNorm)
        if mine is None or other is None or (type(mine) is not type(other) and not is_shared):
            kinds = ("missing" if one is None else type(one).__name__ for one in (mine, other))
            yield "{} is {} in the model and {} there".format(f"module {name}" if name else "it", *kinds)
            continue
        for key in vars(mine):
            if inspect.isfunction(getattr(type(mine), key, None)) and _code_of(mine, key) != _code_of(other, key):
                yield f"{name or 'the model'} has another {key} than {type(mine).__name__}.{key}"
        for key, value in vars(other).items() if name else ():
            of_training = key in _OF_TRAINING or (key == "p" and isinstance(mine, _DROPPING))
            if key.startswith("_") or of_training or not _is_plain(value):
                continue
            found = getattr(mine, key, None)
            if _comparable(found) != _comparable(value):
                yield f"{name}.{key} is {found!r} in the model and {value!r} there"


def _code_of(module: nn.Module, method: str) -> object:
    """Return the code that a module's method runs.

    It may be the instance's own. Wrappers of torch.compile and accelerate, which change no result, are taken off.
    """
    value = vars(module).get(method, getattr(type(module), method, None))
    if method == "forward":  # accelerate's name for the method that it wraps for mixed precision
        value = vars(module).get("_original_forward", value)
    while (inner := getattr(value, "_torchdynamo_orig_callable", getattr(value, "__func__", value))) is not value:
        value = inner
    return getattr(value, "__code__", value)


def _tell_of_hooks(model: SSD, rebuilt: SSD) -> None:
    """Log a warning once that hooks are not saved, if a module has hooks that its builder did not add."""
    ours, theirs = (
        {name: len(module._forward_hooks) + len(module._forward_pre_hooks) for name, module in of.named_modules()}
        for of in (model, rebuilt)
    )
    hooked = [name or "the model itself" for name, number in ours.items() if number != theirs.get(name)]
    if hooked and "hooks" not in model._told:
        model._told.add("hooks")
        _log.warning("Hooks are not saved; %d modules have some, %s among them.", len(hooked), hooked[0])


def _is_plain(value: object) -> bool:
    """Return whether a value is None, a number, a text, something with a name, or a list of these."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str)) or hasattr(value, "__qualname__")


def _comparable(value: object) -> object:
    """Return a function's code or a class's name, which can be compared; other values unchanged.

    Each build of a model makes some functions anew, so they are never equal themselves.
    """
    return getattr(value, "__code__", getattr(value, "__qualname__", value))


def _config_differences(text: str, rebuilt: SSD) -> list[str]:
    """Return messages about values that differ in a config and in that of the rebuilt model."""
    saved, again = json.loads(text), json.loads(json.dumps(describe(rebuilt)))
    parts = {"": ({"categories": saved["categories"]}, again)}
    parts |= {f"{key} ": (saved[key], again[key]) for key in ("arguments", "settings")}
    return [
        f"{part}{name} is {value!r} in the model and {theirs.get(name)!r} there"
        for part, (ours, theirs) in parts.items()
        for name, value in ours.items()
        if theirs.get(name) != value
    ]

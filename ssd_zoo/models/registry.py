"""The registry of builders, from which all other rooms read model names."""

import dataclasses
import difflib
import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torchvision

from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.options import describe_options, expand_options
from ssd_zoo.weights.config import SavedModel
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.saved_models import open_saved

try:
    from torchvision.models._api import register_model as _register_in_torchvision
except ImportError:
    _register_in_torchvision = None

__all__ = ["get_model", "get_model_builder", "get_model_weights", "get_weight", "list_models", "register_model"]

# Arguments about tensors and training: a saved model has its tensors already.
_OF_THE_CALL = {"weights", "weights_backbone", "progress", "trainable_backbone_layers"}
_BUILDERS: dict[str, Callable[..., SSD]] = {}

Builder = TypeVar("Builder", bound=Callable[..., SSD])


def register_model(builder: Builder) -> Builder:
    """Register a builder under its name, here and in torchvision's registry.

    The builder's signature and docstring get each of the `Options`. The arguments of a call are kept as the model's
    `recipe`, which makes it possible to save the model. `weights` may be the address of a saved model; arguments that
    the caller leaves out are then as saved.

    Raises:
        ValueError: If the name is taken.
    """
    name = builder.__name__
    if name in _BUILDERS:
        raise ValueError(f"A model named {name!r} is already registered.")
    declared = inspect.signature(builder)
    signature = expand_options(declared)

    @functools.wraps(builder)
    def build(*args: Any, **kwargs: Any) -> SSD:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        asked = _by_name(signature, bound)
        weights: Any = asked.get("weights")
        if _is_address(weights, builder):
            weights = open_saved(weights)
        if isinstance(weights, SavedModel):
            asked = _as_saved(weights, asked, signature)
        model = builder(**asked)
        complete = signature.bind(**asked)
        complete.apply_defaults()
        arguments = _by_name(signature, complete)
        model.recipe = name, {k: v for k, v in arguments.items() if k not in _OF_THE_CALL and v is not ...}
        return model

    if signature is not declared:
        build.__signature__ = signature  # type: ignore[attr-defined]
        build.__doc__ = describe_options(builder.__doc__ or "", signature)
    _BUILDERS[name] = build
    if _register_in_torchvision is not None and name not in torchvision.models.list_models():
        _register_in_torchvision(name)(build)
    return cast(Builder, build)


def _by_name(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return bound arguments as one dict of keywords."""
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name, {})
    return arguments


def _is_address(weights: Any, builder: Callable[..., SSD]) -> bool:
    if not isinstance(weights, str):
        return isinstance(weights, os.PathLike)
    if weights in get_model_weights(builder).__members__:
        return False
    return (
        weights.startswith("hf-hub:")
        or weights.lower().endswith(".safetensors")
        or "/" in weights
        or os.path.isdir(weights)
    )


def _as_saved(saved: SavedModel, asked: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """Complete the caller's arguments with those of a saved model.

    Saved steps and offsets of default boxes hold for one input size. Another size gets those of the builder.
    """
    get_model_builder(saved.builder)  # Raises if this version has no such builder.
    arguments = {name: value for name, value in saved.arguments.items() if name in signature.parameters}
    weights = saved.weights
    asked = {name: value for name, value in asked.items() if (name, value) != ("size", None)}
    if "size" in asked and parse_size(asked["size"]) != saved.arguments["size"]:
        saved_boxes = weights.settings["default_boxes"]
        default_boxes = {name: value for name, value in saved_boxes.items() if name not in ("steps", "offsets")}
        weights = dataclasses.replace(weights, settings={**weights.settings, "default_boxes": default_boxes})
    return {**arguments, **asked, "weights": weights}


def list_models(include: Iterable[str] | str | None = None, exclude: Iterable[str] | str | None = None) -> list[str]:
    """List the names of the registered models.

    Args:
        include: Shell-style patterns; only names that match one are listed.
        exclude: Shell-style patterns; names that match one are not.

    Example:
        >>> [name.removesuffix("_vgg16d") for name in list_models("ssd*_vgg16d")]
        ['ssd256', 'ssd300', 'ssd512']
    """
    names = sorted(_BUILDERS)
    if include is not None:
        names = [name for name in names if _matches(name, include)]
    if exclude is not None:
        names = [name for name in names if not _matches(name, exclude)]
    return names


def _matches(name: str, patterns: Iterable[str] | str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))


def get_model_builder(name: str) -> Callable[..., SSD]:
    """Return a builder by its name, in upper or lower case.

    Raises:
        ValueError: If no builder has the name; the message proposes similar names.
    """
    try:
        return _BUILDERS[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown model {name!r}. {propose(name.lower(), list_models())}") from None


def get_model(name: str, **config: Any) -> SSD:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **config: Passed to the builder.
    """
    return get_model_builder(name)(**config)


def get_model_weights(name: str | Callable[..., SSD]) -> type[WeightsEnum]:
    """Return the enum of a model's weights, or the empty `WeightsEnum`.

    Args:
        name: The model's name or its builder.
    """
    return torchvision.models.get_model_weights(get_model_builder(name) if isinstance(name, str) else name)


def get_weight(name: str) -> WeightsEnum:
    """Return a weights entry by its full name.

    Args:
        name: For example `"SSD300_VGG16D_Weights.COCO_V1"`.

    Raises:
        ValueError: If no entry has the name; the message proposes similar names.
    """
    entries = {str(entry): entry for model in list_models() for entry in get_model_weights(model).__members__.values()}
    if name not in entries:
        raise ValueError(f"Unknown weights {name!r}. {propose(name, list(entries))}")
    return entries[name]


def propose(name: str, allowed: list[str]) -> str:
    """Return a sentence that proposes names similar to an unknown one."""
    close = difflib.get_close_matches(name, allowed, n=3)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known are: {', '.join(allowed)}."

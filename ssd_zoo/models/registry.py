"""The registry of builders, from which all other rooms read model names."""

import dataclasses
import difflib
import fnmatch
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar, cast

import torchvision

from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.options import describe_options, expand_options
from ssd_zoo.models.plugins import LazyBuilder, find_plugins, missing_package
from ssd_zoo.models.restore import OF_THE_CALL, check_restored, check_whole
from ssd_zoo.weights.config import SavedModel
from ssd_zoo.weights.entries import WeightsEnum
from ssd_zoo.weights.saved_models import open_saved
from ssd_zoo.weights.settings import BoxSettings

try:
    from torchvision.models._api import register_model as _register_in_torchvision
except ImportError:
    _register_in_torchvision = None

__all__ = ["get_model", "get_model_builder", "get_model_weights", "get_weight", "list_models", "register_model"]

_BUILDERS: dict[str, Callable[..., SSD]] = {}
_PLUGINS: dict[str, LazyBuilder] = {}
_log = logging.getLogger("ssd_zoo")

Builder = TypeVar("Builder", bound=Callable[..., SSD])
P = ParamSpec("P")
R = TypeVar("R")


def register_model(builder: Builder) -> Builder:
    """Register a builder under its name, here and in torchvision's registry.

    The builder's signature and docstring get each of the `Options`. The arguments of a call are kept as the model's
    `recipe`, which makes it possible to save the model. `weights` may be the address of a saved model; arguments that
    the caller leaves out are then as saved.

    Raises:
        TypeError: If annotations are texts, so that neither options nor weights can be read from the signature.
        ValueError: If the name is taken, or is not lower case.
    """
    name = builder.__name__
    if name in _BUILDERS:
        raise ValueError(f"A model named {name!r} is already registered.")
    if name != name.lower():
        raise ValueError(f"Names of models are lower case, got {name!r}.")
    declared = inspect.signature(builder)
    if any(isinstance(parameter.annotation, str) for parameter in declared.parameters.values()):
        raise TypeError(f"Annotations of {name} are texts: remove `from __future__ import annotations` from its file.")
    signature = expand_options(declared)

    @functools.wraps(builder)
    def build(*args: object, **kwargs: object) -> SSD:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            _check_keywords(name, signature, kwargs)
            raise TypeError(f"{name}() {error}") from None
        asked = _by_name(signature, bound)
        weights = asked.get("weights")
        if isinstance(weights, (str, os.PathLike)) and _is_address(weights, builder):
            weights = open_saved(weights)
        if isinstance(weights, SavedModel):
            asked = _as_saved(weights, asked, signature, name)
        model = builder(**asked)
        if not isinstance(weights, SavedModel):
            check_restored(model, asked)
        complete = signature.bind(**asked)
        complete.apply_defaults()
        arguments = _by_name(signature, complete)
        model.recipe = name, {k: v for k, v in arguments.items() if k not in OF_THE_CALL and v is not ...}
        return model

    if signature is not declared:
        build.__signature__ = signature  # type: ignore[attr-defined]
        build.__doc__ = describe_options(builder.__doc__ or "", signature)
    _BUILDERS[name] = build
    _mirror(name, build)
    return cast(Builder, build)


def with_near_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function's error of an unknown keyword propose similar ones."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_keywords(function.__name__, signature, kwargs)
        return function(*args, **kwargs)

    return call


def _check_keywords(name: str, signature: inspect.Signature, kwargs: Mapping[str, object]) -> None:
    known = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in kwargs:
        if key not in known:
            now, value = key.replace("pretrained", "weights"), '"DEFAULT"' if kwargs[key] else "None"
            near = f"Write {now}={value}." if "pretrained" in key and now in known else propose(key, [*known])
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}. {near}") from None


def register_plugins() -> None:
    """Register the builders that other packages list, without importing them."""
    _PLUGINS.update(find_plugins(_BUILDERS))
    for name, plugin in _PLUGINS.items():
        _mirror(name, plugin)


def _mirror(name: str, builder: Callable[..., SSD]) -> None:
    """Add a builder to torchvision's registry, if that is there and has no such name."""
    if _register_in_torchvision is not None and name not in torchvision.models.list_models():
        _register_in_torchvision(name)(builder)


def _by_name(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, object]:
    """Return bound arguments as one dict of keywords."""
    arguments: dict[str, object] = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= cast("dict[str, object]", arguments.pop(parameter.name, {}))
    return arguments


def _is_address(weights: str | os.PathLike[str], builder: Callable[..., SSD]) -> bool:
    """Return whether weights are the address of a saved model, and not an entry's name."""
    if not isinstance(weights, str):
        return True
    if weights in get_model_weights(builder).__members__:
        return False
    return (
        weights.startswith("hf-hub:")
        or weights.lower().endswith(".safetensors")
        or "/" in weights
        or os.path.isdir(weights)
    )


def _as_saved(
    saved: SavedModel, asked: Mapping[str, object], signature: inspect.Signature, name: str
) -> dict[str, object]:
    """Complete a builder's arguments with those of a saved model.

    Steps and offsets of default boxes hold for one input size. If the caller asks for another size, the builder's are
    taken.

    Args:
        saved: The saved model.
        asked: The caller's arguments, which override the saved ones.
        signature: The builder's signature.
        name: The builder's name.

    Raises:
        ValueError: If another builder made the model, except that clip models start from those of images.
    """
    build = builder_of(saved)
    if name not in (saved.builder, f"{saved.builder}_3d"):
        raise ValueError(
            f"{saved.weights} is a model of {saved.builder}, not of {name}. ssd_zoo.from_pretrained builds it by its "
            f"own builder; get_model({saved.builder!r}, weights=…) takes other options."
        )
    check_whole(saved, build, asked)
    arguments = {name: value for name, value in saved.arguments.items() if name in signature.parameters}
    weights = saved.weights
    asked = {name: value for name, value in asked.items() if (name, value) != ("size", None)}
    if "size" in asked and parse_size(asked["size"]) != saved.arguments["size"]:
        saved_boxes = cast(BoxSettings, weights.settings["default_boxes"])
        default_boxes = {name: value for name, value in saved_boxes.items() if name not in ("steps", "offsets")}
        weights = dataclasses.replace(weights, settings={**weights.settings, "default_boxes": default_boxes})
    return {**arguments, **asked, "weights": weights}


@with_near_keywords
def list_models(include: Iterable[str] | str | None = None, exclude: Iterable[str] | str | None = None) -> list[str]:
    """List the names of the registered models.

    Args:
        include: Shell-style patterns; only names that match one are listed.
        exclude: Shell-style patterns; names that match one are not.

    Example:
        >>> [name.removesuffix("_vgg16d") for name in list_models("ssd*_vgg16d")]
        ['ssd256', 'ssd300', 'ssd512']
    """
    names = sorted(_BUILDERS.keys() | _PLUGINS.keys())
    if include is not None:
        names = [name for name in names if _matches(name, include)]
    if exclude is not None:
        names = [name for name in names if not _matches(name, exclude)]
    return names


def usable_models(include: Iterable[str] | str | None = None) -> list[str]:
    """List the models whose builders can be imported; log a warning of each other.

    Args:
        include: See `list_models`.
    """
    names = []
    for name in list_models(include):
        try:
            get_model_builder(name)
            names.append(name)
        except (ImportError, ValueError) as error:
            _log.warning("%s", error)
    return names


def _matches(name: str, patterns: Iterable[str] | str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))


def get_model_builder(name: str) -> Callable[..., SSD]:
    """Return a builder by its name, in upper or lower case.

    Raises:
        ImportError: If the builder is of another package, which can't be imported.
        ValueError: If no builder has the name; the message proposes similar names.
    """
    key = name.lower()
    if key not in _BUILDERS and key in _PLUGINS:
        return _PLUGINS[key].load()
    try:
        return _BUILDERS[key]
    except KeyError:
        raise ValueError(f"Unknown model {name!r}. {propose(key, list_models())}") from None


def builder_of(saved: SavedModel) -> Callable[..., SSD]:
    """Return the builder of a saved model.

    Raises:
        ValueError: If it is not known here; the message names the package that has it.
    """
    try:
        return get_model_builder(saved.builder)
    except ValueError as error:
        raise ValueError(f"{error}{missing_package(saved.weights.meta.get('package'))}") from error


def get_model(name: str, **config: object) -> SSD:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **config: Passed to the builder, whose errors pass, as do those of `get_model_builder`.
    """
    return get_model_builder(name)(**config)


def get_model_weights(name: str | Callable[..., SSD]) -> type[WeightsEnum]:
    """Return the enum of a model's weights, or the empty `WeightsEnum`.

    Args:
        name: The model's name or its builder.
    """
    builder = get_model_builder(name) if isinstance(name, str) else name
    try:
        return torchvision.models.get_model_weights(builder)
    except ValueError:
        # The annotation of `weights` names no enum.
        return WeightsEnum


def get_weight(name: str) -> WeightsEnum:
    """Return a weights entry by its full name.

    Args:
        name: For example `"SSD300_VGG16D_Weights.COCO_V1"`; letter case counts.

    Raises:
        ValueError: If no entry has the name; the message proposes similar names.
    """
    entries = {
        str(entry): entry for model in usable_models() for entry in get_model_weights(model).__members__.values()
    }
    if name not in entries:
        raise ValueError(f"Unknown weights {name!r}. {propose(name, list(entries))}")
    return entries[name]


def propose(name: str, allowed: list[str]) -> str:
    """Return a sentence that proposes names similar to an unknown one, or lists all that are `allowed`."""
    close = difflib.get_close_matches(name, allowed, n=3)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known are: {', '.join(allowed)}."

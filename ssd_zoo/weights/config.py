"""The config.json of a saved model, which rebuilds the model without tensors."""

import functools
import importlib
import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ssd_zoo._version import __version__
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.weights.entries import Weights, detection_transforms

__all__ = ["SavedModel", "describe", "open_config"]

FORMAT = 1
_LARGEST_SIDE = 16384
# Former modules of classes, as named by configs of older versions.
_MOVED = {
    "ssd_zoo.detector.layers": "ssd_zoo.layers.basic",
    "ssd_zoo.detector.convolution": "ssd_zoo.layers.convolution",
}
_log = logging.getLogger("ssd_zoo")

# Settings are read from the model, since they may have changed after the build.
_SETTINGS = [
    name
    for name, parameter in inspect.signature(SSD).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("head", "in_chans")
]
_OTHERWISE = ("num_classes", "categories", "size", "default_boxes")


class SavedModel(NamedTuple):
    """A saved model whose tensors are not read yet.

    Attributes:
        builder: Name of its builder.
        arguments: The builder's own arguments, with `size` and `in_chans`.
        weights: Its tensors, categories and settings.
    """

    builder: str
    arguments: dict[str, Any]
    weights: Weights


def describe(model: SSD) -> dict[str, Any]:
    """Return the config that rebuilds a model without its tensors.

    Raises:
        ValueError: If no registered builder made the model, or an argument can't be saved by its name.
    """
    if model.recipe is None:
        raise ValueError(
            "No registered builder made this model, so it can't be built again. "
            "Decorate the function that makes it with ssd_zoo.register_model, and save its result."
        )
    builder, asked = model.recipe
    own = {name: value for name, value in asked.items() if name not in {*_SETTINGS, *_OTHERWISE}}
    boxes = model.default_box_generator
    return {
        "format": FORMAT,
        "library": "ssd_zoo",
        "version": __version__,
        "builder": builder,
        "arguments": {name: _encode(name, value) for name, value in own.items()} | {"size": list(model.size)},
        "categories": model.categories,
        "settings": {name: value for name in _SETTINGS if (value := _setting(model, name)) is not None},
        "default_boxes": asdict(boxes),
    }


def _setting(model: SSD, name: str) -> Any:
    value = getattr(model, name)
    if name in ("image_mean", "image_std"):
        return value.flatten().tolist()
    if callable(value):
        _log.warning("%s is a custom function; the saved model will have the builder's.", name)
        return None
    return "none" if value is None else value


def _encode(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(name, item) for item in value]
    if callable(value):
        call = value if isinstance(value, functools.partial) else functools.partial(value)
        path = f"{getattr(call.func, '__module__', '')}.{getattr(call.func, '__qualname__', '')}"
        if _find_module(path) is call.func:
            keywords = {key: _encode(name, item) for key, item in call.keywords.items()}
            return {"callable": path, "args": [_encode(name, item) for item in call.args], "keywords": keywords}
    raise ValueError(
        f"{name}={value!r} can't be saved by its name. Use a class of torch.nn, torchvision.ops or ssd_zoo.layers, "
        "with functools.partial where it takes arguments, such as partial(torch.nn.GroupNorm, 32)."
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict):
        part = _find_module(value["callable"])
        if part is None:
            raise ValueError(f"{value['callable']!r} is not a module of torch.nn, torchvision.ops or ssd_zoo.layers")
        return functools.partial(part, *_decode(value["args"]), **{k: _decode(v) for k, v in value["keywords"].items()})
    return value


def _find_module(path: str) -> type[nn.Module] | None:
    """Find a module class by its path, in packages that only compute."""
    home, _, name = path.rpartition(".")
    home = _MOVED.get(home, home)
    if not home.startswith(("torch.nn.modules.", "torchvision.ops.", "ssd_zoo.layers.", "ssd_zoo.detector.")):
        return None
    found = getattr(importlib.import_module(home), name, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def open_config(text: str | bytes, file: Path, source: str) -> SavedModel:
    """Read a config.

    Args:
        text: The JSON.
        file: Path of the tensors.
        source: Name of the model in reports and errors.

    Raises:
        ValueError: If the text is not a config, has a newer format, or holds names that this version does not know.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"The config of {source} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int) or "builder" not in config:
        raise ValueError(
            f"The config of {source} is not of ssd_zoo: it lacks 'format' or 'builder'. Models of other origins "
            "are read by ssd_zoo.load_checkpoint."
        )
    if config["format"] > FORMAT:
        raise ValueError(
            f"{source} has format {config['format']}, saved by ssd_zoo {config.get('version')}; this version "
            f"({__version__}) reads formats up to {FORMAT}. pip install --upgrade ssd_zoo"
        )
    try:
        return _settle(config, file)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"The config of {source} can't be used: {what}") from error


def _settle(config: Mapping[str, Any], file: Path) -> SavedModel:
    arguments = {name: _decode(value) for name, value in config["arguments"].items()}
    arguments["size"] = parse_size(arguments["size"])
    if max(arguments["size"]) > _LARGEST_SIDE:
        raise ValueError(f"size {arguments['size']} is larger than {_LARGEST_SIDE}.")
    if str(arguments.get("backbone")).startswith("local-dir:"):
        raise ValueError(f"backbone {arguments['backbone']!r} would read a folder of this machine.")
    categories = config["categories"]
    if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
        raise ValueError(f"categories must be a list of names, got {categories!r}.")
    settings = {name: None if value == "none" else value for name, value in config["settings"].items()}
    unknown = settings.keys() - set(_SETTINGS)
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}; known are {', '.join(_SETTINGS)}.")
    weights = Weights(
        url=str(file),
        transforms=detection_transforms,
        meta={**config.get("meta", {}), "categories": categories, "builder": config["builder"]},
        # Older configs have no offsets.
        settings={**settings, "default_boxes": {"offsets": None, **config["default_boxes"]}},
    )
    return SavedModel(config["builder"], arguments, weights)

"""The config.json of a saved model, which rebuilds the model without tensors.

Anyone may have written a config, and what it names is built. So this module lists all that a config may hold.
"""

import functools
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple, TypedDict

from torch import nn

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.version import __version__
from ssd_zoo.weights.categories import check_names
from ssd_zoo.weights.config_id import digest_in
from ssd_zoo.weights.entries import Weights, detection_transforms
from ssd_zoo.weights.outside import JSON, listing, mapping, number, parse_json, quote, text, whole

__all__ = ["SavedModel", "check_arguments", "describe", "is_plain_word", "open_config"]

FORMAT = 1
# Former modules of classes, as named by configs of older versions.
_MOVED = {
    "ssd_zoo.detector.layers": "ssd_zoo.layers.basic",
    "ssd_zoo.detector.convolution": "ssd_zoo.layers.convolution",
}
# Modules of norms and activations; others could take memory without end.
_HOMES = (
    *(f"torch.nn.modules.{home}" for home in ("activation", "batchnorm", "instancenorm", "linear", "normalization")),
    *("torchvision.ops.misc", "ssd_zoo.layers.basic", "ssd_zoo.layers.convolution"),
)
_ALLOWED = "a norm or an activation of torch.nn, torchvision.ops or ssd_zoo.layers"
_PLAIN = re.compile(r"[\w.+-]{1,100}", re.ASCII)
_LARGEST_NUMBER = 2**14
_MOST_MAPS, _MOST_SHAPES, _MOST_CATEGORIES = 32, 256, 2**16
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
    arguments: dict[str, object]
    weights: Weights


class Config(TypedDict):
    """What config.json holds, without the facts of the card and the digest."""

    format: int
    library: str
    version: str
    builder: str
    arguments: dict[str, object]
    categories: list[str]
    settings: dict[str, object]
    default_boxes: dict[str, object]


def describe(model: SSD) -> Config:
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


def _setting(model: SSD, name: str) -> object:
    """Return a setting of a model as JSON can hold it; None if the config leaves it out."""
    value = getattr(model, name)
    # Models without tiles stay readable for older versions.
    if name in ("tile", "tile_overlap") and model.tile is None:
        return None
    if name in ("image_mean", "image_std"):
        return value.flatten().tolist()
    if callable(value):
        _log.warning("%s is a custom function; the saved model will have the builder's.", name)
        return None
    return "none" if value is None else value


def _encode(name: str, value: object) -> object:
    """Return a builder's argument as JSON can hold it; a class of layers is saved by its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(name, item) for item in value]
    if callable(value):
        call: functools.partial[object] = value if isinstance(value, functools.partial) else functools.partial(value)
        path = f"{getattr(call.func, '__module__', '')}.{getattr(call.func, '__qualname__', '')}"
        if _find_module(path) is call.func:
            keywords = {key: _encode(name, item) for key, item in call.keywords.items()}
            return {"callable": path, "args": [_encode(name, item) for item in call.args], "keywords": keywords}
    raise ValueError(
        f"{name}={value!r} can't be saved by its name. Use a class of torch.nn, torchvision.ops or ssd_zoo.layers, "
        "with functools.partial where it takes arguments, such as partial(torch.nn.GroupNorm, 32)."
    )


def _decode(value: JSON, what: str) -> object:
    """Return the argument that `_encode` saved; `what` names it in errors."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, list):
        return [_decode(item, what) for item in listing(value, what, longest=64)]
    if isinstance(value, dict):
        return _decode_module(value, what)
    limited = number(value, what, low=-_LARGEST_NUMBER, high=_LARGEST_NUMBER)
    return value if isinstance(value, int) else limited


def _decode_module(value: dict[str, JSON], what: str) -> Callable[..., nn.Module]:
    """Return the class of layers, with its arguments, that `_encode` saved by name."""
    _refuse_unknown(value, ("callable", "args", "keywords"), f"key of {what}")
    path = text(value["callable"], f"a callable of {what}")
    part = _find_module(path)
    if part is None:
        raise ValueError(f"{what} {path!r:.100} is not {_ALLOWED}")
    args = [_decode(item, what) for item in listing(value["args"], f"args of {path}")]
    keywords = {key: _decode(item, what) for key, item in mapping(value["keywords"], f"keywords of {path}").items()}
    # A model is built where its caller wants it, and in the caller's precision.
    unknown = keywords.keys() - (inspect.signature(part).parameters.keys() - {"device", "dtype"})
    if unknown:
        raise ValueError(f"{path} has no keyword {quote(min(unknown))}")
    return functools.partial(part, *args, **keywords)


def _find_module(path: str) -> type[nn.Module] | None:
    """Return an allowed class of layers by its name, such as `torch.nn.modules.linear.Linear`; None for all others."""
    home, _, name = path.rpartition(".")
    home = _MOVED.get(home, home)
    if home not in _HOMES:
        return None
    found = getattr(importlib.import_module(home), name, None)
    # A sequence of layers, such as torchvision's MLP, may be of any size.
    if not isinstance(found, type) or not issubclass(found, nn.Module) or issubclass(found, nn.Sequential):
        return None
    return found


def open_config(content: str | bytes, file: Path, source: str, *, digest: str | None = None) -> SavedModel:
    """Read and check a config.json; the tensors are not read.

    Args:
        content: The JSON.
        file: Path of the tensors.
        source: Name of the model in reports and errors.
        digest: The digest in the header of the tensors, kept if the config names none. Reading the tensors compares it.

    Raises:
        ValueError: If the text is not a config, has a newer format, or holds names or values that are not allowed.
    """
    config = parse_json(content, f"The config of {source}")
    if not isinstance(config, dict) or not isinstance(config.get("format"), int) or "builder" not in config:
        raise ValueError(
            f"The config of {source} is not of ssd_zoo: it lacks 'format' or 'builder'. Models of other origins "
            "are read by ssd_zoo.load_checkpoint."
        )
    if whole(config["format"], "format") > FORMAT:
        raise ValueError(
            f"{source} has format {config['format']}, saved by ssd_zoo {config.get('version')!s:.40}; this version "
            f"({__version__}) reads formats up to {FORMAT}. pip install --upgrade ssd_zoo"
        )
    try:
        return _checked(config, file, digest_in(config) or digest)
    except (ImportError, KeyError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"The config of {source} can't be used: {what}") from error


def _refuse_unknown(names: Collection[str], known: Collection[str], what: str) -> None:
    """Raise ValueError if one of `names` is not `known`."""
    if unknown := set(names) - set(known):
        raise ValueError(f"unknown {what} {quote(min(unknown))}; known are {', '.join(known)}.")


def _checked(config: dict[str, JSON], file: Path, digest: str | None) -> SavedModel:
    """Check each value of a config, and return the saved model that it describes."""
    _refuse_unknown(config, [*Config.__annotations__, "meta", "weights_id", "config_id"], "key")
    if config["library"] != "ssd_zoo":
        raise ValueError(f"library must be 'ssd_zoo', got {quote(config['library'])}.")
    whole(config["format"], "format", low=1)
    text(config["version"], "version", longest=200)
    builder = text(config["builder"], "builder", longest=200)
    stored = mapping(config["arguments"], "arguments")
    arguments = {text(name, "an argument"): _decode(value, name) for name, value in stored.items() if name != "size"}
    size = listing(stored["size"], "size", shortest=2, longest=2)
    arguments["size"] = parse_size([whole(side, "a side of size", low=1) for side in size])
    in_chans = whole(arguments.get("in_chans", 3), "in_chans", low=1, high=1024)
    listed = listing(config["categories"], "categories", shortest=2, longest=_MOST_CATEGORIES)
    names = check_names([text(name, "a name among the categories", longest=1000) for name in listed])
    settings = _read_settings(mapping(config["settings"], "settings"))
    for name in ("image_mean", "image_std"):
        if len(listing(settings.get(name, [0] * in_chans), name)) != in_chans:
            raise ValueError(f"{name} must have a number for each of {in_chans} channels, got {quote(settings[name])}.")
    weights = Weights(
        url=str(file),
        transforms=detection_transforms,
        meta={**_read_facts(config), "categories": names, "builder": builder},
        settings={**settings, "default_boxes": _read_boxes(mapping(config["default_boxes"], "default_boxes"))},
        digest=digest,
    )
    return SavedModel(builder, arguments, weights)


def _read_facts(config: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the facts of the model card, such as licence and metrics, after checks."""
    facts = mapping(config.get("meta", {}), "meta")
    texts = {"weights_id": config.get("weights_id")}
    texts |= {name: facts.get(name) for name in ("licence", "origin", "trained_on")}
    for name, value in texts.items():
        if value is not None:
            text(value, name)
    for name in ("metrics", "package"):
        mapping(facts.get(name, {}), name)
    return facts


def _numbers(value: object, what: str, *, length: int, low: float, high: float) -> list[float]:
    return [number(item, f"a number of {what}", low=low, high=high) for item in listing(value, what, longest=length)]


def _tile(value: object, what: str) -> list[int]:
    return [whole(side, f"a side of {what}", low=1) for side in listing(value, what, shortest=2, longest=2)]


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, got {quote(value)}.")
    return value


_READERS: Mapping[str, Callable[[object, str], object]] = {
    "image_mean": functools.partial(_numbers, length=1024, low=-1e3, high=1e3),
    "image_std": functools.partial(_numbers, length=1024, low=1e-6, high=1e6),
    "detections_per_img": functools.partial(whole, low=1),
    "topk_candidates": functools.partial(whole, low=1),
    "min_negatives": functools.partial(whole, low=0),
    "tile": _tile,
    "tile_overlap": functools.partial(number, low=0, high=0.9),
    **dict.fromkeys(("antialias", "clip_before_nms"), _flag),
    **dict.fromkeys(("score_function", "classification_loss", "box_loss", "on_invalid_boxes"), text),
    **dict.fromkeys(
        ("score_thresh", "nms_thresh", "iou_thresh", "positive_fraction"), functools.partial(number, low=0, high=1)
    ),
}

# A function can't be saved, and is left out; so are tiles of a model that has none.
_MAY_BE_LEFT_OUT = {"classification_loss", "box_loss", "tile", "tile_overlap"}


def _read_settings(settings: Mapping[str, JSON]) -> dict[str, object]:
    _refuse_unknown(settings, _READERS, "settings")
    if missing := _READERS.keys() - settings.keys() - _MAY_BE_LEFT_OUT:
        raise ValueError(f"its settings lack {', '.join(sorted(missing))}.")
    return {
        name: None if (name, value) == ("topk_candidates", "none") else _READERS[name](value, name)
        for name, value in settings.items()
    }


def _read_boxes(boxes: Mapping[str, JSON]) -> dict[str, object]:
    _refuse_unknown(boxes, [field.name for field in fields(DefaultBoxGenerator)], "key of default_boxes")
    shapes = [
        [
            _pair(shape, "a shape of default_boxes", low=1e-6)
            for shape in listing(of_map, "shapes of a map", longest=_MOST_SHAPES)
        ]
        for of_map in listing(boxes["shapes"], "shapes of default_boxes", shortest=1, longest=_MOST_MAPS)
    ]
    steps, offsets = boxes["steps"], boxes.get("offsets")  # Older configs have no offsets.
    return {
        "shapes": shapes,
        "steps": None if steps is None else _numbers(steps, "steps", length=_MOST_MAPS, low=1e-3, high=_LARGEST_NUMBER),
        "offsets": None
        if offsets is None
        else [_pair(xy, "offsets", low=-1e3) for xy in listing(offsets, "offsets", longest=_MOST_MAPS)],
        "clip": text(boxes["clip"], "clip"),
    }


def _pair(value: object, what: str, *, low: float) -> list[float]:
    return [number(item, what, low=low, high=_LARGEST_NUMBER) for item in listing(value, what, shortest=2, longest=2)]


def check_arguments(arguments: Mapping[str, object], known: Collection[str]) -> None:
    """Check the names in a config's arguments, before a builder gets them.

    Args:
        arguments: Arguments that only the config has given.
        known: Names of the builder's arguments that a config may hold.

    Raises:
        ValueError: If an argument is unknown, or a text is not a plain word. Other texts may be addresses, from which
            timm and the Hub would download.
    """
    for name, value in arguments.items():
        if name not in known:
            raise ValueError(f"unknown argument {quote(name)}; known are {', '.join(known)}.")
        if not is_plain_word(value):
            raise ValueError(
                f"{name} {quote(value)} is not a plain name, and could read a folder of this machine or make a "
                f"request. If you trust it, pass {name}={quote(value)} yourself."
            )


def is_plain_word(value: object) -> bool:
    """Return whether all texts of an argument are plain words: letters, digits, `_`, `.`, `+`, `-`."""
    words = value if isinstance(value, list) else [value]
    return all(_PLAIN.fullmatch(word) for word in words if isinstance(word, str))

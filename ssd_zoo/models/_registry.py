"""The table of builders. Names in it are the only ones; hub, command line, docs and tests read them from here."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torchvision

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._weights import WeightsEnum

try:
    from torchvision.models._api import register_model as _register_in_torchvision
except ImportError:
    _register_in_torchvision = None

__all__ = ["get_model", "get_model_builder", "get_model_weights", "get_weight", "list_models", "register_model"]

_BUILDERS: dict[str, Callable[..., SSD]] = {}

Builder = TypeVar("Builder", bound=Callable[..., SSD])


def register_model(builder: Builder) -> Builder:
    """Registers a builder under its name, and in torchvision's registry too, where that still exists.

    Raises:
        ValueError: If the name is taken.
    """
    name = builder.__name__
    if name in _BUILDERS:
        raise ValueError(f"A model named {name!r} is already registered.")
    _BUILDERS[name] = builder
    if _register_in_torchvision is not None and name not in torchvision.models.list_models():
        _register_in_torchvision(name)(builder)
    return builder


def list_models(include: Iterable[str] | str | None = None, exclude: Iterable[str] | str | None = None) -> list[str]:
    """Lists the names of the registered models.

    Args:
        include: Shell-style patterns; only names that match one are listed.
        exclude: Shell-style patterns; names that match one are not.

    Example:
        >>> list_models("ssd*_vgg16d")
        ['ssd256_vgg16d', 'ssd300_vgg16d', 'ssd512_vgg16d']
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
    """Gives the builder of that name, in whatever case.

    Raises:
        ValueError: If there is none; the message proposes names that look alike.
    """
    try:
        return _BUILDERS[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown model {name!r}. {propose(name.lower(), list_models())}") from None


def get_model(name: str, **config: Any) -> SSD:
    """Builds a model by name.

    Args:
        name: One of `list_models()`.
        **config: Passed to the builder.
    """
    return get_model_builder(name)(**config)


def get_model_weights(name: str | Callable[..., SSD]) -> type[WeightsEnum]:
    """Gives the enum of a model's weights.

    Args:
        name: The model's name or its builder.
    """
    return torchvision.models.get_model_weights(get_model_builder(name) if isinstance(name, str) else name)


def get_weight(name: str) -> WeightsEnum:
    """Gives a weights entry by its full name.

    Args:
        name: For example `"SSD300_VGG16D_Weights.COCO_V1"`.

    Raises:
        ValueError: If there is none.
    """
    entries = {str(entry): entry for model in list_models() for entry in get_model_weights(model).__members__.values()}
    if name not in entries:
        raise ValueError(f"Unknown weights {name!r}. {propose(name, list(entries))}")
    return entries[name]


def propose(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=3)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known are: {', '.join(allowed)}."

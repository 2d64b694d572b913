"""Decorators of functions that `torch.compile` leaves out."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

__all__ = ["not_compiled", "only_callees_compiled"]

P = ParamSpec("P")
R = TypeVar("R")


def not_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that `torch.compile` runs it, and what it calls, uncompiled.

    It breaks the graph.
    """
    return cast(Callable[P, R], torch.compiler.disable(function))


def only_callees_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Exclude a function from compilation, but not what it calls."""
    return cast(Callable[P, R], torch.compiler.disable(function, recursive=False))

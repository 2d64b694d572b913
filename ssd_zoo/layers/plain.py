"""Tests whether faster code may replace a call of a module.

It must do all that the call would do. Hooks, parametrisations, pruning, offloading and tracers add to a call.
"""

import re

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["AsMade", "has_additions", "has_global_hooks", "is_plain", "is_watched"]

# torch 2.6 has no is_exporting.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))
# Only newer versions of torch have a function for this; these dicts are never replaced.
_GLOBAL_HOOKS = [
    hooks
    for name, hooks in vars(torch.nn.modules.module).items()
    if re.fullmatch(r"_global_(for|back)ward_.*hooks", name)
]
_METHODS = ("__call__", "__getattr__", "forward", "_conv_forward")
# Attributes of an instance that replace what its class or its parameters define, such as a pruned weight.
_REPLACED = {*_METHODS, "weight", "bias", "_compiled_call_impl"}
_PLAIN = {Tensor, nn.Parameter, type(None)}


class AsMade:
    """Recogniser of modules that nothing was added to since they were made.

    They have the attributes of a new module and no others, no hooks, and the methods of their class.

    Args:
        new: A new module of each class to recognise. Subclasses are not recognised.
    """

    def __init__(self, *new: nn.Module) -> None:
        self._known = {type(module): (frozenset(vars(module)), _methods(type(module))) for module in new}

    def __call__(self, module: nn.Module) -> bool:
        """Return whether a module is of a known class and as it was made."""
        names, methods = self._known.get(type(module), (None, None))
        return vars(module).keys() == names and _methods(type(module)) == methods and not has_additions(module)


def _methods(kind: type[nn.Module]) -> list[object]:
    return [getattr(kind, name, None) for name in _METHODS]


def has_additions(module: nn.Module) -> bool:
    """Return whether a layer has hooks, its own `forward`, or special weights.

    Its call then does more than its class defines. Special are weights that are computed, such as pruned ones, or of a
    subclass of Tensor. A compiled layer counts too.
    """
    own = vars(module)
    kinds = {type(value) for value in (*own["_parameters"].values(), *own["_buffers"].values())}
    return any(map(own.get, _HOOKS)) or not _REPLACED.isdisjoint(own) or not kinds <= _PLAIN


def has_global_hooks() -> bool:
    """Return whether hooks were registered for the calls of all modules."""
    return any(_GLOBAL_HOOKS)


def is_plain(value: object) -> bool:
    """Return whether a value is a Tensor or Parameter, and not of a subclass; False for None."""
    # torch 2.6 can't compile a search in a set.
    return type(value) is Tensor or type(value) is nn.Parameter


def is_watched() -> bool:
    """Return whether anything but plain autograd observes the next operators.

    Observers are transforms of `torch.func`, forward-mode differentiation, tracers, exporters and torch's modes.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    if torch.compiler.is_compiling():
        return _is_exporting()
    modes = torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack()
    return modes > 0 or bool(torch.jit.is_tracing())  # type: ignore[attr-defined]

"""Norms that were folded into convolutions, recognised in any precision."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["folded_norms", "remember_folded_norms"]

# Largest eps of a source.
_MOST_EPS = 0.01


def folded_norms(model: nn.Module, state: Mapping[str, Tensor] | None = None, prefix: str = "") -> list[str]:
    """List the norms that were folded into convolutions.

    They have a running mean of 0 and a running variance of 1 - eps in every channel. The eps is the source's, so any
    variance just below 1 counts.

    Args:
        model: The model. Its attribute `norms_folded_before` lists norms that were recognised in another precision.
        state: The state dict to look at; by default the model's tensors.
        prefix: What precedes the model's names in the state dict.

    Returns:
        Names of these norms in the model.
    """
    known = getattr(model, "norms_folded_before", ()) if state is None else ()
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    folded = []
    for name, norm in norms:
        tensors: list[Tensor | None] = [norm.running_mean, norm.running_var, norm.bias]
        if state is not None:
            names = (f"{prefix}{name}.{key}" for key in ("running_mean", "running_var", "bias"))
            tensors = [state.get(full_name) for full_name in names]
        mean, variance, bias = tensors
        if mean is not None and variance is not None and _is_neutral(mean, variance, bias, name in known):
            folded.append(name)
    return folded


def _is_neutral(mean: Tensor, variance: Tensor, bias: Tensor | None, known: bool) -> bool:
    """Return whether statistics are those of a folded norm; `known` if they were before a change of precision."""
    if mean.is_meta or mean.any() or not variance.numel():
        return False
    # bfloat16 rounds 1 - eps to 1, the variance of a new norm. The bias of a new norm is 0.
    known = known or (variance.dtype == torch.bfloat16 and bias is not None and bool(bias.any()))
    [value, *others] = variance.double().unique().tolist()
    return not others and (1 - _MOST_EPS <= value < 1 or (known and value == 1))


def remember_folded_norms(model: nn.Module) -> None:
    """Keep a model's folded norms recognisable in half precision.

    They are recognised by a variance just below 1, which bfloat16 rounds to 1. So the model's state dicts hold it in
    float32, and loading one notes the norms in the attribute `norms_folded_before`.
    """
    model.register_load_state_dict_pre_hook(_read_from_state)
    model.register_state_dict_post_hook(_write_to_state)


def _read_from_state(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Note the folded norms of a state dict that is loaded; a hook."""
    model.__dict__["norms_folded_before"] = folded_norms(model, state, prefix)


def _write_to_state(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Write the variances of folded norms in float32 into a new state dict; a hook."""
    for name in folded_norms(model, None):
        key = f"{prefix}{name}.running_var"
        if key in state and state[key].dtype in (torch.float16, torch.bfloat16):
            eps = float(getattr(model.get_submodule(name), "eps", 0))
            state[key] = torch.full_like(state[key], 1 - eps, dtype=torch.float32)

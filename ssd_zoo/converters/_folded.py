"""Norms that a source has folded into its convolutions."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["fill_folded_norms"]

_OFFSET = re.compile(r"(.*\bnorms?(\.\d+)*)\.bias")


def fill_folded_norms(state: Mapping[str, Tensor], *, eps: float) -> dict[str, Tensor]:
    """Add what folded norms lack, so that they pass their input on and add their bias.

    A source without norms has one offset a channel where our models have a norm. Its gain, where the source has one,
    is the norm's weight. `ssd_zoo.restore_norms` gives such norms statistics to train with.

    Args:
        state: Tensors by our names; of a folded norm the bias, and perhaps the weight.
        eps: The norms' epsilon: a variance of 1 - eps divides by 1.
    """
    filled = dict(state)
    for name, bias in state.items():
        match = _OFFSET.fullmatch(name)
        if match and f"{match[1]}.running_mean" not in state:
            filled.setdefault(f"{match[1]}.weight", bias.new_ones(bias.shape))
            filled[f"{match[1]}.running_mean"] = bias.new_zeros(bias.shape)
            filled[f"{match[1]}.running_var"] = bias.new_full(bias.shape, 1 - eps)
    return filled

"""Restoration of batch norms that an exported network has folded into convolutions.

Of a folded norm only a gain and an offset per channel remain. With a mean of 0 and a variance of 1 - eps it keeps its
output in evaluation mode. In training mode it normalises by the batch, which changes its output.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn

from ssd_zoo.detector.ranges import check_count
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.folded import folded_norms

__all__ = ["fill_folded_norms", "restore_norms"]

# Fewest images that are not warned of.
_FEW = 32
_log = logging.getLogger("ssd_zoo")
_OFFSET = re.compile(r"(.*\bnorms?(\.\d+)*)\.bias")


def fill_folded_norms(state: Mapping[str, Tensor], *, eps: float) -> dict[str, Tensor]:
    """Add neutral statistics, and weights where missing, to folded norms.

    Such a norm multiplies its input by its weight and adds its bias. `restore_norms` later computes real statistics for
    training.

    Args:
        state: Tensors by our names; for a folded norm the bias, and perhaps the weight.
        eps: The norms' epsilon; with a variance of 1 - eps they divide by 1.
    """
    filled = dict(state)
    for name, bias in state.items():
        match = _OFFSET.fullmatch(name)
        if match and f"{match[1]}.running_mean" not in state:
            filled.setdefault(f"{match[1]}.weight", bias.new_ones(bias.shape))
            filled[f"{match[1]}.running_mean"] = bias.new_zeros(bias.shape)
            filled[f"{match[1]}.running_var"] = bias.new_full(bias.shape, 1 - eps)
    return filled


@torch.no_grad()
def restore_norms(model: SSD, images: Iterable[Tensor], *, batch_size: int = 8) -> int:
    """Restore the statistics of folded norms from images, for training.

    Each norm gets the mean and variance of its input on these images. Its weight and bias change so that its output in
    evaluation mode stays the same. Use 64 to 128 unlabelled images that resemble the training data of the weights.

    Args:
        model: The detector, changed in place. Norms with statistics stay unchanged.
        images: Tensors `(C, H, W)` as for calling the model, on its device. Under 32 are warned of in the log.
        batch_size: Images in a batch.

    Returns:
        The number of restored norms; 0 if none was folded.

    Raises:
        ValueError: If there are fewer than two images, or one is invalid; not if no norm is folded.
    """
    check_count("batch_size", batch_size)
    norms = [cast(nn.BatchNorm2d, model.get_submodule(name)) for name in folded_norms(model)]
    moments = {norm: _Moments() for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda norm, inputs: moments[norm].add(inputs[0])) for norm in norms]
    training, count, images = model.training, 0, iter(images)
    try:
        model.eval()
        while norms and (batch := list(islice(images, batch_size))):
            model.forward_raw(model.prepare(batch))
            count += len(batch)
        if norms and count < 2:
            raise ValueError(f"Norms need the statistics of at least 2 images, got {count}; 64 to 128 are enough.")
        if norms and count < _FEW:
            _log.warning("The norms' statistics are of %d images, which is few: take 64 to 128.", count)
        for norm in norms:
            moments[norm].fill(norm)
    finally:
        for hook in hooks:
            hook.remove()
        # SSD.train would warn of norms that are still folded.
        nn.Module.train(model, training)
    return len(norms)


class _Moments:
    """Sums for the mean and variance of a norm's input, per channel."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Add a batch `(N, channels, H, W)`."""
        rows = values.double().transpose(0, 1).flatten(1)
        self.count += rows.shape[1]
        self.sum = self.sum.to(rows) + rows.sum(1)
        self.squares = self.squares.to(rows) + rows.square().sum(1)

    def fill(self, norm: nn.BatchNorm2d) -> None:
        """Set a folded norm's statistics; adapt weight and bias to them."""
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        # The folded norm computes weight * x + bias.
        norm.bias.copy_(norm.bias + norm.weight * mean)
        norm.weight.copy_(norm.weight * (variance + norm.eps).sqrt())
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)

"""Norms that a source has folded into its convolutions, and their way back.

An exported network keeps of a batch norm only a gain and an offset a channel. With a mean of 0 and a variance of
1 - eps such a norm does in evaluation what it did before. In training it would normalise by the batch instead, which
changes all that follows.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import folded_norms

__all__ = ["fill_folded_norms", "restore_norms"]

_OFFSET = re.compile(r"(.*\bnorms?(\.\d+)*)\.bias")


def fill_folded_norms(state: Mapping[str, Tensor], *, eps: float) -> dict[str, Tensor]:
    """Add what folded norms lack, so that they pass their input on and add their bias.

    A source without norms has one offset a channel where our models have a norm. Its gain, where the source has one,
    is the norm's weight. `restore_norms` gives such norms statistics to train with.

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


@torch.no_grad()
def restore_norms(model: SSD, images: Iterable[Tensor], *, batch_size: int = 8) -> int:
    """Restore norms that were folded away, by running images.

    Each gets the mean and variance of its input on these images. Its weight and bias change so that its output in
    evaluation mode stays. After that the model can be trained. 64 to 128 images like those of the source's training
    are enough; they need no labels.

    Args:
        model: The detector; it is changed in place. Norms that have statistics stay as they are.
        images: Tensors `(C, H, W)` as for calling the model, on its device.
        batch_size: Images that are run at once.

    Returns:
        The number of norms that were restored; 0 if none was folded.

    Raises:
        ValueError: If there are fewer than two images, or one is invalid.
    """
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
        for norm in norms:
            moments[norm].fill(norm)
    finally:
        for hook in hooks:
            hook.remove()
        # Not SSD's own, which would warn of norms that are folded still.
        nn.Module.train(model, training)
    return len(norms)


class _Moments:
    """Sums from which mean and variance of a norm's input follow, channel by channel."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take in a batch `(N, channels, H, W)`."""
        rows = values.double().transpose(0, 1).flatten(1)
        self.count += rows.shape[1]
        self.sum = self.sum.to(rows) + rows.sum(1)
        self.squares = self.squares.to(rows) + rows.square().sum(1)

    def fill(self, norm: nn.BatchNorm2d) -> None:
        """Give a folded norm these statistics, and the weight and bias that keep its output."""
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        # The folded norm gives weight * x + bias.
        norm.bias.copy_(norm.bias + norm.weight * mean)
        norm.weight.copy_(norm.weight * (variance + norm.eps).sqrt())
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)

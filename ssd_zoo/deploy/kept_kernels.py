"""Transform kernels once for Winograd's algorithm."""

import torch
from torch import Tensor, nn

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.convolution import FastConv2d, conv2d, winograd_pays
from ssd_zoo.layers.plain import has_additions
from ssd_zoo.layers.winograd import transform_kernel, winograd_conv2d

__all__ = ["keep_kernels"]


def keep_kernels(model: SSD, batch: Tensor, *, in_graphs: bool) -> int:
    """Store transformed kernels in convolutions that Winograd's algorithm accelerates.

    The model is changed in place. A transformed kernel needs four times the memory of the kernel, in addition to it. It
    is not used once the kernel was changed in place or the convolution got a hook, a parametrisation or the like.
    Layers that have such already stay as they are.

    Args:
        model: A detector for inference.
        batch: Input of `forward_raw`. Its size determines which convolutions become faster.
        in_graphs: Whether compiled graphs use the algorithm too, as the operator `ssd_zoo::conv2d`.

    Returns:
        Number of convolutions with a transformed kernel.
    """
    chosen: dict[nn.Module, _KeptKernel] = {}

    def choose(module: nn.Module, args: tuple[Tensor]) -> None:
        if isinstance(module, nn.Conv2d) and winograd_pays(module, args[0], module.weight, kept=True):
            chosen[module] = _KeptKernel(module, in_graphs)

    convs = [
        module for module in model.modules() if type(module) in (nn.Conv2d, FastConv2d) and not has_additions(module)
    ]
    hooks = [module.register_forward_pre_hook(choose) for module in convs]
    with torch.no_grad():
        model.forward_raw(batch)
    for hook in hooks:
        hook.remove()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if child in chosen:
                setattr(module, name, chosen[child])
    return len(chosen)


class _KeptKernel(nn.Module):
    """A convolution with its kernel transformed in advance.

    Args:
        conv: The convolution.
        in_graphs: Whether compiled graphs use Winograd's algorithm too.
    """

    transformed: Tensor

    def __init__(self, conv: nn.Conv2d, in_graphs: bool) -> None:
        super().__init__()
        self.conv, self.in_graphs = conv, in_graphs
        self.register_buffer("transformed", transform_kernel(conv.weight.detach()), persistent=False)
        self._made_of: tuple[Tensor | None, int] = conv.weight, _version(conv.weight)

    def forward(self, input: Tensor) -> Tensor:
        conv = self.conv
        padding = int(conv.padding[0])
        if torch.compiler.is_compiling():
            kept = padding, 1, self.transformed
            return conv2d(input, conv.weight, conv.bias, *kept) if self.in_graphs else conv(input)
        if has_additions(conv) or not self._is_fresh():
            return conv(input)
        if winograd_pays(conv, input, conv.weight, kept=True):
            return winograd_conv2d(input, conv.weight, conv.bias, padding, self.transformed)
        return conv(input)

    def _is_fresh(self) -> bool:
        """Return whether the kernel is unchanged since it was transformed."""
        weight, version = self._made_of
        return self.conv.weight is weight and _version(self.conv.weight) == version

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_made_of": self._is_fresh()}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore a copy or a pickle; a transformed kernel that was out of date stays so.

        Tensors of a copy count their changes from 0 again.
        """
        super().__setstate__(state)
        weight = self.conv.weight
        self._made_of = weight if state["_made_of"] else None, _version(weight)


def _version(weight: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 for inference tensors, which do not count."""
    return 0 if weight.is_inference() else weight._version

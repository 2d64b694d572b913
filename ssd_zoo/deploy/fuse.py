"""Fold batch norms into the convolutions before them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.layers.plain import has_additions

__all__ = ["fuse_norms"]


def fuse_norms(model: SSD, batch: Tensor) -> int:
    """Fold batch norms into the convolutions before them, in place.

    A norm is folded if a convolution's output has no other use, and each of the two runs once. Uses are recorded during
    a forward pass, so the code of the modules does not matter. Layers with hooks, parametrisations, pruned or offloaded
    weights stay as they are.

    Args:
        model: A detector in evaluation mode, which shares no modules with another model.
        batch: Input of `forward_raw`.

    Returns:
        Number of folded norms.
    """
    with torch.no_grad(), _Watch() as watch:
        model.forward_raw(batch)
    modules = [(name, module) for name, module in model.named_modules() if not has_additions(module)]
    convs: dict[int | None, nn.Conv2d] = {
        id(module.weight): module for _, module in modules if isinstance(module, nn.Conv2d)
    }
    fused = 0
    norms = [(name, module) for name, module in modules if isinstance(module, nn.BatchNorm2d)]
    for name, norm in norms:
        conv, after = convs.get(watch.kernel_before(norm)), _replacement(norm)
        if conv is None or after is None:
            continue
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, after)
        fused += 1
    return fused


def _replacement(norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return the module that replaces a norm after folding; None if it can't be folded."""
    if norm.running_mean is None or norm.training:
        return None
    if type(norm) in (nn.BatchNorm2d, BatchNorm2d):
        return nn.Identity()
    # timm's norm includes drop and activation, which remain.
    if type(norm).__name__ != "BatchNormAct2d":
        return None
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


class _Watch(TorchFunctionMode):
    """Mode that records which tensors enter each torch function.

    While it is active, `FastConv2d` and `ConvNormAct` take no shortcuts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uses: Counter[int] = Counter()
        self._kernels: dict[int, int] = {}
        self._norms: dict[int, list[int]] = {}
        # Keeps tensors alive, as Python reuses the ids of freed objects.
        self._alive: list[object] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self._alive.append((args, kwargs, result))
        # Reading an attribute, such as the shape, is no use of the values.
        if getattr(func, "__name__", "") not in ("__get__", "dim", "size", "is_floating_point", "numel"):
            self._uses.update(id(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if func is torch.conv2d:
            self._kernels[id(result)] = id(args[1])
        if func is nn.functional.batch_norm:
            self._norms.setdefault(id(args[1]), []).append(id(args[0]))
        return result

    def kernel_before(self, norm: nn.BatchNorm2d) -> int | None:
        """Return the id of the kernel whose output only the norm uses; None if there is none."""
        inputs = self._norms.get(id(norm.running_mean), [])
        kernel = self._kernels.get(inputs[0]) if len(inputs) == 1 else None
        return kernel if kernel is not None and self._uses[kernel] == self._uses[inputs[0]] == 1 else None

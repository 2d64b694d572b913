"""Batch norms folded into the convolutions before them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d

__all__ = ["fuse_norms"]


def fuse_norms(model: SSD, batch: Tensor) -> int:
    """Folds each batch norm that is all that becomes of a convolution into it, in place.

    Which these are is watched while the network runs, so it makes no difference how its modules are written.

    Args:
        model: A detector in evaluation mode, whose own the weights are.
        batch: What `forward_raw` takes.

    Returns:
        How many norms were folded.
    """
    # Where gradients are recorded, our own layers leave their norms alone.
    with torch.enable_grad(), _Watch() as watch:
        model.forward_raw(batch.as_subclass(_Watched))
    convs = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Conv2d)}
    fused = 0
    norm: Any
    for name, norm in list(model.named_modules()):
        after = _what_is_left(norm)
        conv = convs.get(watch.kernel_before(norm)) if after is not None else None
        if conv is None:
            continue
        statistics = norm.running_mean, norm.running_var, norm.eps
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, after)
        fused += 1
    return fused


def _what_is_left(norm: Any) -> nn.Module | None:
    """Gives what a norm does besides; None if it is no batch norm with statistics of its own."""
    kind: type = type(norm)
    if not issubclass(kind, nn.BatchNorm2d) or norm.running_mean is None or norm.training:
        return None
    if kind in (nn.BatchNorm2d, BatchNorm2d):
        return nn.Identity()
    # timm's, which brings its activation.
    return nn.Sequential(norm.drop, norm.act) if kind.__name__ == "BatchNormAct2d" else None


class _Watched(Tensor):
    """For a tensor that is none of torch's own, our layers call torch's functions alone."""


class _Watch(TorchFunctionMode):
    """Notes which tensors go into which functions."""

    def __init__(self) -> None:
        super().__init__()
        self._uses: Counter[int] = Counter()
        self._kernels: dict[int, int] = {}
        self._norms: dict[int, list[int]] = {}
        # A tensor that is gone could leave its id to another.
        self._alive: list[Any] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive.append((args, kwargs, result))
        # Reading an attribute, such as a shape, uses nothing.
        if getattr(func, "__name__", "") not in ("__get__", "dim", "size", "is_floating_point", "numel"):
            self._uses.update(id(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if func is torch.conv2d:
            self._kernels[id(result)] = id(args[1])
        if func is nn.functional.batch_norm:
            self._norms.setdefault(id(args[1]), []).append(id(args[0]))
        return result

    def kernel_before(self, norm: nn.Module) -> int | None:
        """Gives the id of the kernel whose only output goes through the norm, and nowhere else."""
        inputs = self._norms.get(id(getattr(norm, "running_mean", None)), [])
        kernel = self._kernels.get(inputs[0]) if len(inputs) == 1 else None
        return kernel if kernel is not None and self._uses[kernel] == self._uses[inputs[0]] == 1 else None

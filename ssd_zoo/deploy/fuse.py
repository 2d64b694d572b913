"""Fold batch norms into the convolutions before them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d

__all__ = ["fuse_norms"]


def fuse_norms(model: SSD, batch: Tensor) -> int:
    """Fold batch norms into the convolutions before them, in place.

    A norm is folded if a convolution's output has no other use, and each of the two runs once. Uses are recorded during
    a forward pass, so the code of the modules does not matter.

    Args:
        model: A detector in evaluation mode, which shares no modules with another model.
        batch: Input of `forward_raw`.

    Returns:
        Number of folded norms.
    """
    # Without gradients, `ConvNormAct` folds its norm itself, which hides the norm from the recording.
    with torch.enable_grad(), _Watch() as watch:
        model.forward_raw(batch.as_subclass(_Watched))
    convs = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Conv2d)}
    fused = 0
    for name, norm in list(model.named_modules()):
        after = _what_is_left(norm)
        conv = convs.get(watch.kernel_before(norm)) if after is not None else None
        if conv is None or not isinstance(norm, nn.BatchNorm2d):
            continue
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, after)
        fused += 1
    return fused


def _what_is_left(norm: nn.Module) -> nn.Module | None:
    """Return a folded norm's replacement, or None if it can't be folded."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.training:
        return None
    kind: type = type(norm)
    if kind in (nn.BatchNorm2d, BatchNorm2d):
        return nn.Identity()
    # timm's norm includes drop and activation, which remain.
    parts = (norm.get_submodule(name) for name in ("drop", "act"))
    return nn.Sequential(*parts) if kind.__name__ == "BatchNormAct2d" else None


class _Watched(Tensor):
    """Tensor subclass, for which `FastConv2d` calls torch's convolution instead of its own."""


class _Watch(TorchFunctionMode):
    """Recorder of the tensors that enter each torch function."""

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

    def kernel_before(self, norm: nn.Module) -> int | None:
        """Return the id of the kernel whose output only the norm uses."""
        inputs = self._norms.get(id(getattr(norm, "running_mean", None)), [])
        kernel = self._kernels.get(inputs[0]) if len(inputs) == 1 else None
        return kernel if kernel is not None and self._uses[kernel] == self._uses[inputs[0]] == 1 else None

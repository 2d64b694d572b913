"""Shapes of a backbone's feature maps at an input size."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

__all__ = ["feature_map_shapes"]

Shape = tuple[int, int, int]

_LARGEST_SIDE = 4096
_KEEP_SHAPES = {
    *(F.batch_norm, F.group_norm, F.layer_norm, F.dropout),
    *(F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.hardswish, F.hardsigmoid, F.silu, F.gelu),
}


class _WithoutNormsAndActivations(TorchFunctionMode):
    """A mode that skips norms and activations, which keep shapes.

    On the meta device they take longer than all other layers.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return args[0] if func in _KEEP_SHAPES and args else func(*args, **(kwargs or {}))


def feature_map_shapes(backbone: nn.Module, size: tuple[int, int], in_chans: int = 3) -> list[Shape]:
    """Return (channels, height, width) of each feature map.

    The backbone runs on the meta device, so nothing is computed.

    Args:
        backbone: Maps a batch `(N, in_chans, H, W)` to a list of feature maps; it is not changed.
        size: (height, width) of the input in pixels.
        in_chans: Channels of the input.

    Raises:
        ValueError: If the size is too small for the backbone, or the backbone takes no images of `in_chans` channels.
            The message names the smallest square that works.
    """
    try:
        return _shapes_on_meta(backbone, size, in_chans)
    except RuntimeError as error:
        smallest = bisect_left(range(_LARGEST_SIDE), True, key=lambda side: _fits(backbone, side, in_chans))
        if smallest == _LARGEST_SIDE:
            raise ValueError(f"The backbone takes no images of {in_chans} channels: {error}") from error
        raise ValueError(
            f"size is {size[0]} × {size[1]} pixels, but this backbone needs at least {smallest} × {smallest}."
        ) from error


def _fits(backbone: nn.Module, side: int, in_chans: int) -> bool:
    try:
        return bool(_shapes_on_meta(backbone, (side, side), in_chans))
    except RuntimeError:
        return False


def _shapes_on_meta(backbone: nn.Module, size: tuple[int, int], in_chans: int) -> list[Shape]:
    # Each module counts once, because functional_call does not restore tensors that are listed under two names.
    on_meta = {
        f"{place}.{name}".removeprefix("."): torch.empty_like(tensor, device="meta")
        for place, module in backbone.named_modules()
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }
    batch = torch.empty(1, in_chans, *size, device="meta", dtype=next(backbone.parameters(), torch.empty(0)).dtype)
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad(), _WithoutNormsAndActivations():
            maps = functional_call(backbone, on_meta, (batch,), tie_weights=False)
    finally:
        for module, training in modes.items():
            module.training = training
    shapes = [(features.shape[1], features.shape[2], features.shape[3]) for features in maps]
    if not all(map(all, shapes)):
        raise RuntimeError("a feature map has no cells")
    return shapes

"""Fast 3 × 3 convolutions on a CPU, for inference and training."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_zoo.layers.plain import is_plain, is_watched
from ssd_zoo.layers.winograd import count_tiles, winograd_conv2d, winograd_kernel_gradient

__all__ = ["FastConv2d", "conv2d", "convolve", "winograd_pays"]

# Measured: the gradients here are faster than torch's from 64 channels on. For gradients of kernels, Winograd's
# algorithm is faster than matrix products from 64 tiles on.
_LEAST_CHANNELS, _LEAST_TILES = 64, 64


class FastConv2d(nn.Conv2d):
    """An `nn.Conv2d` with faster 3 × 3 kernels on a CPU.

    It is faster in float32 with many channels, and uses Winograd's algorithm where that pays. In training, gradients of
    kernels are computed by matrix products. Results and gradients differ from torch's by about the rounding of float32.
    Transforms of `torch.func`, forward mode and second derivatives see a plain convolution.
    Compilers see a plain convolution if no gradients are recorded; exporters always see one.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        return convolve(self, input, weight, bias)


class Convolution(Protocol):
    """Any object with the settings of an `nn.Conv2d`."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def padding(self) -> str | tuple[int, ...]: ...

    @property
    def padding_mode(self) -> str: ...


def convolve(conv: Convolution, batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve a batch as `FastConv2d` does, with a given kernel and bias.

    Args:
        conv: A layer with the settings of an `nn.Conv2d`, padded with zeros. Its own kernel is not used.
        batch: `(N, channels in, H, W)`.
        weight: `(channels out, channels in / groups, height, width)`.
        bias: `(channels out,)`, or None.

    Returns:
        `(N, channels out, H', W')`.
    """
    if torch.is_grad_enabled():
        if _suits(conv, batch, weight):
            return conv2d(batch, weight, bias, int(conv.padding[0]), conv.dilation[0])
    elif winograd_pays(conv, batch, weight):
        return winograd_conv2d(batch, weight, bias, int(conv.padding[0]))
    return F.conv2d(batch, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def winograd_pays(conv: Convolution, batch: Tensor, weight: Tensor, *, kept: bool = False) -> bool:
    """Return whether Winograd's algorithm applies and is faster.

    It does not apply while gradients are recorded or a compiler traces.

    Args:
        conv: The convolution.
        batch: Its input, `(N, channels in, H, W)`.
        weight: Its kernel, `(channels out, channels in, height, width)`.
        kept: Whether the kernel is transformed already, so that fewer tiles suffice.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return _suits(conv, batch, weight) and conv.dilation == (1, 1) and _is_large(batch, weight, kept)


def _suits(conv: Convolution, batch: Tensor, weight: Tensor) -> bool:
    """Return whether the faster kernels can compute a call: a plain 3 × 3 convolution in float32 on a CPU."""
    return (
        is_plain(batch)
        and is_plain(weight)
        and not is_watched()
        and not torch.is_autocast_enabled("cpu")
        and batch.device.type == "cpu"
        and batch.dtype == weight.dtype == torch.float32
        and batch.dim() == 4
        and batch.shape[1] == weight.shape[1]
        and (weight.shape[2:], conv.stride, conv.groups) == ((3, 3), (1, 1), 1)
        and conv.dilation[0] == conv.dilation[1]
        and conv.padding in ((0, 0), conv.dilation)
        and conv.padding_mode == "zeros"
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
    )


def _is_large(batch: Tensor, weight: Tensor, kept: bool = False) -> bool:
    """Return whether Winograd's algorithm is faster at this size.

    The limits are measured. With few channels, moving tiles takes longer than the products that are saved. With few
    tiles, transforming the kernel does.
    """
    out, channels = weight.shape[:2]
    products_per_number = out * channels / (out + channels)
    return products_per_number >= 40 and count_tiles(batch) * products_per_number >= (2048 if kept else 4096)


@torch.library.custom_op("ssd_zoo::conv2d", mutates_args=(), device_types="cpu")
def conv2d(
    batch: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int, transformed: Tensor | None = None
) -> Tensor:
    """Convolve with a 3 × 3 kernel, as one operator for compilers.

    From `(N, channels in, H, W)` to `(N, channels out, H', W')`, float32, stride 1, by Winograd's algorithm where that
    is faster, or where the kernel is `transformed`. torch's own gradients of kernels take up to twice as long, and more
    in `torch.channels_last`.
    """
    if transformed is not None or (dilation == 1 and _is_large(batch, weight)):
        return winograd_conv2d(batch, weight, bias, padding, transformed)
    batch = batch.contiguous(memory_format=torch.channels_last)
    return F.conv2d(batch, weight, bias, padding=padding, dilation=dilation)


@torch.library.custom_op("ssd_zoo::conv2d_kernel_gradient", mutates_args=(), device_types="cpu")
def _kernel_gradient(batch: Tensor, gradient: Tensor, padding: int, dilation: int) -> Tensor:
    """Return the gradient `(channels out, channels in, 3, 3)` from the input and the output's gradient."""
    if dilation == 1 and count_tiles(batch) >= _LEAST_TILES:
        return winograd_kernel_gradient(batch, gradient, padding)
    # One matrix product per position in the kernel.
    images, gradients = batch.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    kernel = batch.new_zeros(gradient.shape[1], 3, 3, batch.shape[1])
    for y in range(3):
        from_rows, to_rows = _overlap(batch.shape[2], gradient.shape[2], y * dilation - padding)
        for x in range(3):
            from_columns, to_columns = _overlap(batch.shape[3], gradient.shape[3], x * dilation - padding)
            seen = images[:, from_rows, from_columns].flatten(0, 2)
            torch.mm(gradients[:, to_rows, to_columns].flatten(0, 2).T, seen, out=kernel[:, y, x])
    return kernel.permute(0, 3, 1, 2)


def _overlap(inputs: int, outputs: int, offset: int) -> tuple[slice, slice]:
    """Return, along one axis, which inputs one kernel position multiplies for which outputs.

    Output `i` reads input `i + offset`. Inputs in the padding are left out.

    Returns:
        The slice of inputs, and the slice of outputs.
    """
    start = max(0, -offset)
    end = max(start, min(outputs, inputs - offset))
    return slice(start + offset, end + offset), slice(start, end)


@conv2d.register_fake
def _(
    batch: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    padding: int,
    dilation: int,
    transformed: Tensor | None = None,  # noqa: ARG001
) -> Tensor:
    height, width = (side + 2 * (padding - dilation) for side in batch.shape[2:])
    shape = len(batch), len(weight), height, width
    return torch.empty(shape, dtype=batch.dtype, device=batch.device, memory_format=torch.channels_last)


@_kernel_gradient.register_fake
def _(batch: Tensor, gradient: Tensor, padding: int, dilation: int) -> Tensor:  # noqa: ARG001
    return batch.new_empty(gradient.shape[1], 3, 3, batch.shape[1]).permute(0, 3, 1, 2)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    batch, weight, _, ctx.padding, ctx.dilation, _ = inputs
    ctx.save_for_backward(batch, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the arguments of `conv2d`; None for those without."""
    batch, weight = ctx.saved_tensors
    of_batch, of_weight, of_bias = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        # Gradients of these gradients are wanted, or many at once; torch's own operator has both.
        settings = [1, 1], [ctx.padding] * 2, [ctx.dilation] * 2, False, [0, 0], 1, [of_batch, of_weight, of_bias]
        plain = torch.ops.aten.convolution_backward(gradient, batch, weight, [len(weight)], *settings)
        return (*plain, None, None, None)
    # The gradient of the input is a convolution with the flipped kernel.
    turned = weight.flip(2, 3).transpose(0, 1)
    return (
        conv2d(gradient, turned, None, 2 * ctx.dilation - ctx.padding, ctx.dilation) if of_batch else None,
        _kernel_gradient(batch, gradient, ctx.padding, ctx.dilation) if of_weight else None,
        gradient.sum((0, 2, 3)) if of_bias else None,
        None,
        None,
        None,
    )


conv2d.register_autograd(_backward, setup_context=_save_for_backward)

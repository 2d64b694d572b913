"""3 × 3 convolutions by Winograd's algorithm: a quarter of the products, by matrix products that CPUs do best.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks". https://arxiv.org/abs/1509.09308

Each tile of 4 × 4 outputs comes from 6 × 6 inputs, in F(4 × 4, 3 × 3) of the paper's section 4.3. Reading a tile of
outputs as coefficients of a polynomial in two variables, the products of coefficients become products of its values at
6 × 6 points, and there channels are summed by one matrix product a point. The points are 0, ±1/√2, ±√2 and infinity:
with the paper's, the result would be twice as far from the exact one, with these it is hardly further than that of the
plain convolution.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["WinogradConv2d", "plain_convolutions", "transform_kernel", "winograd_conv2d", "winograd_pays"]

_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))
_TILE, _VALUES = 4, 36
# Tiles that go through together, and numbers of a kernel that are transformed together: both stay in the cache.
_TILES_AT_ONCE, _NUMBERS_AT_ONCE = 256, 2**21


_only_plain = ContextVar("only_plain", default=False)


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Lets all convolutions call `torch.nn.functional.conv2d`, for who watches such calls."""
    token = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(token)


class WinogradConv2d(nn.Conv2d):
    """`nn.Conv2d` that takes Winograd's algorithm where that is faster: in float32 on a CPU.

    Its result differs by about as much as float32 rounds. Compilers and exporters see a plain convolution.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() and _is_plain(self, input, weight) and self.padding == (1, 1):
            return _Trained.apply(input, weight, bias)
        if winograd_pays(self, input, weight):
            return winograd_conv2d(input, weight, bias, self.padding[0])  # type: ignore[arg-type]
        return super()._conv_forward(input, weight, bias)


class _Trained(torch.autograd.Function):
    """A 3 × 3 convolution with padding 1 whose gradients are computed in the fastest way.

    The gradient of the input is a convolution too, of the gradient of the output with the kernel turned round. That of
    the kernel takes two to three times as long in `torch.channels_last` as it does otherwise.
    """

    @staticmethod
    def forward(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve_same(batch, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        batch, weight = ctx.saved_tensors
        of_batch, of_weight, of_bias = ctx.needs_input_grad
        back = _convolve_same(gradient, weight.flip(2, 3).transpose(0, 1), None) if of_batch else None
        if not of_weight:
            return back, None, gradient.sum((0, 2, 3)) if of_bias else None
        arguments = weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, of_bias]
        parts = [
            torch.ops.aten.convolution_backward(g.contiguous(), b.contiguous(), *arguments)[1:]
            for g, b in zip(gradient.split(1), batch.split(1), strict=True)
        ]
        kernel, of_channels = (
            None if part[0] is None else torch.stack(part).sum(0) for part in zip(*parts, strict=True)
        )
        return back, kernel, of_channels


def _convolve_same(batch: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _is_large(batch, weight):
        return winograd_conv2d(batch, weight, bias, 1)
    return F.conv2d(batch, weight, bias, padding=1)


class Convolution(Protocol):
    """What layers have that convolve: the settings of `nn.Conv2d`."""

    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Any


def winograd_pays(conv: Convolution, batch: Tensor, weight: Tensor, *, least_tiles: int = 64) -> bool:
    """Tells whether a convolution may be computed so, here and now, and is faster then.

    It is where channels are many, for else moving tiles costs more than products do, and so are tiles, over which the
    transformed kernel is read.

    Args:
        conv: The convolution.
        batch: Its input, `(N, channels in, H, W)`.
        weight: Its kernel, `(channels out, channels in, height, width)`.
        least_tiles: Fewest tiles; a kernel that is transformed already pays with fewer.
    """
    return not torch.is_grad_enabled() and _is_plain(conv, batch, weight) and _is_large(batch, weight, least_tiles)


def _is_plain(conv: Convolution, batch: Tensor, weight: Tensor) -> bool:
    """Whether it is a 3 × 3 convolution of stride 1 in float32 on a CPU, and just to be computed."""
    if _only_plain.get() or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return (
        type(batch) is Tensor
        and not torch.is_autocast_enabled("cpu")
        and batch.device.type == "cpu"
        and batch.dtype == weight.dtype == torch.float32
        and batch.dim() == 4
        and (weight.shape[2:], conv.stride, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
        and conv.padding in ((0, 0), (1, 1))
        and conv.padding_mode == "zeros"
    )


def _is_large(batch: Tensor, weight: Tensor, least_tiles: int = 64) -> bool:
    tiles = len(batch) * (batch.shape[2] // _TILE) * (batch.shape[3] // _TILE)
    return weight.shape[0] * weight.shape[1] >= 2**15 and tiles >= least_tiles


def transform_kernel(weight: Tensor) -> Tensor:
    """Gives the values `(36, channels out, channels in)` of a kernel `(channels out, channels in, 3, 3)`."""
    _, of_kernel, _ = _matrices()
    return (of_kernel @ weight.reshape(-1, 9).T).view(_VALUES, *weight.shape[:2])


def winograd_conv2d(
    batch: Tensor, weight: Tensor, bias: Tensor | None, padding: int, transformed: Tensor | None = None
) -> Tensor:
    """Does what `torch.nn.functional.conv2d` does, without gradients.

    Args:
        batch: `(N, channels in, H, W)`, float32, best in `torch.channels_last`.
        weight: `(channels out, channels in, 3, 3)`.
        bias: `(channels out,)`, or None.
        padding: Zeros around the input.
        transformed: From `transform_kernel`; by default it is computed, each time anew.

    Returns:
        `(N, channels out, H + 2 * padding - 2, W + 2 * padding - 2)`, in `torch.channels_last`.
    """
    n, _, height, width = batch.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    result = torch.empty(n, len(weight), height, width, device=batch.device, memory_format=torch.channels_last)
    pixels = result.permute(0, 2, 3, 1)
    tiles = _tiles(batch, height, width, padding)
    down, across = tiles.shape[3:5]
    images = max(1, _TILES_AT_ONCE // (down * across))
    # Parts of an image are of one size, as far as that goes.
    rows = math.ceil(down / math.ceil(down * across / _TILES_AT_ONCE))
    for i in range(0, n, images):
        for row in range(0, down, rows):
            part = tiles[:, :, i : i + images, row : row + rows]
            _convolve_tiles(part, weight, bias, transformed, pixels[i : i + images, _TILE * row :])
    return result


def _tiles(batch: Tensor, height: int, width: int, padding: int) -> Tensor:
    """Gives the overlapping tiles, `(6, 6, N, tiles down, tiles across, channels)`, as a view of the padded input."""
    down, across = math.ceil(height / _TILE), math.ceil(width / _TILE)
    more_down = _TILE * down + 2 - padding - batch.shape[2]
    more_across = _TILE * across + 2 - padding - batch.shape[3]
    padded = F.pad(batch.permute(0, 2, 3, 1), (0, 0, padding, more_across, padding, more_down))
    image, line, pixel, channel = padded.stride()
    return padded.as_strided(
        (6, 6, len(batch), down, across, batch.shape[1]),
        (line, pixel, image, _TILE * line, _TILE * pixel, channel),
    )


def _convolve_tiles(tiles: Tensor, weight: Tensor, bias: Tensor | None, transformed: Tensor | None, to: Tensor) -> None:
    """Convolves tiles `(6, 6, n, tiles down, tiles across, channels in)` into `to`, `(n, H, W, channels out)`."""
    of_input, _, of_output = _matrices()
    n, down, across, channels = tiles.shape[2:]
    values = (of_input @ tiles.reshape(_VALUES, -1)).view(_VALUES, -1, channels)
    step = len(weight) if transformed is not None else max(64, _NUMBERS_AT_ONCE // (_VALUES * channels))
    for first in range(0, len(weight), step):
        chosen = slice(first, first + step)
        kernel = transform_kernel(weight[chosen]) if transformed is None else transformed
        products = torch.bmm(values, kernel.transpose(1, 2))
        outputs = (of_output @ products.view(_VALUES, -1)).view(_TILE, _TILE, n, down, across, -1)
        for y in range(_TILE):
            for x in range(_TILE):
                pixels = to[:, y : _TILE * down : _TILE, x::_TILE, chosen]
                output = outputs[y, x, :, : pixels.shape[1], : pixels.shape[2]]
                if bias is None:
                    pixels.copy_(output)
                else:
                    torch.add(output, bias[chosen], out=pixels)


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Gives what takes a tile `(36, 36)` and a kernel `(36, 9)` to values, and their products to outputs `(16, 36)`.

    A polynomial's values at the points are its coefficients times a matrix of powers. Multiplying polynomials
    interpolates products of values; filtering, its transpose, is what a convolution layer does.
    """
    points = torch.tensor(_POINTS, dtype=torch.float64, device="cpu")

    def powers(count: int) -> Tensor:
        at_infinity = torch.zeros(1, count, dtype=torch.float64, device="cpu")
        at_infinity[0, -1] = 1
        return torch.cat([points.unsqueeze(1) ** torch.arange(count, device="cpu"), at_infinity])

    one_way = torch.linalg.inv(powers(6)).T, powers(3), powers(_TILE).T
    of_input, of_kernel, of_output = (torch.kron(matrix, matrix).float() for matrix in one_way)
    return of_input, of_kernel, of_output

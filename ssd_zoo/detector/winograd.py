"""3 × 3 convolutions by Winograd's algorithm: a quarter of the products, by matrix products that CPUs do best.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks". https://arxiv.org/abs/1509.09308

Each tile of 4 × 4 outputs comes from 6 × 6 inputs, in F(4 × 4, 3 × 3) of the paper's section 4.3. Reading a tile of
outputs as coefficients of a polynomial in two variables, the products of coefficients become products of its values at
6 × 6 points, and there channels are summed by one matrix product a point. The points are 0, ±1/√2, ±√2 and infinity:
with them the result is up to twice as far from the exact one as that of the plain convolution, with the paper's up to
four times.
"""

import math
import threading
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

__all__ = ["count_tiles", "transform_kernel", "winograd_conv2d", "winograd_kernel_gradient"]

_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))
_TILE, _VALUES = 4, 36
# Tiles that go through together, and numbers of a kernel that are transformed together: both stay in the cache.
_TILES_AT_ONCE, _NUMBERS_AT_ONCE = 256, 2**21


def count_tiles(batch: Tensor) -> int:
    """Gives how many tiles of 4 × 4 lie whole within the images of a batch `(N, C, H, W)`."""
    return len(batch) * (batch.shape[2] // _TILE) * (batch.shape[3] // _TILE)


def transform_kernel(weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Gives the values `(channels out, 36, channels in)` of a kernel `(channels out, channels in, 3, 3)`.

    It is fastest for kernels in `torch.channels_last`.
    """
    _, of_kernel, _ = _matrices()
    return torch.matmul(of_kernel, weight.permute(0, 2, 3, 1).flatten(1, 2), out=out)


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
    if transformed is None:
        weight = weight.contiguous(memory_format=torch.channels_last)
    for image, row, tiles in _parts(batch, 6, height, width, padding):
        _convolve_tiles(tiles, weight, bias, transformed, pixels[image:, _TILE * row :])
    return result


def winograd_kernel_gradient(batch: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """Gives the gradient of a kernel, `(channels out, channels in, 3, 3)`, from that of what it made of a batch.

    Going back through the algorithm, inputs and gradients are both taken to their values, and tiles are summed by one
    matrix product a point.

    Args:
        batch: `(N, channels in, H, W)`, float32, best in `torch.channels_last`.
        gradient: `(N, channels out, H + 2 * padding - 2, W + 2 * padding - 2)`.
        padding: Zeros that were around the input.
    """
    of_input, of_kernel, of_output = _matrices()
    (_, out, height, width), channels = gradient.shape, batch.shape[1]
    products = batch.new_zeros(_VALUES, out, channels)
    inputs = _parts(batch, 6, height, width, padding)
    gradients = _parts(gradient, _TILE, height, width, 0)
    for (_, _, tiles), (_, _, gradient) in zip(inputs, gradients, strict=True):
        values = _values(of_input, tiles, "values")
        products.baddbmm_(_values(of_output.T, gradient, "gradients").transpose(1, 2), values)
    kernel = torch.matmul(of_kernel.T, products.transpose(0, 1))
    return kernel.view(out, 3, 3, channels).permute(0, 3, 1, 2)


def _parts(batch: Tensor, side: int, height: int, width: int, padding: int) -> Iterator[tuple[int, int, Tensor]]:
    """Cuts a batch into tiles that go through together, for outputs of 4 × 4 each that cover height and width.

    Yields:
        The first image, the first row of tiles, and tiles `(side, side, n, tiles down, tiles across, channels)`, which
        overlap where their side is more than 4.
    """
    down, across = math.ceil(height / _TILE), math.ceil(width / _TILE)
    images = max(1, _TILES_AT_ONCE // (down * across))
    # Parts of an image are of one size, as far as that goes.
    rows = math.ceil(down / math.ceil(down * across / _TILES_AT_ONCE))
    needed = _TILE * down + side - _TILE, _TILE * across + side - _TILE
    for image in range(0, len(batch), images):
        part = batch[image : image + images].permute(0, 2, 3, 1)
        if part.shape[1:3] != needed:
            if image == 0:
                # Margins stay zero when the next images come.
                padded = _room(f"padded {side}", len(part), *needed, batch.shape[1]).zero_()
            padded = padded[: len(part)]
            padded[:, padding : padding + batch.shape[2], padding : padding + batch.shape[3]] = part
            part = padded
        next_image, line, pixel, channel = part.stride()
        tiles = part.as_strided(
            (side, side, len(part), down, across, batch.shape[1]),
            (line, pixel, next_image, _TILE * line, _TILE * pixel, channel),
        )
        for row in range(0, down, rows):
            yield image, row, tiles[:, :, :, row : row + rows]


def _values(matrix: Tensor, tiles: Tensor, name: str) -> Tensor:
    """Gives the values `(36, tiles, channels)` of tiles `(side, side, n, tiles down, tiles across, channels)`."""
    rows = _room("passing", *tiles.shape).copy_(tiles).view(matrix.shape[1], -1)
    result = torch.mm(matrix, rows, out=_room(name, _VALUES, rows.shape[1]))
    return result.view(_VALUES, -1, tiles.shape[-1])


class _Room(threading.local):
    """Memory that a thread uses again and again: to get fresh memory takes as long as to compute what goes there."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        count = math.prod(shape)
        if name not in self._tensors or self._tensors[name].numel() < count:
            # What inference mode makes can't be written to outside of it.
            with torch.inference_mode(False):
                self._tensors[name] = torch.empty(count, device="cpu")
        return self._tensors[name][:count].view(shape)


_room = _Room()


def _convolve_tiles(tiles: Tensor, weight: Tensor, bias: Tensor | None, transformed: Tensor | None, to: Tensor) -> None:
    """Convolves tiles `(6, 6, n, tiles down, tiles across, channels in)` into `to`, `(n, H, W, channels out)`."""
    of_input, _, of_output = _matrices()
    n, down, across, channels = tiles.shape[2:]
    values = _values(of_input, tiles, "values")
    step = len(weight) if transformed is not None else max(64, _NUMBERS_AT_ONCE // (_VALUES * channels))
    for first in range(0, len(weight), step):
        chosen = slice(first, first + step)
        kernel = transformed
        if kernel is None:
            part = weight[chosen]
            kernel = transform_kernel(part, out=_room("kernel", len(part), _VALUES, channels))
        out = len(kernel)
        products = torch.bmm(values, kernel.permute(1, 2, 0), out=_room("passing", _VALUES, values.shape[1], out))
        outputs = torch.mm(of_output, products.view(_VALUES, -1), out=_room("outputs", _TILE**2, values.shape[1] * out))
        outputs = outputs.view(_TILE, _TILE, n, down, across, out)
        for y in range(_TILE):
            for x in range(_TILE):
                pixels = to[:n, y : _TILE * down : _TILE, x::_TILE, chosen]
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

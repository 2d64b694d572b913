"""3 × 3 convolutions by Winograd's algorithm: a quarter of the products.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks". https://arxiv.org/abs/1509.09308

The algorithm is F(4 × 4, 3 × 3) of the paper's section 4.3: each tile of 4 × 4 outputs comes from 6 × 6 inputs. Tiles
and kernels are transformed to values of polynomials in two variables at 6 × 6 points. There channels are summed by one
matrix product per point, which CPUs compute fast.

The points are 0, ±1/√2, ±√2 and infinity in both directions. With them the error is up to twice that of the plain
convolution; with the paper's points it is up to four times.

Tiles are transformed vertically, then horizontally. Neighbouring tiles of a row overlap by two pixels. The last tile
of a row also reads the first two pixels of the next row. These are zeros, because each image gets two zero columns on
its left.
"""

import math
import threading
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

__all__ = ["count_tiles", "transform_kernel", "winograd_conv2d", "winograd_kernel_gradient"]

_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))
_TILE, _VALUES = 4, 6
_LEFT = 2
# Tiles times channels that are transformed together, so that they stay in the cache.
_NUMBERS_AT_ONCE = 2**18
# Values of a kernel that are computed at once. More are faster and take more memory.
_KERNEL_VALUES_AT_ONCE = 2**22


def count_tiles(batch: Tensor) -> int:
    """Count the whole 4 × 4 tiles in `(N, C, H, W)`, of all images together."""
    return len(batch) * (batch.shape[2] // _TILE) * (batch.shape[3] // _TILE)


def transform_kernel(weight: Tensor) -> Tensor:
    """Transform a kernel to its values at the points.

    Args:
        weight: `(channels out, channels in, 3, 3)`.

    Returns:
        `(channels out, 36, channels in)`.
    """
    return torch.matmul(_of_kernel(), weight.permute(0, 2, 3, 1).flatten(1, 2))


def winograd_conv2d(
    batch: Tensor, weight: Tensor, bias: Tensor | None, padding: int, transformed: Tensor | None = None
) -> Tensor:
    """Convolve a batch with a 3 × 3 kernel on a CPU, with stride 1.

    Call it under `torch.no_grad` or in an autograd function: autograd can't record it.

    Args:
        batch: `(N, channels in, H, W)`, float32, best in `torch.channels_last`.
        weight: `(channels out, channels in, 3, 3)`, best in `torch.channels_last`.
        bias: `(channels out,)`, or None.
        padding: Zeros around the input, at most 2.
        transformed: `transform_kernel(weight)`, used in place of `weight`. By default each call computes it.

    Returns:
        `(N, channels out, H + 2 * padding - 2, W + 2 * padding - 2)`, in `torch.channels_last`.
    """
    (n, channels, height, width), out = batch.shape, len(weight)
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    shape = n, out, height, width
    result = torch.empty(shape, dtype=batch.dtype, device=batch.device, memory_format=torch.channels_last)
    to_values, to_outputs = _matrices()
    down, across = math.ceil(height / _TILE), _tiles_across(batch)
    images = batch.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    for rows in _parts(n * down, across * (channels + out)):
        tiles = _transform_lines(to_values, images, rows, down, padding, _LEFT, across, "tiles")
        count = tiles.shape[1]
        outputs = _buffer("outputs", _VALUES, count, _TILE, out)
        for row, kernel in enumerate(_kernel_rows(weight, transformed)):
            values = _transform_pixels(to_values, tiles[row], "values")
            products = torch.bmm(values.transpose(0, 1), kernel, out=_buffer("products", _VALUES, count, out))
            torch.bmm(to_outputs.expand(count, -1, -1), products.transpose(0, 1), out=outputs[row])
        lines = torch.bmm(
            to_outputs.expand(len(rows), -1, -1),
            outputs.view(_VALUES, len(rows), -1).transpose(0, 1),
            out=_buffer("tiles", len(rows), _TILE, across * _TILE * out),
        )
        _write(lines.view(len(rows), _TILE, -1, out)[:, :, _LEFT - padding :], bias, result, rows, down)
    return result


def winograd_kernel_gradient(batch: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """Return the gradient of a 3 × 3 kernel.

    Inputs and gradients are both transformed to values, where tiles are summed by one matrix product per point.

    Args:
        batch: `(N, channels in, H, W)`, float32, best in `torch.channels_last`.
        gradient: Gradient of the output, `(N, channels out, H + 2 * padding - 2, W + 2 * padding - 2)`, likewise.
        padding: Zeros around the input, at most 2.

    Returns:
        `(channels out, channels in, 3, 3)`.
    """
    (n, out, height, _), channels = gradient.shape, batch.shape[1]
    to_values, to_outputs = _matrices()
    from_outputs = to_outputs.T.contiguous()
    down, across = math.ceil(height / _TILE), _tiles_across(batch)
    images, gradients = (
        tensor.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1) for tensor in (batch, gradient)
    )
    kernel = batch.new_zeros(out, 9, channels)
    for rows in _parts(n * down, across * (channels + out)):
        tiles = _transform_lines(to_values, images, rows, down, padding, _LEFT, across, "tiles")
        of_outputs = _transform_lines(from_outputs, gradients, rows, down, 0, _LEFT - padding, across, "outputs")
        for row, of_kernel in enumerate(_of_kernel().split(_VALUES)):
            values = _transform_pixels(to_values, tiles[row], "values").transpose(0, 1)
            of_row = _transform_pixels(from_outputs, of_outputs[row], "products").permute(1, 2, 0)
            products = torch.bmm(of_row, values, out=_buffer("kernel", _VALUES, out, channels))
            kernel.baddbmm_(of_kernel.T.expand(out, -1, -1), products.transpose(0, 1))
    return kernel.view(out, 3, 3, channels).permute(0, 3, 1, 2)


def _tiles_across(batch: Tensor) -> int:
    """Count the tiles of a row of one image, with the last one, which may be cut."""
    return math.ceil((batch.shape[3] + _LEFT) / _TILE)


def _parts(rows: int, numbers_per_row: int) -> Iterator[range]:
    """Split the rows of tiles of all images into parts that fit into the cache."""
    parts = math.ceil(rows / max(1, _NUMBERS_AT_ONCE // numbers_per_row))
    step = math.ceil(rows / parts)
    for first in range(0, rows, step):
        yield range(first, min(first + step, rows))


def _transform_lines(
    matrix: Tensor, images: Tensor, rows: range, down: int, top: int, left: int, across: int, name: str
) -> Tensor:
    """Transform tiles vertically: each column of pixels to values at the 6 points.

    Args:
        matrix: `(6, rows of pixels in a tile)`.
        images: `(N, H, W, channels)`, contiguous.
        rows: Rows of tiles, counted through all images.
        down: Rows of tiles of an image.
        top: Rows of zeros above each image.
        left: Columns of zeros on its left.
        across: Tiles in a row.
        name: Name of the buffer for the result; see `_Buffers`.

    Returns:
        `(6, tiles, columns of pixels in a tile, channels)`, a view in which neighbouring tiles share memory where they
        overlap.
    """
    _, height, width, channels = images.shape
    side, line = matrix.shape[1], _TILE * across * channels
    room = _buffer(name, _VALUES * len(rows) * line + _LEFT * channels)
    room[-_LEFT * channels :].zero_()
    lines = room[: -_LEFT * channels].view(_VALUES, len(rows), line)
    lines[:, :, : left * channels].zero_()
    lines[:, :, (left + width) * channels :].zero_()
    for i, row in enumerate(rows):
        image, first = row // down, row % down * _TILE - top
        # Lines outside the image are zeros, so they are left out.
        start, end = max(first, 0), min(first + side, height)
        torch.mm(
            matrix[:, start - first : end - first],
            images[image, start:end].view(end - start, width * channels),
            out=lines[:, i, left * channels : (left + width) * channels],
        )
    return room.as_strided(
        (_VALUES, len(rows) * across, side, channels), (len(rows) * line, _TILE * channels, channels, 1)
    )


def _transform_pixels(matrix: Tensor, tiles: Tensor, name: str) -> Tensor:
    """Transform tiles horizontally: a row of pixels to values at the 6 points.

    Args:
        matrix: `(6, columns of pixels in a tile)`.
        tiles: `(tiles, columns of pixels in a tile, channels)`.
        name: Name of the buffer for the result; see `_Buffers`.

    Returns:
        `(tiles, 6, channels)`.
    """
    count, _, channels = tiles.shape
    return torch.bmm(matrix.expand(count, -1, -1), tiles, out=_buffer(name, count, len(matrix), channels))


def _kernel_rows(weight: Tensor, transformed: Tensor | None) -> Iterator[Tensor]:
    """Yield a kernel's values for each row of points, `(6, channels in, channels out)`."""
    if transformed is not None:
        yield from transformed.unflatten(1, (_VALUES, _VALUES)).permute(1, 2, 3, 0)
        return
    out, channels = weight.shape[:2]
    flat = weight.permute(0, 2, 3, 1).flatten(1, 2)
    step = _VALUES * max(1, _KERNEL_VALUES_AT_ONCE // (_VALUES * out * channels))
    for of_kernel in _of_kernel().split(step):
        values = torch.matmul(of_kernel, flat, out=_buffer("kernel", out, len(of_kernel), channels))
        yield from values.unflatten(1, (-1, _VALUES)).permute(1, 2, 3, 0)


def _write(lines: Tensor, bias: Tensor | None, result: Tensor, rows: range, down: int) -> None:
    """Add the bias to lines of outputs and write the result.

    Args:
        lines: `(rows of tiles, 4, W or more, channels)`.
        bias: `(channels,)`, or None.
        result: `(N, channels, H, W)`.
        rows: Rows of tiles that the lines belong to, counted through all images.
        down: Rows of tiles of an image.
    """
    width = result.shape[3]
    pixels = result.permute(0, 2, 3, 1)
    start = rows.start
    while start < rows.stop:
        image, row = divmod(start, down)
        end = min(start + down - row, rows.stop)
        part = pixels[image, row * _TILE : (row + end - start) * _TILE]
        given = lines[start - rows.start : end - rows.start, :, :width].flatten(0, 1)[: len(part)]
        if bias is None:
            part.copy_(given)
        else:
            torch.add(given, bias, out=part)
        start = end


class _Buffers(threading.local):
    """Buffers that a thread reuses, by name.

    Allocating fresh memory takes as long as computing its contents.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return a buffer of a shape, float32, with old contents; it is valid until the next call with its name."""
        count = math.prod(shape)
        if name not in self._tensors or self._tensors[name].numel() < count:
            # Tensors made in inference mode can't be written to outside of it.
            with torch.inference_mode(False):
                self._tensors[name] = torch.empty(count, dtype=torch.float32, device="cpu")
        return self._tensors[name][:count].view(shape)


_buffer = _Buffers()


def _powers(count: int) -> Tensor:
    """Return the matrix `(6, count)`, float64, from a polynomial's coefficients to its values at the points."""
    points = torch.tensor(_POINTS, dtype=torch.float64, device="cpu")
    at_infinity = torch.zeros(1, count, dtype=torch.float64, device="cpu")
    at_infinity[0, -1] = 1
    return torch.cat([points.unsqueeze(1) ** torch.arange(count, device="cpu"), at_infinity])


@cache
def _matrices() -> tuple[Tensor, Tensor]:
    """Return the paper's input transform Bᵀ `(6, 6)` and output transform Aᵀ `(4, 6)`, in one dimension, float32.

    They follow from `_POINTS`. Winograd multiplies polynomials, and a convolution layer is the transpose of that, so
    the matrices are transposed: of the inverse of `_powers(6)`, and of `_powers(4)`.
    """
    return torch.linalg.inv(_powers(6)).T.float().contiguous(), _powers(_TILE).T.float().contiguous()


@cache
def _of_kernel() -> Tensor:
    """Return the two-dimensional transform of a kernel to values, `(36, 9)`."""
    return torch.kron(_powers(3), _powers(3)).float()

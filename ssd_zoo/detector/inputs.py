"""Images: checked, resized, batched."""

import math
import warnings
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["batch_images", "check_device", "check_images", "check_pixel_range", "normalise", "pixel_range"]

Size = tuple[int, int]
# Of images that are joined before they are resized; half a gigabyte in float32.
_MOST_NUMBERS = 2**27


def check_images(images: Any, in_chans: int, device: torch.device) -> None:
    """Checks what a detector is called with.

    Args:
        images: A list of `(in_chans, H, W)` tensors of any sizes, or a batch `(N, in_chans, H, W)`; uint8, or floating
            point between 0 and 1.
        in_chans: Number of channels that the model takes.
        device: Where the model is.

    Raises:
        TypeError: If an image is no tensor, or neither uint8 nor floating point.
        ValueError: If there is no image, or one has another rank, other channels, no pixels, or is elsewhere.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        raise ValueError(f"Got one image of shape {tuple(images.shape)}; pass a list of images: model([image]).")
    if not isinstance(images, (Tensor, Sequence)) or isinstance(images, str):
        raise TypeError(f"Expected a list of image tensors (C, H, W), got {type(images).__name__}.")
    if len(images) == 0:
        raise ValueError("Got no images: the list is empty. Pass at least one tensor (C, H, W).")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(
                f"images[{i}] is a {type(image).__name__}, not a tensor. "
                "For a file use ssd_zoo.data.read_image, for PIL images torchvision.transforms.v2.functional.to_image."
            )
        shape = tuple(image.shape)
        if image.ndim != 3:
            raise ValueError(f"images[{i}] has shape {shape}; expected (C, H, W) with C = {in_chans}.")
        if image.shape[0] != in_chans:
            way_out = f"Repeat it with image.expand({in_chans}, -1, -1)" if shape[0] == 1 else "Convert the image"
            raise ValueError(
                f"images[{i}] has shape {shape}, so {shape[0]} channels; this model takes {in_chans}. {way_out}."
            )
        if image.numel() == 0:
            raise ValueError(f"images[{i}] has shape {shape} and no pixels.")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(
                f"images[{i}] has dtype {image.dtype}; expected uint8 (0 to 255) or floating point (0 to 1)."
            )
        check_device(f"images[{i}]", image, device)


def check_device(name: str, value: Tensor, device: torch.device) -> None:
    """Raises ValueError if a tensor is not where the model is."""
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, the model on {device}. Move one of them: .to({str(device)!r}).")


def batch_images(images: Sequence[Tensor] | Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Resizes checked images to one size, bilinearly, and puts them into one batch.

    Args:
        images: A list of `(C, H, W)` tensors, or one `(N, C, H, W)`; uint8, or floating point between 0 and 1.
        size: (height, width) to resize to; the aspect ratio is not kept.
        antialias: Whether to average over the pixels that fall together when an image gets smaller. torchvision's
            detectors do not.

    Returns:
        `(N, C, height, width)` in `torch.channels_last`, at least float32, between 0 and 1: memory of its own, which
        may be written to.
    """
    dtype = reduce(torch.promote_types, {image.dtype for image in images}, torch.float32)
    # Images go to their places one by one, while they are in the cache.
    batch = torch.empty(len(images), *size, images[0].shape[0], dtype=dtype, device=images[0].device)
    first = 0
    for part in _parts(images):
        last = first + len(part)
        batch[first:last] = _resize(_as_float(part), size, antialias).permute(0, 2, 3, 1)
        first = last
    return batch.permute(0, 3, 1, 2)


def _parts(images: Sequence[Tensor] | Tensor) -> list[Tensor]:
    """Gives `(n, C, H, W)` tensors that are resized in one call each."""
    if isinstance(images, Tensor):
        return [images]
    if _are_joined_first(images):
        return [torch.stack(list(images))]
    return [image.unsqueeze(0) for image in images]


def _are_joined_first(images: Sequence[Tensor]) -> bool:
    """Tells whether images of one size are on a GPU, where calls take the time, and are not too large to join."""
    alike = len({(image.shape, image.dtype) for image in images}) == 1
    return images[0].is_cuda and alike and len(images) > 1 and len(images) * images[0].numel() <= _MOST_NUMBERS


def normalise(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtracts `mean (C, 1, 1)` from a batch `(N, C, H, W)`, in place where it may, and divides it by `std`.

    Returns:
        `(N, C, H, W)` in `torch.channels_last`, as the batch is.
    """
    # In rows that long a CPU is fast, over a few channels it is not.
    rows = batch.permute(0, 2, 3, 1).flatten(2)
    mean, std = (value.flatten().to(batch.dtype).repeat(batch.shape[3]) for value in (mean, std))
    # Graphs on a GPU allow no writing to what they are given, and where there are gradients there is none either.
    kept = torch.compiler.is_compiling() or batch.requires_grad
    rows = torch.addcmul(-mean / std, rows, 1 / std, out=None if kept else rows)
    return rows.unflatten(2, (-1, batch.shape[1])).permute(0, 3, 1, 2)


def _as_float(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image.float().div_(255)
    return image.to(torch.promote_types(image.dtype, torch.float32))


def _resize(batch: Tensor, size: Size, antialias: bool) -> Tensor:
    if batch.shape[-2:] == size:
        return batch
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def pixel_range(batch: Tensor) -> Tensor:
    """Gives the least and the greatest pixel of each image of a batch, `(2, N)`, NaN where an image has any."""
    images = batch.permute(0, 2, 3, 1).flatten(1)
    return torch.stack([images.amin(1), images.amax(1)])


def check_pixel_range(low_high: Tensor) -> None:
    """Looks for pixels that no image between 0 and 1 has.

    Args:
        low_high: `(2, N)` from `pixel_range`, on the CPU.

    Raises:
        ValueError: If an image holds NaN or infinite values.

    Warns:
        UserWarning: If values look as if they went to 255.
    """
    for i, (low, high) in enumerate(low_high.T.tolist()):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"images[{i}] holds NaN or infinite pixels.")
    highest = low_high[1].tolist()
    if max(highest) > 2:
        i = highest.index(max(highest))
        warnings.warn(
            f"images[{i}] has floating-point pixels up to {highest[i]:.4g}; they should lie between 0 and 1. "
            "Divide them by 255, or pass the image as uint8.",
            stacklevel=5,
        )

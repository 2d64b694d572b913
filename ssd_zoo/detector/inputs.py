"""Checking, resizing, normalising and batching of images."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_zoo.detector.caller import warn_caller

__all__ = [
    "batch_images",
    "check_dense",
    "check_device",
    "check_images",
    "check_output",
    "check_pixel_range",
    "resize_images",
]

Size = tuple[int, int]
# Most numbers in images that are stacked before they are resized: half a gigabyte in float32.
_MOST_NUMBERS = 2**27
# Noise may take pixels a little below 0; normalising takes them below -1.
_LEAST_PIXEL = -0.1


def check_images(images: object, in_chans: int, device: torch.device) -> None:
    """Check the images that a detector is called with.

    Args:
        images: A list of `(in_chans, H, W)` tensors of any sizes, or a batch `(N, in_chans, H, W)`; uint8, or floating
            point between 0 and 1.
        in_chans: Number of channels that the model takes.
        device: Device of the model.

    Raises:
        TypeError: If an image is not a dense tensor, or is neither uint8 nor floating point.
        ValueError: If there are no images, or one has a wrong rank, wrong channels, no pixels or another device.
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
        check_dense(f"images[{i}]", image)
        shape = tuple(image.shape)
        if image.ndim != 3:
            way_out = " Give the model a list of clips alone: model([clip])." if image.ndim == 4 else ""
            raise ValueError(f"images[{i}] has shape {shape}; expected (C, H, W) with C = {in_chans}.{way_out}")
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


def check_dense(name: str, value: Tensor) -> None:
    """Raise TypeError for sparse, nested, quantised, complex and eight-bit float tensors."""
    what = way_out = None
    if value.is_nested:
        what, way_out = "is a nested tensor", "unbind()"
    elif value.layout != torch.strided:
        what, way_out = f"has the layout {value.layout}", "to_dense()"
    elif value.is_quantized:
        what, way_out = f"has dtype {value.dtype}", "dequantize()"
    elif value.is_complex():
        what, way_out = f"has dtype {value.dtype}", "abs()"
    elif value.is_floating_point() and value.dtype.itemsize < 2:
        what, way_out = f"has dtype {value.dtype}", "float()"
    if what is not None:
        raise TypeError(f"{name} {what}; expected dense tensors of plain numbers, as .{way_out} makes them.")


def check_device(name: str, value: Tensor, device: torch.device) -> None:
    """Check that a tensor is on the model's device.

    Raises:
        TypeError: If it is on the meta device, so that it has no values.
        ValueError: If it is on another device.
    """
    if value.is_meta and device.type != "meta":
        raise TypeError(f"{name} is on the meta device and has no values; pass a tensor on {device}.")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, the model on {device}. Move one of them: .to({str(device)!r}).")


def batch_images(
    images: Sequence[Tensor] | Tensor,
    size: Size,
    mean: Tensor,
    std: Tensor,
    *,
    antialias: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """Resize checked images bilinearly, normalise them and batch them.

    Args:
        images: A list of tensors `(C, H, W)`, or one `(N, C, H, W)`. They are uint8, or floating point between 0 and 1.
        size: (height, width) in pixels to resize to; the aspect ratio is not kept.
        mean: `(C, 1, 1)`, subtracted from pixels between 0 and 1.
        std: `(C, 1, 1)`, divides the result.
        antialias: Whether downscaling averages over pixels. In torchvision's detectors it does not.
        dtype: Type of the batch.

    Returns:
        The batch `(N, C, height, width)` in `torch.channels_last`. Then `(2, N)`, the least and greatest pixel of each
        image before normalising, NaN if it has NaN pixels. They are None if all images are uint8.
    """
    batch = torch.empty(len(images), *size, len(mean), dtype=dtype, device=mean.device)
    can_be_wrong = any(image.dtype != torch.uint8 for image in images)
    ranges = []
    first = 0
    for part in _resized_parts(images, size, antialias):
        last = first + len(part)
        if can_be_wrong:
            ranges.append(_range(part))
        batch[first:last] = (part - mean).div_(std).permute(0, 2, 3, 1)
        first = last
    return batch.permute(0, 3, 1, 2), torch.cat(ranges, 1) if can_be_wrong else None


def resize_images(
    images: Sequence[Tensor] | Tensor, size: Size, *, antialias: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor | None]:
    """Resize checked images to a batch, as `batch_images` does, without normalising it.

    Args:
        images: See `batch_images`.
        size: See `batch_images`.
        antialias: See `batch_images`.
        dtype: float32 for pixels from 0 to 1, or uint8 for pixels from 0 to 255. Then images of bytes stay bytes on the
            way, which is several times faster and rounds.

    Returns:
        The batch `(N, C, height, width)`, and the range of each image's pixels, as `batch_images` gives it.
    """
    in_bytes = dtype == torch.uint8
    parts = list(_resized_parts(images, size, antialias, in_bytes=in_bytes))
    can_be_wrong = any(image.dtype != torch.uint8 for image in images)
    ranges = torch.cat([_range(part) for part in parts], 1) if can_be_wrong else None
    parts = [_as_bytes(part) if in_bytes else part.float() for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts), ranges


def _as_bytes(part: Tensor) -> Tensor:
    return part if part.dtype == torch.uint8 else (part * 255).round().clamp(0, 255).to(torch.uint8)


def _range(part: Tensor) -> Tensor:
    """Return the least and the greatest pixel of each image `(n, C, H, W)`, `(2, n)`; zeros for uint8."""
    if part.dtype == torch.uint8:
        # Bytes are always in range.
        return torch.zeros(2, len(part), device=part.device)
    pixels = part.detach().flatten(1)
    return torch.stack([pixels.amin(1), pixels.amax(1)])


def _resized_parts(
    images: Sequence[Tensor] | Tensor, size: Size, antialias: bool, *, in_bytes: bool = False
) -> Iterator[Tensor]:
    """Yield resized images `(n, C, height, width)`.

    On a CPU they come one by one, so that an image is normalised while it is in the cache. On a GPU they come in one
    tensor, because calls cost most there.
    """
    if len(images) == 1 or not images[0].is_cuda:
        yield from (_resize(image.unsqueeze(0), size, antialias, in_bytes=in_bytes) for image in images)
    elif isinstance(images, Tensor):
        yield _resize(images, size, antialias)
    elif _can_be_joined(images):
        yield _resize(torch.stack(list(images)), size, antialias)
    else:
        yield torch.cat([_resize(image.unsqueeze(0), size, antialias) for image in images])


def _can_be_joined(images: Sequence[Tensor]) -> bool:
    """Return whether images have one shape and type, so that they can be stacked."""
    alike = len({(image.shape, image.dtype) for image in images}) == 1
    return alike and len(images) * images[0].numel() <= _MOST_NUMBERS


def _resize(images: Tensor, size: Size, antialias: bool, *, in_bytes: bool = False) -> Tensor:
    """Resize images `(n, C, H, W)` to float32 or wider, with pixels between 0 and 1.

    With `in_bytes`, uint8 images on a CPU stay uint8.
    """
    stay = in_bytes and images.dtype == torch.uint8 and images.device.type == "cpu"
    scale = 255 if images.dtype == torch.uint8 and not stay else 1
    if not stay:
        images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.shape[-2:] != size:
        if antialias and images.shape[1] * images.shape[2] * size[1] > _MOST_NUMBERS:
            # PyTorch resizes the width first: an image of 2,000,000 × 23 pixels would take 7 GB in between.
            images = F.interpolate(images, (size[0], images.shape[-1]), mode="bilinear", antialias=True)
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    # Dividing after resizing takes less time, because there are usually fewer pixels.
    return images if scale == 1 else images.div_(scale)


def check_pixel_range(low_high: Tensor) -> None:
    """Check the range of floating-point pixels.

    Args:
        low_high: `(2, N)` from `batch_images`, on the CPU.

    Raises:
        ValueError: If an image holds NaN or infinite values.

    Warns:
        UserWarning: If values exceed 2, as in images with pixels from 0 to 255, or are below -0.1, as in normalised
            images.
    """
    lowest, highest = low_high.tolist()
    for i, (low, high) in enumerate(zip(lowest, highest, strict=True)):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"images[{i}] holds NaN or infinite pixels.")
    if max(highest) > 2:
        _warn_of_pixel(max(highest), highest, "up", "Divide them by 255, or pass the image as uint8")
    if min(lowest) < _LEAST_PIXEL:
        _warn_of_pixel(min(lowest), lowest, "down", "The model normalises images: pass them as they were before")


def check_output(sums: Tensor) -> None:
    """Check that the network's output has no NaN.

    Args:
        sums: `(N,)`, a sum over each image's output, on the CPU.

    Raises:
        ValueError: If a sum is NaN.
    """
    if bad := sums.isnan().nonzero().flatten().tolist():
        raise ValueError(
            f"The network's output for images[{bad[0]}] is NaN: its weights hold NaN, its norms a negative "
            "variance, or its numbers are too large for its precision. Load or train it again, or use float32."
        )


def _warn_of_pixel(value: float, of_images: list[float], where: str, way_out: str) -> None:
    warn_caller(
        f"images[{of_images.index(value)}] has floating-point pixels {where} to {value:.4g}; they should lie between 0 "
        f"and 1. {way_out}."
    )

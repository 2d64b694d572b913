"""Images of any kind: paths, addresses, pictures, arrays and tensors."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssd_zoo.data.images import MAX_PIXELS, VIDEO_WAY, find_images, read_image
from ssd_zoo.data.pixels import array_pixels, picture_pixels
from ssd_zoo.data.video import is_address
from ssd_zoo.data.web import is_web
from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.prediction.opening import FOREIGN

__all__ = ["Source", "find_sources", "one_by_one", "read_pixels", "rgb_bytes"]

Source: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
"""One image, or the path of a folder or pattern of images."""


def find_sources(sources: Iterable[str | Path]) -> list[str | Path]:
    """List image files and addresses, in the order given.

    Args:
        sources: Files, folders, glob patterns and addresses `https://…`; see `find_images`. Addresses are not asked.

    Raises:
        FileNotFoundError: If a file, folder or pattern gives no image.
        ValueError: If a source is a file of a model, or the address of a video.
    """
    files: dict[str, str | Path] = {}
    for source in sources:
        if isinstance(source, str) and is_web(source):
            files.setdefault(source, source)
            continue
        if is_address(source):
            raise ValueError(f"{source} is the address of a video: {VIDEO_WAY}.")
        _refuse_model(source)
        for file in find_images([source]):
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _refuse_model(source: str | Path) -> None:
    path = Path(source)
    # XML files may be labels, too, which reading refuses.
    if path.suffix == ".xml" or not path.is_file():
        return
    if is_exported(path.name):
        raise ValueError(f"{source} is a model, not an image: ssd-zoo detect IMAGES --model {source}.")
    if path.suffix in FOREIGN:
        raise ValueError(
            f"{source} is a checkpoint, not an image. Convert it: ssd-zoo convert {source} --output DIR; then "
            "ssd-zoo detect IMAGES --model DIR."
        )


def one_by_one(images: Source | Iterable[Source]) -> tuple[Iterator[Source], bool, bool]:
    """Return an iterator of single images for one or many.

    Args:
        images: As for `predict`.

    Returns:
        The iterator; whether `images` are many; and whether the caller holds them, so that they may be kept.

    Raises:
        FileNotFoundError: If a file, folder or pattern gives no image.
        TypeError: If it is neither an image nor an iterable.
        ValueError: If a source is a file of a model, or the address of a video.
    """
    if isinstance(images, (str, os.PathLike)):
        many = not is_web(images) and not os.path.isfile(images)
        return iter(_images_at(images)), many, True
    if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
        return iter(cast("Iterable[Source]", images)), True, True
    if isinstance(images, (Image.Image, np.ndarray, Tensor)):
        return iter([images]), False, True
    if isinstance(images, (bytes, dict)) or not isinstance(images, Iterable):
        way_out = "For the bytes of a file use PIL.Image.open(io.BytesIO(data))."
        if isinstance(images, int):
            way_out = f"For a camera use ssd_zoo.video.detect_stream(model, ssd_zoo.data.open_camera({images}))."
        raise TypeError(
            f"Expected a path, an address, a Pillow image, an array (H, W, 3), a tensor (C, H, W), or a list of these; "
            f"got {type(images).__name__}. {way_out}"
        )
    return _all_of(images), True, not isinstance(images, Iterator)


def _images_at(path: str | os.PathLike[str]) -> list[str | Path]:
    return find_sources([path if isinstance(path, str) else Path(path)])


def _all_of(images: Iterable[Source]) -> Iterator[Source]:
    for image in images:
        if isinstance(image, (str, os.PathLike)):
            yield from _images_at(image)
        else:
            yield image


def read_pixels(source: Source | bytes, in_chans: int = 3, *, max_pixels: int | None = MAX_PIXELS) -> Tensor:
    """Read an image as a tensor.

    Args:
        source: A file, an address or the content of a file, see `read_image`; a Pillow image; an array, see
            `array_pixels`; or a tensor `(in_chans, H, W)`, which is returned as it is. A grey tensor `(1, H, W)` is
            repeated for a detector of RGB images.
        in_chans: Channels that the detector takes.
        max_pixels: Most pixels of a file; None for no limit.

    Returns:
        `(in_chans, H, W)`; uint8, except for tensors of another type. Of files and Pillow images always RGB.

    Raises:
        ConnectionError: If an address can't be fetched.
        FileNotFoundError: If there is no such file.
        TypeError: If it is something else, or an array of another type than uint8.
        ValueError: If a file can't be read, or an array has another shape.
    """
    if isinstance(source, Tensor):
        grey = source.ndim == 3 and len(source) == 1 and in_chans == 3
        return source.expand(3, -1, -1) if grey else source
    if isinstance(source, np.ndarray):
        return array_pixels(source, in_chans)
    if isinstance(source, Image.Image):
        return picture_pixels(source)
    if isinstance(source, (str, os.PathLike)):
        return read_image(source if isinstance(source, str) else Path(source), max_pixels=max_pixels)
    if isinstance(source, bytes):
        return read_image(io.BytesIO(source), max_pixels=max_pixels)
    raise TypeError(
        f"Got a {type(source).__name__}; expected a path, an address, a Pillow image, an array (H, W, 3) or a tensor "
        "(C, H, W)."
    )


def rgb_bytes(image: Tensor) -> Tensor:
    """Convert an RGB or grey image, `(3 or 1, H, W)`, to uint8 `(3, H, W)` on the CPU, for drawing.

    Floating-point pixels are clamped to 0 … 1.
    """
    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels

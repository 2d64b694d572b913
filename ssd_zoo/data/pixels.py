"""Convert pictures and arrays to pixels that detectors take."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor

__all__ = ["SIDEWAYS", "array_pixels", "orientation", "picture_pixels", "rgb_pixels"]

# Pixels that are converted at once, so that a conversion takes little memory beyond its result.
_STRIP = 2**22
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


def picture_pixels(picture: Image.Image) -> Tensor:
    """Convert a Pillow image to pixels, upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB, with their full range. Transparent pixels are blended with
    white.

    Args:
        picture: The image.

    Returns:
        RGB, uint8 `(3, H, W)`.

    Raises:
        ValueError: If its pixels have an unknown range: floating-point numbers, or integers outside 0 to 65535.
    """
    _load(picture)
    turn = _TURNS.get(orientation(picture))
    return torch.from_numpy(rgb_pixels(picture if turn is None else picture.transpose(turn))).permute(2, 0, 1)


def _load(picture: Image.Image) -> None:
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        picture.load()
        return
    # Pillow 12.3 and 13.0 map raw TIFFs of a known path into memory, and those that they turn in a wrong shape.
    path, picture.filename = picture.filename, ""
    try:
        picture.load()
    finally:
        picture.filename = path


def array_pixels(array: NDArray[np.generic], in_chans: int = 3) -> Tensor:
    """Convert an array to the pixels of a detector.

    For a detector of RGB images, grey is repeated and RGBA is blended with white.

    Args:
        array: uint8 `(H, W, in_chans)`; for RGB also grey `(H, W)` or `(H, W, 1)`, and RGBA `(H, W, 4)`. Colours are in
            the order RGB.
        in_chans: Channels that the detector takes.

    Returns:
        uint8 `(in_chans, H, W)`, a copy.

    Raises:
        TypeError: If the array has another type than uint8.
        ValueError: If it has another shape, or no pixels.
    """
    if array.dtype != np.uint8:
        raise TypeError(
            f"Got an array of {array.dtype}; expected uint8 (0 to 255). "
            "For pixels between 0 and 1 use (image * 255).round().astype('uint8')."
        )
    pixels = array[..., np.newaxis] if array.ndim == 2 else array
    channels = pixels.shape[2] if pixels.ndim == 3 else 0
    if pixels.size == 0 or channels not in {in_chans, *((1, 4) if in_chans == 3 else ())}:
        way_out = " For (C, H, W) use image.transpose(1, 2, 0)." if array.ndim == 3 and array.shape[0] <= 4 else ""
        allowed = "(H, W, 3) in RGB, grey (H, W) or RGBA (H, W, 4)" if in_chans == 3 else f"(H, W, {in_chans})"
        raise ValueError(f"Got an array of shape {array.shape}; expected {allowed}.{way_out}")
    if channels == in_chans:
        return torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)
    return picture_pixels(Image.fromarray(np.ascontiguousarray(pixels if channels == 4 else pixels[..., 0])))


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is unreadable."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises errors of any type on broken metadata.
        return 1
    return found if found in _TURNS else 1


def rgb_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a Pillow image to RGB, uint8 `(H, W, 3)`; ignore its orientation.

    It is converted strip by strip, which takes less memory.

    Raises:
        ValueError: If its pixels have an unknown range, as in `picture_pixels`.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.mode == "I":
        least, most = np.ravel(image.getextrema()).tolist()
        if least < 0 or most > 65535:
            raise ValueError(f"its pixels range from {least} to {most}, beyond 0 to 65535; save it with 8 or 16 bits")
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return np.array(_to_rgb(image))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        pixels[top : top + rows] = np.asarray(_to_rgb(image.crop((0, top, width, min(top + rows, height)))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255.
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")

"""Find and read image files."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["find_images", "image_endings", "image_size", "read_image"]

# Formats whose extensions Pillow registers, but whose pixels it does not read.
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}


def image_endings() -> set[str]:
    """Return the extensions of image files, such as `".jpg"`, in lower case."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind not in _NO_PICTURES}


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List image files.

    Args:
        sources: Files, folders or glob patterns. Files are listed whatever their content. Folders are searched
            recursively, symbolic links included, for files with an image's extension; hidden names (`.name`) are
            skipped. In a pattern `**` matches any number of folders.

    Returns:
        The files without duplicates, in order of the sources; those of one folder or pattern are sorted by name.

    Raises:
        FileNotFoundError: If a source does not exist, holds no image, or matches no file.
    """
    files: dict[str, Path] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = _images_of(path)
        elif path.exists():
            found = [path]
        else:
            found = sorted(file for file in map(Path, glob.glob(str(source), recursive=True)) if file.is_file())
        if not found:
            what = "holds no image" if path.is_dir() else "is not a file or folder, nor a pattern that matches a file"
            raise FileNotFoundError(f"{source} {what}.")
        for file in found:
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _images_of(folder: Path) -> list[Path]:
    """List the images below a folder, each real folder once.

    Linked folders come last, so a folder reached both ways is listed by its real path.
    """
    endings = image_endings()
    files: list[Path] = []
    seen: set[str] = set()
    todo = [str(folder)]
    for top in todo:
        for root, folders, names in os.walk(top):
            if os.path.realpath(root) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(root))
            folders[:] = [name for name in folders if not name.startswith(".")]
            todo += [path for name in folders if os.path.islink(path := os.path.join(root, name))]
            files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in endings and file.is_file())


def read_image(file: str | Path) -> Tensor:
    """Read an image file in any format of Pillow.

    The EXIF orientation is applied. Grey, palette, CMYK and 16-bit images are converted to 8-bit RGB, with their full
    range. Transparent pixels are blended with white. Of several frames the first is read.

    Args:
        file: Path of the file.

    Returns:
        RGB, uint8 `(3, H, W)`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a readable image, is truncated, or has pixels of unknown range (floating-point
            numbers, integers outside 0 to 65535). The message names the file.
    """
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(_to_rgb(ImageOps.exif_transpose(image)))).permute(2, 0, 1)
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is not an image that Pillow can read.") from error
    except IsADirectoryError as error:
        raise ValueError(f"{file} is a folder, not an image.") from error
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any type on a broken file.
        raise ValueError(f"{file} can't be read: {str(error).rstrip('.') or type(error).__name__}.") from error


def image_size(file: str | Path) -> tuple[int, int]:
    """Return an image file's (height, width) without decoding its pixels.

    The EXIF orientation is applied.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an image. The message names the file.
    """
    try:
        with Image.open(file) as image:
            # EXIF orientations 5 to 8 swap height and width.
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if on_its_side else (image.height, image.width)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises errors of any type on a broken file.
        raise ValueError(f"{file} is not an image that Pillow can read.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"its pixels range from {grey.min()} to {grey.max()}, beyond 0 to 65535; save it with 8 or 16 bits"
            )
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

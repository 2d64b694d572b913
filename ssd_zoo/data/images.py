"""Image files."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["find_images", "image_endings", "image_size", "read_image"]

# Pillow knows their endings, but does not read their pixels.
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}


def image_endings() -> set[str]:
    """Gives the endings of image files, such as `".jpg"`, in lower case."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind not in _NO_PICTURES}


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Lists image files.

    Args:
        sources: Files, which are listed whatever they hold; folders, of which all files with an image's ending are
            listed, those of subfolders and linked folders too, each once, but nothing hidden (`.name`); and glob
            patterns, where `**` stands for any number of folders.

    Returns:
        The files, each once, those of a folder or pattern in order of their names.

    Raises:
        FileNotFoundError: If a source is, or matches, nothing.
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
            what = "holds no image" if path.is_dir() else "is no file or folder, nor a pattern that matches a file"
            raise FileNotFoundError(f"{source} {what}.")
        for file in found:
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _images_of(folder: Path) -> list[Path]:
    """Lists images below a folder, linked folders last, so that a file goes by its own path where it has one."""
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
    """Reads an image file of any kind that Pillow knows.

    The EXIF orientation is obeyed; grey, palette, CMYK and 16-bit images become 8-bit RGB over their full range;
    what is transparent is laid on white; of several frames the first is read.

    Args:
        file: The file's path.

    Returns:
        RGB, uint8 `(3, H, W)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image that can be read, is cut off, or has pixels of unknown range (floating-point
            numbers, 32-bit integers beyond 0 to 65535). The message names the file.
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
    except Exception as error:  # Pillow's decoders raise what they like on a broken file.
        raise ValueError(f"{file} can't be read: {str(error).rstrip('.') or type(error).__name__}.") from error


def image_size(file: str | Path) -> tuple[int, int]:
    """Reads an image file's (height, width), the EXIF orientation obeyed, from its first bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image. The message names the file.
    """
    try:
        with Image.open(file) as image:
            # Orientations from 5 on lie on their side.
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if on_its_side else (image.height, image.width)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises what it likes on a broken file.
        raise ValueError(f"{file} is not an image that Pillow can read.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow itself would cut 16-bit grey off at 255.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"its pixels go from {grey.min()} to {grey.max()}, which is no range known; save it with 8 or 16 bits"
            )
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

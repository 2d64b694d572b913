"""Image files."""

import glob
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["find_images", "read_image"]


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Lists image files.

    Args:
        sources: Files, which are listed whatever they hold; folders, of which all files with an image's ending are
            listed, those of subfolders too; and glob patterns.

    Returns:
        The files, each once, those of a folder or pattern in order of their names.

    Raises:
        FileNotFoundError: If a source is, or matches, nothing.
    """
    endings = set(Image.registered_extensions())
    files: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
        elif path.exists():
            found = [path]
        else:
            found = sorted(file for file in map(Path, glob.glob(str(source), recursive=True)) if file.is_file())
        if not found:
            what = "holds no image" if path.is_dir() else "is no file, folder or pattern that matches one"
            raise FileNotFoundError(f"{source} {what}.")
        files.update(dict.fromkeys(found))
    return list(files)


def read_image(file: str | Path) -> Tensor:
    """Reads an image file of any kind that Pillow knows.

    The EXIF orientation is obeyed; grey, palette, CMYK and 16-bit images become 8-bit RGB over their full range;
    what is transparent is laid on white.

    Args:
        file: The file's path.

    Returns:
        RGB, uint8 `(3, H, W)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image that can be read, or is cut off. The message names the file.
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
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} can't be read: {error}.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey, which Pillow would cut off at 255.
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise OSError("its pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")

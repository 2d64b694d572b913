"""Find and read image files."""

import contextlib
import functools
import glob
import io
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype

from ssd_zoo.data.pixels import SIDEWAYS, orientation, picture_pixels
from ssd_zoo.data.web import fetch, is_web
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.outside import near_paths

__all__ = [
    "MAX_PIXELS",
    "VIDEO_ENDINGS",
    "VIDEO_WAY",
    "find_images",
    "image_endings",
    "image_size",
    "is_hidden",
    "read_image",
    "size_if_readable",
    "tensor_of",
    "upright_size",
]

MAX_PIXELS = 54_000_000
"""Largest number of pixels of an image that is read by default. Such a JPEG 2000 takes 1.0 GB of memory, a JPEG 0.6."""
VIDEO_ENDINGS = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
                 ".ts", ".webm", ".wmv")  # fmt: skip
"""Extensions of video files, in lower case."""
VIDEO_WAY = "ssd-zoo detect takes it, and in Python ssd_zoo.video.detect_stream(model, ssd_zoo.data.open_video(path))"
"""The way out where a video is taken for an image."""
# Formats of photographs. Others start programs (EPS) or hold images of other sizes than they announce (ICO).
_FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "HEIF", "AVIF", "JPEG2000", "PPM", "TGA", "QOI", "DIB", "PCX", "SGI",
)  # fmt: skip
_HEIF_ENDINGS = {".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
# First bytes of Matroska and WebM, FLV, MPEG, ASF, and Ogg; those of MP4, AVI and MPEG-TS come later.
_VIDEOS = (b"\x1aE\xdf\xa3", b"FLV\1", b"\0\0\1\xba", b"\0\0\1\xb3", b"0&\xb2u\x8ef\xcf\x11", b"OggS")
# What systems put among a user's files: macOS, Synology, Windows.
_OF_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
_TIFF_TAGS = (ExifTags.Base.ImageLength, ExifTags.Base.ImageWidth, ExifTags.Base.Orientation)
_pillow_limit = threading.Lock()


def image_endings() -> set[str]:
    """Return the extensions of image files, such as `".jpg"`, in lower case.

    HEIC's and AVIF's are among them, whether or not they can be read here.
    """
    kinds = {*_FORMATS, "MPO"}
    return _HEIF_ENDINGS | {ending for ending, kind in Image.registered_extensions().items() if kind in kinds}


def is_hidden(name: str) -> bool:
    """Return whether a name begins with a dot, or is one that systems put among a user's files."""
    return name.startswith(".") or name in _OF_SYSTEMS


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List image files, without opening them.

    Args:
        sources: Files, folders or glob patterns. Files are listed whatever their content. Folders are searched
            recursively, symbolic links included, for files with an image's extension; hidden names (`.name`,
            `__MACOSX`) are skipped. In a pattern `**` matches any number of folders.

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
            found = sorted(filter(_is_listed, map(Path, glob.glob(str(source), recursive=True))))
        if not found:
            if path.is_dir():
                raise FileNotFoundError(f"{source} holds no image.{_videos_in(path)}")
            raise FileNotFoundError(
                f"{source} is not a file or folder, nor a pattern that matches a file.{near_paths(path)}"
            )
        for file in found:
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _images_of(folder: Path) -> list[Path]:
    """List the images below a folder; search each real folder once.

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
            folders[:] = [name for name in folders if not is_hidden(name)]
            todo += [path for name in folders if os.path.islink(path := os.path.join(root, name))]
            files += [Path(root, name) for name in names if not is_hidden(name)]
    return sorted(file for file in files if file.suffix.lower() in endings and _is_listed(file))


def _videos_in(folder: Path) -> str:
    """Return a sentence with the way out for a folder without images that holds videos; else empty."""
    file = next((file for file in sorted(folder.iterdir()) if file.suffix.lower() in VIDEO_ENDINGS), None)
    return "" if file is None else f" It holds videos, which are given as files: {folder}/*{file.suffix}, or {file}."


def _is_listed(file: Path) -> bool:
    """Return whether a path is a file, or a broken link, which reading reports."""
    return file.is_file() or (file.is_symlink() and not file.exists())


@with_near_keywords
def read_image(
    file: str | Path | IO[bytes], *, max_pixels: int | None = MAX_PIXELS, least: tuple[int, int] | None = None
) -> Tensor:
    """Read an image file.

    Formats are JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC, AVIF, JPEG 2000, PPM, TGA, QOI, PCX and SGI. HEIC needs the
    package pillow-heif (`pip install "ssd_zoo[images]"`), AVIF that or Pillow 11.3. The EXIF orientation is applied;
    metadata that can't be read are ignored. Grey, palette, CMYK and 16-bit images are converted to 8-bit RGB, with
    their full range. Transparent pixels are blended with white. Of several frames the first is read.

    Args:
        file: Path of the file, an address `https://…` or `http://…`, or an open binary file that can seek.
        max_pixels: Largest number of pixels, checked before they are decoded. None means that there is no limit.
        least: (height, width) that suffice. A JPEG is then decoded at a half, a quarter or an eighth of its size, as
            far as it stays no smaller, which is several times faster. None means the whole size.

    Returns:
        RGB, uint8 `(3, H, W)`.

    Raises:
        ConnectionError: If an address can't be fetched.
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an image of these formats, is truncated, has more pixels than allowed, or pixels
            of unknown range (floating-point numbers, integers outside 0 to 65535). The message names the file.
    """
    with _opened(file, max_pixels) as image:
        if least is not None:
            height, width = reversed(least) if orientation(image) in SIDEWAYS else least
            image.draft(image.mode, (width, height))
        return picture_pixels(image)


def image_size(file: str | Path, *, max_pixels: int | None = MAX_PIXELS) -> tuple[int, int]:
    """Return the (height, width) that `read_image` gives an image by default, without decoding it.

    Args:
        file: Path, or an address `https://…` or `http://…`, which is fetched whole.
        max_pixels: Largest number of pixels, also of a TIFF's tile; None for no limit.

    Raises:
        ConnectionError: If an address can't be fetched.
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not an image, can't be read, or has more pixels than allowed. The message names the
            file.
    """
    with _opened(file, max_pixels) as image:
        return upright_size(image)


def size_if_readable(file: Path) -> tuple[int, int] | None:
    """Return the (height, width) in pixels of an image, however large; None if it is missing or unreadable.

    `inspect_dataset` reports those that can't be read.
    """
    try:
        return image_size(file, max_pixels=None)
    except (ValueError, OSError):
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) of a Pillow image, turned upright by EXIF."""
    # One that is loaded has been turned, and has lost the tag.
    if isinstance(image, TiffImagePlugin.TiffImageFile) and ExifTags.Base.Orientation in image.tag_v2:
        # Pillow turns a TIFF while it is loaded; whether `size` is that before or after depends on its version.
        height, width, turned = (image.tag_v2.get(tag, 1) for tag in _TIFF_TAGS)
    else:
        height, width, turned = image.height, image.width, orientation(image)
    return (width, height) if turned in SIDEWAYS else (height, width)


@contextlib.contextmanager
def _opened(given: str | Path | IO[bytes], max_pixels: int | None) -> Iterator[Image.Image]:
    """Open an image without decoding it, within a with-statement.

    Every error inside becomes a ValueError that names the file, except FileNotFoundError.
    """
    stream = io.BytesIO(fetch(given)) if isinstance(given, str) and is_web(given) else given
    file = given if isinstance(given, (str, Path)) else getattr(given, "name", "the image")
    try:
        if isinstance(stream, (str, Path)) and stat.S_IFMT(os.stat(stream).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise ValueError("it is a pipe or a device. The command takes it so: ssd-zoo detect - < FILE")
        with _open(stream) as image:
            for what, (width, height) in (("it has", image.size), ("its tiles have", _tile_size(image))):
                if max_pixels is not None and width * height > max_pixels:
                    raise ValueError(
                        f"{what} {width} × {height} pixels, and {max_pixels} are allowed; make it smaller, or allow "
                        "more by max_pixels (--max-pixels)"
                    )
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is not an image that can be read. {_way_out(stream)}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{file} is a folder, not an image.") from error
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any type on a broken file.
        # The text of the system's errors names the file again.
        reason = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
        raise ValueError(f"{file} can't be read: {reason}.") from error


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of a TIFF's tiles in pixels; (0, 0) for untiled TIFFs and other images.

    A tile is decoded whole, however small the image is.
    """
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TiffImagePlugin.TILEWIDTH, 0)), int(tags.get(TiffImagePlugin.TILELENGTH, 0))


def _open(file: str | Path | IO[bytes]) -> Image.Image:
    # Pillow's own limit warns, and can be changed for the whole process alone; `max_pixels` is checked in its place.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def _formats() -> list[str]:
    Image.init()
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [kind for kind in _FORMATS if kind in Image.OPEN]


def _way_out(file: str | Path | IO[bytes]) -> str:
    """Return a sentence on how to make an unreadable file readable.

    The file's first bytes tell HEIC, AVIF and videos; others get the list of formats.
    """
    with open(file, "rb") if isinstance(file, (str, Path)) else contextlib.nullcontext(file) as stream:
        stream.seek(0)
        start = stream.read(189)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        if find_spec("pillow_heif") is not None:
            return "It is a HEIC or AVIF image that is broken or cut off."
        return 'It is a HEIC or AVIF image: pip install "ssd_zoo[images]".'
    transport = start[:1] == start[188:] == b"G"  # Packets of 188 bytes begin alike.
    avi = start.startswith(b"RIFF") and start[8:11] == b"AVI"
    if start[4:8] == b"ftyp" or start.startswith(_VIDEOS) or avi or transport:
        return f"It is a video: {VIDEO_WAY}."
    return f"Formats are {', '.join(_FORMATS)}: save it as JPEG or PNG."


def tensor_of(image: object, name: str) -> Tensor:
    """Convert a Pillow image or tensor to RGB, uint8 `(3, H, W)`.

    Tensors are `(1 or 3, H, W)`; floating-point ones lie between 0 and 1. A Pillow image is turned upright by its EXIF
    orientation, as files are.

    Raises:
        ValueError: If it is another object, whose message begins with the name, or has pixels of an unknown range.
    """
    if isinstance(image, Image.Image):
        return picture_pixels(image)
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] in (1, 3):
        pixels = to_dtype(image.as_subclass(Tensor), torch.uint8, scale=True)
        return pixels.expand(3, -1, -1)
    what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
    raise ValueError(f"{name}: the image must be Pillow's or a tensor (3, H, W), got {what}.")

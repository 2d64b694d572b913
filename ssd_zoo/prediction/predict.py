"""Detect objects in images of any kind."""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ssd_zoo.data.images import read_image
from ssd_zoo.data.web import fetch, is_web
from ssd_zoo.detector.inputs import check_images
from ssd_zoo.detector.ranges import check_count, check_fraction
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.prediction.detections import Detections
from ssd_zoo.prediction.opening import load_model, pick_device, pick_thresh
from ssd_zoo.prediction.pipeline import detect_ahead
from ssd_zoo.prediction.sources import Source, one_by_one, read_pixels
from ssd_zoo.weights.entries import WeightsEnum

__all__ = ["predict"]

Model: TypeAlias = "nn.Module | WeightsEnum | str | os.PathLike[str]"
"""A detector, or the name of one."""


@with_near_keywords
def predict(
    model: Model,
    images: Source | Iterable[Source],
    score_thresh: float | None = None,
    *,
    batch_size: int = 8,
    device: str | torch.device | None = None,
) -> Detections | list[Detections]:
    """Detect objects in images of any kind.

    Images are read ahead, in threads, and detected in batches, so that a folder or an iterator of any length takes
    little memory.

    Args:
        model: A detector, or what `open_detector` opens: the name of a model or of weights, the path of a saved or
            exported model, or a repository of the Hub. A name of torchvision's detectors will do, too. For several
            calls give the detector, because a name is opened at each.
        images: A path, an address `https://…`, a Pillow image, a uint8 array `(H, W, 3)` in the order RGB, or a tensor
            `(C, H, W)`, uint8 or floating point between 0 and 1. Many images are a folder, a glob pattern, an array
            `(N, H, W, 3)`, a tensor `(N, C, H, W)`, or a list or iterator of all these. Files and Pillow images are
            taken upright. Grey images are repeated to RGB; of files, Pillow images and arrays, transparent pixels are
            blended with white.
        score_thresh: Scores of detections must be greater; by default 0.5, or the model's own if that is higher.
        batch_size: Images per batch.
        device: Where to compute. By default where the model is; a model that is given by name is moved to a GPU, if
            there is one.

    Returns:
        For one image its detections; for many, a list. All tensors are on the CPU.

    Raises:
        ConnectionError: If an address or weights can't be fetched.
        FileNotFoundError: If there is no such file, or a folder or pattern has no image.
        TypeError: If an image is of another kind or type. The message names which.
        ValueError: If there is no such model, an image can't be read or has another shape, or an exported model drops
            scores above `score_thresh`.

    Example:
        >>> found = ssd_zoo.predict("COCO_TF_V1", torch.zeros(3, 60, 80))
        >>> found["boxes"].shape, found.names
        (torch.Size([0, 4]), [])
    """
    if score_thresh is not None:
        check_fraction("score_thresh", score_thresh, "a score")
    check_count("batch_size", batch_size)
    sources, many, held = one_by_one(images)
    detector, categories = _open(model, device)
    score_thresh = pick_thresh(detector, score_thresh)
    asked = (_Image(source, f"images[{i}]" if many else "image") for i, source in enumerate(sources))
    read = partial(_read, in_chans=getattr(detector, "in_chans", 3), held=held)
    workers = torch.get_num_threads() if many else 1
    results: list[Detections] = []
    with _ready(detector, score_thresh):
        for image, pixels, found in detect_ahead(detector, asked, read, batch_size=batch_size, workers=workers):
            if isinstance(pixels, Exception):
                raise pixels
            over = found["scores"] > score_thresh
            chosen = {key: value[over] for key, value in found.items()}
            results.append(Detections(chosen, categories, image=image.kept, title=image.title))
    return results if many else results[0]


@dataclass
class _Image:
    """An image that was asked for, its title, and what is kept of it for drawing (None: nothing)."""

    source: Source
    title: str
    kept: Source | bytes | None = None


def _open(model: Model, device: str | torch.device | None) -> tuple[nn.Module, Sequence[str]]:
    place = None if device is None else str(device)
    if isinstance(model, nn.Module):
        # torchvision's detectors have no names of classes.
        return model if place is None else model.to(pick_device(place)), getattr(model, "categories", ())
    if isinstance(model, WeightsEnum):
        model = str(model)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"Expected a detector, or the name or path of one, got {model!r}. A builder has to be called.")
    opened, categories = load_model(model)
    return opened.to(pick_device(place)), categories


@contextlib.contextmanager
def _ready(model: nn.Module, score_thresh: float) -> Iterator[None]:
    """Within a with-statement, set a model to evaluation mode, with its threshold at most as asked.

    A lower own threshold stays. Both are restored at the end.
    """
    own = getattr(model, "score_thresh", 0.0)
    lower = own > score_thresh
    if lower:
        model.score_thresh = score_thresh  # type: ignore[assignment]
    in_training = [module for module in model.modules() if module.training]
    if in_training:
        model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
        if lower:
            model.score_thresh = own  # type: ignore[assignment]


def _read(image: _Image, *, in_chans: int, held: bool) -> Tensor:
    """Read an image's pixels; set its `kept`, and `title` if it has a name.

    Args:
        image: The image.
        in_chans: Channels that the model takes.
        held: Whether the caller holds the image, so that it may be kept for drawing.

    Raises:
        ConnectionError: If an address can't be fetched.
        FileNotFoundError: If there is no such file.
        TypeError: If it is of another kind or type; the message begins with the title.
        ValueError: If it can't be read or has another shape.
    """
    source = image.source
    if isinstance(source, str) and is_web(source):
        stream = io.BytesIO(fetch(source))
        stream.name = source
        image.kept, image.title = stream.getvalue(), source
        return read_image(stream)
    if isinstance(source, (str, os.PathLike)):
        image.kept, image.title = source, os.fspath(source)
        return read_pixels(source, in_chans)
    try:
        pixels = read_pixels(source, in_chans)
        check_images([pixels], in_chans, pixels.device)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{image.title}: {error}".replace(f"{image.title}: images[0]", image.title)) from error
    image.kept = source if held else None
    return pixels

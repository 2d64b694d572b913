"""Detect objects in images of any kind."""

import contextlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ssd_zoo.data.images import read_image
from ssd_zoo.data.web import fetch, is_web
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.detector.inputs import check_images
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.values import check_count, check_fraction
from ssd_zoo.prediction.detections import Detections
from ssd_zoo.prediction.opening import load_model, pick_device
from ssd_zoo.prediction.sources import Source, one_by_one, read_pixels
from ssd_zoo.weights.entries import WeightsEnum

__all__ = ["detect_batch", "predict"]

Model: TypeAlias = "nn.Module | WeightsEnum | str | os.PathLike[str]"
"""A detector, or the name of one."""


def predict(
    model: Model,
    images: Source | Iterable[Source],
    score_thresh: float = 0.5,
    *,
    batch_size: int = 8,
    device: str | torch.device | None = None,
) -> Detections | list[Detections]:
    """Detect objects in images of any kind.

    Images are read and detected in batches, so that a folder or an iterator of any length takes little memory.

    Args:
        model: A detector, or what `open_detector` opens: the name of a model or of weights, the path of a saved or
            exported model, or a repository of the Hub. A name of torchvision's detectors will do, too. For several
            calls give the detector, because a name is opened at each.
        images: A path, an address `https://…`, a Pillow image, a uint8 array `(H, W, 3)` in the order RGB, or a tensor
            `(C, H, W)`, uint8 or floating point between 0 and 1. Many images are a folder, a glob pattern, an array
            `(N, H, W, 3)`, a tensor `(N, C, H, W)`, or a list or iterator of all these. Files and Pillow images are
            taken upright. Grey images are repeated to RGB; of files, Pillow images and arrays, transparent pixels are
            blended with white.
        score_thresh: Least score of a detection.
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
        >>> found = ssd_zoo.predict("ssdlite300_mobilenet_v2", torch.zeros(3, 60, 80))
        >>> found["boxes"].shape, found.names
        (torch.Size([0, 4]), [])
    """
    check_fraction("score_thresh", score_thresh, "a score")
    check_count("batch_size", batch_size)
    sources, many, held = one_by_one(images)
    detector, categories = _open(model, score_thresh, device)
    in_chans = getattr(detector, "in_chans", 3)
    results: list[Detections] = []
    with _ready(detector, score_thresh):
        while batch := list(itertools.islice(sources, batch_size)):
            first = len(results)
            read = [_read(source, in_chans, first + i, many, held) for i, source in enumerate(batch)]
            found = detect_batch(detector, [pixels for pixels, _, _ in read])
            for one, (_, kept, title) in zip(found, read, strict=True):
                over = one["scores"] > score_thresh
                chosen = {key: value[over] for key, value in one.items()}
                results.append(Detections(chosen, categories, image=kept, title=title))
    return results if many else results[0]


def _open(model: Model, score_thresh: float, device: str | torch.device | None) -> tuple[nn.Module, Sequence[str]]:
    place = None if device is None else str(device)
    if isinstance(model, nn.Module):
        # torchvision's detectors have no names of classes.
        return model if place is None else model.to(pick_device(place)), getattr(model, "categories", ())
    if isinstance(model, WeightsEnum):
        model = str(model)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"Expected a detector, or the name or path of one, got {model!r}. A builder has to be called.")
    opened, categories = load_model(os.fspath(model), score_thresh=score_thresh)
    return opened.to(pick_device(place)), categories


@contextlib.contextmanager
def _ready(model: nn.Module, score_thresh: float) -> Iterator[None]:
    """Put a model into evaluation mode and lower its threshold if needed; restore both afterwards."""
    own = getattr(model, "score_thresh", 0.0)
    lower = own > score_thresh
    if lower and isinstance(model, ExportedDetector):
        raise ValueError(
            f"The exported model drops scores up to {own}, so score_thresh can't be {score_thresh}. Open it by "
            "ssd_zoo.deploy.load(path, score_thresh=…), or give a higher score_thresh."
        )
    in_training = [module for module in model.modules() if module.training]
    if in_training:
        model.eval()
    if lower:
        model.score_thresh = score_thresh  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in in_training:
            module.training = True
        if lower:
            model.score_thresh = own  # type: ignore[assignment]


def _read(
    source: Source, in_chans: int, index: int, many: bool, held: bool
) -> tuple[Tensor, Source | bytes | None, str]:
    """Return an image's pixels, what is kept of it for drawing, and its title."""
    if isinstance(source, str) and is_web(source):
        stream = io.BytesIO(fetch(source))
        stream.name = source
        return read_image(stream), stream.getvalue(), source
    if isinstance(source, (str, os.PathLike)):
        return read_pixels(source, in_chans), source, os.fspath(source)
    title = f"images[{index}]" if many else "image"
    try:
        pixels = read_pixels(source, in_chans)
        check_images([pixels], in_chans, pixels.device)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{title}: {error}".replace(f"{title}: images[0]", title)) from error
    return pixels, source if held else None, title


@torch.inference_mode()
def detect_batch(model: nn.Module, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Detect objects in images on any device.

    Args:
        model: A detector in evaluation mode, ours or torchvision's.
        images: `(in_chans, H, W)` each, uint8 or floating point between 0 and 1.

    Returns:
        Detections of each image, on the CPU.
    """
    if not images:
        return []
    place = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0)).device
    moved = [image.as_subclass(Tensor).to(place) for image in images]
    if not isinstance(model, (SSD, ExportedDetector)):
        # torchvision's detectors take no bytes.
        moved = [image.float() / 255 if image.dtype == torch.uint8 else image for image in moved]
    return [{key: value.cpu() for key, value in found.items()} for found in model(moved)]

"""Call a detector with images on any device."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.detector.ssd import SSD

__all__ = ["detect_batch"]


@torch.inference_mode()
def detect_batch(model: nn.Module, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Detect objects in images on any device.

    Args:
        model: A detector in evaluation mode, ours or torchvision's.
        images: `(in_chans, H, W)` each, uint8 or floating point between 0 and 1.

    Returns:
        Detections of each image, on the CPU; none for none.
    """
    if not images:
        return []
    place = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0)).device
    moved = [image.as_subclass(Tensor).to(place) for image in images]
    if not isinstance(model, (SSD, ExportedDetector)):
        # torchvision's detectors take no bytes.
        moved = [image.float() / 255 if image.dtype == torch.uint8 else image for image in moved]
    return [{key: value.cpu() for key, value in found.items()} for found in model(moved)]

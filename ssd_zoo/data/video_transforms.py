"""Augment clips, with the same random parameters for all frames."""

from collections.abc import Sequence

from torch import nn
from torchvision.transforms import v2

from ssd_zoo.data.presets import CropWithObjects, per_object
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["clip_augmentation"]


@with_near_keywords
def clip_augmentation(*, fill: Sequence[int] = (123, 117, 104), zoom_out: float = 0.5, flip: float = 0.5) -> nn.Module:
    """Build the SSD paper's augmentation for clips.

    It consists of photometric distortion, zooming out, cropping with a minimum IoU, and flipping. All frames of a clip
    get the same parameters, which preserves motion. Boxes whose centre is cropped away are removed, with their labels,
    frames and tracks; so are boxes under 1 pixel in width or height. (Liu et al., "SSD: Single Shot MultiBox Detector",
    section 2.2. https://arxiv.org/abs/1512.02325)

    Args:
        fill: Colour of the canvas, RGB, 0 to 255.
        zoom_out: Probability of zooming out.
        flip: Probability of a horizontal flip; use 0 if classes differ by left and right.

    Returns:
        A transform (torchvision's v2) of clip and target.
    """
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(fill), p=zoom_out),
            CropWithObjects(),
            v2.RandomHorizontalFlip(flip),
            v2.SanitizeBoundingBoxes(labels_getter=per_object),
        ]
    )

"""SSD's augmentation for clips: one draw for all frames."""

from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["clip_augmentation"]


def clip_augmentation(*, fill: Sequence[int] = (123, 117, 104), zoom_out: float = 0.5, flip: float = 0.5) -> nn.Module:
    """Gives the augmentation of the paper, the same for all frames of a clip, so that motion stays what it is.

    Colours are distorted, the clip is put on a larger canvas, a part is cropped that keeps objects, and the clip is
    mirrored. Boxes whose centre is cropped away go, with their labels, frames and tracks. (Liu et al., "SSD: Single
    Shot MultiBox Detector", section 2.2. https://arxiv.org/abs/1512.02325)

    Args:
        fill: Colour of the canvas, RGB, 0 to 255.
        zoom_out: How often a clip goes on a larger canvas.
        flip: How often it is mirrored; 0 where left and right are classes.

    Returns:
        A transform of transforms v2, to be called with clip and target.
    """
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(fill), p=zoom_out),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(flip),
            v2.SanitizeBoundingBoxes(labels_getter=_rows_of_boxes),
        ]
    )


def _rows_of_boxes(sample: Any) -> Any:
    _, target = sample
    return tuple(target[key] for key in ("labels", "frame_index", "track_ids") if key in target)

"""Weights with which the losses of a batch's parts add up to the batch's loss.

SSD's loss is a sum over the batch divided by its number of positive default boxes. The parts are computed in several
processes or one after another. A mean of their losses would weigh a part with few positives as much as one with many.
Of clips, labeled frames count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_zoo.detector.frames import check_clip_targets, holds_clips, shown_frames, targets_of_frames
from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.detector.ssd import SSD

__all__ = ["count_positives", "part_weights"]

Size = tuple[int, int]


@torch.no_grad()
def count_positives(model: SSD, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> int | None:
    """Count default boxes matched to objects, without running the network.

    Args:
        model: The detector.
        images: Images `(C, H, W)`, or clips `(T, C, H, W)`.
        targets: As for calling the model, on its device.

    Returns:
        The number, over all images; None for clips without a labeled frame that gets feature maps, so without a loss.

    Raises:
        TypeError: If a target has the wrong type.
        ValueError: If a target is invalid.
    """
    sizes, targets = _labeled(model, images, targets)
    if not sizes:
        return None
    boxes, _, valid = model.prepare_targets(targets, sizes)
    return int((match_default_boxes(boxes, valid, model.default_boxes, model.iou_thresh) >= 0).sum())


def _labeled(
    model: SSD, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> tuple[list[Size], Sequence[dict[str, Tensor]]]:
    """Return the (height, width) and the targets of images, or of clips' labeled frames.

    Only frames that get feature maps count.

    Raises:
        TypeError: If a clip's target has the wrong type.
        ValueError: If a clip's target is invalid.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    if not holds_clips(images):
        return sizes, targets
    lengths = [len(clip) for clip in images]
    check_clip_targets(targets, lengths)
    shown = shown_frames(model.backbone, lengths)
    of_frames, rows = targets_of_frames(targets, shown)
    of_rows = [size for size, frames in zip(sizes, shown, strict=True) for _ in frames]
    return [of_rows[row] for row in rows], of_frames


def part_weights(positives: Sequence[int | None], total: int) -> list[float]:
    """Return the factors of parts' losses whose sum is the batch's loss.

    Args:
        positives: Positive default boxes of each part; None for parts without a loss.
        total: Those of the whole batch, over all processes.

    Example:
        >>> from ssd_zoo.training.balance import part_weights
        >>> part_weights([3, 0, 1, None], 4)  # a part without positives was divided by 1
        [0.75, 0.25, 0.25, 0.0]
    """
    return [0.0 if count is None else max(1, count) / max(1, total) for count in positives]

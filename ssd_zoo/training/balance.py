"""Weights of the parts of a batch, so that their losses add up to the batch's.

SSD's loss is a sum over the batch divided by its number of positive default boxes. Means over parts of a batch, in
several processes or one after another, would weigh a part with few positives as much as one with many.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.detector.ssd import SSD

__all__ = ["count_positives", "part_weights"]


@torch.no_grad()
def count_positives(model: SSD, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> int:
    """Count the default boxes that are matched to objects, without running the network.

    Args:
        model: The detector.
        images: `(C, H, W)` each.
        targets: `boxes (G, 4)`, xyxy, and `labels (G,)` each, on the model's device.
    """
    boxes, _, valid = model.prepare_targets(targets, [(image.shape[-2], image.shape[-1]) for image in images])
    return int((match_default_boxes(boxes, valid, model.default_boxes, model.iou_thresh) >= 0).sum())


def part_weights(positives: Sequence[int], total: int) -> list[float]:
    """Return factors for the losses of parts, so that their sum is the batch's loss.

    Args:
        positives: Positive default boxes of each part.
        total: Those of the whole batch, over all processes.

    Example:
        >>> from ssd_zoo.training.balance import part_weights
        >>> part_weights([3, 0, 1], 4)  # a part without positives was divided by 1
        [0.75, 0.25, 0.25]
    """
    return [max(1, count) / max(1, total) for count in positives]

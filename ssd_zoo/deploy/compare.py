"""By how much two models' detections differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.detector.ssd import SSD

__all__ = ["DetectionChange", "compare_detections"]

# Least IoU of a detection and the one that stands for it.
_SAME_OBJECT = 0.5


@dataclass(frozen=True)
class DetectionChange:
    """What became of a model's detections in another model.

    Attributes:
        matched: Detections that both have.
        lost: Detections that only the first has.
        gained: Detections that only the second has.
        box_shift: Farthest that a side of a matched box moved, in pixels of its image.
        score_change: Largest change of a matched score.
    """

    matched: int
    lost: int
    gained: int
    box_shift: float
    score_change: float

    def __str__(self) -> str:
        """Gives one line."""
        return (
            f"{self.matched} detections matched, {self.lost} lost, {self.gained} gained; "
            f"boxes moved by up to {self.box_shift:.3g} px, scores by up to {self.score_change:.2g}"
        )


@torch.no_grad()
def compare_detections(
    model: SSD, other: SSD, images: Sequence[Tensor] | Tensor, *, score_thresh: float = 0.0
) -> DetectionChange:
    """Compares the detections of two models.

    A detection of the one is matched to the detection of the other that has its label and overlaps it most, by an IoU
    of at least 0.5, and is matched to no better one.

    Args:
        model: A detector in evaluation mode.
        other: Another, which may be on another device.
        images: What to detect in, on any device; see `SSD.forward`.
        score_thresh: Leaves out what scores less, before matching.

    Raises:
        ValueError: If a model is in training mode.
    """
    if model.training or other.training:
        raise ValueError("Only models in evaluation mode detect: call model.eval() first.")
    matched = lost = gained = 0
    shifts, changes = [0.0], [0.0]
    for before, after in zip(_detect(model, images), _detect(other, images), strict=True):
        before, after = (
            {key: value[found["scores"] > score_thresh].cpu() for key, value in found.items()}
            for found in (before, after)
        )
        pairs = _pairs(before, after)
        matched += len(pairs)
        lost += len(before["scores"]) - len(pairs)
        gained += len(after["scores"]) - len(pairs)
        for i, k in pairs:
            shifts.append((before["boxes"][i] - after["boxes"][k]).abs().max().item())
            changes.append((before["scores"][i] - after["scores"][k]).abs().item())
    return DetectionChange(matched, lost, gained, max(shifts), max(changes))


def _detect(model: SSD, images: Sequence[Tensor] | Tensor) -> list[dict[str, Tensor]]:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return model(images)
    if isinstance(images, Tensor):
        return model(images.to(parameter.device))
    return model([image.to(parameter.device) if isinstance(image, Tensor) else image for image in images])


def _pairs(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[tuple[int, int]]:
    iou = box_iou(before["boxes"].float(), after["boxes"].float())
    iou = iou.masked_fill(before["labels"].unsqueeze(1) != after["labels"], 0)
    matched = match_detections(iou, _SAME_OBJECT, next_best=True).tolist()
    return [(i, k) for i, k in enumerate(matched) if k >= 0]

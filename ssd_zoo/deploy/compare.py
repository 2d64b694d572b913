"""Compare the detections of two models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["DetectionChange", "compare_detections"]

# Least IoU of matched detections.
_SAME_OBJECT = 0.5


@dataclass(frozen=True)
class DetectionChange:
    """Differences between the detections of two models.

    Attributes:
        matched: Number of detections of both models.
        lost: Number of detections of the first model only.
        gained: Number of detections of the second model only.
        box_shift: Largest absolute difference of a coordinate of matched boxes, in pixels of the image; 0 without any.
        score_change: Largest absolute difference of matched scores; 0 without any.
    """

    matched: int
    lost: int
    gained: int
    box_shift: float
    score_change: float

    def __str__(self) -> str:
        """Return a summary in one line."""
        if not self.matched + self.lost + self.gained:
            return "no detections to compare"
        return (
            f"{self.matched} detections matched, {self.lost} lost, {self.gained} gained; "
            f"boxes moved by up to {self.box_shift:.3g} px, scores by up to {self.score_change:.2g}"
        )


@torch.no_grad()
@with_near_keywords
def compare_detections(
    model: nn.Module, other: nn.Module, images: Sequence[Tensor] | Tensor, *, score_thresh: float | None = None
) -> DetectionChange:
    """Compare the detections of two models.

    Detections of the first model are matched in falling order of score. Each is matched to the unmatched detection of
    the second model with the same label and the largest IoU, if that is at least 0.5.

    Args:
        model: A detector in evaluation mode.
        other: Another detector in evaluation mode, possibly on another device, or an `ExportedDetector`.
        images: Images to detect in, on any device; see `SSD.forward`.
        score_thresh: Detections with this score or less are ignored; by default the larger threshold of the two models,
            as a file may have dropped what the model before it shows.

    Raises:
        ValueError: If a model is in training mode.
    """
    if model.training or other.training:
        raise ValueError("Only models in evaluation mode detect: call model.eval() first.")
    if score_thresh is None:
        score_thresh = max(getattr(one, "score_thresh", 0.0) for one in (model, other))
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


def _detect(model: nn.Module, images: Sequence[Tensor] | Tensor) -> list[dict[str, Tensor]]:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return model(images)
    if isinstance(images, Tensor):
        return model(images.to(parameter.device))
    return model([image.to(parameter.device) if isinstance(image, Tensor) else image for image in images])


def _pairs(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[tuple[int, int]]:
    """Return pairs of indices (before, after) of an image's detections that match."""
    iou = box_iou(before["boxes"].float(), after["boxes"].float())
    iou = iou.masked_fill(before["labels"].unsqueeze(1) != after["labels"], 0)
    matched = match_detections(iou, _SAME_OBJECT, next_best=True).tolist()
    return [(i, k) for i, k in enumerate(matched) if k >= 0]

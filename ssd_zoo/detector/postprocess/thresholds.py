"""Thresholds of post-processing."""

from dataclasses import dataclass

__all__ = ["Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of post-processing.

    Attributes:
        score_thresh: Scores of candidates must be greater.
        nms_thresh: A box is dropped if it overlaps a better one of its class by a larger IoU.
        detections_per_img: Most detections per image.
        topk_candidates: Most candidates per class; None for all.
        clip_before_nms: Whether boxes are clipped to the image before NMS or after it. After it, boxes that have no
            area left are dropped and not replaced, as in TensorFlow's detectors.

    Raises:
        ValueError: If a count is below 1, or `nms_thresh` is not between 0 and 1.
    """

    score_thresh: float = 0.01
    nms_thresh: float = 0.45
    detections_per_img: int = 200
    topk_candidates: int | None = 400
    clip_before_nms: bool = True

    def __post_init__(self) -> None:
        for name in ("detections_per_img", "topk_candidates"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        if not 0 <= self.nms_thresh <= 1:
            raise ValueError(f"nms_thresh is an IoU and must lie between 0 and 1, got {self.nms_thresh}.")

"""Thresholds of post-processing."""

from dataclasses import dataclass

from ssd_zoo.detector.ranges import check_count, check_fraction

__all__ = ["Thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of post-processing.

    Attributes:
        score_thresh: Scores of candidates must be greater.
        nms_thresh: A box is dropped if it overlaps a better one of its class by a larger IoU.
        detections_per_img: Most detections per image.
        topk_candidates: Most candidates per class; None for all.
        clip_before_nms: Whether boxes are clipped to the image before NMS or after it. Before it, boxes left without
            area stay, as in torchvision. After it, they are dropped and not replaced, as in TensorFlow's detectors.

    Raises:
        TypeError: If a threshold is not a number, or a count not an integer.
        ValueError: If a count is below 1, or a threshold is not between 0 and 1.
    """

    score_thresh: float = 0.01
    nms_thresh: float = 0.45
    detections_per_img: int = 200
    topk_candidates: int | None = 400
    clip_before_nms: bool = True

    def __post_init__(self) -> None:
        check_count("detections_per_img", self.detections_per_img)
        if self.topk_candidates is not None:
            check_count("topk_candidates", self.topk_candidates)
        check_fraction("nms_thresh", self.nms_thresh, "an IoU")
        check_fraction("score_thresh", self.score_thresh, "a score")

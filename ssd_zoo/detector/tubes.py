"""Link detections to tubes, an object's boxes over time.

A tube is a dict of `boxes (K, 4)`, xyxy in pixels, `scores (K,)`, `frame_index (K,)` (consecutive), `label`, and
`score`, the mean score of the detections without interpolated boxes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, intersection_and_union

__all__ = ["Tube", "link_tubes", "tube_iou", "tubes_of_target"]

Tube = dict[str, Any]


def link_tubes(
    detections: Mapping[str, Tensor],
    *,
    iou_thresh: float = 0.3,
    max_gap: int = 5,
    max_per_frame: int = 10,
    min_length: int = 1,
) -> list[Tube]:
    """Link a clip's detections to tubes, frame by frame and online.

    For each class and frame, tubes are extended in falling order of their mean score. Each gets the remaining detection
    with the highest score that overlaps its last box. Remaining detections start new tubes. (After Singh et al.,
    "Online Real-time Multiple Spatiotemporal Action Localisation and Prediction", section 3.3.
    https://arxiv.org/abs/1611.08563)

    Args:
        detections: `boxes (n, 4)`, xyxy in pixels, `labels (n,)`, `scores (n,)` and `frame_index (n,)`.
        iou_thresh: Least IoU of a detection with the tube's last box.
        max_gap: Largest number of successive frames without a detection within a tube. These are interpolated linearly.
        max_per_frame: Number of detections per class and frame to use, those of the highest scores.
        min_length: Least number of detections of a tube; shorter tubes are dropped.

    Returns:
        Tubes in falling order of score, on the CPU.
    """
    detections = {key: value.cpu() for key, value in detections.items()}
    tubes: list[Tube] = []
    for label in detections["labels"].unique().tolist():
        open_tubes: list[Tube] = []
        of_class = detections["labels"] == label
        for frame in detections["frame_index"][of_class].unique().tolist():
            here = (of_class & (detections["frame_index"] == frame)).nonzero().squeeze(1)
            best = here[detections["scores"][here].argsort(descending=True)[:max_per_frame]]
            open_tubes = [tube for tube in open_tubes if frame - tube["frames"][-1] <= max_gap + 1]
            started = _extend(open_tubes, detections["boxes"][best], detections["scores"][best], frame, iou_thresh)
            for tube in started:
                tube["label"] = label
            open_tubes += started
            tubes += started
    finished = [_finish(tube) for tube in tubes if len(tube["frames"]) >= min_length]
    return sorted(finished, key=lambda tube: -tube["score"])


def _extend(open_tubes: list[Tube], boxes: Tensor, scores: Tensor, frame: int, iou_thresh: float) -> list[Tube]:
    """Extend tubes by a frame's detections; return new tubes of the remaining detections."""
    left = list(range(len(boxes)))
    for tube in sorted(open_tubes, key=lambda tube: -sum(tube["scores"]) / len(tube["scores"])):
        overlaps = box_iou(tube["boxes"][-1].unsqueeze(0), boxes)[0]
        chosen = next((i for i in left if overlaps[i] >= iou_thresh), None)
        if chosen is not None:
            left.remove(chosen)
            tube["boxes"].append(boxes[chosen])
            tube["scores"].append(float(scores[chosen]))
            tube["frames"].append(frame)
    return [{"boxes": [boxes[i]], "scores": [float(scores[i])], "frames": [frame]} for i in left]


def _finish(tube: Tube) -> Tube:
    """Interpolate a tube's gaps, and convert its lists to tensors."""
    frames, boxes, scores = tube["frames"], torch.stack(tube["boxes"]), torch.tensor(tube["scores"])
    index = torch.arange(frames[0], frames[-1] + 1)
    known = torch.tensor(frames)
    after = torch.searchsorted(known, index)
    before = torch.where(known[after] == index, after, after - 1)
    share = (index - known[before]) / (known[after] - known[before]).clamp(min=1)
    return {
        "boxes": torch.lerp(boxes[before], boxes[after], share.unsqueeze(1).to(boxes)),
        "scores": torch.lerp(scores[before], scores[after], share.to(scores)),
        "frame_index": index,
        "label": tube["label"],
        "score": sum(tube["scores"]) / len(frames),
    }


def tubes_of_target(target: Mapping[str, Tensor]) -> list[Tube]:
    """Return the tubes of a clip's target, one per track and label, without scores.

    Without `track_ids` there is one per label. Frames in which `iscrowd` marks the object are left out of its tube. A
    tube whose frames are all marked is kept whole, with `iscrowd` True.
    """
    labels, frames = target["labels"], target["frame_index"]
    tracks = torch.stack([target.get("track_ids", labels), labels], 1)
    crowds = target["iscrowd"] != 0 if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    tubes = []
    for track in tracks.unique(dim=0):
        rows = (tracks == track).all(1).nonzero().squeeze(1)
        counted = rows[~crowds[rows]]
        rows = counted if len(counted) else rows
        rows = rows[frames[rows].argsort()]
        tubes.append(
            {
                "boxes": target["boxes"][rows].as_subclass(Tensor),
                "frame_index": frames[rows],
                "label": int(track[1]),
                "iscrowd": not len(counted),
            }
        )
    return tubes


def tube_iou(one: Tube, other: Tube) -> float:
    """Compute the spatio-temporal IoU of two tubes.

    It is the mean IoU of their boxes over the union of their frames; it is 0 in frames of only one tube.

    Classes are not compared.
    """
    frames, counts = torch.cat([one["frame_index"], other["frame_index"]]).unique(return_counts=True)
    common = frames[counts == 2]
    left, right = (tube["boxes"][torch.isin(tube["frame_index"], common)].float() for tube in (one, other))
    intersection, union = intersection_and_union(left, right)
    # Boxes without an area have no union.
    return float((intersection / union).nan_to_num(0).sum() / len(frames))

"""Tubes: one object's boxes through time.

A tube is a dict of `boxes (K, 4)`, xyxy in pixels, `frame_index (K,)`, rising and without gaps, `scores (K,)` of the
boxes, `label`, and `score`, the mean of those.
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
    """Links a clip's detections to tubes, frame by frame, looking at the past alone.

    In each frame and class tubes choose in falling order of their score: each takes the best-scored detection that is
    left and overlaps its last box. What nobody takes starts a tube; a tube that takes nothing for too long ends.
    (After Singh et al., "Online Real-time Multiple Spatiotemporal Action Localisation and Prediction", section 3.3.
    https://arxiv.org/abs/1611.08563)

    Args:
        detections: `boxes (n, 4)`, `labels (n,)`, `scores (n,)` and `frame_index (n,)`.
        iou_thresh: Least IoU of a box with the tube's last.
        max_gap: Frames in a row without a detection after which a tube ends. Within a tube they are filled in evenly.
        max_per_frame: Detections of a class and frame that are looked at, the best.
        min_length: Boxes that a tube must have to be given.

    Returns:
        Tubes in falling order of score.
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
    """Gives each tube its next box, if there is one, and starts tubes with what is left."""
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
    """Fills gaps, and makes tensors of lists."""
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
    """Gives the tubes of a clip's target: one a track, or a label where it has no `track_ids`."""
    tracks = target.get("track_ids", target["labels"])
    tubes = []
    for track in tracks.unique():
        rows = (tracks == track).nonzero().squeeze(1)
        rows = rows[target["frame_index"][rows].argsort()]
        tubes.append(
            {
                "boxes": target["boxes"][rows].as_subclass(Tensor),
                "frame_index": target["frame_index"][rows],
                "label": int(target["labels"][rows[0]]),
            }
        )
    return tubes


def tube_iou(one: Tube, other: Tube) -> float:
    """Gives how much two tubes overlap: the mean IoU of their boxes over the frames that either has.

    It is the share of frames that they have in common, times the mean IoU there.
    """
    frames, counts = torch.cat([one["frame_index"], other["frame_index"]]).unique(return_counts=True)
    common = frames[counts == 2]
    left, right = (tube["boxes"][torch.isin(tube["frame_index"], common)].float() for tube in (one, other))
    intersection, union = intersection_and_union(left, right)
    return float((intersection / union).sum() / len(frames))

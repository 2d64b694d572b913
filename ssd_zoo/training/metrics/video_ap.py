"""Frame-mAP and video-mAP.

Average precision is that of Pascal VOC since 2010: the area under the curve of the best precision at each recall or
above. A second match of the same object counts as wrong. Classes that nothing is annotated of are left out of the mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.detector.tubes import Tube, tube_iou, tubes_of_target
from ssd_zoo.training.metrics.voc import area_under

__all__ = ["Matches", "bootstrap_difference", "frame_map", "match_frames", "match_tubes", "mean_ap", "video_map"]

_THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))


@dataclass(frozen=True)
class Matches:
    """Detections of a video, matched to its objects at one IoU threshold.

    Attributes:
        labels: Class of each detection, `(n,)`.
        scores: Its score, `(n,)`.
        right: Whether it is the first to find an object, `(n,)`.
        objects: How many objects of each class there are to find.
    """

    labels: Tensor
    scores: Tensor
    right: Tensor
    objects: Mapping[int, int]


def frame_map(
    detections: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]], *, iou_thresh: float = 0.5
) -> float:
    """Compute the mean average precision of boxes over all annotated frames.

    Args:
        detections: One dict a video: `boxes (n, 4)`, `labels (n,)`, `scores (n,)`, `frame_index (n,)`.
        targets: One dict a video: `boxes (G, 4)`, `labels (G,)`, `frame_index (G,)` and, where not all frames are
            annotated, `labeled_frames (K,)`; what is detected on others does not count.
        iou_thresh: Least IoU of a match.

    Returns:
        Between 0 and 1.
    """
    videos = zip(detections, targets, strict=True)
    return mean_ap([match_frames(found, target, iou_thresh=iou_thresh) for found, target in videos])


def video_map(
    tubes: Sequence[Sequence[Tube]],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    setting: Literal["trimmed", "untrimmed"],
) -> dict[str, float | str]:
    """Compute the mean average precision of tubes.

    A tube finds an object if the mean IoU of their boxes, over all frames that either has, reaches the threshold.

    Args:
        tubes: Those of each video, as of `link_tubes`.
        targets: One dict a video, as of `frame_map`, with `track_ids (G,)`.
        setting: Whether videos are `"trimmed"` to the actions, so that objects are there in every frame, or not. It
            changes nothing, but figures of the two can't be compared, and the result says which it is of.

    Returns:
        `video_map@0.2`, `video_map@0.5`, `video_map@0.5:0.95` (the mean over ten thresholds) and `setting`.

    Raises:
        ValueError: If videos that are said to be trimmed have objects that come or go.
    """
    if setting not in ("trimmed", "untrimmed"):
        raise ValueError(f"setting must be 'trimmed' or 'untrimmed', got {setting!r}.")
    for i, target in enumerate(targets):
        lengths = {len(tube["frame_index"]) for tube in tubes_of_target(target)}
        if setting == "trimmed" and len(lengths) > 1:
            raise ValueError(f"Objects of video {i} are there for {sorted(lengths)} frames: it is untrimmed.")
    overlaps = [(found, _overlaps(found, target), target) for found, target in zip(tubes, targets, strict=True)]

    def at(thresh: float) -> float:
        return mean_ap([_match_tubes(found, iou, target, thresh) for found, iou, target in overlaps])

    return {
        "video_map@0.2": at(0.2),
        "video_map@0.5": at(0.5),
        "video_map@0.5:0.95": sum(map(at, _THRESHOLDS)) / len(_THRESHOLDS),
        "setting": setting,
    }


def match_frames(detections: Mapping[str, Tensor], target: Mapping[str, Tensor], *, iou_thresh: float = 0.5) -> Matches:
    """Matches a video's detections to its objects, frame by frame; arguments as of `frame_map`."""
    detections = {key: value.cpu() for key, value in detections.items()}
    target = {key: value.cpu().as_subclass(Tensor) for key, value in target.items()}
    if "labeled_frames" in target:
        judged = torch.isin(detections["frame_index"], target["labeled_frames"])
        detections = {key: value[judged] for key, value in detections.items()}
    order = detections["scores"].argsort(descending=True, stable=True)
    found = {key: value[order] for key, value in detections.items()}
    iou = box_iou(found["boxes"].float(), target["boxes"].float())
    same = (found["frame_index"].unsqueeze(1) == target["frame_index"]) & (
        found["labels"].unsqueeze(1) == target["labels"]
    )
    return _match(found["labels"], found["scores"], iou.masked_fill(~same, -1), target["labels"], iou_thresh)


def match_tubes(tubes: Sequence[Tube], target: Mapping[str, Tensor], *, iou_thresh: float = 0.5) -> Matches:
    """Matches a video's tubes to its objects; arguments as of `video_map`."""
    return _match_tubes(tubes, _overlaps(tubes, target), target, iou_thresh)


def _overlaps(tubes: Sequence[Tube], target: Mapping[str, Tensor]) -> Tensor:
    objects = tubes_of_target(target)
    rows = [[tube_iou(tube, other) if tube["label"] == other["label"] else -1.0 for other in objects] for tube in tubes]
    return torch.tensor(rows).reshape(len(tubes), len(objects))


def _match_tubes(tubes: Sequence[Tube], iou: Tensor, target: Mapping[str, Tensor], iou_thresh: float) -> Matches:
    labels = torch.tensor([tube["label"] for tube in tubes], dtype=torch.int64)
    scores = torch.tensor([tube["score"] for tube in tubes], dtype=torch.float32)
    of_objects = torch.tensor([tube["label"] for tube in tubes_of_target(target)], dtype=torch.int64)
    order = scores.argsort(descending=True, stable=True)
    return _match(labels[order], scores[order], iou[order], of_objects, iou_thresh)


def _match(labels: Tensor, scores: Tensor, iou: Tensor, of_objects: Tensor, iou_thresh: float) -> Matches:
    """Match detections, the best first, to objects `(G,)` by their overlap `(n, G)`."""
    right = match_detections(iou, iou_thresh, next_best=False) >= 0
    classes, counts = of_objects.unique(return_counts=True)
    return Matches(labels, scores, right, dict(zip(classes.tolist(), counts.tolist(), strict=True)))


def mean_ap(matches: Iterable[Matches]) -> float:
    """Compute the mean average precision of matched videos, between 0 and 1."""
    matches = list(matches)
    objects: dict[int, int] = {}
    for video in matches:
        for label, count in video.objects.items():
            objects[label] = objects.get(label, 0) + count
    if not objects:
        return 0.0
    labels, scores, right = (
        torch.cat([getattr(video, key) for video in matches]) for key in ("labels", "scores", "right")
    )
    order = scores.argsort(descending=True, stable=True)
    labels, right = labels[order], right[order]
    return sum(_average_precision(right[labels == label], count) for label, count in objects.items()) / len(objects)


def _average_precision(right: Tensor, objects: int) -> float:
    """Return the area under precision over recall; `right (n,)` goes from the best score to the worst."""
    found = right.cumsum(0)
    return area_under(found / torch.arange(1, len(right) + 1), found / objects)


def bootstrap_difference(
    one: Sequence[Matches], other: Sequence[Matches], *, samples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Bootstrap the difference of two models' mean average precision over videos.

    Args:
        one: Matches of each video.
        other: Another model's, of the same videos.
        samples: How often to draw.
        seed: For the draws.

    Returns:
        The difference, other less one, and the bounds of its 95 % interval.
    """
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(samples):
        drawn = torch.randint(len(one), (len(one),), generator=generator).tolist()
        differences.append(mean_ap([other[i] for i in drawn]) - mean_ap([one[i] for i in drawn]))
    low, high = torch.tensor(differences).quantile(torch.tensor([0.025, 0.975])).tolist()
    return mean_ap(other) - mean_ap(one), low, high

"""Compute frame-mAP and video-mAP.

Average precision is Pascal VOC's since 2010: the area under the interpolated precision-recall curve, whose value is the
best precision at that recall or above. A second match of an object is a false positive. Classes without annotated
objects are excluded from the mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import box_iou, match_detections
from ssd_zoo.detector.tubes import Tube, tube_iou, tubes_of_target
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.training.metrics.voc import area_under

__all__ = ["Matches", "bootstrap_difference", "frame_map", "match_frames", "match_tubes", "mean_ap", "video_map"]

_THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))


@dataclass(frozen=True)
class Matches:
    """Matches of a video's detections to its objects, at one IoU threshold; crowds and their detections are left out.

    Attributes:
        labels: Class of each detection, `(n,)`.
        scores: Score of each detection, `(n,)`.
        right: Whether the detection is a true positive, `(n,)`.
        objects: Number of annotated objects by class.
    """

    labels: Tensor
    scores: Tensor
    right: Tensor
    objects: Mapping[int, int]


@with_near_keywords
def frame_map(
    detections: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]], *, iou_thresh: float = 0.5
) -> float:
    """Compute frame-mAP: the mean average precision of boxes over annotated frames.

    Args:
        detections: One dict per video: `boxes (n, 4)`, xyxy in pixels, `labels (n,)`, `scores (n,)`,
            `frame_index (n,)`.
        targets: One dict per video: `boxes (G, 4)`, `labels (G,)`, `frame_index (G,)`. `labeled_frames (K,)` lists the
            annotated frames, if not all are; detections in other frames are ignored. So are crowds (`iscrowd (G,)`) and
            detections of them.
        iou_thresh: Least IoU of a match.

    Returns:
        The mean average precision, between 0 and 1; NaN without objects.
    """
    videos = zip(detections, targets, strict=True)
    return mean_ap([match_frames(found, target, iou_thresh=iou_thresh) for found, target in videos])


@with_near_keywords
def video_map(
    tubes: Sequence[Sequence[Tube]],
    targets: Sequence[Mapping[str, Tensor]],
    *,
    setting: Literal["trimmed", "untrimmed"],
) -> dict[str, float | str]:
    """Compute video-mAP: the mean average precision of tubes.

    A tube matches an object if their `tube_iou` reaches the threshold.

    Args:
        tubes: The tubes of each video, as from `link_tubes`.
        targets: One dict per video, as for `frame_map`, with `track_ids (G,)`. Tubes that find a crowd (`iscrowd`) are
            neither right nor wrong.
        setting: `"trimmed"` if videos are cut to the actions, so that objects are visible in every frame; otherwise
            `"untrimmed"`. It is repeated in the result, as figures of the two settings are not comparable.

    Returns:
        `video_map@0.2`, `video_map@0.5`, `video_map@0.5:0.95` (the mean over ten thresholds) and `setting`.

    Raises:
        ValueError: If the setting is unknown, or it is `"trimmed"` and a video's tubes differ in length.
    """
    if setting not in ("trimmed", "untrimmed"):
        raise ValueError(f"setting must be 'trimmed' or 'untrimmed', got {setting!r}.")
    for i, target in enumerate(targets):
        lengths = {len(tube["frame_index"]) for tube in tubes_of_target(target)}
        if setting == "trimmed" and len(lengths) > 1:
            raise ValueError(f"Objects of video {i} are visible in {sorted(lengths)} frames: it is untrimmed.")
    overlaps = [(found, _overlaps(found, target), target) for found, target in zip(tubes, targets, strict=True)]

    def at(thresh: float) -> float:
        return mean_ap([_match_tubes(found, iou, target, thresh) for found, iou, target in overlaps])

    return {
        "video_map@0.2": at(0.2),
        "video_map@0.5": at(0.5),
        "video_map@0.5:0.95": sum(map(at, _THRESHOLDS)) / len(_THRESHOLDS),
        "setting": setting,
    }


@with_near_keywords
def match_frames(detections: Mapping[str, Tensor], target: Mapping[str, Tensor], *, iou_thresh: float = 0.5) -> Matches:
    """Match one video's detections to its objects; arguments as for one video of `frame_map`."""
    detections = {key: value.cpu() for key, value in detections.items()}
    target = {key: value.cpu().as_subclass(Tensor) for key, value in target.items()}
    if "labeled_frames" in target:
        judged = torch.isin(detections["frame_index"], target["labeled_frames"])
        detections = {key: value[judged] for key, value in detections.items()}
    order = detections["scores"].argsort(descending=True, stable=True)
    found = {key: value[order] for key, value in detections.items()}
    iou = box_iou(found["boxes"].float(), target["boxes"].float())
    ignored = target["iscrowd"].bool() if "iscrowd" in target else torch.zeros_like(target["labels"], dtype=torch.bool)
    same = (found["frame_index"].unsqueeze(1) == target["frame_index"]) & (
        found["labels"].unsqueeze(1) == target["labels"]
    )
    return _match(found["labels"], found["scores"], iou.masked_fill(~same, -1), target["labels"], ignored, iou_thresh)


@with_near_keywords
def match_tubes(tubes: Sequence[Tube], target: Mapping[str, Tensor], *, iou_thresh: float = 0.5) -> Matches:
    """Match one video's tubes to its objects; arguments as for one video of `video_map`."""
    return _match_tubes(tubes, _overlaps(tubes, target), target, iou_thresh)


def _overlaps(tubes: Sequence[Tube], target: Mapping[str, Tensor]) -> Tensor:
    """Return the IoU of tubes and a target's tubes, `(n, G)`; -1 for those of different classes."""
    objects = tubes_of_target(target)
    rows = [[tube_iou(tube, other) if tube["label"] == other["label"] else -1.0 for other in objects] for tube in tubes]
    return torch.tensor(rows).reshape(len(tubes), len(objects))


def _match_tubes(tubes: Sequence[Tube], iou: Tensor, target: Mapping[str, Tensor], iou_thresh: float) -> Matches:
    labels = torch.tensor([tube["label"] for tube in tubes], dtype=torch.int64)
    scores = torch.tensor([tube["score"] for tube in tubes], dtype=torch.float32)
    of_objects = torch.tensor([tube["label"] for tube in tubes_of_target(target)], dtype=torch.int64)
    ignored = torch.tensor([tube["iscrowd"] for tube in tubes_of_target(target)], dtype=torch.bool)
    order = scores.argsort(descending=True, stable=True)
    return _match(labels[order], scores[order], iou[order], of_objects, ignored, iou_thresh)


def _match(
    labels: Tensor, scores: Tensor, iou: Tensor, of_objects: Tensor, ignored: Tensor, iou_thresh: float
) -> Matches:
    """Match detections to objects of a video, by Pascal VOC's rule.

    A detection takes the object that it overlaps most, and is wrong if that is taken. Any number may take an ignored
    object; they are left out of the result.

    Args:
        labels: Classes of the detections (boxes or tubes), `(n,)`, the best first.
        scores: Their scores, `(n,)`.
        iou: Their overlap with the objects, `(n, G)`; -1 for objects of another class or frame.
        of_objects: Classes of the objects, `(G,)`.
        ignored: `(G,)`, True for objects that do not count.
        iou_thresh: Least overlap of a match.
    """
    matched = match_detections(iou, iou_thresh, ignored=ignored, next_best=False)
    judged = ~torch.isin(matched, ignored.nonzero())
    classes, counts = of_objects[~ignored].unique(return_counts=True)
    objects = dict(zip(classes.tolist(), counts.tolist(), strict=True))
    return Matches(labels[judged], scores[judged], matched[judged] >= 0, objects)


def mean_ap(matches: Iterable[Matches]) -> float:
    """Compute mAP, between 0 and 1, from all videos' matches.

    NaN without objects.
    """
    matches = list(matches)
    objects: dict[int, int] = {}
    for video in matches:
        for label, count in video.objects.items():
            objects[label] = objects.get(label, 0) + count
    if not objects:
        return math.nan
    labels, scores, right = (
        torch.cat([getattr(video, key) for video in matches]) for key in ("labels", "scores", "right")
    )
    order = scores.argsort(descending=True, stable=True)
    labels, right = labels[order], right[order]
    return sum(_average_precision(right[labels == label], count) for label, count in objects.items()) / len(objects)


def _average_precision(right: Tensor, objects: int) -> float:
    """Compute average precision of n detections, best score first; `right (n,)` is True for correct ones."""
    found = right.cumsum(0)
    return area_under(found / torch.arange(1, len(right) + 1), found / objects)


@with_near_keywords
def bootstrap_difference(
    one: Sequence[Matches], other: Sequence[Matches], *, samples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Estimate the confidence interval of two models' difference in mAP.

    It is a bootstrap: videos are drawn with replacement.

    Args:
        one: The first model's matches, one per video.
        other: The second model's matches of the same videos.
        samples: Number of bootstrap samples.
        seed: Seed of the random draws.

    Returns:
        The difference `other - one`, and the lower and upper bound of its 95 % interval.
    """
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(samples):
        drawn = torch.randint(len(one), (len(one),), generator=generator).tolist()
        differences.append(mean_ap([other[i] for i in drawn]) - mean_ap([one[i] for i in drawn]))
    low, high = torch.tensor(differences).quantile(torch.tensor([0.025, 0.975])).tolist()
    return mean_ap(other) - mean_ap(one), low, high

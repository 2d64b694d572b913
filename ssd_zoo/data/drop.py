"""Leave unusable images and objects out of a data set; count them."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar, cast

import torch

from ssd_zoo.data.annotations import LabelledImage, number_of
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.inspection import DataReport, annotation_problems, group_problems
from ssd_zoo.data.video_datasets import AnnotatedVideo, Target, VideoDataset
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["left_out", "usable"]

OnInvalid = Literal["raise", "drop"]
_log = logging.getLogger("ssd_zoo")
D = TypeVar("D", bound=DetectionDataset | VideoDataset)


@with_near_keywords
def usable(dataset: D, report: DataReport, on_invalid: OnInvalid | None = None) -> D:
    """Return the usable part of a data set.

    Args:
        dataset: The data set.
        report: Its report from `inspect_dataset`.
        on_invalid: `"raise"` an error if there are problems, or `"drop"` the images, videos and objects that have them.
            By default they are dropped, with a warning in the log, if at most 1 % of the objects is lost, else an
            error. Unreadable entries of the labels count as lost objects.

    Raises:
        ValueError: If there are problems that are not dropped, with the first 20 of them; or if no object is left.
    """
    if on_invalid not in (None, "raise", "drop"):
        raise ValueError(f"on_invalid must be 'raise' or 'drop', got {on_invalid!r}.")
    total, lost = sum(report.objects.values()), _lost(dataset, report)
    if report.problems and (on_invalid == "raise" or (on_invalid is None and lost > 0.01 * (total + lost))):
        problems, others = group_problems(report.problems)
        more = f"\n  and {others} more" if others else ""
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(
            f"The data set has {number_of(len(report.problems), 'problem')}, and {lost} of its objects can't be used; "
            f"correct them, or leave out what has them with on_invalid='drop' (--on-invalid drop):{listed}{more}"
        )
    kept = _without_unusable(dataset, report) if report.problems else dataset
    if not any(_numbers_of_objects(kept)):
        left = "" if not report.problems else f" left, of {total}; the first of its problems: {report.problems[0]}"
        raise ValueError(f"The data set has no object{left}. Its labels were looked for in {_label_files(dataset)}.")
    if report.problems and on_invalid is None:
        _log.warning("Left out: %s. The first problem: %s", left_out(dataset, report), report.problems[0])
    return kept


def left_out(dataset: DetectionDataset | VideoDataset, report: DataReport) -> str:
    """Return a text with the numbers of unusable objects and images.

    As in `3 objects, 1 image`; empty if there are no problems.
    """
    if not report.problems:
        return ""
    items = number_of(len(report.bad_images), "image" if report.videos is None else "video")
    return f"{number_of(_lost(dataset, report), 'object')}, {items}"


def _label_files(dataset: DetectionDataset | VideoDataset) -> str:
    """Return words about where the annotations are, with the first file as an example."""
    items: Sequence[LabelledImage | AnnotatedVideo]
    items = dataset.videos if isinstance(dataset, VideoDataset) else dataset.images
    return f"files such as {items[0].source}" if items else "its own files"


def _lost(dataset: DetectionDataset | VideoDataset, report: DataReport) -> int:
    """Return the number of unusable objects; an unreadable entry counts as one."""
    numbers = _numbers_of_objects(dataset)
    bad = {(i, k) for i in report.bad_images for k in range(numbers[i])} | report.bad_objects
    return len(bad) + len(annotation_problems(dataset))


def _numbers_of_objects(dataset: DetectionDataset | VideoDataset) -> list[int]:
    """Return the number of objects by image or video."""
    if isinstance(dataset, VideoDataset):
        return [len(video.target["labels"]) for video in dataset.videos]
    return [len(image.objects) for image in dataset.images]


def _without_unusable(dataset: D, report: DataReport) -> D:
    """Return a data set without the images, videos and objects that its report calls unusable."""
    if isinstance(dataset, VideoDataset):
        videos = [
            replace(video, target=_without_objects(video.target, (k for j, k in report.bad_objects if i == j)))
            for i, video in enumerate(dataset.videos)
            if i not in report.bad_images
        ]
        kept = dataset.with_videos(videos)
        kept.problems = []
        return cast(D, kept)
    images = [
        entry._replace(objects=tuple(x for k, x in enumerate(entry.objects) if (i, k) not in report.bad_objects))
        for i, entry in enumerate(dataset.images)
        if i not in report.bad_images
    ]
    return cast(D, DetectionDataset(replace(dataset.annotations, images=images, problems=[]), dataset.transforms))


def _without_objects(target: Target, bad: Iterable[int]) -> Target:
    """Return a target without the objects of some indices."""
    keep = torch.ones(len(target["labels"]), dtype=torch.bool)
    keep[list(bad)] = False
    return {key: value if key == "labeled_frames" else value[keep] for key, value in target.items()}

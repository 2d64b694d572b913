"""Join data sets into one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import torch

from ssd_zoo.data.annotations import Annotations, LabelledImage, nearest
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.video_datasets import VideoDataset
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.categories import list_names, match_classes

__all__ = ["join_datasets"]

D = TypeVar("D", bound=DetectionDataset | VideoDataset)


@with_near_keywords
def join_datasets(datasets: Sequence[D], categories: Sequence[str] | None = None) -> D:
    """Join data sets of images, or of videos, into one.

    VOC's of 2007 and of 2012 are an example.

    Classes are joined by name, with COCO's and VOC's synonyms (see `match_classes`). Transforms and samplers are the
    first one's. If two images have the same `image_id`, all are numbered anew.

    Args:
        datasets: The data sets, all of images or all of videos.
        categories: Class names of the result, background first; by default the first one's, then what others add.

    Raises:
        ValueError: If there is none, if some hold images and others videos, or if objects have a class that
            `categories` lacks.

    Example:
        >>> from ssd_zoo.data import join_datasets, open_dataset
        >>> both = [open_dataset(f"VOCdevkit/VOC{year}", "trainval") for year in (2007, 2012)]  # doctest: +SKIP
        >>> len(join_datasets(both))  # doctest: +SKIP
        16551
    """
    if not datasets:
        raise ValueError("There is no data set to join.")
    if len({isinstance(dataset, VideoDataset) for dataset in datasets}) > 1:
        raise ValueError("Some of the data sets hold images, others videos; they can't be one.")
    names = list(datasets[0].categories if categories is None else categories)
    notes: list[str] = []
    maps = [_joined_labels(names, dataset, notes, grows=categories is None) for dataset in datasets]
    if isinstance(datasets[0], VideoDataset):
        return cast(D, _join_videos(cast("Sequence[VideoDataset]", datasets), names, maps, notes))
    return cast(D, _join_images(cast("Sequence[DetectionDataset]", datasets), names, maps, notes))


def _joined_labels(
    names: list[str], dataset: DetectionDataset | VideoDataset, notes: list[str], *, grows: bool
) -> list[int]:
    """Return the joined label for each label of a data set.

    Args:
        names: The joined class names; with `grows` classes that they lack are added.
        dataset: The data set.
        notes: Messages about classes that are named otherwise are added.
        grows: Whether names may be added; otherwise objects of such classes are a ValueError.

    Returns:
        A list by the data set's label, the background's first; 0 for classes without objects that `names` lacks.
    """
    matched = match_classes(dataset.categories, names)
    new = [label for label in range(1, len(dataset.categories)) if label not in matched]
    if not grows and (lacking := [dataset.categories[label] for label in new if label in _used(dataset)]):
        near = nearest(lacking[0], names[1:])
        raise ValueError(
            f"There are objects of {list_names(lacking)}, which the classes {list_names(names[1:])} lack.{near}"
        )
    for label, other in matched.items():
        if dataset.categories[label] != names[other]:
            notes.append(f"objects of {dataset.categories[label]!r} count as {names[other]!r}")
    for label in new:
        matched[label] = len(names) if grows else 0
        names += [dataset.categories[label]] if grows else []
    return [0, *(matched[label] for label in range(1, len(dataset.categories)))]


def _used(dataset: DetectionDataset | VideoDataset) -> set[int]:
    """Return the labels that have objects."""
    if isinstance(dataset, VideoDataset):
        return {label for video in dataset.videos for label in video.target["labels"].tolist()}
    return {thing.label for image in dataset.images for thing in image.objects}


def _join_images(
    datasets: Sequence[DetectionDataset], names: list[str], maps: Sequence[list[int]], notes: Sequence[str]
) -> DetectionDataset:
    images: list[LabelledImage] = []
    lines: dict[Path, Callable[[Path, int], int]] = {}
    for dataset, labels in zip(datasets, maps, strict=True):
        for image in dataset.images:
            lines[image.source] = dataset.annotations.line
            objects = (thing._replace(label=labels[thing.label]) for thing in image.objects)
            images.append(image._replace(objects=tuple(objects)))
    if len({image.image_id for image in images}) < len(images):
        images = [image._replace(image_id=number) for number, image in enumerate(images, start=1)]
    parts = [dataset.annotations for dataset in datasets]
    joined = Annotations(
        images,
        names,
        # Ids of different data sets may be equal for different classes, so the labels are the ids.
        category_ids=list(range(len(names))),
        problems=[problem for part in parts for problem in part.problems],
        line=_Lines(lines),
        layout="; ".join(dict.fromkeys(part.layout for part in parts)),
        notes=list(dict.fromkeys([*(note for part in parts for note in part.notes), *notes])),
    )
    return DetectionDataset(joined, datasets[0].transforms)


class _Lines:
    """Function that returns an entry's line, by the function of its file's data set.

    It is a class, because a function within a function can't be pickled.
    """

    def __init__(self, of_files: dict[Path, Callable[[Path, int], int]]) -> None:
        self.of_files = of_files

    def __call__(self, file: Path, entry: int) -> int:
        return self.of_files[file](file, entry)


def _join_videos(
    datasets: Sequence[VideoDataset], names: list[str], maps: Sequence[list[int]], notes: Sequence[str]
) -> VideoDataset:
    videos = [
        replace(video, target={**video.target, "labels": torch.tensor(labels)[video.target["labels"]]})
        for dataset, labels in zip(datasets, maps, strict=True)
        for video in dataset.videos
    ]
    return VideoDataset(
        videos,
        names,
        sampler=datasets[0].sampler,
        transforms=datasets[0].transforms,
        trimmed=all(dataset.trimmed for dataset in datasets),
        problems=[problem for dataset in datasets for problem in dataset.problems],
        layout="; ".join(dict.fromkeys(dataset.layout for dataset in datasets)),
        notes=list(dict.fromkeys([*(note for dataset in datasets for note in dataset.notes), *notes])),
    )

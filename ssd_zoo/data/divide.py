"""Divide a data set into training and validation data."""

from collections.abc import Sequence
from typing import TypeVar, cast

import torch

from ssd_zoo.data.annotations import LabelledImage
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.video_datasets import AnnotatedVideo, VideoDataset

__all__ = ["divide"]

D = TypeVar("D", bound=DetectionDataset | VideoDataset)
Item = TypeVar("Item", LabelledImage, AnnotatedVideo)


def divide(dataset: D, fraction: float, seed: int = 0) -> tuple[D, D]:
    """Divide a data set at random, by images or whole videos.

    Args:
        dataset: The data set.
        fraction: Part of the items in the second data set, at least one item.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer than two items, or the fraction is not between 0 and 1.
    """
    if isinstance(dataset, VideoDataset):
        of_videos = [dataset.with_videos(part) for part in _parts(dataset.videos, fraction, seed)]
        return cast("tuple[D, D]", tuple(of_videos))
    of_images = [dataset.with_images(part) for part in _parts(dataset.images, fraction, seed)]
    return cast("tuple[D, D]", tuple(of_images))


def _parts(items: Sequence[Item], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    if not 0 < fraction < 1 or len(items) < 2:
        raise ValueError(f"Can't take a fraction of {fraction:g} of {len(items)} images or videos.")
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    number = min(max(1, round(fraction * len(items))), len(items) - 1)
    return [items[i] for i in sorted(order[number:])], [items[i] for i in sorted(order[:number])]

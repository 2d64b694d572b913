"""Divide a data set into training and validation data."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import TypeVar, cast

from ssd_zoo.data.annotations import LabelledImage
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.video_datasets import AnnotatedVideo, VideoDataset

__all__ = ["divide"]

D = TypeVar("D", bound=DetectionDataset | VideoDataset)
Item = TypeVar("Item", LabelledImage, AnnotatedVideo)


def divide(dataset: D, fraction: float, seed: int = 0) -> tuple[D, D]:
    """Divide a data set at random, by images or whole videos.

    Hashes of the seed and the file names decide, so most items stay on their side when others come. Where files share a
    name, the folders decide too.

    Args:
        dataset: The data set.
        fraction: Part of the items in the second data set, at least one item.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer than two items, or the fraction is not between 0 and 1.
    """
    if isinstance(dataset, VideoDataset):
        names = [video.name for video in dataset.videos]
        of_videos = [dataset.with_videos(part) for part in _parts(dataset.videos, names, fraction, seed)]
        return cast("tuple[D, D]", tuple(of_videos))
    names = [str(image.file) for image in dataset.images]
    of_images = [dataset.with_images(part) for part in _parts(dataset.images, names, fraction, seed)]
    return cast("tuple[D, D]", tuple(of_images))


def _parts(items: Sequence[Item], names: Sequence[str], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    if not 0 < fraction < 1 or len(items) < 2:
        raise ValueError(f"Can't take a fraction of {fraction:g} of {len(items)} images or videos.")
    number = min(max(1, round(fraction * len(items))), len(items) - 1)
    parts = [PurePath(name).parts for name in names]
    shared = len(list(takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))))

    alike = Counter(names[-1] for names in parts)

    def place(i: int) -> bytes:
        # The name alone where that is possible, so that further folders change nothing.
        return _digest(seed, parts[i][-1:] if alike[parts[i][-1]] == 1 else parts[i][shared:])

    taken = set(sorted(range(len(items)), key=place)[:number])
    return (
        [item for i, item in enumerate(items) if i not in taken],
        [item for i, item in enumerate(items) if i in taken],
    )


def _digest(seed: int, parts: Sequence[str]) -> bytes:
    return hashlib.sha256("/".join([str(seed), *parts]).encode(errors="surrogatepass")).digest()

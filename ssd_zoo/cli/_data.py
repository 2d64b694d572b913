"""Open labelled images or videos, whichever a path holds."""

from collections.abc import Sequence
from pathlib import Path

from ssd_zoo.data import DetectionDataset, VideoDataset, open_dataset, open_video_dataset, splits, video_splits

__all__ = ["Data", "open_labelled", "splits_of"]

Data = DetectionDataset | VideoDataset


def splits_of(path: Path, layout: str | None = None) -> list[str]:
    """List the splits of a data set of images or videos.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it holds no known layout.
    """
    return ([] if layout else video_splits(path)) or splits(path, layout=layout)


def open_labelled(path: Path, split: str | None, categories: Sequence[str] | None, layout: str | None = None) -> Data:
    """Open a data set of images or videos; arguments and errors as for `open_dataset`."""
    if layout is None and video_splits(path):
        return open_video_dataset(path, split, categories=categories)
    return open_dataset(path, split, categories=categories, layout=layout)

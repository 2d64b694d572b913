"""Open data sets of annotated videos in the layouts of this project, MOT, CVAT and ImageNet VID."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ssd_zoo.data.annotations import check_units
from ssd_zoo.data.images import MAX_PIXELS
from ssd_zoo.data.video import frame_files, open_video
from ssd_zoo.data.video_annotations import (
    CLIPS_FILE,
    LabelledVideo,
    VideoObject,
    read_clips_json,
    read_mot,
    splits_of_clips_json,
)
from ssd_zoo.data.video_datasets import AnnotatedVideo, Target, Transform, VideoDataset
from ssd_zoo.data.video_xml import is_cvat, is_cvat_of_images, read_cvat, read_imagenet_vid
from ssd_zoo.weights.categories import check_names, list_names
from ssd_zoo.weights.outside import quote

__all__ = ["open_video_dataset", "video_splits"]

Layout = Literal["clips", "mot", "cvat", "vid"]
# Four days at 30 frames per second; a number that is no number of frames would fill the memory.
_MOST_FRAMES = 10_000_000
_READERS: dict[Layout, Callable[[Sequence[Path], str], tuple[list[LabelledVideo], list[str]]]] = {
    "clips": read_clips_json,
    "mot": read_mot,
    "cvat": read_cvat,
    "vid": read_imagenet_vid,
}


def video_splits(path: str | Path) -> list[str]:
    """List the splits of a data set of videos; empty if the path holds no such data set.

    A data set without splits has one whose name is empty.

    Raises:
        ValueError: If a `clips.json` can't be understood.
    """
    found = _find(Path(path))
    if found is None:
        return []
    layout, sources = found
    of_images = layout == "cvat" and all(is_cvat_of_images(file) for files in sources.values() for file in files)
    return [] if of_images else list(sources)


def open_video_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    categories: Sequence[str] | None = None,
    sampler: Callable[[int], list[int]] | None = None,
    transforms: Transform | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> VideoDataset:
    """Open a data set of annotated videos; its layout is detected.

    * `clips.json`, or a folder with it: this project's format, see docs/video.md.
    * MOTChallenge: folders with `gt/gt.txt` and `img1/`, in the folder itself or in one folder per split. Objects that
      the file marks as not to be considered become crowds (`iscrowd`).
    * CVAT for video: XML files with `<track>` elements, beside their video files or folders of frames.
    * ImageNet VID: the folders `Data/VID` and `Annotations/VID`.

    Args:
        path: The folder or file.
        split: Name of the split, such as `"train"`; optional if there is only one.
        categories: Class names, background first; by default those of the data set.
        sampler: As for `VideoDataset`.
        transforms: As for `VideoDataset`.
        max_pixels: Largest number of pixels of a frame that is an image file; None for no limit.

    Raises:
        FileNotFoundError: If path or videos are missing.
        ValueError: If the layout is not recognised, the split does not exist, or annotations are invalid. The message
            names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    found = _find(path)
    if found is None:
        raise ValueError(
            f"{path} has no known layout of videos: {CLIPS_FILE}, MOTChallenge (gt/gt.txt and img1), CVAT for video "
            "(XML with tracks) or ImageNet VID (Data/VID and Annotations/VID)."
        )
    layout, sources = found
    if not sources:
        raise ValueError(f"{path} names no video.")
    if split is None and len(sources) > 1:
        raise ValueError(
            f"{path} has the splits {', '.join(sources)}; choose one by split={next(iter(sources))!r} (--split)."
        )
    if split is not None and split not in sources:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(sources)}.")
    split = next(iter(sources)) if split is None else split
    labels, names = _READERS[layout](sources[split], split)
    if categories is not None:
        names = check_names(categories)
        if unknown := sorted({thing.category for one in labels for thing in one.objects} - set(names)):
            raise ValueError(
                f"{path} has objects of {quote(unknown[0])}, which is not among the categories "
                f"{list_names(names[1:], 20)}."
            )
    check_units([(thing.box, one.source) for one in labels for thing in one.objects])
    videos = [replace(_video(one, names), max_pixels=max_pixels) for one in labels]
    if not videos:
        raise ValueError(f"{path} has no videos in the split {split!r}.")
    return VideoDataset(videos, names, sampler=sampler, transforms=transforms)


def _find(path: Path) -> tuple[Layout, dict[str, list[Path]]] | None:
    """Return the layout, and the annotation files or folders by split."""
    file = path / CLIPS_FILE if path.is_dir() else path
    if file.name == CLIPS_FILE and file.is_file():
        return "clips", {name: [file] for name in splits_of_clips_json(file)}
    if not path.is_dir():
        return ("cvat", {"": [path]}) if path.suffix == ".xml" and path.is_file() and is_cvat(path) else None
    if (path / "Data" / "VID").is_dir():
        folders = sorted(folder for folder in (path / "Data" / "VID").iterdir() if folder.is_dir())
        return "vid", {folder.name: [folder] for folder in folders}
    layouts: list[tuple[Layout, Callable[[Path], list[Path]]]] = [("mot", _mot_folders), ("cvat", _cvat_files)]
    for layout, find in layouts:
        if here := find(path):
            return layout, {"": here}
        parts = {folder.name: find(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
        if parts := {name: files for name, files in parts.items() if files}:
            return layout, parts
    return None


def _mot_folders(folder: Path) -> list[Path]:
    if (folder / "gt" / "gt.txt").is_file():
        return [folder]
    return sorted(file.parent.parent for file in folder.glob("*/gt/gt.txt"))


def _cvat_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.xml"))
    # One look is enough: folders of Pascal VOC have thousands.
    return files if files and is_cvat(files[0]) else []


def _video(labels: LabelledVideo, categories: Sequence[str]) -> AnnotatedVideo:
    """Combine a video's annotations with its frames, without decoding them."""
    if not labels.frames.exists():
        raise FileNotFoundError(f"{labels.source}: there is no {labels.frames}.")
    frames: Path | list[Path] = frame_files(labels.frames) if labels.frames.is_dir() else labels.frames
    there = len(frames) if isinstance(frames, list) else open_video(frames).length
    number = labels.num_frames if labels.num_frames is not None else there
    if number is None or not 0 < number <= _MOST_FRAMES:
        raise ValueError(
            f"{labels.source}: {labels.name} needs a number of frames from 1 to {_MOST_FRAMES}, got {number}."
        )
    if isinstance(frames, list) and number > len(frames):
        raise ValueError(
            f"{labels.source}: {labels.name} should have {number} frames, but {labels.frames} has {there}."
        )
    labeled = set(range(number) if labels.labeled is None else labels.labeled)
    if labeled and max(labeled) >= number:
        raise ValueError(f"{labels.source}: {labels.name} has {number} frames, but frame {max(labeled)} is labeled.")
    seen: set[tuple[int, int]] = set()
    for row in labels.objects:
        if row.track >= 0 and (row.track, row.frame) in seen:
            raise ValueError(f"{labels.source}: {labels.name} has two boxes of track {row.track} on frame {row.frame}.")
        seen.add((row.track, row.frame))
        if not 0 <= row.frame < number:
            raise ValueError(f"{labels.source}: {labels.name} has {number} frames, but a box on frame {row.frame}.")
        if row.frame not in labeled:
            raise ValueError(f"{labels.source}: {labels.name} has a box on frame {row.frame}, which is not labeled.")
    target = _target(labels.objects, categories, str(labels.source))
    if labels.labeled is not None:
        target["labeled_frames"] = torch.tensor(labels.labeled, dtype=torch.int64)
    return AnnotatedVideo(labels.name, frames, number, target, labels.size, source=labels.source)


def _target(rows: Sequence[VideoObject], categories: Sequence[str], source: str) -> Target:
    labels = {name: label for label, name in enumerate(categories) if label}
    for row in rows:
        if row.category not in labels:
            raise ValueError(f"{source} has an object {row.category!r}; its classes are {', '.join(labels)}.")
    target = {
        "boxes": torch.tensor([row.box for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([labels[row.category] for row in rows], dtype=torch.int64),
        "frame_index": torch.tensor([row.frame for row in rows], dtype=torch.int64),
    }
    if all(row.track >= 0 for row in rows):
        target["track_ids"] = torch.tensor([row.track for row in rows], dtype=torch.int64)
    if any(row.ignored for row in rows):
        target["iscrowd"] = torch.tensor([row.ignored for row in rows], dtype=torch.int64)
    return target

"""Open annotated videos in our own layout, MOT, CVAT and ImageNet VID."""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from ssd_zoo.data.annotations import check_units, nearest, no_object, number_of, some
from ssd_zoo.data.formats.folders import find_split
from ssd_zoo.data.images import MAX_PIXELS
from ssd_zoo.data.video import MISSING, frame_files, open_video
from ssd_zoo.data.video_annotations import (
    CLIPS_FILE,
    LabelledVideo,
    Labels,
    VideoObject,
    collected,
    read_clips_json,
    read_mot,
    splits_of_clips_json,
)
from ssd_zoo.data.video_datasets import AnnotatedVideo, Target, Transform, VideoDataset
from ssd_zoo.data.video_xml import is_cvat, is_cvat_of_images, read_cvat, read_imagenet_vid
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.categories import check_names, list_names
from ssd_zoo.weights.outside import near_paths, quote

__all__ = ["VIDEO_LAYOUTS", "check_decoder", "open_video_dataset", "video_splits"]

_log = logging.getLogger("ssd_zoo")

VIDEO_LAYOUTS = (
    f"{CLIPS_FILE}, MOTChallenge (gt/gt.txt and img1), CVAT for video (XML with tracks) or ImageNet VID (Data/VID and "
    "Annotations/VID)"
)
"""Known layouts, for messages."""

Layout = Literal["clips", "mot", "cvat", "vid"]
# Four days at 30 frames per second; a number that is no number of frames would fill the memory.
_MOST_FRAMES = 10_000_000
_READERS: dict[Layout, Callable[[Sequence[Path], str], Labels]] = {
    "clips": read_clips_json,
    "mot": read_mot,
    "cvat": read_cvat,
    "vid": read_imagenet_vid,
}
_WHY: dict[Layout, str] = {
    "clips": f"{CLIPS_FILE}: this project's format",
    "mot": "MOTChallenge: gt/gt.txt and img1",
    "cvat": "CVAT for video: XML files with tracks",
    "vid": "ImageNet VID: Data/VID and Annotations/VID",
}


def video_splits(path: str | Path) -> list[str]:
    """List the splits of a data set of videos; empty if there is none or it is CVAT's of images.

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


@with_near_keywords
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
    * CVAT for video: XML files (`.xml`) with `<track>` elements, beside their video files or folders of frames.
    * ImageNet VID: the folders `Data/VID` and `Annotations/VID`.

    Faults of single objects or videos are listed by `inspect_dataset`; `usable` leaves out what has them. Reading a
    video that can't be used is an error.

    Args:
        path: The folder or file.
        split: Name of the split, such as `"train"`; optional if there is only one. `"val"` finds `valid`.
        categories: Class names, background first; by default those of the data set.
        sampler: As for `VideoDataset`.
        transforms: As for `VideoDataset`.
        max_pixels: Largest number of pixels of a frame; None for no limit.

    Raises:
        FileNotFoundError: If the path is missing.
        ValueError: If the layout is not recognised, the split does not exist, nothing is usable, all boxes are
            fractions of the image, or objects have a class that `categories` lacks. The message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.{near_paths(path)}")
    found = _find(path)
    if found is None:
        raise ValueError(f"{path} has no known layout of videos: {VIDEO_LAYOUTS}.")
    layout, sources = found
    if not sources:
        raise ValueError(f"{path} names no video.")
    if split is None and len(sources) > 1:
        raise ValueError(
            f"{path} has the splits {', '.join(sources)}; choose one by split={next(iter(sources))!r} (--split)."
        )
    chosen = next(iter(sources)) if split is None else find_split(list(sources), split)
    if chosen is None:
        have = "all videos in one: leave out the split" if list(sources) == [""] else ", ".join(sources)
        raise ValueError(f"{path} has no split {split!r}; it has {have}.")
    labels, names, problems, notes = _READERS[layout](sources[chosen], chosen)
    if categories is not None:
        names = check_names(categories)
        if unknown := sorted({thing.category for one in labels for thing in one.objects} - set(names)):
            raise ValueError(
                f"{path} has objects of {quote(unknown[0])}, which is not among the categories "
                f"{list_names(names[1:], 20)}.{nearest(unknown[0], names[1:])}"
            )
    check_units([(thing.box, one.source) for one in labels for thing in one.objects])
    videos = [_video(one, names, max_pixels, problems) for one in labels]
    if not videos:
        raise ValueError(f"{path} has no videos in the split {chosen!r}.")
    faults = [video.fault for video in videos if video.fault is not None]
    if (problems or faults) and not any(len(video.target["labels"]) for video in videos if video.fault is None):
        raise no_object([*faults, *problems])
    if problems or faults:
        kinds = (("label", problems), ("video", faults))
        lost = " and ".join(number_of(len(those), kind) for kind, those in kinds if those)
        _log.warning("%s can't be used, the first: %s", lost, [*problems, *faults][0])
    notes = [*notes, *_left_out(path, layout, sources)]
    return VideoDataset(
        videos, names, sampler=sampler, transforms=transforms, problems=problems, layout=_WHY[layout], notes=notes
    )


def check_decoder(path: Path) -> None:
    """Raise ImportError if there are videos that no package here reads."""
    if find_spec("av") is None and find_spec("torchcodec") is None and (found := _find(path)):
        layout, sources = found
        videos = [one for split, files in sources.items() for one in _READERS[layout](files, split).videos]
        if any(one.fault is None and one.frames.is_file() for one in videos):
            raise ImportError(MISSING)


def _left_out(path: Path, layout: Layout, sources: dict[str, list[Path]]) -> Iterator[str]:
    """Yield notes about sequences or XML files in a data set that are not read."""
    read = {file for files in sources.values() for file in files}
    if layout == "mot":
        frames = [folder for pattern in ("*/img1", "*/*/img1") for folder in sorted(path.glob(pattern))]
        if others := [folder.parent.relative_to(path) for folder in frames if folder.parent not in read]:
            yield f"{some(others, 'sequence')} without gt/gt.txt, left out"
    if layout == "cvat" and path.is_dir():
        files = [file for folder in sorted({file.parent for file in read}) for file in sorted(folder.glob("*.xml"))]
        if others := [file.relative_to(path) for file in files if file not in read]:
            yield f"{some(others, 'XML file')} not of CVAT, left out"


def _find(path: Path) -> tuple[Layout, dict[str, list[Path]]] | None:
    """Return the layout, and the annotation files or folders by split; None if there is none.

    The split is "" for a data set without splits.
    """
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
    # A few looks are enough: folders of Pascal VOC have thousands.
    return list(filter(is_cvat, files)) if any(map(is_cvat, files[:20])) else []


def _video(
    labels: LabelledVideo, categories: Sequence[str], max_pixels: int | None, problems: list[str]
) -> AnnotatedVideo:
    """Combine a video's annotations with its frames, which are not decoded.

    Problems of objects are added to `problems`. What makes the video unusable becomes its `fault`.
    """
    fault = labels.fault
    if fault is None:
        try:
            frames, number = _frames(labels, max_pixels)
            target = _target(labels, categories, number, problems)
            return AnnotatedVideo(
                labels.name, frames, number, target, labels.size, source=labels.source, max_pixels=max_pixels
            )
        except (ValueError, OSError) as error:
            fault = str(error).rstrip(".")
    # Its objects count as lost.
    objects = [row for row in labels.objects if row.category in categories[1:]]
    labeled = sorted({row.frame for row in objects})
    target = _tensors(objects, categories) | {"labeled_frames": torch.tensor(labeled, dtype=torch.int64)}
    return AnnotatedVideo(labels.name, labels.frames, 1, target, source=labels.source, fault=fault)


def _frames(labels: LabelledVideo, max_pixels: int | None) -> tuple[Path | list[Path], int]:
    """Return a video's file or image files, and the number of frames.

    Raises:
        OSError: If they are missing.
        ValueError: If the annotations do not fit them, the number is unknown, or a video can't be read.
    """
    if not labels.frames.exists():
        raise FileNotFoundError(f"{labels.source}: there is no {labels.frames}.")
    frames: Path | list[Path] = frame_files(labels.frames) if labels.frames.is_dir() else labels.frames
    there = len(frames) if isinstance(frames, list) else open_video(frames, max_pixels=max_pixels).length
    number = labels.num_frames if labels.num_frames is not None else there
    if number is None or not 0 < number <= _MOST_FRAMES:
        raise ValueError(
            f"{labels.source}: {labels.name} needs a number of frames from 1 to {_MOST_FRAMES}, got {number}."
        )
    if isinstance(frames, list) and number > len(frames):
        raise ValueError(
            f"{labels.source}: {labels.name} should have {number} frames, but {labels.frames} has {there}."
        )
    if labels.labeled and not 0 <= labels.labeled[0] <= labels.labeled[-1] < number:
        raise ValueError(
            f"{labels.source}: {labels.name} has {number} frames, but frame {labels.labeled[-1]} is labeled."
        )
    return frames, number


def _target(labels: LabelledVideo, categories: Sequence[str], number: int, problems: list[str]) -> Target:
    """Return a video's target; objects that can't be used are left out.

    Args:
        labels: The annotations.
        categories: Class names, background first.
        number: Number of frames.
        problems: Messages about the objects that are left out are added.
    """
    labeled = range(number) if labels.labeled is None else set(labels.labeled)
    seen: set[tuple[int, int]] = set()
    rows: list[VideoObject] = []
    for row in labels.objects:
        place = f"{labels.source}: {labels.name}"
        with collected(problems):
            if row.category not in categories[1:]:
                raise ValueError(
                    f"{place} has an object {row.category!r}; its classes are {list_names(categories[1:], 20)}."
                )
            if not 0 <= row.frame < number:
                raise ValueError(f"{place} has {number} frames, but a box on frame {row.frame}.")
            if row.frame not in labeled:
                raise ValueError(f"{place} has a box on frame {row.frame}, which is not labeled.")
            if row.track >= 0 and (row.track, row.frame) in seen:
                raise ValueError(
                    f"{place} has two boxes of track {row.track} on frame {row.frame}; the first is taken."
                )
            seen.add((row.track, row.frame))
            rows.append(row)
    target = _tensors(rows, categories)
    if labels.labeled is not None:
        target["labeled_frames"] = torch.tensor(labels.labeled, dtype=torch.int64)
    return target


def _tensors(rows: Sequence[VideoObject], categories: Sequence[str]) -> Target:
    labels = {name: label for label, name in enumerate(categories)}
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

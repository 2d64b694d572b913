"""Inspect a data set before training: statistics and invalid annotations."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import torch

from ssd_zoo.data.annotations import Box, LabelledImage, number_of
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.video_datasets import AnnotatedVideo, VideoDataset
from ssd_zoo.detector.overlap import area_of, box_iou
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.targets import scale_boxes
from ssd_zoo.detector.tiles import shown_boxes
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["DataReport", "annotation_problems", "group_problems", "inspect_dataset"]

# People at the edge of a video are labelled beyond it; a wrong number leaves less of a box.
_LEAST_WITHIN = 0.25
# A rare class may be a misspelt one from this similarity of names on, and up to this share of the other's objects.
_NEAR, _RARE = 0.75, 0.05
# A file, perhaps with a line, and what is wrong there.
_AT_PLACE = re.compile(r"(?P<file>(?:[A-Za-z]:)?[^:]*\.\w+)(:\d+)?: (?P<what>.+)", re.DOTALL)


class _Thing(NamedTuple):
    """An object: its box (xyxy in pixels), class, area in square pixels, and whether it is a crowd."""

    box: Box
    label: int
    area: float
    iscrowd: bool


class _Item(NamedTuple):
    """An image or a video.

    `size` is its (height, width), or a message about what is wrong with it. `frames` is the number of annotated frames
    (1 for an image), `empty` how many of these have no objects. `place` returns the place in the file of the object at
    an index.
    """

    size: tuple[int, int] | str
    frames: int
    empty: int
    objects: list[_Thing]
    place: Callable[[int], str]


@dataclass
class DataReport:
    """Statistics and problems of a data set.

    Attributes:
        images: Number of images; for videos, of annotated frames.
        empty_images: Images, or annotated frames, without objects.
        objects: Number of objects per class name, without the background, zero included; unusable ones too. An object
            of a video counts once per frame.
        sizes: Numbers of small, medium and large objects, by COCO's areas in pixels: up to 32², up to 96², larger.
        unreached: Number of objects whose best IoU with the model's default boxes is below its `iou_thresh`. Crowds,
            which are not trained on, do not count. None without a model.
        videos: Number of videos; None for images.
        problems: Messages about unusable images, videos and annotations, with the file and, where known, the line.
        bad_images: Indices of unusable images or videos.
        bad_objects: Index pairs (image or video, object) of unusable objects.
        layout: The recognised layout, and how it was recognised.
        notes: Messages about files that were not found or not used.
    """

    images: int
    empty_images: int
    objects: dict[str, int]
    sizes: dict[str, int]
    unreached: int | None = None
    videos: int | None = None
    problems: list[str] = field(default_factory=list)
    bad_images: set[int] = field(default_factory=set)
    bad_objects: set[tuple[int, int]] = field(default_factory=set)
    layout: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Names of classes without objects."""
        return [name for name, number in self.objects.items() if number == 0]

    def __str__(self) -> str:
        """Return a readable report of several lines."""
        total = sum(self.objects.values())
        empty = f", {self.empty_images} without objects" if self.empty_images else ""
        present = ", ".join(f"{name} {number}" for name, number in self.objects.items() if number)
        lines = [self.layout] if self.layout else []
        what = number_of(self.images, "image" if self.videos is None else "annotated frame")
        of_videos = "" if self.videos is None else f" of {number_of(self.videos, 'video')}"
        lines += [f"{what}{of_videos}{empty}; {number_of(total, 'object')}: {present}"]
        lines.append("sizes: " + ", ".join(f"{name} {number}" for name, number in self.sizes.items()))
        if self.missing:
            lines.append(f"no object of: {', '.join(self.missing)}")
        if self.unreached is not None:
            share = self.unreached / total if total else 0
            lines.append(f"no default box reaches {number_of(self.unreached, 'object')} ({share:.1%})")
            if share > 0.1:
                lines.append("  default boxes by fit_default_boxes (--fit-default-boxes) may reach more")
        lines += [f"note: {note}" for note in [*self.notes, *_near_names(self.objects)]]
        problems, others = group_problems(self.problems)
        lines += [f"problem: {problem}" for problem in problems]
        if others:
            lines.append(f"and {number_of(others, 'more problem')}")
        return "\n".join(lines)


def group_problems(problems: Sequence[str], most: int = 20) -> tuple[list[str], int]:
    """Join equal problems of several files into one line.

    Args:
        problems: Messages `file:line: what`, or without a place.
        most: Most lines.

    Returns:
        The first lines, and the number of problems that are left out.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        at_place = _AT_PLACE.fullmatch(problem)
        groups[at_place["what"] if at_place else problem].append(problem)
    shown = list(groups.values())[:most]
    lines = [f"{same[0]}{_other_places(same)}" for same in shown]
    return lines, len(problems) - sum(map(len, shown))


def _other_places(problems: Sequence[str], most: int = 5) -> str:
    """Return " (and in 7 more places: b.txt, c.txt, …)" for all places but the first.

    Empty if there is one place.

    Args:
        problems: Messages `file:line: what` of the same problem.
        most: Most file names to list; each is listed once.
    """
    if len(problems) == 1:
        return ""
    files = dict.fromkeys(match["file"] for match in map(_AT_PLACE.fullmatch, problems) if match)
    others = [Path(file).name for file in files][1:]
    names = [*others[:most], *(["…"] if len(others) > most else [])]
    return f" (and in {number_of(len(problems) - 1, 'more place')}{': ' if names else ''}{', '.join(names)})"


def _near_names(objects: Mapping[str, int]) -> Iterator[str]:
    """Yield notes about rare classes whose names are similar to common ones, as "knig" to "king".

    "Rare" is at most 5 % of the common class's objects. Names that differ only in digits are not reported.

    Args:
        objects: Number of objects by class.
    """
    near = SequenceMatcher()
    for rare, few in objects.items():
        near.set_seq2(rare.casefold())
        for name in [name for name, many in objects.items() if 0 < few <= _RARE * many]:
            near.set_seq1(name.casefold())
            # From the cheapest to the dearest: there may be thousands of classes.
            alike = all(ratio() >= _NEAR for ratio in (near.real_quick_ratio, near.quick_ratio, near.ratio))
            if alike and re.sub(r"\d", "", rare) != re.sub(r"\d", "", name):
                yield f"{rare!r} ({few}) is nearly {name!r} ({objects[name]}): a misspelt name is a class of its own"


@with_near_keywords
def inspect_dataset(
    dataset: DetectionDataset | VideoDataset, model: SSD | None = None, *, read_images: bool = True
) -> DataReport:
    """Inspect a data set for statistics and problems.

    Problems are collected in the report, never raised. An unreadable image counts as a problem.

    Args:
        dataset: Data set of `open_dataset` or `open_video_dataset`.
        model: The detector to train, for counting objects that its default boxes do not reach.
        read_images: Whether to decode every image and frame, which finds truncated files. Otherwise only headers are
            read.

    Example:
        >>> from ssd_zoo.data import inspect_dataset
        >>> inspect_dataset(dataset).missing  # doctest: +SKIP
        ['hair drier']
    """
    with ThreadPoolExecutor() as pool:
        items = list(
            _video_items(dataset.videos, read_images, pool)
            if isinstance(dataset, VideoDataset)
            else pool.map(lambda entry: _image_item(dataset, entry, read_images), dataset.images)
        )
    about = dataset if isinstance(dataset, VideoDataset) else dataset.annotations
    report = DataReport(
        images=sum(item.frames for item in items),
        empty_images=sum(item.empty for item in items),
        objects=dict.fromkeys(dataset.categories[1:], 0),
        sizes={"small": 0, "medium": 0, "large": 0},
        videos=len(items) if isinstance(dataset, VideoDataset) else None,
        problems=list(annotation_problems(dataset)),
        layout=about.layout,
        notes=about.notes,
    )
    counts: Counter[int] = Counter()
    for i, (size, _, _, objects, place) in enumerate(items):
        if isinstance(size, str):
            report.problems.append(size)
            report.bad_images.add(i)
        for k, thing in enumerate(objects):
            counts[thing.label] += 1
            report.sizes["small" if thing.area <= 32**2 else "medium" if thing.area <= 96**2 else "large"] += 1
            if reason := _reason(thing.box, None if isinstance(size, str) else size):
                report.problems.append(f"{place(k)}: the box {_format(thing.box)} {reason}")
                report.bad_objects.add((i, k))
    for label, number in counts.items():
        report.objects[dataset.categories[label]] = number
    if model is not None:
        report.unreached = sum(_unreached(items, report.bad_objects, model))
    return report


def _image_item(dataset: DetectionDataset, entry: LabelledImage, decode: bool) -> _Item:
    def place(k: int) -> str:
        return f"{entry.source}:{dataset.annotations.line(entry.source, entry.objects[k].entry)}"

    objects = [_Thing(thing.box, thing.label, thing.area, thing.iscrowd) for thing in entry.objects]
    return _Item(_size_of_image(entry, decode), 1, int(not objects), objects, place)


def _video_items(videos: Sequence[AnnotatedVideo], decode: bool, pool: ThreadPoolExecutor) -> list[_Item]:
    # A video may be listed as many clips or pieces; its frames are looked at once.
    sources = {id(video if decode else video.frames): video for video in videos}
    sizes = dict(zip(sources, pool.map(lambda video: _size_of_video(video, decode), sources.values()), strict=True))
    return [_video_item(video, sizes[id(video if decode else video.frames)]) for video in videos]


def _video_item(video: AnnotatedVideo, size: tuple[int, int] | str) -> _Item:
    target, frames = video.target, video.target["frame_index"].tolist()
    boxes, labels = target["boxes"], target["labels"].tolist()
    areas, crowds = area_of(boxes[:, 2:] - boxes[:, :2]), target.get("iscrowd", torch.zeros(len(boxes)))
    rows = zip(boxes.tolist(), labels, areas.tolist(), crowds.tolist(), strict=True)
    objects = [_Thing((x1, y1, x2, y2), label, area, bool(crowd)) for (x1, y1, x2, y2), label, area, crowd in rows]
    labeled = set(video.labeled_frames)
    empty = len(labeled - set(frames))

    def place(k: int) -> str:
        return f"{video.source or 'annotations'}: {video.name}, frame {frames[k]}"

    return _Item(size, len(labeled), empty, objects, place)


def _size_of_image(entry: LabelledImage, decode: bool) -> tuple[int, int] | str:
    """Return an image's (height, width), or a message that it is missing, unreadable or not of the labelled size."""
    try:
        height, width = entry.read().shape[1:] if decode else entry.read_size()
    except FileNotFoundError:
        return f"{entry.file} does not exist"
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")
    return _as_labelled(str(entry.file), (height, width), entry.size)


def _size_of_video(video: AnnotatedVideo, decode: bool) -> tuple[int, int] | str:
    """Return the (height, width) of a video's frames, or a message about what is wrong with it.

    Without `decode` only the first frame is read.
    """
    sizes, number = set(), 0
    try:
        for frame in video if decode else replace(video, start=0):
            number += 1
            sizes.add((frame.shape[-2], frame.shape[-1]))
            if not decode:
                break
    except (ValueError, OSError) as error:
        return f"{video.name}: {str(error).rstrip('.')}"
    if len(sizes) != 1:
        return f"{video.name} has frames of {len(sizes)} sizes; a clip needs one"
    if decode and number != video.num_frames:
        return f"{video.name} has {number} frames, not {video.num_frames}; give their number in the annotations"
    return _as_labelled(video.name, sizes.pop(), video.size)


def _as_labelled(name: str, size: tuple[int, int], labelled: tuple[int, int] | None) -> tuple[int, int] | str:
    """Return a (height, width), or a message if the annotations have another.

    `labelled` is None or holds a 0 if they have none.
    """
    if labelled is not None and labelled != size and min(labelled) > 0:
        return f"{name} has {size[1]} × {size[0]} pixels, but was labelled at {labelled[1]} × {labelled[0]}"
    return size


def _reason(box: Box, size: tuple[int, int] | None) -> str | None:
    """Return what is wrong with a box, as the end of a sentence; None if nothing is.

    Boxes without a known `size` of (height, width) are not checked against the image.
    """
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return "is not finite"
    if x2 <= x1 or y2 <= y1:
        return "has no area"
    if max(box) <= 1 and min(box) >= 0 and any(value % 1 for value in box):
        return "is in fractions of the image, where pixels are expected"
    if size is not None and (x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0):
        return f"lies outside the image of {size[1]} × {size[0]}"
    if size is not None and _share_within(box, size) < _LEAST_WITHIN:
        return f"lies mostly outside the image of {size[1]} × {size[0]}"
    return None


def _share_within(box: Box, size: tuple[int, int]) -> float:
    """Return which part of a box's area lies in an image of (height, width)."""
    x1, y1, x2, y2 = box
    return (min(x2, size[1]) - max(x1, 0)) * (min(y2, size[0]) - max(y1, 0)) / ((x2 - x1) * (y2 - y1))


def _format(box: Box) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _unreached(items: Sequence[_Item], bad: set[tuple[int, int]], model: SSD) -> Iterator[int]:
    """Yield, by image or video, the number of objects that no default box of the model reaches."""
    default_boxes = model.default_boxes.cpu()
    for i, (size, _, _, objects, _) in enumerate(items):
        boxes = [thing.box for k, thing in enumerate(objects) if (i, k) not in bad and not thing.iscrowd]
        if boxes and not isinstance(size, str):
            scaled = scale_boxes(*shown_boxes(torch.tensor(boxes), size, model.tile), model.size)
            yield sum(
                int((box_iou(part, default_boxes).amax(1) < model.iou_thresh).sum()) for part in scaled.split(256)
            )


def annotation_problems(dataset: DetectionDataset | VideoDataset) -> list[str]:
    """Return the messages about entries that could not be read; they are in neither images nor objects."""
    return dataset.problems if isinstance(dataset, VideoDataset) else dataset.annotations.problems

"""Inspect a data set before training: statistics and invalid annotations."""

import logging
import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import torch

from ssd_zoo.data.annotations import LabelledImage, LabelledObject
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.detector.overlap import box_iou
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.targets import scale_boxes

__all__ = ["DataReport", "inspect_dataset", "usable"]

OnInvalid = Literal["raise", "drop"]
_log = logging.getLogger("ssd_zoo")


@dataclass
class DataReport:
    """Statistics and problems of a data set.

    Attributes:
        images: Number of images.
        empty_images: Images without objects.
        objects: Number of objects per class, zero included.
        sizes: Numbers of small, medium and large objects, by COCO's areas in pixels: up to 32², up to 96², larger.
        unreached: Number of objects whose best IoU with the model's default boxes is below its `iou_thresh`; None
            without a model.
        problems: Messages about unusable images and annotations, with file and, for annotations, line.
        bad_images: Indices of unusable images.
        bad_objects: Index pairs (image, object) of unusable objects.
        layout: The recognised layout, and how it was recognised.
        notes: Messages about files that were not found or not used.
    """

    images: int
    empty_images: int
    objects: dict[str, int]
    sizes: dict[str, int]
    unreached: int | None = None
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
        lines += [f"{self.images} images{empty}; {total} objects: {present}"]
        lines.append("sizes: " + ", ".join(f"{name} {number}" for name, number in self.sizes.items()))
        if self.missing:
            lines.append(f"no object of: {', '.join(self.missing)}")
        if self.unreached is not None:
            share = self.unreached / total if total else 0
            lines.append(f"no default box reaches {self.unreached} objects ({share:.1%})")
            if share > 0.1:
                lines.append(
                    "  a larger size, or default boxes by fit_default_boxes (--fit-default-boxes), may reach more"
                )
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems[:20]]
        if len(self.problems) > 20:
            lines.append(f"and {len(self.problems) - 20} more problems")
        return "\n".join(lines)


def inspect_dataset(dataset: DetectionDataset, model: SSD | None = None, *, read_images: bool = True) -> DataReport:
    """Inspect a data set for statistics and problems.

    Args:
        dataset: Data set of `open_dataset`.
        model: The detector to train, for counting objects that its default boxes do not reach.
        read_images: Whether to decode every image, which finds truncated files. Otherwise only headers are read.

    Example:
        >>> from ssd_zoo.data import inspect_dataset
        >>> inspect_dataset(dataset).missing  # doctest: +SKIP
        ['hair drier']
    """
    report = DataReport(
        images=len(dataset),
        empty_images=sum(not entry.objects for entry in dataset.images),
        objects=dict.fromkeys(dataset.categories[1:], 0),
        sizes={"small": 0, "medium": 0, "large": 0},
        problems=list(dataset.annotations.problems),
        layout=dataset.annotations.layout,
        notes=dataset.annotations.notes,
    )
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(lambda entry: _open(entry, read_images), dataset.images))
    counts: Counter[int] = Counter()
    for i, (entry, size) in enumerate(zip(dataset.images, sizes, strict=True)):
        if isinstance(size, str):
            report.problems.append(size)
            report.bad_images.add(i)
        for k, thing in enumerate(entry.objects):
            counts[thing.label] += 1
            report.sizes["small" if thing.area <= 32**2 else "medium" if thing.area <= 96**2 else "large"] += 1
            if reason := _reason(thing, None if isinstance(size, str) else size):
                line = dataset.annotations.line(entry.source, thing.entry)
                report.problems.append(f"{entry.source}:{line}: the box {_format(thing)} {reason}")
                report.bad_objects.add((i, k))
    for label, number in counts.items():
        report.objects[dataset.categories[label]] = number
    if model is not None:
        report.unreached = sum(_unreached(dataset, sizes, report, model))
    return report


def _open(entry: LabelledImage, decode: bool) -> tuple[int, int] | str:
    """Return an image's size, or an error message."""
    try:
        size = tuple(entry.read().shape[1:]) if decode else entry.read_size()
    except FileNotFoundError:
        return f"{entry.file} does not exist"
    except (ValueError, OSError) as error:
        return str(error).rstrip(".")
    if entry.size is not None and entry.size != size and min(entry.size) > 0:
        return f"{entry.file} has {size[1]} × {size[0]} pixels, but was labelled at {entry.size[1]} × {entry.size[0]}"
    return size[0], size[1]


def _reason(thing: LabelledObject, size: tuple[int, int] | None) -> str | None:
    x1, y1, x2, y2 = thing.box
    if not all(map(math.isfinite, thing.box)):
        return "is not finite"
    if x2 <= x1 or y2 <= y1:
        return "has no area"
    if size is not None and (x1 >= size[1] or y1 >= size[0] or x2 <= 0 or y2 <= 0):
        return f"lies outside the image of {size[1]} × {size[0]}"
    return None


def _format(thing: LabelledObject) -> str:
    return "(" + ", ".join(f"{value:g}" for value in thing.box) + ")"


def _unreached(
    dataset: DetectionDataset, sizes: list[tuple[int, int] | str], report: DataReport, model: SSD
) -> Iterator[int]:
    default_boxes = model.default_boxes.cpu()
    for i, (entry, size) in enumerate(zip(dataset.images, sizes, strict=True)):
        boxes = [thing.box for k, thing in enumerate(entry.objects) if (i, k) not in report.bad_objects]
        if boxes and not isinstance(size, str):
            scaled = scale_boxes(torch.tensor(boxes), size, model.size)
            yield int((box_iou(scaled, default_boxes).amax(1) < model.iou_thresh).sum())


def usable(dataset: DetectionDataset, report: DataReport, on_invalid: OnInvalid | None = None) -> DetectionDataset:
    """Return the usable part of a data set.

    Args:
        dataset: The data set.
        report: Its report from `inspect_dataset`.
        on_invalid: `"raise"` an error if there are problems, or `"drop"` the images and objects that have them. By
            default they are dropped, with a warning in the log, if at most 1 % of the objects is lost.

    Raises:
        ValueError: If there are problems that are not dropped, with the first 20 of them; or if no object is left.
    """
    if on_invalid not in (None, "raise", "drop"):
        raise ValueError(f"on_invalid must be 'raise' or 'drop', got {on_invalid!r}.")
    total, lost = sum(report.objects.values()), _lost(dataset, report)
    if report.problems and (on_invalid == "raise" or (on_invalid is None and lost > 0.01 * (total + lost))):
        more = f"\n  and {len(report.problems) - 20} more" if len(report.problems) > 20 else ""
        listed = "".join(f"\n  {problem}" for problem in report.problems[:20])
        raise ValueError(
            f"The data set has {len(report.problems)} problems, and {lost} of its objects can't be used; correct them, "
            f"or leave out what has them with on_invalid='drop' (--on-invalid drop):{listed}{more}"
        )
    kept = dataset.with_images(_kept(dataset, report)) if report.problems else dataset
    if not any(entry.objects for entry in kept.images):
        source = dataset.images[0].source if dataset.images else "the data set"
        raise ValueError(f"The data set has no object. Its labels were looked for in files such as {source}.")
    if report.problems:
        _log.warning("Left out for %d problem(s): %d object(s), %d image(s); the first: %s", len(report.problems), lost,
                     len(report.bad_images), report.problems[0])  # fmt: skip
    return kept


def _lost(dataset: DetectionDataset, report: DataReport) -> int:
    """Return the number of objects that can't be used; an entry that could not be read counts as one."""
    bad = {(i, k) for i in report.bad_images for k in range(len(dataset.images[i].objects))} | report.bad_objects
    return len(bad) + len(dataset.annotations.problems)


def _kept(dataset: DetectionDataset, report: DataReport) -> list[LabelledImage]:
    return [
        entry._replace(objects=tuple(x for k, x in enumerate(entry.objects) if (i, k) not in report.bad_objects))
        for i, entry in enumerate(dataset.images)
        if i not in report.bad_images
    ]

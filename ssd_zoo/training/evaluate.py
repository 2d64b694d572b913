"""Evaluation of detectors on labelled images."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ssd_zoo.data.presets import collate
from ssd_zoo.training.coco_ap import CocoScores, score_records, score_results
from ssd_zoo.training.confusion import confusion_matrix
from ssd_zoo.training.processes import all_gather, process
from ssd_zoo.training.records import Record, label_map, make_record
from ssd_zoo.training.voc_ap import voc_scores

__all__ = ["Evaluation", "detect", "evaluate", "evaluate_results"]


@dataclass
class Evaluation:
    """How good detections are.

    Attributes:
        metrics: COCO's twelve numbers, between 0 and 1, or -1 where there are no such objects; where detections were
            judged by VOC's rules too, `VOC_AP50`, the mean over classes of the area under the curve, and
            `VOC_AP50_11`, of eleven points.
        per_class: `AP`, `AP50` and the number of `objects` of each class that occurs.
        images: Number of images.
        precision: `(10, 101, K)`, COCO's precision over IoU thresholds, recalls and classes.
        classes: Names of the K classes.
        confusion: `(C, C)`, objects by their class (rows) and what was found there (columns), background first; see
            `confusion_matrix`. None for a file of results.
        records: One an image, what was found and what is true.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    precision: np.ndarray
    classes: list[str]
    confusion: Tensor | None
    records: list[Record]

    def __str__(self) -> str:
        """Gives a table for readers."""
        lines = [f"{self.images} images"]
        lines += [f"  {name:12} {value:.4f}" for name, value in self.metrics.items()]
        width = max(map(len, self.per_class), default=0)
        lines += [
            f"  {name:{width}}  AP {row['AP']:.4f}  AP50 {row['AP50']:.4f}  {row['objects']:.0f} objects"
            for name, row in self.per_class.items()
        ]
        return "\n".join(lines)

    def write_json(self, file: str | Path) -> None:
        """Writes the metrics, and those of the classes under `per_class`."""
        content = {**self.metrics, "images": self.images, "per_class": self.per_class}
        Path(file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def evaluate(
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    categories: Sequence[str] | None = None,
    model_categories: Sequence[str] | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Runs a detector over a data set and measures it.

    The model's thresholds count as they are. Where several processes run (`torchrun`, `accelerate launch`), each takes
    its share of the images, and all get the same result.

    Args:
        model: Any detector with torchvision's API, on the device where it shall run.
        dataset: From `open_dataset`, or any other that gives images, uint8 or between 0 and 1, and torchvision's
            targets. Without augmentation.
        categories: Names of the data set's classes, background first; by default its own.
        model_categories: Names of the model's classes, which are those of the data set by name; by default its own, or
            else the data set's.
        batch_size: Images at once.
        num_workers: Processes that read images.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If there are no images or names of classes, or the model knows none of the classes.

    Example:
        >>> evaluation = evaluate(model, open_dataset("cells", "test"))  # doctest: +SKIP
        >>> evaluation.metrics["AP50"]  # doctest: +SKIP
        0.91
    """
    categories = categories or getattr(dataset, "categories", None)
    if categories is None:
        raise ValueError("The data set does not tell its classes; pass categories=['background', …].")
    labels = label_map(model_categories or getattr(model, "categories", None), categories)
    records = detect(model, dataset, labels=labels, batch_size=batch_size, num_workers=num_workers, progress=progress)
    return _evaluation(score_records(records, categories), records, categories)


def evaluate_results(annotations: str | Path, results: str | Path) -> Evaluation:
    """Scores a file of results against a file of annotations, both in COCO's formats, by COCO's rules alone.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or results are of images that the annotations do not have.
    """
    scores, images = score_results(annotations, results)
    return Evaluation(scores.metrics, scores.per_class, images, scores.precision, scores.classes, None, [])


def _evaluation(scores: CocoScores, records: list[Record], categories: Sequence[str]) -> Evaluation:
    of_voc = voc_scores(records, categories)
    metrics = dict(scores.metrics)
    for key, column in (("VOC_AP50", 0), ("VOC_AP50_11", 1)):
        values = [row[column] for row in of_voc.values()]
        metrics[key] = sum(values) / len(values) if values else -1.0
    per_class = {
        name: {**row, **({"VOC_AP50": of_voc[name][0], "VOC_AP50_11": of_voc[name][1]} if name in of_voc else {})}
        for name, row in scores.per_class.items()
    }
    confusion = confusion_matrix(records, len(categories))
    return Evaluation(metrics, per_class, len(records), scores.precision, scores.classes, confusion, records)


@torch.inference_mode()
def detect(
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    labels: Tensor | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = False,
) -> list[Record]:
    """Runs a detector over a data set; each of several processes takes its share and gets all records.

    Args:
        model: As for `evaluate`.
        dataset: As for `evaluate`.
        labels: From `label_map`.
        batch_size: Images at once.
        num_workers: Processes that read images.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ValueError: If there are no images.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError("The data set has no images.")
    rank, world = process()
    share = range(rank, size, world)
    loader = DataLoader(Subset(dataset, share), batch_size, num_workers=num_workers, collate_fn=collate)
    device = next(chain(model.parameters(), model.buffers())).device
    was_training = model.training
    model.eval()
    records: list[Record] = []
    bar = tqdm(total=len(share), unit="image", leave=False, disable=not progress or rank > 0 or not sys.stderr.isatty())
    try:
        with bar:
            for images, targets in loader:
                found = model([as_float(image, device) for image in images])
                for target, one in zip(targets, found, strict=True):
                    records.append(make_record(target, one, labels, share[len(records)]))
                bar.update(len(images))
    finally:
        model.train(was_training)
    # Round robin, as the shares were dealt.
    shares = all_gather(records)
    return [shares[i % world][i // world] for i in range(size)]


def as_float(image: Tensor, device: torch.device) -> Tensor:
    """Moves an image and brings its pixels between 0 and 1."""
    image = image.as_subclass(Tensor).to(device, non_blocking=True)
    return image.float() / 255 if image.dtype == torch.uint8 else image

"""Evaluation of detectors on labelled images."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ssd_zoo.data.presets import collate
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.balance import count_positives, part_weights
from ssd_zoo.training.coco_ap import CocoScores, score_records, score_results
from ssd_zoo.training.confusion import confusion_matrix
from ssd_zoo.training.processes import all_gather, process
from ssd_zoo.training.records import Record, label_map, make_record
from ssd_zoo.training.voc_ap import voc_scores

__all__ = ["Evaluation", "evaluate", "evaluate_results"]


@dataclass
class Evaluation:
    """How good detections are.

    Attributes:
        metrics: COCO's twelve numbers, between 0 and 1, or -1 where there are no such objects; where detections were
            judged by VOC's rules too, `VOC_AP50`, the mean over classes of the area under the curve, and
            `VOC_AP50_11`, of eleven points.
        per_class: `AP`, `AP50`, `AP75` and the number of `objects` of each class that occurs.
        images: Number of images.
        precision: `(10, 101, K)`, COCO's precision over IoU thresholds, recalls and classes.
        classes: Names of the K classes.
        confusion: `(C, C)`, objects by their class (rows) and what was found there (columns), background first; see
            `confusion_matrix`. None for a file of results.
        records: One an image, what was found and what is true.
        losses: `validation_loss` and its parts, if they were asked for.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    precision: np.ndarray
    classes: list[str]
    confusion: Tensor | None
    records: list[Record]
    losses: dict[str, float] = field(default_factory=dict)

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
    losses: bool = False,
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
        losses: Whether to compute the losses too, which an `SSD` with the data set's own classes can.

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
    if losses and (labels is not None or not isinstance(model, SSD)):
        raise ValueError("losses=True needs an SSD whose categories are the data set's.")
    records, validation = _detect(model, dataset, labels, batch_size, num_workers, progress, losses)
    evaluation = _evaluation(score_records(records, categories), records, categories)
    evaluation.losses = validation
    return evaluation


def evaluate_results(annotations: str | Path, results: str | Path) -> Evaluation:
    """Scores a file of results against a file of annotations, both in COCO's formats, by COCO's rules alone.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or has boxes of images or categories that the annotations do not
            have.
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
def _detect(
    model: nn.Module,
    dataset: Dataset[Any],
    labels: Tensor | None,
    batch_size: int,
    num_workers: int,
    progress: bool,
    losses: bool,
) -> tuple[list[Record], dict[str, float]]:
    """Gives all records and losses; each of several processes does its share."""
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
    parts: list[tuple[int, dict[str, float]]] = []
    off = not progress or rank > 0 or not sys.stderr.isatty()
    try:
        with tqdm(total=len(share), desc="evaluating", unit="image", leave=False, disable=off) as bar:
            for images, targets in loader:
                images = [_as_float(image, device) for image in images]
                if losses:
                    found, part = _with_losses(model, images, targets)
                    parts.append(part)
                else:
                    found = model(images)
                for target, one in zip(targets, found, strict=True):
                    records.append(make_record(target, one, labels, share[len(records)]))
                bar.update(len(images))
    finally:
        model.train(was_training)
    # The shares were dealt round robin.
    shares = all_gather((records, parts))
    all_records = [shares[i % world][0][i // world] for i in range(size)]
    return all_records, _mean_losses([part for _, parts in shares for part in parts])


def _with_losses(model: Any, images: list[Tensor], targets: list[dict[str, Any]]) -> tuple[Any, Any]:
    things = [
        {
            key: target[key][target["iscrowd"] == 0] if "iscrowd" in target else target[key]
            for key in ("boxes", "labels")
        }
        for target in targets
    ]
    things = [{key: value.as_subclass(Tensor).to(images[0].device) for key, value in one.items()} for one in things]
    found, part = model(images, things, return_losses=True)
    return found, (count_positives(model, images, things), {name: value.item() for name, value in part.items()})


def _mean_losses(parts: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Gives the losses of all images, whatever the batches were."""
    if not parts:
        return {}
    weights = part_weights([count for count, _ in parts], sum(count for count, _ in parts))
    means = {
        f"validation_{name}": sum(weight * one[name] for weight, (_, one) in zip(weights, parts, strict=True))
        for name in parts[0][1]
    }
    return {"validation_loss": sum(means.values()), **means}


def _as_float(image: Tensor, device: torch.device) -> Tensor:
    image = image.as_subclass(Tensor).to(device, non_blocking=True)
    return image.float() / 255 if image.dtype == torch.uint8 else image

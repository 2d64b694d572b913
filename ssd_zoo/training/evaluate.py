"""Evaluation of detectors on labelled images."""

import json
import sys
from collections.abc import Collection, Sequence
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
from ssd_zoo.training.metrics.coco import score_records, score_results
from ssd_zoo.training.metrics.confusion import confusion_matrix
from ssd_zoo.training.metrics.records import Record, label_map, make_record
from ssd_zoo.training.metrics.voc import voc_scores
from ssd_zoo.training.processes import all_gather, process
from ssd_zoo.weights.categories import list_names
from ssd_zoo.weights.files import write_file

__all__ = ["Evaluation", "evaluate", "evaluate_results"]


@dataclass
class Evaluation:
    """Metrics of a detector on a data set.

    Attributes:
        metrics: COCO's twelve numbers, between 0 and 1, or -1 where there are no such objects; where detections were
            judged by VOC's rules too, `VOC_AP50`, the mean over classes of the area under the curve, and
            `VOC_AP50_11`, of eleven points.
        per_class: `AP`, `AP50`, `AP75` and the number of `objects` of each class that is counted and occurs, by the
            data set's names.
        images: Number of images.
        precision: `(10, 101, K)`, COCO's precision over IoU thresholds, recalls and classes; -1 for classes without
            objects and for classes that are not counted.
        classes: Names of the K classes of the data set.
        confusion: `(C, C)`, objects by their class (rows) and what was found there (columns), background first; see
            `confusion_matrix`. None for a file of results.
        records: One an image, what was found and what is true.
        losses: `validation_loss` and its parts, if they were asked for.
        model_lacks: Classes of the data set that the model does not have, or a file of results does not name.
        data_lacks: Classes of the model, or of a file of results, that the data set does not have. What was found of
            them is left out.
        all_classes: Whether the averages count the classes that the model lacks.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    precision: np.ndarray
    classes: list[str]
    confusion: Tensor | None
    records: list[Record]
    losses: dict[str, float] = field(default_factory=dict)
    model_lacks: list[str] = field(default_factory=list)
    data_lacks: list[str] = field(default_factory=list)
    all_classes: bool = False

    def __str__(self) -> str:
        """Return a table for readers."""
        lines = [f"{self.images} images"]
        if self.model_lacks or self.data_lacks:
            lines.append(self._classes_apart())
        lines += [f"  {name:12} {_figure(value)}" for name, value in self.metrics.items()]
        width = max(map(len, self.per_class), default=0)
        lines += [
            f"  {name:{width}}  AP {_figure(row['AP'])}  AP50 {_figure(row['AP50'])}  "
            f"{row['objects']:.0f} object{'' if row['objects'] == 1 else 's'}"
            for name, row in self.per_class.items()
        ]
        absent = [name for name in self.classes if name not in {*self.per_class, *self.model_lacks, *self.data_lacks}]
        if absent:
            lines.append(f"  no objects: {list_names(absent)}")
        return "\n".join(lines)

    def _classes_apart(self) -> str:
        """Return one line about the classes that only one side has."""
        parts = []
        source = "results" if self.confusion is None else "model"
        if self.model_lacks:
            effect = "counted as AP 0" if self.all_classes else "left out of the averages"
            parts.append(f"{_absent(self.model_lacks, 'data', source)}, {effect}")
        if self.data_lacks:
            parts.append(_absent(self.data_lacks, source, "data"))
        return "; ".join(parts)

    def to_json(self) -> str:
        """Return the metrics, the classes that one side lacks, and under `per_class` the metrics of each class."""
        lacking = {"model_lacks": self.model_lacks, "data_lacks": self.data_lacks}
        content = {**self.metrics, "images": self.images, **lacking, "per_class": self.per_class}
        return json.dumps(content, indent=1) + "\n"

    def write_json(self, file: str | Path) -> None:
        """Write `to_json` to a file, atomically."""
        write_file(Path(file), self.to_json().encode())


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
    all_classes: bool = False,
) -> Evaluation:
    """Run a detector over a data set and measure it.

    Classes are matched by name, with COCO's and VOC's synonyms (see `match_classes`). Averages are over the classes
    that both have. The model's thresholds count as they are. Where several processes run (`torchrun`,
    `accelerate launch`), each takes its share of the images, and all get the same result.

    Args:
        model: Any detector with torchvision's API, on the device where it runs.
        dataset: From `open_dataset`, or any other that gives images, uint8 or between 0 and 1, and torchvision's
            targets. Without augmentation.
        categories: Names of the data set's classes, background first; by default its own.
        model_categories: Names of the model's classes, background first; by default its own, or else the data set's.
        batch_size: Images at once.
        num_workers: Processes that read images.
        progress: Whether to show a progress bar on stderr.
        losses: Whether to compute the losses too, which an `SSD` with the data set's own classes can.
        all_classes: Whether classes of the data set that the model lacks count too, as AP 0.

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
    of_model = model_categories or getattr(model, "categories", None) or categories
    labels = label_map(of_model, categories)
    if losses and (labels is not None or not isinstance(model, SSD)):
        raise ValueError("losses=True needs an SSD whose categories are the data set's.")
    records, validation = _detect(model, dataset, labels, batch_size, num_workers, progress, losses)
    shared = range(len(categories)) if labels is None else set(labels.tolist())
    evaluation = _evaluation(records, categories, range(len(categories)) if all_classes else shared)
    evaluation.losses, evaluation.all_classes = validation, all_classes
    if labels is not None:
        evaluation.model_lacks = _names(categories, [i for i in range(len(categories)) if i not in shared])
        evaluation.data_lacks = _names(of_model, [i for i, label in enumerate(labels) if label == 0])
    return evaluation


def evaluate_results(annotations: str | Path, results: str | Path) -> Evaluation:
    """Score a file of results against a file of annotations, both in COCO's formats, by COCO's rules alone.

    Results that name their class under `category`, as those of `ssd-zoo detect`, are matched by that name, as in
    `evaluate`; others by `category_id`. The averages are over all classes of the annotations: a file of results does
    not tell which classes its model knows.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or has boxes of images or category ids that the annotations do not
            have, or names classes of which the annotations have none.
    """
    scores, images, *lacking = score_results(annotations, results)
    evaluation = Evaluation(scores.metrics, scores.per_class, images, scores.precision, scores.classes, None, [])
    evaluation.model_lacks, evaluation.data_lacks = lacking
    evaluation.all_classes = True
    return evaluation


def _names(categories: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Return the names of labels, without the background's and those of unused ids."""
    return [categories[label] for label in labels if label > 0 and categories[label] != "N/A"]


def _absent(names: Sequence[str], owner: str, other: str) -> str:
    classes, are = ("class", "is") if len(names) == 1 else ("classes", "are")
    return f"{len(names)} {classes} of the {owner} {are} not in the {other} ({list_names(names)})"


def _figure(value: float) -> str:
    return "no objects" if value == -1 else f"{value:.4f}"


def _evaluation(records: list[Record], categories: Sequence[str], counted: Collection[int]) -> Evaluation:
    scores = score_records(records, categories, counted)
    of_voc = {name: row for name, row in voc_scores(records, categories).items() if name in scores.per_class}
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
    """Return all records and losses; several processes share the work."""
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
    """Average the losses over images, independently of the batches."""
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

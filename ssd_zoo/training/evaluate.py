"""Evaluation of detectors on labelled images and clips."""

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.training.batches import Sample
from ssd_zoo.training.inference import Results, run_detector
from ssd_zoo.training.metrics.coco import score_records, score_results
from ssd_zoo.training.metrics.confusion import confusion_matrix
from ssd_zoo.training.metrics.records import Record, label_map
from ssd_zoo.training.metrics.video_ap import video_map
from ssd_zoo.training.metrics.voc import voc_scores
from ssd_zoo.weights.categories import list_names
from ssd_zoo.weights.files import write_file

__all__ = ["Evaluation", "evaluate", "evaluate_results"]

_log = logging.getLogger("ssd_zoo")
# Published figures are measured with thresholds of up to .05. Higher ones, for showing detections, lower AP.
_MOST_THRESH, _MEASURED_THRESH = 0.05, 0.01
# COCO's AP counts at most this number of detections in an image.
_COUNTED = 100


@dataclass
class Evaluation:
    """Metrics of a detector on a data set.

    Attributes:
        metrics: COCO's twelve numbers, between 0 and 1, or NaN where there are no such objects. Unless a file of
            results was scored, also VOC's `VOC_AP50`, the mean over classes of the area under the curve, and
            `VOC_AP50_11`, of eleven points. Of clips with `track_ids` also `video_map@0.2`, `video_map@0.5` and
            `video_map@0.5:0.95`.
        per_class: `AP`, `AP50`, `AP75` and the number of `objects` of each class that is counted and occurs, by the
            data set's names. An object of a clip counts once per labeled frame.
        images: Number of images, or of labeled frames.
        precision: `(10, 101, K)`, COCO's precision over IoU thresholds, recalls and classes; -1 for classes without
            objects and for classes that are not counted.
        classes: Names of the K classes of the data set.
        confusion: `(C, C)`, objects of the counted classes (rows) by the class found there (columns), background
            first; see `confusion_matrix`. None for a file of results.
        records: One per image or labeled frame: its objects and detections.
        losses: `validation_loss` and its parts, if they were asked for.
        model_lacks: Classes of the data set that the model does not have, or a file of results does not name.
        data_lacks: Classes of the model, or of a file of results, that the data set does not have. What was found of
            them is left out.
        all_classes: Whether the averages count the classes that the model lacks.
        clips: Number of clips; None for images.
        setting: `"trimmed"` or `"untrimmed"`, of video mAP; see `video_map`. None without it.
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
    clips: int | None = None
    setting: str | None = None

    def __str__(self) -> str:
        """Return a table for readers."""
        lines = [f"{self.images} images" if self.clips is None else f"{self.images} frames of {self.clips} clips"]
        if self.model_lacks or self.data_lacks:
            lines.append(self._classes_apart())
        names = max(12, *map(len, self.metrics))
        lines += [f"  {name:{names}} {_figure(value)}" for name, value in self.metrics.items()]
        if self.setting is not None:
            lines.append(f"  video mAP of {self.setting} videos")
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
        """Return the metrics, and under `per_class` those of each class.

        With them are the classes that one side lacks.

        Figures without objects are null.
        """
        content = {
            **_with_null(self.metrics),
            "images": self.images,
            **({} if self.clips is None else {"clips": self.clips, "setting": self.setting}),
            "model_lacks": self.model_lacks,
            "data_lacks": self.data_lacks,
            "per_class": {name: _with_null(row) for name, row in self.per_class.items()},
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def write_json(self, file: str | Path) -> None:
        """Write `to_json` to a file, atomically."""
        write_file(Path(file), self.to_json().encode())


@with_near_keywords
def evaluate(
    model: nn.Module,
    dataset: Dataset[Sample],
    *,
    categories: Sequence[str] | None = None,
    model_categories: Sequence[str] | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = False,
    losses: bool = False,
    all_classes: bool = False,
    score_thresh: float | None = None,
) -> Evaluation:
    """Run a detector over a data set and measure it.

    Classes are matched by name, with COCO's and VOC's synonyms (see `match_classes`). Averages are over the classes
    that both have. Where several processes run (`torchrun`, `accelerate launch`), each takes its share of the images,
    and all get the same result.

    AP counts detections of all scores. So a model's `score_thresh` above .05 is .01 during the measurement, and its
    `detections_per_img` is at least 100. Its other settings apply.

    Of clips each labeled frame is scored as an image is. An `SSD` detects in a clip as in a stream, so memory does not
    grow with its length; other detectors get its frames as images. Tubes are linked by `link_tubes`.

    Args:
        model: Any detector with torchvision's API, on the device where it runs.
        dataset: From `open_dataset` or `open_video_dataset`, or any other that gives images or clips, uint8 or between
            0 and 1, and targets as for `SSD.forward`. Without augmentation.
        categories: Names of the data set's classes, background first; by default its own.
        model_categories: Names of the model's classes, background first, such as those that the data set has for them;
            by default its own, or else the data set's.
        batch_size: Number of images, or of frames of a clip, at once.
        num_workers: Number of processes that read images.
        progress: Whether to show a progress bar on stderr.
        losses: Whether to compute the losses too, for an `SSD` with the data set's own classes. Clips are then taken
            whole.
        all_classes: Whether classes of the data set that the model lacks count too, as AP 0.
        score_thresh: Least score of a detection that counts, to measure what the model finds at this threshold.

    Raises:
        ImportError: If faster-coco-eval is missing.
        TypeError: If a clip's target has no `frame_index`.
        ValueError: If there are no images or names of classes, the model knows none of the classes, or has no
            `score_thresh` that can be as asked, `model_categories` has another length, or `losses` are asked of a model
            that has none.

    Example:
        >>> evaluation = evaluate(model, open_dataset("cells", "test"))  # doctest: +SKIP
        >>> evaluation.metrics["AP50"]  # doctest: +SKIP
        0.91
    """
    categories = categories or getattr(dataset, "categories", None)
    if categories is None:
        raise ValueError("The data set does not tell its classes; pass categories=['background', …].")
    own = getattr(model, "categories", None)
    of_model = model_categories or own or categories
    if own is not None:
        check_model_categories(of_model, own)
    labels = label_map(of_model, categories)
    if losses and (labels is not None or not isinstance(model, SSD)):
        raise ValueError("losses=True needs an SSD whose categories are the data set's.")
    with _measured(model, score_thresh):
        results = run_detector(
            model, dataset, labels, batch_size=batch_size, num_workers=num_workers, progress=progress, losses=losses
        )
    shared = range(len(categories)) if labels is None else set(labels.tolist())
    counted = range(len(categories)) if all_classes else shared
    evaluation = _evaluation(results.records, categories, counted)
    evaluation.losses, evaluation.all_classes = results.losses, all_classes
    _add_video_map(evaluation, results, counted, trimmed=bool(getattr(dataset, "trimmed", False)))
    if labels is not None:
        evaluation.model_lacks = _names(categories, [i for i in range(len(categories)) if i not in shared])
        evaluation.data_lacks = _names(of_model, [i for i, label in enumerate(labels) if label == 0])
    return evaluation


def evaluate_results(annotations: str | Path, results: str | Path) -> Evaluation:
    """Score a file of results by COCO's rules alone.

    Both are in COCO's formats. Results that name their class under `category`, as those of `ssd-zoo detect`, are
    matched by that name, as in `evaluate`; others by `category_id`. The averages are over all classes of the
    annotations, because a file of results does not tell which classes its model knows.

    Raises:
        ImportError: If faster-coco-eval is missing.
        ValueError: If a file can't be understood, or has boxes of images or category ids that the annotations do not
            have, or names classes of which the annotations have none.
    """
    scores, images, *lacking = score_results(annotations, results)
    per_class = {name: _known(row) for name, row in scores.per_class.items()}
    evaluation = Evaluation(_known(scores.metrics), per_class, images, scores.precision, scores.classes, None, [])
    evaluation.model_lacks, evaluation.data_lacks = lacking
    evaluation.all_classes = True
    return evaluation


def check_model_categories(given: Sequence[str], own: Sequence[str]) -> None:
    """Raise ValueError if there are not as many given names as a model has classes.

    Args:
        given: The user's names for the model's classes, with the background.
        own: The model's own names, with the background.
    """
    if len(given) != len(own):
        raise ValueError(
            f"The model has {len(own)} classes with the background ({list_names(own)}), but model_categories "
            f"(--model-categories) has {len(given)} names: {list_names(given)}."
        )


@contextmanager
def _measured(model: nn.Module, asked: float | None) -> Iterator[None]:
    """Within a with-statement, set a detector's thresholds for the measurement.

    They are lowered as far as AP needs, or the score's is set as asked.

    Args:
        model: The detector.
        asked: Least score of a detection that counts; None for all that AP counts.

    Raises:
        ValueError: If the detector has no `score_thresh` that can be as asked. Otherwise what can't be lowered is a
            warning.
    """
    own = {name: getattr(model, name) for name in ("score_thresh", "detections_per_img") if hasattr(model, name)}
    if asked is not None and "score_thresh" not in own:
        raise ValueError(f"{type(model).__name__} has no score_thresh to set to {asked:g}; leave score_thresh out.")
    wanted: dict[str, float] = {}
    if asked is not None or own.get("score_thresh", 0) > _MOST_THRESH:
        wanted["score_thresh"] = _MEASURED_THRESH if asked is None else asked
    if own.get("detections_per_img", _COUNTED) < _COUNTED:
        wanted["detections_per_img"] = _COUNTED
    try:
        for name, value in wanted.items():
            try:
                setattr(model, name, value)
            except ValueError:  # NMS is inside an exported file.
                if name == "score_thresh" and asked is not None:
                    raise
                way = f"--score-thresh {value:g} or " if name == "score_thresh" else ""
                _log.warning(
                    "AP does not count all boxes: it needs a %s of %g, but the file was exported with %g. "
                    "Export what is to be measured with %s--nms outside.",
                    *(name, value, own[name], way),
                )
        yield
    finally:
        for name in wanted:
            setattr(model, name, own[name])


def _names(categories: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Return the class names of labels, without the background and unused ids."""
    return [categories[label] for label in labels if label > 0 and categories[label] != "N/A"]


def _absent(names: Sequence[str], owner: str, other: str) -> str:
    """Return words about classes that one side has and the other lacks."""
    classes, are = ("class", "is") if len(names) == 1 else ("classes", "are")
    return f"{len(names)} {classes} of the {owner} {are} not in the {other} ({list_names(names)})"


def _figure(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _known(figures: Mapping[str, float]) -> dict[str, float]:
    """Replace -1, COCO's figure where there are no objects, by NaN."""
    return {name: math.nan if value == -1 else value for name, value in figures.items()}


def _with_null(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _evaluation(records: list[Record], categories: Sequence[str], counted: Collection[int]) -> Evaluation:
    scores = score_records(records, categories, counted)
    of_voc = {name: row for name, row in voc_scores(records, categories).items() if name in scores.per_class}
    metrics = _known(scores.metrics)
    for key, column in (("VOC_AP50", 0), ("VOC_AP50_11", 1)):
        values = [row[column] for row in of_voc.values()]
        metrics[key] = sum(values) / len(values) if values else math.nan
    per_class = {
        name: {
            **_known(row),
            **({"VOC_AP50": of_voc[name][0], "VOC_AP50_11": of_voc[name][1]} if name in of_voc else {}),
        }
        for name, row in scores.per_class.items()
    }
    confusion = confusion_matrix(records, len(categories), counted)
    return Evaluation(metrics, per_class, len(records), scores.precision, scores.classes, confusion, records)


def _add_video_map(evaluation: Evaluation, results: Results, counted: Collection[int], *, trimmed: bool) -> None:
    """Add the number of clips to an evaluation, and video-mAP if all clips have tracks."""
    of_clips = [item for item in results.items if item.records and item.records[0].frame is not None]
    if not of_clips:
        return
    evaluation.clips = len(results.items)
    pairs = [(item.tubes, item.target) for item in of_clips]
    tubes = [[tube for tube in tubes if tube["label"] in counted] for tubes, _ in pairs if tubes is not None]
    wanted = torch.tensor(sorted(counted))
    targets = [
        {key: value[torch.isin(target["labels"], wanted)] for key, value in target.items()}
        for _, target in pairs
        if target is not None
    ]
    if len(targets) == len(pairs):
        evaluation.setting = "trimmed" if trimmed else "untrimmed"
        figures = video_map(tubes, targets, setting="trimmed" if trimmed else "untrimmed")
        evaluation.metrics |= {name: value for name, value in figures.items() if isinstance(value, float)}

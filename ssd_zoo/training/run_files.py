"""Files that a run writes: models, table, curves, pictures, report."""

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from ssd_zoo.data.presets import DetectionPresetEval
from ssd_zoo.detector.frames import holds_clips, split_frames
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.saved.pretrained import from_pretrained, save_pretrained
from ssd_zoo.training.batches import Place, Sample, SeededSamples
from ssd_zoo.training.logs import Row, plot_curves, write_table
from ssd_zoo.training.mistakes import draw_mistake, worst_mistakes
from ssd_zoo.training.plan import Choice
from ssd_zoo.training.plots import draw_records, picture_of
from ssd_zoo.training.report import Picture, Story, failure_of, tables_of, to_markdown, write_report
from ssd_zoo.weights.files import write_file

if TYPE_CHECKING:
    from ssd_zoo.training.evaluate import Evaluation

__all__ = ["RunFiles"]

_log = logging.getLogger("ssd_zoo")

# Pictures that are shown before and after the training.
_COMPARED, _WHEN = 3, ("before", "after")
_LONGEST_SIDE = 480
_TITLES = {
    "missed": "Worst mistakes: missed",
    "wrong class": "Worst mistakes: wrong class",
    "background": "Worst mistakes: no such object",
}


@dataclass
class RunFiles:
    """Files of a run, but for its checkpoint and TensorBoard's.

    Attributes:
        folder: The run's folder.
        validation: Data set on which AP is measured, if there is one.
        choices: What was chosen, with reasons.
        command: The command to repeat the run, if it is known.
        meta: `licence` and `trained_on` for `save_pretrained`, None where unknown.
    """

    folder: Path
    validation: Dataset[Sample] | None
    choices: Sequence[Choice]
    command: str | None
    meta: dict[str, str | None]

    def begin(self, model: SSD) -> None:
        """Draw what the model detects before the training, for the report; nothing without validation data."""
        self._draw(model, "before")

    def save(self, model: SSD, history: Sequence[Row], evaluation: "Evaluation | None", *, better: bool) -> None:
        """Write models, table, curves and pictures after an evaluation, or at its time without one.

        Args:
            model: The model.
            history: One row per epoch.
            evaluation: Its evaluation; None without validation data.
            better: Whether it is the best so far, and written to `best/` too; without validation data `best/` is always
                written.
        """
        metrics: dict[str, dict[str, float | str]] = {}
        if evaluation is not None and not math.isnan(evaluation.metrics["AP"]):
            name = f"{self.meta['trained_on']}, validation" if self.meta["trained_on"] else "Validation data"
            figures = {key: round(evaluation.metrics[key], 4) for key in ("AP", "AP50", "AP75")}
            metrics[name] = {**figures, "source": "measured"}
        story = self._story(history, model.default_boxes.device, evaluation)
        failure = failure_of(story)
        notes = (f"**{failure}**\n\n" if failure else "") + to_markdown(tables_of(story), self.command)
        for name in ["last", *(["best"] if better or self.validation is None else [])]:
            save_pretrained(model, self.folder / name, metrics=metrics, notes=notes, **self.meta)
        if better:
            self._draw(model, "after")
        write_table(history, self.folder / "metrics.csv")
        plot_curves(history, self.folder / "curves.png")
        if evaluation is not None and self.validation is not None:
            draw_records(evaluation, self.validation, model.categories, self.folder / "pictures")

    def best(self, device: torch.device) -> SSD:
        """Load the best model onto a device, in evaluation mode."""
        return from_pretrained(self.folder / "best").to(device).eval()

    def report(self, history: Sequence[Row], evaluation: "Evaluation | None", device: torch.device) -> None:
        """Write `report.html`, the report of a finished training.

        Args:
            history: One row per epoch.
            evaluation: The best model's evaluation, if it was measured.
            device: The device of the training.
        """
        pictures = [] if evaluation is None else [*self._compared(), *self._mistakes(evaluation)]
        story = self._story(history, device, evaluation)
        write_report(self.folder / "report.html", story, pictures)
        if failure := failure_of(story):
            _log.warning("%s", failure)

    def _story(self, history: Sequence[Row], device: torch.device, evaluation: "Evaluation | None") -> Story:
        return Story(self.folder.resolve().name, self.choices, self.command, history, device, evaluation)

    def _compared(self) -> list[Picture]:
        """Return the pictures of what the model detects before and after the training."""
        files = [self.folder / "pictures" / when / f"{item:05d}.jpg" for item in self._items() for when in _WHEN]
        return [
            Picture("Before and after the training", file.parent.name, file.read_bytes())
            for file in files
            if file.is_file()
        ]

    def _mistakes(self, evaluation: "Evaluation") -> list[Picture]:
        """Return pictures of the worst mistakes."""
        assert self.validation is not None
        samples = SeededSamples(self.validation, DetectionPresetEval(), 0)
        categories, pictures = ["background", *evaluation.classes], []
        for mistake in worst_mistakes(evaluation.records, categories):
            record = evaluation.records[mistake.record]
            image, _ = samples[Place(0, record.item, record.item)]
            image = image if record.frame is None else image[record.frame]
            frame = "" if record.frame is None else f", frame {record.frame}"
            caption = f"{mistake.text}; {Path(samples.name(record.item)).name}{frame}"
            picture = draw_mistake(image, mistake, categories)
            pictures.append(Picture(_TITLES[mistake.kind], caption, _jpeg(picture)))
        return pictures

    def _items(self) -> list[int]:
        """Return the indices of the validation images that are shown before and after the training."""
        number = 0 if self.validation is None else len(self.validation)  # type: ignore[arg-type]
        return sorted({number * k // _COMPARED for k in range(_COMPARED if number else 0)})

    @torch.inference_mode()
    def _draw(self, model: SSD, when: str) -> None:
        """Draw what a model detects in these images."""
        if self.validation is None:
            return
        samples, was_training = SeededSamples(self.validation, DetectionPresetEval(), 0), model.training
        model.eval()
        for item in self._items():
            image, _ = samples[Place(0, item, item)]
            [found] = model([image.to(model.default_boxes.device)])
            if holds_clips([image]):
                image, found = image[-1], split_frames(found, len(image))[-1]
            write_file(self.folder / "pictures" / when / f"{item:05d}.jpg", _jpeg(_shrunk(image, found, model)))
        model.train(was_training)


def _shrunk(image: Tensor, found: dict[str, Tensor], model: SSD) -> Image.Image:
    """Draw detections on a smaller image, for the report."""
    scale = min(1.0, _LONGEST_SIDE / max(image.shape[-2:]))
    small = F.resize(image, [max(1, round(side * scale)) for side in image.shape[-2:]], antialias=True)
    on_cpu = {key: value.cpu() for key, value in found.items()}
    return picture_of(small, {**on_cpu, "boxes": on_cpu["boxes"] * scale}, model.categories)


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=80)
    return stream.getvalue()

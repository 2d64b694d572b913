"""Plots and pictures of an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.presets import DetectionPresetEval
from ssd_zoo.training.batches import Place, Sample, SeededSamples
from ssd_zoo.weights.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssd_zoo.training.evaluate import Evaluation

__all__ = [
    "draw_records",
    "new_figure",
    "picture_of",
    "plot_confusion",
    "plot_precision_recall",
    "precision_curves",
    "save_figure",
]


def new_figure(width: float, height: float) -> "Figure":
    """Make a matplotlib figure that needs no display; sizes are in inches.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure as Made
    except ImportError as error:
        raise ImportError('Plots need matplotlib: pip install "ssd_zoo[evaluate]".') from error
    return Made(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", file: Path) -> None:
    """Write a figure atomically, in the format of the file's extension.

    It is PNG without an extension.

    Folders above it are made.
    """
    with replacing(file) as stream:
        figure.savefig(stream, format=file.suffix.lstrip(".").lower() or "png", dpi=100)


def precision_curves(evaluation: "Evaluation") -> dict[str, list[float]]:
    """Return precision over recall of the worst classes and their mean, at an IoU of .5.

    Returns:
        For each name, the precision at the recalls 0, .01, … 1. There are at most ten classes, and last the mean over
        all classes. Each name ends with the mean precision. Empty without objects. Classes are in the data set's order.
    """
    at_half = evaluation.precision[0]
    known = [k for k in range(len(evaluation.classes)) if at_half[0, k] > -1]
    if not known:
        return {}
    worst = sorted(known, key=lambda k: at_half[:, k].mean())[:10]
    curves = {f"{evaluation.classes[k]} {at_half[:, k].mean():.3f}": at_half[:, k].tolist() for k in sorted(worst)}
    mean = at_half[:, known].mean(1)
    return {**curves, f"all classes {mean.mean():.3f}": mean.tolist()}


def plot_precision_recall(evaluation: "Evaluation", file: str | Path) -> None:
    """Plot precision over recall (IoU .5) of the ten worst classes.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = new_figure(7, 5)
    axes = figure.subplots()
    recall = [point / 100 for point in range(101)]
    for name, precision in (curves := precision_curves(evaluation)).items():
        axes.plot(recall, precision, label=name, alpha=0.8)
    if curves:
        axes.lines[-1].set(color="black", linewidth=2, alpha=1)
        axes.legend(fontsize="small", loc="lower left")
    axes.set(xlabel="recall", ylabel="precision, IoU .5", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    save_figure(figure, Path(file))


def plot_confusion(evaluation: "Evaluation", file: str | Path) -> None:
    """Plot the confusion of classes, as shares of each class's objects.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If a file of results was evaluated, because there is no confusion then.
    """
    if evaluation.confusion is None:
        raise ValueError("There is no confusion of classes in an evaluation of a file of results.")
    names = ["nothing", *evaluation.classes]
    counts = evaluation.confusion.double()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = max(4.0, min(20.0, 2 + 0.5 * len(names)))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    picture = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="found", ylabel="true")
    if len(names) <= 25:
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(picture, label="share of the row")
    save_figure(figure, Path(file))


def draw_records(
    evaluation: "Evaluation",
    dataset: Dataset[Sample],
    categories: Sequence[str],
    folder: Path,
    *,
    most: int = 8,
    score_thresh: float = 0.4,
) -> None:
    """Draw detections in some images or frames of a data set, as files `NUMBER.jpg` by record.

    Args:
        evaluation: The evaluation of that data set.
        dataset: Data set of images or clips, uint8 or between 0 and 1.
        categories: Names of the classes, background first.
        folder: Folder for the pictures.
        most: Most pictures, at equal steps through the data.
        score_thresh: Least score of a detection that is drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = SeededSamples(dataset, DetectionPresetEval(), 0)
    number = len(evaluation.records)
    for i in sorted({number * k // min(most, number) for k in range(min(most, number))}):
        record = evaluation.records[i]
        image, _ = samples[Place(0, record.item, record.item)]
        image = image if record.frame is None else image[record.frame]
        found = {"boxes": record.found_boxes, "labels": record.found_labels, "scores": record.scores}
        picture = picture_of(image, found, categories, score_thresh=score_thresh)
        with replacing(folder / f"{i:05d}.jpg") as stream:
            picture.save(stream, format="JPEG", quality=90)


def picture_of(
    image: Tensor, found: dict[str, Tensor], categories: Sequence[str], *, score_thresh: float = 0.4
) -> Image.Image:
    """Draw the detections of an image, in any order, or its objects.

    Args:
        image: `(C, H, W)`, between 0 and 1; of more than three channels the first three are shown, of fewer the first.
        found: `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)` and, of detections, `scores (n,)`.
        categories: Names of the classes, background first.
        score_thresh: Least score of a detection that is drawn.
    """
    if "scores" in found:
        order = found["scores"].argsort(descending=True, stable=True)
        order = order[found["scores"][order] >= score_thresh]
        found = {key: found[key][order] for key in ("boxes", "labels", "scores")}
    pixels = (image[:3] * 255).round().byte()
    pixels = pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)
    return draw_detections(pixels, found, categories)

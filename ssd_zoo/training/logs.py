"""Write a training's history: table, TensorBoard, plot, line per epoch."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ssd_zoo.weights.files import write_file

__all__ = ["TensorBoard", "describe_row", "plot_curves", "write_table"]

Row = dict[str, float]


def write_table(history: Sequence[Row], file: Path) -> None:
    """Write the history as a CSV file, atomically.

    The whole table is written each time, so a resumed run repeats no row.
    """
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_file(file, text.getvalue().encode())


def describe_row(row: Row, epochs: int) -> str:
    """Format an epoch as one line; figures that the row lacks are left out."""
    figures = [f"{name} {row[name]:.3f}" for name in ("loss", "validation_loss") if name in row]
    figures += [f"{name} {row[name]:.4f}" for name in ("AP", "AP50", "AP75") if name in row]
    return "  ".join([f"epoch {row['epoch']:.0f}/{epochs}", *figures, f"{row['images_per_second']:.1f} images/s"])


class TensorBoard:
    """Writer of events for TensorBoard, in the run's folder `tensorboard`.

    Args:
        folder: The run's folder.
        step: The first step to write. Events of an interrupted run from that step on are hidden.

    Raises:
        ImportError: If tensorboard is missing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'TensorBoard is missing: pip install "ssd_zoo[train]", or train with tensorboard=False.'
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, step: int, values: Row) -> None:
        """Write the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()


def plot_curves(history: Sequence[Row], file: Path) -> None:
    """Plot losses and AP over epochs to a picture; see `save_figure`.

    Raises:
        ImportError: If matplotlib is missing.
    """
    from ssd_zoo.training.plots import new_figure, save_figure

    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for axes, names in (
        (left, ("loss", "classification", "bbox_regression", "validation_loss")),
        (right, ("AP", "AP50", "AP75")),
    ):
        for name in names:
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else None)
                axes.legend()
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    right.set_ylim(0, 1)
    save_figure(figure, file)

"""Fine-tuning and evaluation."""

from ssd_zoo.training.evaluate import Evaluation, evaluate, evaluate_results
from ssd_zoo.training.fit import FitResult, fit
from ssd_zoo.training.kept_memory import keep_memory
from ssd_zoo.training.plots import plot_confusion, plot_precision_recall

__all__ = [
    "Evaluation",
    "FitResult",
    "evaluate",
    "evaluate_results",
    "fit",
    "keep_memory",
    "plot_confusion",
    "plot_precision_recall",
]

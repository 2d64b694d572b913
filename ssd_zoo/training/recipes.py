"""Published ways of training, by name."""

from collections.abc import Sequence
from typing import TypedDict

from ssd_zoo.data.presets import Augmentation
from ssd_zoo.training.optimizers import OptimizerName, ScheduleName

__all__ = ["RECIPES", "TrainingRecipe"]


class TrainingRecipe(TypedDict):
    """Keywords of `fit` that a published way of training sets."""

    optimizer: OptimizerName
    augmentation: Augmentation
    batch_size: int
    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: ScheduleName
    milestones: Sequence[float]
    ema_decay: float
    patience: int


RECIPES: dict[str, TrainingRecipe] = {
    # Section 3.1 and the authors' solver for VOC07+12: 120,000 steps, with drops after 80,000 and 100,000. 232 epochs
    # are as many steps of 32 of VOC07+12's 16,551 images.
    "paper": {
        "optimizer": "sgd",
        "augmentation": "ssd",
        "batch_size": 32,
        "epochs": 232,
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": (80 / 120, 100 / 120),
        "ema_decay": 0.0,
        "patience": 0,
    },
    # torchvision's references/detection, README: SSD300 on VGG-16, 8 processes with 4 images each.
    "torchvision-ssd300": {
        "optimizer": "sgd",
        "augmentation": "ssd",
        "batch_size": 32,
        "epochs": 120,
        "learning_rate": 0.002,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": (80 / 120, 110 / 120),
        "ema_decay": 0.0,
        "patience": 0,
    },
    # The same, SSDlite320 on MobileNetV3-Large: from scratch, 8 processes with 24 images each.
    "torchvision-ssdlite320": {
        "optimizer": "sgd",
        "augmentation": "ssdlite",
        "batch_size": 192,
        "epochs": 660,
        "learning_rate": 0.15,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "schedule": "cosine",
        "milestones": (),
        "ema_decay": 0.0,
        "patience": 0,
    },
}
"""Keywords of `fit` by the name of a recipe."""

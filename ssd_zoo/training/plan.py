"""Choose a training's settings from the data.

The numbers come from this project's trainings on BCCD and DeepPCB (docs/trainings.md). All functions but `look_at` are
arithmetic on a few facts, so a plan is the same wherever it is made.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple

from ssd_zoo.data.annotations import number_of
from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.video_datasets import VideoDataset
from ssd_zoo.detector.tiles import shown_size
from ssd_zoo.training.optimizers import OptimizerName, ScheduleName

__all__ = [
    "Choice",
    "DataFacts",
    "TrainingPlan",
    "evaluation_interval",
    "look_at",
    "plan_finest_stride",
    "plan_size",
    "plan_tile",
    "plan_training",
    "plan_validation",
    "plan_table",
]

LEAST_STEPS = 300
# Times the root of the number of images.
_STEPS_PER_ROOT = 68
OWN_SIZE = (300, 300)
"""Input of the default model."""
SMALLEST_AREA, LARGEST_AREA = 300 * 300, 480 * 640
# Default boxes of a map are about 2.5 strides wide (the SSD paper); the finest map of the default model has stride 16.
_SMALL_PIXELS = 40
# Below that, many small objects lie between the default boxes of stride 16.
_FINE_PIXELS = 32
_MEDIAN_PIXELS = 96
_MOST_LOOKED_AT = 1000
# Smaller objects, in the largest input, are lost; tiles show them in pictures that are at least twice as wide and high.
_LEAST_PIXELS = 8
_LEARNING_RATES: dict[OptimizerName, float] = {"sgd": 0.01, "adamw": 0.001}


class Choice(NamedTuple):
    """A line of a plan: what is chosen, its value, and why."""

    name: str
    value: str
    reason: str


class DataFacts(NamedTuple):
    """Sizes in a data set of images.

    Attributes:
        picture: Median (height, width) of the images, in pixels.
        small: Size of small objects: the tenth percentile, or the median of the class with the smallest objects. An
            object's size is the root of its share of the image's area.
        typical: Median size of the objects.
    """

    picture: tuple[int, int]
    small: float
    typical: float

    def in_tiles(self, tile: tuple[int, int]) -> "DataFacts":
        """Return the same facts for tiles, if images are cut into them.

        `tile` is (height, width) in pixels.
        """
        height, width = shown_size(self.picture, tile)
        factor = math.sqrt(self.picture[0] * self.picture[1] / (height * width))
        return DataFacts((height, width), min(1.0, factor * self.small), min(1.0, factor * self.typical))


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of `fit` that follow from the data.

    Attributes:
        batch_size: Images or clips per step, over all processes.
        epochs: Passes over the data.
        ema_decay: Final decay of the moving average of the weights; 0 for no average.
        evaluate_every: Epochs between evaluations.
        patience: Evaluations without a better AP that end the training; 0 for no such end.
        learning_rate: Learning rate of the head; 0 for an optimizer that is unknown.
        flip: Whether images are flipped left to right.
        choices: The settings as lines, with reasons.
    """

    batch_size: int
    epochs: int
    ema_decay: float
    evaluate_every: int
    patience: int
    learning_rate: float
    flip: bool
    choices: tuple[Choice, ...]


def plan_training(
    images: int,
    *,
    batch_size: int | None = None,
    epochs: int | None = None,
    ema_decay: float | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    optimizer: OptimizerName = "adamw",
    learning_rate: float | None = None,
    schedule: ScheduleName = "cosine",
    augmentation: object = "light",
    flip: bool | None = None,
    flip_vertically: bool = False,
    classes: Sequence[str] = (),
    parts: int = 1,
    minutes: float | None = None,
    validates: bool = True,
) -> TrainingPlan:
    """Choose the settings of `fit` that are None.

    The number of steps grows with the root of the number of images: 300 for up to 19 images, 990 for 205, 10,000 for
    20,000. With `minutes` the clock decides on it instead, and `epochs` here is a first guess.

    Args:
        images: Number of images or clips to train on.
        batch_size: Images or clips per step.
        epochs: Passes over the data; if it is given, no other end is chosen.
        ema_decay: Decay of the moving average.
        evaluate_every: Epochs between evaluations.
        patience: Evaluations without a better AP that end the training.
        optimizer: The optimizer, which decides on the learning rate.
        learning_rate: Learning rate of the head.
        schedule: Schedule of the learning rate.
        augmentation: The augmentation.
        flip: Whether images are flipped left to right.
        flip_vertically: Whether images are flipped vertically too.
        classes: Names of the classes, without the background; they decide on flips.
        parts: Number that has to divide the batch: processes × `accumulate`.
        minutes: Budget of the training.
        validates: Whether there are data to measure AP on.

    Example:
        >>> from ssd_zoo.training.plan import plan_training
        >>> plan = plan_training(205)
        >>> plan.batch_size, plan.epochs, plan.evaluate_every, plan.ema_decay
        (8, 38, 7, 0.998)
    """
    batch = batch_size or parts * max(1, round((8 if images >= 16 else 4) / parts))
    why_batch = "rate and steps were found with 8, on CPUs" if images >= 16 else "fewer than 16 images; otherwise 8"
    steps_per_epoch = max(1, math.ceil(images / batch))
    passes = epochs or math.ceil(max(LEAST_STEPS, _STEPS_PER_ROOT * math.sqrt(images)) / steps_per_epoch)
    steps = passes * steps_per_epoch
    # timm's warm-up of the decay, 1 - step^(-2/3), stays below .998 for 11,000 steps.
    decay = min(0.9998, max(0.998, 1 - 10 / steps)) if ema_decay is None else ema_decay
    every = evaluate_every or evaluation_interval(passes)
    rate = _LEARNING_RATES.get(optimizer, 0.0) if learning_rate is None else learning_rate
    patience = (3 if epochs is None else 0) if patience is None else patience
    length = (
        f"{number_of(passes, 'epoch')}, {number_of(steps, 'step')}" if minutes is None else f"{minutes:.3g} minutes"
    )
    why_length = "given" if epochs else "at least 300 steps, more for more images"
    why_length = why_length if minutes is None else "for steps and evaluations"
    why = "as in the papers" if optimizer == "sgd" else "learns faster than sgd in short trainings"
    one_sided = _one_sided(classes)
    flips = one_sided is None if flip is None else flip
    average = f"decay {decay:.4g}" if decay else "none"
    choices = [
        Choice("length", length, why_length),
        Choice("batch size", str(batch), _why(batch_size, why_batch)),
        Choice("weights' average", average, _why(ema_decay, "by the number of steps")),
        Choice("optimizer", f"{optimizer}, rate {rate:g}, {schedule}", _why(learning_rate, why)),
        _augmentation(augmentation, flips, one_sided if flip is None else None, flip_vertically),
    ]
    if validates:
        choices.append(_evaluation(every, patience, by_time=minutes is not None and evaluate_every is None))
    else:
        choices.append(Choice("evaluation", "none", "no validation data, so no early end; the last model is kept"))
    return TrainingPlan(batch, passes, decay, every, patience, rate, flips, tuple(choices))


def evaluation_interval(epochs: int, most: int = 5) -> int:
    """Return the number of epochs between evaluations.

    There are five to nine evaluations, or at most `most` if that is below five.
    """
    return max(1, epochs // 5) if most >= 5 else math.ceil(epochs / max(1, most))


def plan_validation(images: int) -> int:
    """Return the number of training images to take for validation.

    It is 15 %, but at least 20 and at most 1000. Of fewer than 60 images none is taken.
    """
    return 0 if images < 60 else min(1000, max(20, round(0.15 * images)))


def plan_size(facts: DataFacts, largest: float = LARGEST_AREA) -> tuple[tuple[int, int], str]:
    """Choose the (height, width) of the input in pixels, and say why.

    Small objects get 40 pixels and the median object 96, as far as `largest` pixels allow it. If the model's own
    300 × 300 suffices for that, it is taken. Other sizes have about the images' shape, and sides that are then rounded
    up to multiples of 32.

    Example:
        >>> from ssd_zoo.training.plan import DataFacts, plan_size
        >>> plan_size(DataFacts((480, 640), small=0.0756, typical=0.184))[0]
        (480, 640)
    """
    wanted = max(_SMALL_PIXELS / facts.small, _MEDIAN_PIXELS / facts.typical) ** 2
    area = min(wanted, largest)
    size = OWN_SIZE
    if area > SMALLEST_AREA:
        shape = min(3.0, max(1 / 3, facts.picture[0] / facts.picture[1]))
        size = _side(math.sqrt(area * shape)), _side(math.sqrt(area / shape))
    small, typical = (round(value * math.sqrt(size[0] * size[1])) for value in (facts.small, facts.typical))
    return size, f"small objects get {small} pixels, the median object {typical}"


def plan_finest_stride(facts: DataFacts, size: tuple[int, int]) -> tuple[int, str] | None:
    """Choose a finer feature map for an input size, with the reason.

    Returns:
        8 and the reason, where small objects get fewer than 32 pixels; otherwise None.

    Example:
        >>> from ssd_zoo.training.plan import DataFacts, plan_finest_stride
        >>> plan_finest_stride(DataFacts((640, 640), small=0.0445, typical=0.0538), (576, 576))
        (8, 'small objects get 26 pixels')
    """
    pixels = facts.small * math.sqrt(size[0] * size[1])
    return (8, f"small objects get {pixels:.0f} pixels") if pixels < _FINE_PIXELS else None


def plan_tile(facts: DataFacts) -> tuple[tuple[int, int], str] | None:
    """Choose tiles for an input of 300 × 300, with the reason.

    Tiles are needed where small objects would get fewer than 8 pixels in the largest input, and pictures have at least
    four times its area. A tile is shown pixel by pixel, or smaller where small objects keep 40 pixels. Where the median
    object is larger than half a tile, there are no tiles.

    Returns:
        The (height, width) of a tile in pixels, and the reason; None if no tiles are needed.

    Example:
        >>> from ssd_zoo.training.plan import DataFacts, plan_tile
        >>> plan_tile(DataFacts((3000, 4000), small=0.004, typical=0.01))
        ((320, 320), 'small objects get 13 pixels; 2 in whole pictures')
    """
    pixels, largest = math.sqrt(facts.picture[0] * facts.picture[1]), math.sqrt(LARGEST_AREA)
    side = _side(300 * max(1.0, facts.small * pixels / _SMALL_PIXELS))
    lost = facts.small * largest < _LEAST_PIXELS and pixels >= 2 * largest
    if not lost or facts.typical * pixels > side / 2:
        return None
    shown, whole = (round(facts.small * value) for value in (300 * pixels / side, largest))
    return (side, side), f"small objects get {shown} pixels; {whole} in whole pictures"


def look_at(dataset: DetectionDataset | VideoDataset) -> DataFacts | None:
    """Measure images and objects by the headers of up to 1000 images.

    Images that can't be read, and objects without area, are skipped.

    Returns:
        The facts; None for videos, or if no image that can be read has an object.
    """
    if isinstance(dataset, VideoDataset):
        return None
    pictures: list[tuple[int, int]] = []
    sizes: dict[int, list[float]] = defaultdict(list)
    for entry in dataset.images[:: math.ceil(len(dataset.images) / _MOST_LOOKED_AT) or 1]:
        try:
            height, width = entry.read_size()
        except (ValueError, OSError):  # The inspection that follows reports it.
            continue
        pictures.append((height, width))
        for thing in entry.objects:
            x1, y1, x2, y2 = thing.box
            share = (x2 - x1) * (y2 - y1) / (height * width)
            if x2 > x1 and y2 > y1 and math.isfinite(share):
                sizes[thing.label].append(min(1.0, math.sqrt(share)))
    if not sizes:
        return None
    return _facts(pictures, sizes.values())


def plan_table(choices: Sequence[Choice]) -> str:
    """Return choices as aligned lines."""
    return "\n".join(f"  {name:<17} {value:<33} {reason}".rstrip() for name, value, reason in choices)


def _augmentation(kind: object, flip: bool, one_sided: str | None, flip_vertically: bool) -> Choice:
    changes = {"ssd": "colours, zoom, crops", "ssdlite": "crops", "light": "shifts"}
    if not isinstance(kind, str) or kind not in changes:
        return Choice("augmentation", kind if isinstance(kind, str) else "your own", "given")
    ways = " and ".join([*(["left to right"] if flip else []), *(["upside down"] if flip_vertically else [])])
    flips = f"flips {ways}" if ways else "no flips"
    if one_sided is not None:
        flips += f"; a mirror changes {one_sided[:20]!r}; see --flip"
    elif not flip_vertically:
        flips += "; upside down by --flip-vertically"
    return Choice("augmentation", kind, f"{changes[kind]}, {flips}")


def _one_sided(names: Iterable[str]) -> str | None:
    """Return the first class name whose mirror image may be another class.

    It has the word left or right, or is a single letter or digit. None if there is none.
    """
    for name in names:
        words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
        # Signs without upper case, such as Chinese ones, are whole words.
        if words & {"left", "right"} or (len(name) == 1 and (name.isdigit() or name.lower() != name.upper())):
            return name
    return None


def _evaluation(every: int, patience: int, *, by_time: bool) -> Choice:
    when = "up to 5 times" if by_time else f"every {every} epochs" if every > 1 else "every epoch"
    ends = f"; {patience} without a better AP end the training" if patience else ""
    return Choice("evaluation", when, f"the best model is kept{ends}")


def _facts(pictures: Sequence[tuple[int, int]], of_classes: Iterable[Sequence[float]]) -> DataFacts:
    classes = list(of_classes)
    every = sorted(value for values in classes for value in values)
    tenth = quantiles(every, n=10, method="inclusive")[0] if len(every) > 1 else every[0]
    # The median of few objects says little of a class.
    medians = [median(values) for values in classes if len(values) >= 10]
    height, width = (round(median(sides)) for sides in zip(*pictures, strict=True))
    return DataFacts((height, width), min([tenth, *medians]), median(every))


def _side(value: float) -> int:
    """Return a side, in pixels, rounded up to a multiple of 32, or down if it is at most .32 above one."""
    return 32 * math.ceil(value / 32 - 0.01)


def _why(given: object, reason: str) -> str:
    """Return "given" for a setting that the caller gave, else the reason for its choice."""
    return reason if given is None else "given"

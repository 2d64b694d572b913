"""Divide data into batches, and seed each item's augmentation.

Batches and seeds depend only on the run's seed, the epoch and the step, not on the number of processes or workers. So a
resumed run gets the batches of a run that was never stopped, and several processes get those of one.
"""

import hashlib
import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Compose

from ssd_zoo.data.annotations import LabelledImage
from ssd_zoo.data.presets import Augmentation, DetectionPresetTrain, RandomTile, collate
from ssd_zoo.data.video_datasets import VideoDataset
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.targets import check_format

__all__ = [
    "Part",
    "Place",
    "Plan",
    "Sample",
    "SeededSamples",
    "Target",
    "Transform",
    "augmentation_for",
    "derive_seed",
    "describe_data",
    "make_loader",
    "to_device",
    "without_objects",
]

Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]
Part = tuple[list[Tensor], list[Target]]
Transform = Callable[[Tensor, Target], Sample]


class Place(NamedTuple):
    """Place of an item in a training.

    Attributes:
        epoch: The epoch, from 0.
        position: Position in the epoch's order.
        item: Index in the data set.
    """

    epoch: int
    position: int
    item: int


def derive_seed(*numbers: int) -> int:
    """Hash numbers to 63 bits, so that neighbouring seeds are unrelated."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Plan:
    """Division of a data set into batches.

    Every batch is full: the last of an epoch is filled up from the epoch's start.

    Attributes:
        num_images: Number of images or clips in the data set.
        batch_size: Images or clips of a step, over all processes.
        epochs: Number of passes over the data set.
        seed: Seed of the order.
        accumulate: Number of parts of a process's share of a batch.
        rank: Number of this process, from 0.
        world: Number of processes.
        max_steps: Number of steps that ends the training, also within an epoch; None for whole epochs.
        steps_per_epoch: Steps of an epoch, the last one filled up.
        steps: Steps of the training.

    Raises:
        ValueError: If the data set is empty, a number is below 1, or a batch can't be divided into equal parts.
    """

    num_images: int
    batch_size: int
    epochs: int
    seed: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if self.num_images == 0:
            raise ValueError("The training data has no images.")
        if self.epochs < 1 or self.batch_size < 1 or self.accumulate < 1:
            raise ValueError("epochs, batch_size and accumulate must be at least 1.")
        if self.batch_size % (self.accumulate * self.world):
            raise ValueError(
                f"batch_size counts the images of a step over all processes, so {self.world} processes × "
                f"{self.accumulate} parts must divide it; got {self.batch_size}."
            )

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_images / self.batch_size)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch if self.max_steps is None else self.max_steps

    def batch(self, step: int) -> list[Place]:
        """Return the items of a step (counted from 0), over all processes."""
        epoch, start = step // self.steps_per_epoch, step % self.steps_per_epoch * self.batch_size
        order = self._order(epoch)
        positions = range(start, start + self.batch_size)
        return [Place(epoch, position, order[position % self.num_images]) for position in positions]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        return torch.randperm(self.num_images, generator=generator).tolist()

    def shares(self, start_step: int) -> Iterator[list[Place]]:
        """Yield this process's parts of each batch, beginning at a step.

        There are `accumulate` parts per step, yielded one by one, up to the last step.
        """
        size = self.batch_size // (self.accumulate * self.world)
        for step in range(start_step, self.steps):
            batch = self.batch(step)
            for part in range(self.accumulate):
                first = (part * self.world + self.rank) * size
                yield batch[first : first + size]


class SeededSamples(Dataset[Sample]):
    """Data set whose random numbers depend on seed and place alone.

    An item is asked for by its `Place`. Global random states are restored.

    Args:
        dataset: Data set of images or clips, and targets.
        transforms: Augmentation of both; None for none.
        seed: Seed of the training.
    """

    def __init__(self, dataset: Dataset[Sample], transforms: Transform | None, seed: int) -> None:
        self.dataset = dataset
        self.transforms = transforms
        self.seed = seed

    def __getitem__(self, place: Place) -> Sample:
        seed = derive_seed(self.seed, place.epoch, place.position)
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            try:
                image, target = self.dataset[place.item]
                return (image, target) if self.transforms is None else self.transforms(image, target)
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])

    def name(self, item: int) -> str:
        """Return the name of an image (its path) or a clip, for messages; "image 7" if the data set lists none."""
        # Other data sets may have lists of these names, too.
        for entries, name in (("videos", "name"), ("images", "file")):
            listed = getattr(self.dataset, entries, None)
            if isinstance(listed, Sequence) and hasattr(listed[item], name):
                return str(getattr(listed[item], name))
        return f"image {item}"


def _all_labelled(images: list[object]) -> TypeGuard[list[LabelledImage]]:
    return all(isinstance(entry, LabelledImage) for entry in images)


def describe_data(dataset: Dataset[Sample] | None) -> str | None:
    """Return a digest of a data set's names and annotations.

    Folders and positions in files are left out, so that a run may continue on another machine. Pixels are not read.
    None for data sets that do not list their images or videos.
    """
    items: Iterator[object]
    if isinstance(dataset, VideoDataset):
        items = ((video.name, {k: v.tolist() for k, v in video.target.items()}) for video in dataset.videos)
    elif isinstance(images := getattr(dataset, "images", None), list) and _all_labelled(images):
        items = ((entry.file.name, [thing[:-1] for thing in entry.objects]) for entry in images)
    else:
        return None
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return f"sha256:{digest.hexdigest()}"


def make_loader(
    samples: SeededSamples, plan: Plan, start_step: int, num_workers: int, *, pin_memory: bool = False
) -> DataLoader[Sample]:
    """Make one loader of all batches from a step on.

    It goes through all epochs, and its worker processes live until the last batch.
    """
    sampler: Sequence[list[Place]] = _Stream(plan, start_step)  # type: ignore[assignment]
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupt,
        pin_memory=pin_memory,
    )


def _collate(batch: Sequence[Sample]) -> Part:
    """Collate a part of a batch; raise ValueError for boxes that are declared in another format than xyxy."""
    images, targets = collate(batch)
    for i, target in enumerate(targets):
        # Pinned boxes forget their format.
        check_format(f"targets[{i}]['boxes']", target.get("boxes"))
    return images, targets


class _Stream:
    """The batches of a plan from a step on, as a sampler for the loader."""

    def __init__(self, plan: Plan, start_step: int) -> None:
        self.plan, self.start_step = plan, start_step

    def __iter__(self) -> Iterator[list[Place]]:
        return self.plan.shares(self.start_step)


def _ignore_interrupt(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that trains has to save before its workers go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# What the model reads of a target.
_READ = ("boxes", "labels", "frame_index", "labeled_frames")


def to_device(part: Part, device: torch.device) -> Part:
    """Move a part of a batch to a device.

    Targets keep only the keys that the model reads.
    """
    images, targets = part
    return (
        [image.to(device, non_blocking=True) for image in images],
        [{key: target[key].to(device, non_blocking=True) for key in _READ if key in target} for target in targets],
    )


def without_objects(part: Part) -> Part:
    """Return a part of clips whose frames are all labeled and have no objects.

    It replaces clips without a labeled frame, so that this process can compute a loss, which then gets weight 0.
    """
    images, targets = part
    keys = ("boxes", "labels", "frame_index")
    return images, [{key: target[key][:0] for key in keys} for target in targets]


def augmentation_for(
    model: SSD, kind: Augmentation | Transform | None, *, flip: bool = True, flip_vertically: bool = False
) -> Transform | None:
    """Return the augmentation of `fit`; a kind's resizes to the model's input.

    If the model has tiles, a kind and a function first cut a random tile from the image. None is returned unchanged.
    Flips are a kind's alone.
    """
    if not isinstance(kind, str):
        return kind if kind is None or model.tile is None else Compose([RandomTile(model.tile), kind])
    mean = [min(1.0, max(0.0, value)) for value in model.image_mean.flatten().tolist()]
    return DetectionPresetTrain(
        kind,
        mean=mean,
        size=model.size,
        antialias=model.antialias,
        flip=flip,
        flip_vertically=flip_vertically,
        tile=model.tile,
    )

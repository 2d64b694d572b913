"""Which images make a batch, in which order, and with what randomness.

All of it is a function of the seed and the place in the training, never of how many processes or workers do the work or
of what came before: a run that was stopped goes on as if it had not been, and several processes train as one.
"""

import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssd_zoo.data.presets import collate
from ssd_zoo.detector.targets import check_format

__all__ = ["Place", "Plan", "SeededSamples", "derive_seed", "make_loader"]


class Place(NamedTuple):
    """One image of one epoch: the epoch, the place in its order, and which image of the data set it is."""

    epoch: int
    position: int
    image: int


def derive_seed(*numbers: int) -> int:
    """Hash numbers to 63 bits, so that neighbouring seeds are unrelated."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Plan:
    """Division of a data set into batches.

    Every batch is full: the last of an epoch is filled up from the epoch's start.

    Attributes:
        num_images: Size of the data set.
        batch_size: Images of a step, over all processes.
        epochs: How often the data set is gone through.
        seed: What the order depends on.
        accumulate: Parts that a process takes its share of a batch in.
        rank: This process.
        world: Number of processes.
    """

    num_images: int
    batch_size: int
    epochs: int
    seed: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1

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
        return self.epochs * self.steps_per_epoch

    def batch(self, step: int) -> list[Place]:
        """Return the images of a step, counted from 0."""
        epoch, start = step // self.steps_per_epoch, step % self.steps_per_epoch * self.batch_size
        order = self._order(epoch)
        positions = range(start, start + self.batch_size)
        return [Place(epoch, position, order[position % self.num_images]) for position in positions]

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        return torch.randperm(self.num_images, generator=generator).tolist()

    def shares(self, start_step: int) -> Iterator[list[Place]]:
        """Yield this process's parts of batches from a step on, `accumulate` a step."""
        size = self.batch_size // (self.accumulate * self.world)
        for step in range(start_step, self.steps):
            batch = self.batch(step)
            for part in range(self.accumulate):
                first = (part * self.world + self.rank) * size
                yield batch[first : first + size]


class SeededSamples(Dataset[Any]):
    """A data set whose augmentation depends on seed and place alone.

    Args:
        dataset: Gives image and target.
        transforms: Augments them; None leaves them.
        seed: The training's.
    """

    def __init__(self, dataset: Dataset[Any], transforms: Callable[..., Any] | None, seed: int) -> None:
        self.dataset = dataset
        self.transforms = transforms
        self.seed = seed

    def __getitem__(self, place: Place) -> tuple[Any, dict[str, Any]]:
        seed = derive_seed(self.seed, place.epoch, place.position)
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            try:
                image, target = self.dataset[place.image]
                return (image, target) if self.transforms is None else self.transforms(image, target)
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])


def make_loader(
    samples: SeededSamples, plan: Plan, start_step: int, num_workers: int, *, pin_memory: bool = False
) -> DataLoader[Any]:
    """Make the loader of batches from a step on; its workers stay to the end."""
    sampler: Sequence[list[Place]] = _Stream(plan, start_step)  # type: ignore[assignment]
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupt,
        pin_memory=pin_memory,
    )


def _collate(batch: Sequence[tuple[Any, dict[str, Any]]]) -> tuple[list[Any], list[dict[str, Any]]]:
    images, targets = collate(batch)
    for i, target in enumerate(targets):
        # Pinned boxes forget their format.
        check_format(f"targets[{i}]['boxes']", target.get("boxes"))
    return images, targets


class _Stream:
    def __init__(self, plan: Plan, start_step: int) -> None:
        self.plan, self.start_step = plan, start_step

    def __iter__(self) -> Iterator[list[Place]]:
        return self.plan.shares(self.start_step)


def _ignore_interrupt(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that trains has to save before its workers go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""What is needed where several processes work together."""

from typing import TypeVar

from torch import distributed

__all__ = ["all_gather", "process"]

T = TypeVar("T")


def process() -> tuple[int, int]:
    """Gives this process's number and how many there are; without `torchrun` or the like, 0 and 1."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def all_gather(value: T) -> list[T]:
    """Gives the values that all processes have, in their order, to each of them."""
    world = process()[1]
    if world == 1:
        return [value]
    values: list[T] = [value] * world
    distributed.all_gather_object(values, value)
    return values

"""Exchange of values between training processes, and reset of accelerate's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import distributed

__all__ = ["all_gather", "own_settings", "process"]

T = TypeVar("T")


def process() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) without torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    world = process()[1]
    if world == 1:
        return [value]
    values: list[T] = [value] * world
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def own_settings() -> Iterator[None]:
    """Within a with-statement, let accelerate's settings be this training's own.

    accelerate keeps them for the whole process. They are reset at the end, unless the caller had set them before.

    Raises:
        ImportError: If accelerate is missing.
    """
    try:
        from accelerate.state import AcceleratorState, is_initialized
    except ImportError as error:
        raise ImportError('Training needs accelerate: pip install "ssd_zoo[train]".') from error
    callers = is_initialized()
    try:
        yield
    finally:
        if not callers:
            AcceleratorState._reset_state(reset_partial_state=process()[1] == 1)

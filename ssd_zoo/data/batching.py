"""Batch items that are still being read."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["batch_items"]

T = TypeVar("T")


def batch_items(items: Iterable[T], size: int, kind: Callable[[T], object] | None = None) -> Iterator[list[T]]:
    """Yield items in batches, and raise an error of their reading after the items before it.

    Args:
        items: The items.
        size: Most items of a batch.
        kind: Maps an item to its kind. A batch holds successive items of one kind; by default all are alike.
    """
    batch: list[T] = []
    failure: Exception | None = None
    try:
        for item in items:
            if batch and kind is not None and kind(item) != kind(batch[0]):
                yield batch
                batch = []
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure

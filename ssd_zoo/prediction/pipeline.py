"""Read, detect and finish images concurrently, in order, in bounded memory."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, repeat
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import NamedTuple

from ssd_zoo.data.batching import batch_items
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.prediction.batch import detect_batch

__all__ = ["Seen", "detect_ahead", "map_ahead", "pick_batch_size", "take_ahead"]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

# Bytes of pixels that wait at one stage before the stage before it pauses.
_MOST_WAITING = 2**27


class Seen(NamedTuple, Generic[S]):
    """A source, and what came of it.

    Attributes:
        source: What was read.
        image: `(in_chans, H, W)`, or the error why it can't be read.
        found: Its detections; empty after an error.
    """

    source: S
    image: Tensor | Exception
    found: dict[str, Tensor]


def map_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int,
    weigh: Callable[[R], int] | None = None,
    start: Callable[[], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> Generator[R, None, None]:
    """Apply a function in threads, and yield the results in order.

    The items are taken in the caller's thread. An error of the items is raised after the results of those before it, an
    error of the function in place of its result. Leaving the iterator early waits for the calls that have begun.

    Args:
        function: What is applied.
        items: Its arguments.
        threads: Number of threads.
        ahead: Most items that are begun and not yielded.
        weigh: Returns the bytes of a result. No more items are begun while results of 128 MB wait or are expected.
        start: Called in each thread at its start.
        stop: Called before the end waits for the calls that have begun.
    """
    pool = ThreadPoolExecutor(threads, "ssd_zoo", start)
    waiting: deque[Future[R]] = deque()
    failure: BaseException | None = None
    # Bytes of the last result. Results to come are taken to be as large. Until it is known, only one item is begun.
    last: int | None = None if weigh else 0
    source = iter(items)
    try:
        while True:
            try:
                waiting.append(pool.submit(function, next(source)))
            except StopIteration:
                break
            except BaseException as error:
                failure = error
                break
            while waiting and (len(waiting) >= ahead or last is None or _weight(waiting, weigh, last) > _MOST_WAITING):
                last = weigh(waiting[0].result()) if weigh else 0
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        if stop is not None:
            stop()
        pool.shutdown(cancel_futures=True)


def _weight(waiting: Iterable[Future[R]], weigh: Callable[[R], int] | None, under_way: int) -> int:
    """Return the bytes of results that wait, with `under_way` bytes for each that is not there yet."""
    if weigh is None:
        return 0
    return sum(
        under_way if not future.done() else 0 if future.exception() else weigh(future.result()) for future in waiting
    )


def take_ahead(items: Iterable[T], *, ahead: int, stop: Callable[[], None] | None = None) -> Generator[T, None, None]:
    """Take items in another thread, before they are asked for.

    Args:
        items: The items. An error is raised after the items before it.
        ahead: Most items that wait.
        stop: Called before the end waits for the item that is under way.
    """
    source, end = iter(items), object()
    taken = map_ahead(lambda _: next(source, end), repeat(None), threads=1, ahead=ahead, stop=stop)
    try:
        for item in taken:
            if item is end:
                return
            yield cast(T, item)
    finally:
        taken.close()
        if isinstance(source, Generator):
            source.close()


def detect_ahead(
    model: nn.Module,
    sources: Iterable[S],
    read: Callable[[S], Tensor],
    *,
    batch_size: int,
    workers: int,
    callers: int = 1,
) -> Generator[Seen[S], None, None]:
    """Detect objects in images while the next ones are read.

    Args:
        model: A detector.
        sources: What `read` takes.
        read: Reads an image, `(in_chans, H, W)`. Its error takes the image's place.
        batch_size: Images per batch.
        workers: Threads that read.
        callers: Threads that call the detector, each with one of torch's threads; 1 for the caller's own thread.

    Yields:
        In the order of the sources, each with its image and its detections on the CPU.
    """
    images = map_ahead(partial(_read, read), sources, threads=workers, ahead=2 * workers + batch_size - 1, weigh=_bytes)
    batches = batch_items(images, batch_size)
    with contextlib.closing(images):
        if callers == 1:
            # Without a name for the batch, it is freed before the next one is read.
            yield from chain.from_iterable(map(partial(_detect, model), batches))
            return
        with _one_thread_each() as start:
            found = map_ahead(
                partial(_detect, model), batches, threads=callers, ahead=2 * callers, weigh=_bytes_of_all, start=start
            )
            with contextlib.closing(found):
                yield from chain.from_iterable(found)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[Callable[[], None]]:
    """Yield a function that limits torch to one thread in the thread that calls it.

    At the end of the with-statement torch's number of threads is what it was before.
    """
    before = torch.get_num_threads()
    try:
        yield partial(torch.set_num_threads, 1)
    finally:
        # PyTorch takes the last number for threads that begin later.
        torch.set_num_threads(before)


def _detect(model: nn.Module, batch: list[Seen[S]]) -> list[Seen[S]]:
    found = iter(detect_batch(model, [seen.image for seen in batch if isinstance(seen.image, Tensor)]))
    return [seen._replace(found=next(found)) if isinstance(seen.image, Tensor) else seen for seen in batch]


def _read(read: Callable[[S], Tensor], source: S) -> Seen[S]:
    try:
        return Seen(source, read(source), {})
    except Exception as error:
        return Seen(source, error, {})


def _bytes(seen: Seen[S]) -> int:
    return seen.image.nbytes if isinstance(seen.image, Tensor) else 0


def _bytes_of_all(batch: list[Seen[S]]) -> int:
    return sum(map(_bytes, batch))


def pick_batch_size(model: nn.Module) -> int:
    """Return the fastest number of images per batch on a model's device.

    A GPU takes many images at once. On a CPU one image is fastest, since its feature maps stay in the cache, and other
    images are read meanwhile. An exported detector gets one image.
    """
    place = next(model.parameters(), torch.empty(0)).device
    return 1 if place.type == "cpu" or isinstance(model, ExportedDetector) else 16

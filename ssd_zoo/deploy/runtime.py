"""What formats share: an opened file, and a `torch.export` program."""

import contextlib
import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ssd_zoo.deploy.graph import Graph

__all__ = ["Opened", "Run", "missing", "on_threads", "quiet", "run_free", "run_one_by_one", "run_on_threads"]
__all__ += ["to_program"]

# Torch's number of threads before the first of the calls of `on_threads` that are under way, once for each.
_UNDER_WAY: list[int] = []
_COUNTED = threading.Lock()

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Opened(NamedTuple):
    """An exported file that is ready to run.

    Attributes:
        description: JSON of the file's `Description`; None if it has none.
        run: Maps the file's inputs to its outputs, both by name.
        busy: Whether the runtime's threads wait busily, so that they and torch's delay each other.
    """

    description: str | None
    run: Run
    busy: bool = True


def missing(purpose: str, error: ImportError, extra: str) -> ImportError:
    """Return an error that names a missing package and its extra."""
    return ImportError(f'{purpose} needs {(error.name or "more").partition(".")[0]}: pip install "ssd_zoo[{extra}]".')


def to_program(graph: Graph, *, one_image: bool = False) -> ExportedProgram:
    """Return a graph as a program of torch.export.

    Args:
        graph: The graph.
        one_image: Whether the program takes one image, or one stream, instead of any number.
    """
    images, state = graph.example()
    batch = {0: torch.export.Dim("batch", min=1)}
    shapes = None if one_image else {"images": batch, "state": dict.fromkeys(state, batch)}
    inputs = (images[:1], {name: value[:1] for name, value in state.items()}) if one_image else (images, state)
    with torch.no_grad():
        return torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)


def run_one_by_one(run: Run) -> Run:
    """Return a function of any number of images that runs a file of one image for each."""
    return lambda inputs: _joined([run(row) for row in _rows(inputs)])


def run_free(runs: Sequence[Run]) -> Run:
    """Return a function for as many callers at once as there are given ones, of which each call takes one that is free.

    Args:
        runs: Functions that take one caller at a time.
    """
    free: queue.SimpleQueue[Run] = queue.SimpleQueue()
    for run in runs:
        free.put(run)

    def run_one(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        run = free.get()
        try:
            return run(inputs)
        finally:
            free.put(run)

    return run_one


def run_on_threads(run: Run, open_other: Callable[[], Run], threads: int) -> Run:
    """Return a function of any number of images that runs a file of one image for each.

    Of many images each is computed by one thread, which is faster than all threads at one image after another: for
    SSDLite300 in OpenVINO by a tenth with two threads.

    Args:
        run: Runs one image on all threads.
        open_other: Returns a function that runs one image on one thread, for so many callers at once; called at the
            first call with many images.
        threads: Number of threads.
    """
    others: list[Run] = []
    lock = threading.Lock()

    def run_many(rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        with lock:
            others[:] = others or [open_other()]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(others[0], rows))

    def run_all(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = _rows(inputs)
        many = len(rows) - len(rows) % threads if threads > 1 else 0
        found = run_many(rows[:many]) if many else []
        return _joined(found + [run(row) for row in rows[many:]])

    return run_all


def _rows(inputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(len(inputs["images"]))]


def _joined(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(rows) == 1:
        return rows[0]
    return {
        name: first if name == "default_boxes" else torch.cat([row[name] for row in rows])
        for name, first in rows[0].items()
    }


@contextlib.contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Let torch compute on a number of threads.

    With one, no threads of torch wait busily while a runtime computes on its own; a call of ONNX Runtime
    takes half as long again beside them.
    """
    with _COUNTED:
        # New threads take the number of the last call of `set_num_threads`, so the last to leave sets what was before.
        _UNDER_WAY.append(_UNDER_WAY[0] if _UNDER_WAY else torch.get_num_threads())
        own = torch.get_num_threads()
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        with _COUNTED:
            before = _UNDER_WAY.pop()
            torch.set_num_threads(own if _UNDER_WAY else before)


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence warnings and loggers by which packages talk to their developers."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)

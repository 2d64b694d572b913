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

# One entry per running call of `on_threads`: torch's number of threads before the first of these calls.
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
    """Return an ImportError that names a missing package and its extra.

    Args:
        purpose: What needs the package; the message begins with it.
        error: The error of the import.
        extra: ssd_zoo's extra that installs the package.
    """
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
    """Make a function for one image take any number of them, one after another."""
    return lambda inputs: _joined([run(row) for row in _rows(inputs)])


def run_free(runs: Sequence[Run]) -> Run:
    """Return a function that several threads may call at once.

    Each call runs one of the given functions that no other call is running, or waits for one.

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
    """Make functions for one image take any number, with a thread for each.

    That is faster than all threads on one image after another: for SSDLite300 in OpenVINO by a tenth with two threads.
    What is left after groups of `threads` images is computed by all threads.

    Args:
        run: Runs one image on all threads.
        open_other: Returns a function that runs one image on one thread, and takes `threads` callers at once. It is
            called when it is first needed.
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
    """Split a batch of inputs into those of each image."""
    return [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(len(inputs["images"]))]


def _joined(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the outputs of single images to those of a batch; `default_boxes` are those of the first."""
    if len(rows) == 1:
        return rows[0]
    return {
        name: first if name == "default_boxes" else torch.cat([row[name] for row in rows])
        for name, first in rows[0].items()
    }


@contextlib.contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Within a with-statement, let torch compute on a number of threads.

    With one, no threads of torch wait busily while a runtime computes on its own threads. Beside such threads a call of
    ONNX Runtime takes half as long again.
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
    """Within a with-statement, silence Python's warnings, and loggers below errors.

    Converters tell their own developers much that users can't act on.

    Args:
        *loggers: Names of the loggers.
    """
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

"""Parts that the formats share: an opened file, and a graph as a program of torch.export."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ssd_zoo.deploy.graph import Graph

__all__ = ["Opened", "missing", "run_one_by_one", "quiet", "to_program"]

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Opened(NamedTuple):
    """An exported file that is ready to run.

    Attributes:
        description: JSON of the file's `Description`; None if it has none.
        run: Maps the file's inputs to its outputs, both by name.
    """

    description: str | None
    run: Run


def missing(purpose: str, error: ImportError, extra: str) -> ImportError:
    """Return an error that names a missing package and the extra that installs it."""
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

    def run_all(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = [run({name: value[i : i + 1] for name, value in inputs.items()}) for i in range(len(inputs["images"]))]
        return {
            name: first if name == "default_boxes" else torch.cat([row[name] for row in rows])
            for name, first in rows[0].items()
        }

    return run_all


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

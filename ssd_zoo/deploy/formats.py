"""The formats of exported files."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.onnx import Opened, open_onnx, write_onnx
from ssd_zoo.deploy.openvino import open_openvino, write_openvino

__all__ = ["FORMATS", "Format", "find_format", "is_exported"]


class Format(NamedTuple):
    """A format of exported files.

    Attributes:
        suffix: End of the files' names.
        write: Writes a graph to a path.
        open: Opens a path, to run on a number of threads.
    """

    suffix: str
    write: Callable[[Graph, Path], None]
    open: Callable[[Path, int], Opened]


FORMATS = {
    "onnx": Format(".onnx", write_onnx, open_onnx),
    "openvino": Format(".xml", write_openvino, open_openvino),
}
"""Formats by name."""


def find_format(path: Path) -> Format:
    """Return the format of a path by its suffix.

    Raises:
        ValueError: If no format has the suffix.
    """
    for known in FORMATS.values():
        if path.suffix == known.suffix:
            return known
    suffixes = ", ".join(f"{known.suffix} ({name})" for name, known in FORMATS.items())
    raise ValueError(f"{path} is not an exported detector by its name, which must end with {suffixes}.")


def is_exported(name: str) -> bool:
    """Return whether a name is that of an exported file."""
    return Path(name).suffix in {known.suffix for known in FORMATS.values()}

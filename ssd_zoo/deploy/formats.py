"""The formats of exported files."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.deploy.coreml import open_coreml, write_coreml
from ssd_zoo.deploy.description import Nms
from ssd_zoo.deploy.executorch import open_executorch, write_executorch
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.litert import open_litert, write_litert
from ssd_zoo.deploy.onnx import open_onnx, write_onnx
from ssd_zoo.deploy.openvino import open_openvino, write_openvino
from ssd_zoo.deploy.pt2 import open_aoti, open_pt2, write_aoti, write_pt2
from ssd_zoo.deploy.runtime import Opened, run_free

__all__ = ["FORMATS", "Format", "find_format", "is_exported"]


class Format(NamedTuple):
    """A format of exported files.

    Attributes:
        suffix: End of the files' names, with its dot; letter case counts.
        write: Writes a graph to a path.
        open: Opens a path, to run on a number of threads for each of a number of callers at once.
        nms: Places of NMS that the format has, the default first.
        int8: Packages that quantising needs; none if files can't be quantised.
        bfloat16: Whether files can ask for bfloat16.
        runs: Whether `load` runs the files.
        digest: Whether files hold a digest of their content. Archives have checksums of their own.
    """

    suffix: str
    write: Callable[[Graph, Path], None]
    open: Callable[[Path, int, int], Opened]
    nms: tuple[Nms, ...] = ("inside", "outside")
    int8: tuple[str, ...] = ()
    bfloat16: bool = False
    runs: bool = True
    digest: bool = False


def _for_each_caller(open_file: Callable[[Path, int], Opened]) -> Callable[[Path, int, int], Opened]:
    """Return a function that opens a file once for each caller.

    It is for runtimes whose opened files take one caller at a time.

    Args:
        open_file: Opens a path, to run on a number of threads.
    """

    def open_all(path: Path, threads: int, callers: int) -> Opened:
        opened = [open_file(path, threads) for _ in range(callers)]
        return opened[0]._replace(run=run_free([one.run for one in opened]))

    return open_all


_FOR_ONNX = ("onnx", "onnxscript")
FORMATS = {
    "onnx": Format(".onnx", write_onnx, open_onnx, int8=(*_FOR_ONNX, "onnxruntime"), digest=True),
    "openvino": Format(
        ".xml", write_openvino, open_openvino, int8=(*_FOR_ONNX, "openvino", "nncf"), bfloat16=True, digest=True
    ),
    "litert": Format(".tflite", write_litert, _for_each_caller(open_litert), ("outside",), digest=True),
    "executorch": Format(".pte", write_executorch, _for_each_caller(open_executorch), ("outside",), digest=True),
    "coreml": Format(".mlpackage", write_coreml, _for_each_caller(open_coreml), ("outside",), runs=False),
    "pt2": Format(".pt2", write_pt2, open_pt2),
    "aoti": Format(".aoti.pt2", write_aoti, _for_each_caller(open_aoti)),
}
"""Formats by name."""


def find_format(path: Path) -> Format:
    """Return the format of a file by its suffix.

    Raises:
        ValueError: If no format has the suffix.
    """
    return FORMATS[name_format(path)]


def name_format(path: Path) -> str:
    """Return the name of a file's format, by its suffix.

    Raises:
        ValueError: If no format has the suffix.
    """
    fitting = [name for name, known in FORMATS.items() if path.name.endswith(known.suffix)]
    if fitting:
        return max(fitting, key=lambda name: len(FORMATS[name].suffix))
    suffixes = ", ".join(f"{known.suffix} ({name})" for name, known in FORMATS.items())
    raise ValueError(f"{path} is not an exported detector by its name, which must end with {suffixes}.")


def is_exported(name: str) -> bool:
    """Return whether a name ends as those of exported files do; letter case counts."""
    return name.endswith(tuple(known.suffix for known in FORMATS.values()))

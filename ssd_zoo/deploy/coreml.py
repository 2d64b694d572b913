"""Core ML's packages (.mlpackage), for Apple's devices.

A package is a folder. It takes one image, and NMS is outside.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.runtime import Opened, missing, quiet, to_program

__all__ = ["open_coreml", "write_coreml"]


def _addcmul(features: Tensor, one: Tensor, other: Tensor, *, value: float = 1) -> Tensor:
    return features + value * one * other


def _hardtanh(features: Tensor, low: float = -1, high: float = 1) -> Tensor:
    return features.clamp(float(low), float(high))


# coremltools 9.0 has no addcmul, and takes no whole numbers as bounds, which F.relu6 has.
_PLAIN = {torch.ops.aten.addcmul.default: _addcmul, torch.ops.aten.hardtanh.default: _hardtanh}


def write_coreml(graph: Graph, path: Path) -> None:
    """Convert a graph of one image to a package.

    Only the conversion was tested: packages run on Apple's devices alone.

    Raises:
        ImportError: If coremltools is missing.
        ValueError: If pixels are uint8, which Core ML's arrays can't hold.
    """
    if graph.described.pixels == "uint8":
        raise ValueError("Core ML's arrays hold no uint8: leave out pixels='uint8'.")
    try:
        with quiet("coremltools"):
            import coremltools
    except ImportError as error:
        raise missing("Exporting to Core ML", error, "coreml") from error
    with quiet("coremltools"):
        model = coremltools.convert(
            to_program(graph, one_image=True).run_decompositions(_PLAIN),
            outputs=[coremltools.TensorType(name=name) for name in graph.outputs],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,
        )
    model.user_defined_metadata[KEY] = graph.described.to_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The new package is whole before it takes the place of an old one.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft, old = Path(folder) / path.name, Path(folder) / "old"
        model.save(str(draft))
        if path.exists():
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


def open_coreml(path: Path, threads: int) -> Opened:  # noqa: ARG001
    """Refuse a package, which runs by Core ML itself.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{path} runs in apps on Apple's devices, by Core ML itself; ssd_zoo does not run it.")

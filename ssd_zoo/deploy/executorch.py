"""ExecuTorch's files (.pte), with XNNPACK's kernels.

They take one image; NMS is outside.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY, Description
from ssd_zoo.deploy.digest import seal
from ssd_zoo.deploy.graph import Graph, outputs_of
from ssd_zoo.deploy.runtime import Opened, missing, quiet, run_one_by_one, to_program
from ssd_zoo.weights.files import write_file

__all__ = ["open_executorch", "write_executorch"]

_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def write_executorch(graph: Graph, path: Path) -> None:
    """Convert a graph of one image to a file.

    The file's method `ssd_zoo` returns the description.

    Raises:
        ImportError: If executorch is missing.
    """
    try:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise missing("Exporting to ExecuTorch", error, "executorch") from error
    with quiet():
        lowered = to_edge_transform_and_lower(
            to_program(graph, one_image=True).run_decompositions({_NORM: _scale_and_shift}),
            partitioner=[XnnpackPartitioner()],
            constant_methods={KEY: graph.described.to_json()},
        )
        write_file(path, seal(bytes(lowered.to_executorch().buffer)))


def _scale_and_shift(
    features: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,  # noqa: ARG001
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a batch norm that is not folded.

    XNNPACK folds wrongly where norms share a convolution.
    """
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    shape = (-1, *[1] * (features.dim() - 2))
    # The statistics of the batch are empty, as there are none in evaluation.
    return features * scale.view(shape) + shift.view(shape), features.new_empty(0), features.new_empty(0)


def open_executorch(path: Path, threads: int) -> Opened:  # noqa: ARG001
    """Open a file in ExecuTorch, which sets the number of threads itself.

    Raises:
        ImportError: If executorch is missing.
        ValueError: If the file is not ExecuTorch's, or was not written by `export`.
    """
    try:
        with quiet():
            from executorch.runtime import Runtime
    except ImportError as error:
        raise missing("Running an ExecuTorch file", error, "executorch") from error
    content = path.read_bytes()
    try:
        program = Runtime.get().load_program(content)
        description = program.load_method(KEY).execute([])[0] if KEY in program.method_names else None
        program.load_method("forward")
    except Exception as error:
        raise ValueError(f"{path} can't be opened as an ExecuTorch file: {error}") from error
    names = outputs_of(Description.from_json(description, str(path)))

    def run(inputs: Mapping[str, Tensor], _kept: bytes = content) -> dict[str, Tensor]:
        # The program reads its weights from the content, and does not keep that.
        found = program.load_method("forward").execute([value.contiguous() for value in inputs.values()])
        return dict(zip(names, found, strict=True))

    return Opened(description, run_one_by_one(run))

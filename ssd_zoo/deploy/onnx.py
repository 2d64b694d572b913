"""ONNX files, run by ONNX Runtime."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.weights.files import write_file

__all__ = ["Opened", "missing", "open_onnx", "to_onnx", "write_onnx"]

# Versions from 18 on have all operators of the graph; runtimes of old devices know few later ones.
_OPSET = 18


class Opened(NamedTuple):
    """An exported file that is ready to run.

    Attributes:
        description: JSON of the file's `Description`; None if it has none.
        run: Maps the file's inputs to its outputs, both by name.
    """

    description: str | None
    run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def missing(purpose: str, error: ImportError) -> ImportError:
    """Return an error that names a missing package and how to install it."""
    return ImportError(f'{purpose} needs {error.name}: pip install "ssd_zoo[deploy]".')


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph to a file."""
    write_file(path, to_onnx(graph))


def to_onnx(graph: Graph) -> bytes:
    """Convert a graph to the content of an ONNX file.

    Raises:
        ImportError: If onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing("Exporting to ONNX", error) from error
    with torch.no_grad(), _quiet():
        batch = {0: torch.export.Dim("batch", min=1)}
        shapes = {"images": batch, "state": dict.fromkeys(graph.described.state, batch)}
        exported = torch.export.export(graph, graph.example(), dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            exported,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.ssd_zoo.suppress_batch.default: _nms()},
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program.")
    model = program.model_proto
    model.producer_name, model.producer_version = "ssd_zoo", graph.described.version
    onnx.helper.set_model_props(model, {KEY: graph.described.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch and the packages of ONNX tell their developers."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _nms() -> Callable[..., object]:
    """Return the translation of `suppress_batch` to the operator `NonMaxSuppression`.

    The operator takes a row of scores per class. Candidates are sorted already, so their places serve as scores; 0
    excludes a candidate.
    """
    import onnx
    from onnxscript import BOOL, FLOAT, INT64
    from onnxscript import opset18 as op

    def suppress_batch(boxes: FLOAT, labels: INT64, eligible: BOOL, num_classes: int, nms_thresh: float) -> BOOL:
        classes = op.Constant(value=onnx.helper.make_tensor("", 7, (1, num_classes - 1, 1), range(1, num_classes)))
        last = op.Constant(value_ints=[1])
        place = op.CumSum(op.Cast(eligible, to=1), last, reverse=1)
        of_class = op.And(op.Equal(op.Unsqueeze(labels, last), classes), op.Unsqueeze(eligible, last))
        scores = op.Where(of_class, op.Unsqueeze(place, last), op.Constant(value_floats=[0.0]))
        most, least = op.Constant(value_ints=[boxes.shape[1]]), op.Constant(value_floats=[0.5])
        selected = op.NonMaxSuppression(boxes, scores, most, op.Constant(value_floats=[nms_thresh]), least)
        images_and_boxes = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(selected, start=0, end=1))
        return op.Cast(op.ScatterND(op.Sub(place, place), images_and_boxes, ones), to=9)

    return suppress_batch


def open_onnx(path: Path, threads: int) -> Opened:
    """Open a file in ONNX Runtime.

    Raises:
        ImportError: If onnxruntime is missing.
        ValueError: If the file is not an ONNX file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("Running an ONNX file", error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its warnings are for its developers.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{path} can't be opened as an ONNX file: {error}") from error
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: value.contiguous().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return Opened(session.get_modelmeta().custom_metadata_map.get(KEY), run)

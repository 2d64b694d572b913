"""ONNX files, run by ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY
from ssd_zoo.deploy.digest import seal
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.quantize import quantize_onnx
from ssd_zoo.deploy.runtime import Opened, Run, missing, quiet, run_on_threads, to_program
from ssd_zoo.weights.files import write_file

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["open_onnx", "to_onnx", "write_onnx"]

# Versions from 18 on have all operators of the graph; runtimes of old devices know few later ones.
_OPSET = 18
_BATCH = "batch"


def write_onnx(graph: Graph, path: Path) -> None:
    """Convert a graph to an ONNX file, in eight-bit integers if it has calibration images.

    Raises:
        ImportError: If a package is missing; see `to_onnx` and `quantize_onnx`.
    """
    content = to_onnx(graph)
    write_file(path, seal(quantize_onnx(content, graph.calibration) if graph.calibration else content))


def to_onnx(graph: Graph) -> bytes:
    """Convert a graph to the content of an ONNX file.

    Raises:
        ImportError: If onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing("Exporting to ONNX", error, "deploy") from error
    with quiet("onnx_ir"):
        program = torch.onnx.export(
            to_program(graph),
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
    _name_batch(model.graph)
    model.producer_name, model.producer_version = "ssd_zoo", graph.described.version
    onnx.helper.set_model_props(model, {KEY: graph.described.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _name_batch(graph: "onnx.GraphProto") -> None:
    """Give the axis of images a name; torch calls it by a number."""
    numbered = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param == numbered:
                side.dim_param = _BATCH


def _nms() -> Callable[..., object]:
    """Return the translation of `suppress_batch` to ONNX's operator `NonMaxSuppression`.

    The operator takes a row of scores per class. Candidates are sorted already, so their places, counted from the last,
    serve as scores; 0 excludes a candidate.
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


def open_onnx(path: Path, threads: int, callers: int) -> Opened:  # noqa: ARG001
    """Open a file in ONNX Runtime, in a session for all threads and callers.

    Raises:
        ImportError: If onnxruntime is missing.
        ValueError: If the file is not an ONNX file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("Running an ONNX file", error, "deploy") from error

    def session_on(threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Shapes are known then.
        options.add_free_dimension_override_by_name(_BATCH, 1)
        # Its warnings are for its developers.
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    try:
        session = session_on(threads)
    except Exception as error:
        raise ValueError(f"{path} can't be opened as an ONNX file: {error}") from error
    run = run_on_threads(_runner(session), lambda: _runner(session_on(1)), threads)
    return Opened(session.get_modelmeta().custom_metadata_map.get(KEY), run)


def _runner(session: "onnxruntime.InferenceSession") -> Run:
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: value.contiguous().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run

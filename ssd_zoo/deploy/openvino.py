"""OpenVINO's files: a graph (.xml) and its weights (.bin) beside it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY, Description
from ssd_zoo.deploy.digest import seal
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.onnx import to_onnx
from ssd_zoo.deploy.quantize import quantize_openvino
from ssd_zoo.deploy.runtime import Opened, Run, missing, run_free, run_on_threads
from ssd_zoo.weights.files import digest_file, write_file

if TYPE_CHECKING:
    import openvino

__all__ = ["open_openvino", "write_openvino"]

_DIGEST = "ssd_zoo_weights"


def write_openvino(graph: Graph, path: Path) -> None:
    """Write a graph to two files, by way of ONNX.

    Raises:
        ImportError: If openvino or a package for ONNX is missing, or nncf for eight-bit integers.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("Exporting to OpenVINO", error, "deploy") from error
    model = openvino.Core().read_model(to_onnx(graph))
    _raise_nms_thresholds(model)
    if graph.calibration:
        model = quantize_openvino(model, graph.calibration)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.xml"
        openvino.save_model(model, draft, compress_to_fp16=False)
        weights = draft.with_suffix(".bin")
        content, digest = weights.read_bytes(), digest_file(weights)
        model.set_rt_info(graph.described.to_json(), [KEY])
        model.set_rt_info(digest, [_DIGEST])
        openvino.save_model(model, draft, compress_to_fp16=False)
        write_file(path.with_suffix(".bin"), content)
        write_file(path, seal(draft.read_bytes()))


def _raise_nms_thresholds(model: "openvino.Model") -> None:
    """Raise the threshold of NMS in a model to the next larger number.

    OpenVINO 2026.4 also suppresses boxes whose IoU equals the threshold. All other runtimes suppress only those above
    it.
    """
    from openvino import opset9

    # Smaller numbers count as 0.
    least = np.finfo(np.float32).tiny
    for node in model.get_ops():
        if node.get_type_name() == "NonMaxSuppression":
            [given] = node.input_value(3).get_node().get_vector()
            raised = max(np.nextafter(np.float32(given), np.float32(2)), least)
            node.input(3).replace_source_output(opset9.constant(raised, np.float32).output(0))


def open_openvino(path: Path, threads: int, callers: int) -> Opened:
    """Open a file in OpenVINO, for the CPU.

    Raises:
        ImportError: If openvino is missing.
        ValueError: If the file is not OpenVINO's, was not written by `export`, or the weights beside it are missing or
            of another file.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("Running an OpenVINO file", error, "deploy") from error
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"{path} needs its weights beside it, but there is no file {weights}.")
    core = openvino.Core()
    try:
        model = core.read_model(path)
        digest, description = (_text(model, key) for key in (_DIGEST, KEY))
        # After compilation an output may have the name of an inner value that equals it.
        names = [output.any_name for output in model.outputs]
        model = _for_one_image(model)
    except Exception as error:
        raise ValueError(f"{path} can't be opened as an OpenVINO file: {error}") from error
    if digest is not None and digest != digest_file(weights):
        raise ValueError(f"{weights} does not belong to {path}, or is damaged. Export the model again.")
    # OpenVINO ties threads to cores, those of each opened file to the same first ones: two files then share a core.
    settings: dict[str, bool | int | str] = {"ENABLE_CPU_PINNING": False}
    # By default OpenVINO computes in bfloat16 where the CPU can.
    if not Description.from_json(description, str(path)).bfloat16:
        settings["INFERENCE_PRECISION_HINT"] = "f32"

    def compiled(streams: int, threads: int) -> Run:
        numbers = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads}
        file = core.compile_model(model, "CPU", {**settings, **numbers})
        return run_free([_runner(file.create_infer_request(), names) for _ in range(streams)])

    run = run_on_threads(compiled(callers, threads), lambda: compiled(threads * callers, 1), threads)
    return Opened(description, run, busy=False)


def _text(model: "openvino.Model", key: str) -> str | None:
    """Return an entry of a model's information; None if there is none."""
    return str(model.get_rt_info(key).value) if model.has_rt_info(key) else None


def _for_one_image(model: "openvino.Model") -> "openvino.Model":
    """Fix a model to one image, or stream, with channels last, as batches are in memory.

    Without a fixed number of images, OpenVINO takes a fifth longer for SSDLite300.
    """
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    model.reshape({item.any_name: [1, *list(item.partial_shape)[1:]] for item in model.inputs})
    steps = PrePostProcessor(model)
    images = steps.input("images")
    images.tensor().set_layout(Layout("NHWC"))
    images.model().set_layout(Layout("NCHW"))
    return steps.build()


def _runner(request: "openvino.InferRequest", names: Sequence[str]) -> Run:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = {**inputs, "images": inputs["images"].permute(0, 2, 3, 1)}
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        found = request.infer(arrays, share_inputs=True)
        return {name: torch.from_numpy(found[i]) for i, name in enumerate(names)}

    return run

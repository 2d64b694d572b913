"""LiteRT's files (.tflite), formerly TensorFlow Lite's.

They take one image; NMS is outside.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.description import KEY
from ssd_zoo.deploy.digest import seal
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.runtime import Opened, missing, quiet, run_one_by_one
from ssd_zoo.weights.files import write_file

__all__ = ["open_litert", "write_litert"]

_FOREIGN = "For a checkpoint of another project: ssd-zoo convert {} --output DIR."


class _Named(nn.Module):
    """A graph whose inputs are keywords, which the file keeps as names.

    Keywords have `_` in place of dots.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.detector = graph

    def forward(self, images: Tensor, **state: Tensor) -> dict[str, Tensor]:
        return self.detector(images, {name: state[_keyword(name)] for name in self.detector.described.state})


def write_litert(graph: Graph, path: Path) -> None:
    """Write a graph of one image.

    Raises:
        ImportError: If litert-torch is missing.
    """
    try:
        import litert_torch
    except ImportError as error:
        raise missing("Exporting to LiteRT", error, "litert") from error
    images, state = graph.example()
    inputs = {_keyword(name): value[:1] for name, value in {"images": images, **state}.items()}
    with tempfile.TemporaryDirectory() as folder, quiet("absl"), contextlib.redirect_stdout(None):
        draft = Path(folder) / "model.tflite"
        litert_torch.convert(_Named(graph).eval(), sample_kwargs=inputs).export(str(draft))
        content = draft.read_bytes()
    write_file(path, seal(_with_description(content, graph.described.to_json())))


def _keyword(name: str) -> str:
    return name.replace(".", "_")


def _with_description(content: bytes, description: str) -> bytes:
    """Add a description to a file's metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(description.encode())
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + 2**16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _description(content: bytes) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == KEY.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def open_litert(path: Path, threads: int) -> Opened:
    """Open a file in LiteRT.

    Raises:
        ImportError: If ai-edge-litert is missing.
        ValueError: If the file is not LiteRT's, or was not written by `export`.
    """
    content = path.read_bytes()
    # No package is needed to see that it is not ours.
    if content[4:8] == b"TFL3" and KEY.encode() not in content:
        raise ValueError(f"{path} was not exported by ssd_zoo. {_FOREIGN.format(path)}")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("Running a LiteRT file", error, "litert") from error
    try:
        runner = Interpreter(model_content=content, num_threads=threads).get_signature_runner()
        description = _description(content)
    except Exception as error:
        raise ValueError(
            f"{path} can't be opened as a LiteRT file: {str(error).rstrip('.')}. {_FOREIGN.format(path)}"
        ) from error
    if description is None:
        raise ValueError(f"{path} was not exported by ssd_zoo. {_FOREIGN.format(path)}")
    types = {name: detail["dtype"] for name, detail in runner.get_input_details().items()}

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Its integers have 32 bits.
        named = {_keyword(name): value.contiguous().numpy() for name, value in inputs.items()}
        arrays = {name: value.astype(types[name], copy=False) for name, value in named.items()}
        found = {name: torch.from_numpy(array.copy()) for name, array in runner(**arrays).items()}
        return {name: value.long() if value.dtype == torch.int32 else value for name, value in found.items()}

    return Opened(description, run_one_by_one(run))

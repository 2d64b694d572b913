"""Programs of torch.export (.pt2), and packages that AOTInductor compiled from them (.aoti.pt2)."""

import io
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.deploy.description import KEY
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.runtime import Opened, on_threads, quiet, to_program
from ssd_zoo.weights.files import write_file
from ssd_zoo.weights.formats.pickles import check_pickle
from ssd_zoo.weights.formats.zip_archive import check_sums
from ssd_zoo.weights.outside import parse_json

__all__ = ["open_aoti", "open_pt2", "write_aoti", "write_pt2"]

# Members of a program's archive: texts, raw tensors, and example inputs.
_MEMBER = re.compile(
    r"archive_(format|version)|version|byteorder|\.data/.*|\.format_version|\.storage_alignment|extra/\w+"
    r"|models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt"
)
# torch evaluates expressions of sizes as Python, and finds operators by name.
_EXPRESSION = re.compile(r"(Symbol\('\w+', positive=True, integer=True\)|Max|Min|Mod|FloorDiv|[\d\s+*/(),-])*")
_OPERATOR = re.compile(r"(torch\.ops\.(aten|ssd_zoo)|_operator)(\.\w+)+")
# The longest text of a builder's program, SSD300 on EfficientNet-B3, has 951 418 bytes.
_LARGEST_TEXT = 2**24
# torch evaluates conditions on the inputs, too. Files of models of clips say that there are as many images as streams.
_SIZE = r"L(\['[\w.]+'\])+\.size\(\)\[0\]"
_SAME_SIZE = re.compile(f"{_SIZE} == {_SIZE}")


def write_pt2(graph: Graph, path: Path) -> None:
    """Write a graph as a program of torch.export."""
    content = io.BytesIO()
    with quiet():
        torch.export.save(to_program(graph), content, extra_files={KEY: graph.described.to_json()})
    write_file(path, content.getbuffer())


def open_pt2(path: Path, threads: int, callers: int) -> Opened:  # noqa: ARG001
    """Open a program of torch.export, which any number of threads may call.

    Raises:
        ValueError: If the file is not such a program, is damaged, is not readable by this torch, asks for too much, or
            holds pickled objects or libraries.
    """
    extra = {KEY: ""}
    try:
        # Before anything is unpacked.
        with path.open("rb") as stream:
            check_pickle(stream, path)
        check_sums(path)
        _check_members(path)
        with quiet("torch.export"):
            module = torch.export.load(path, extra_files=extra).module()
    except Exception as error:
        by = f"torch {torch.__version__}, where 2.9 or newer is needed"
        raise ValueError(f"{path} can't be opened as a program of torch.export by {by}: {error}") from error
    return Opened(extra[KEY] or None, _runner(module, threads))


def _check_members(path: Path) -> None:
    """Raise ValueError unless a program's archive has only the members that exported detectors have.

    Others could run code while torch reads them. The members' contents are checked too.
    """
    with zipfile.ZipFile(path) as archive:
        # Of a file that lacks its end, zipfile finds an archive within it.
        if all(member.header_offset > 0 for member in archive.infolist()):
            raise ValueError("it is cut off.")
        names = [name.partition("/")[2] for name in archive.namelist()]
        strange = sorted({name for name in names if not _MEMBER.fullmatch(name) or names.count(name) > 1})
        if strange:
            raise ValueError(f"it holds {', '.join(strange[:3])}, which programs of detectors do not.")
        for member, name in zip(archive.namelist(), names, strict=True):
            if name.endswith(".pt"):
                content = io.BytesIO(archive.read(member))
                check_pickle(content, name)
                content.seek(0)
                torch.load(content, weights_only=True)
            elif name.endswith(".json"):
                if (size := archive.getinfo(member).file_size) > _LARGEST_TEXT:
                    raise ValueError(f"{name} has {size} bytes, and {_LARGEST_TEXT} are allowed.")
                _check_text(name, parse_json(archive.read(member), name, constants=True))


def _check_text(name: str, node: object) -> None:
    """Raise ValueError if a program's JSON asks for more than operators on raw tensors.

    Args:
        name: Name of the text in the archive.
        node: Its value, or a part of it.
    """
    if isinstance(node, list):
        for item in node:
            _check_text(name, item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if (
                (key == "use_pickle" and value)
                or (key == "guards_code" and value and not _compares_sizes(value))
                or (key == "expr_str" and not _EXPRESSION.fullmatch(str(value)))
                or (key == "target" and not _OPERATOR.fullmatch(str(value)))
            ):
                raise ValueError(f"{name} has {key} {value!r}, which programs of detectors do not have.")
            _check_text(name, value)


def _compares_sizes(guards: object) -> bool:
    return isinstance(guards, list) and all(isinstance(one, str) and _SAME_SIZE.fullmatch(one) for one in guards)


def write_aoti(graph: Graph, path: Path) -> None:
    """Compile a graph for this machine's CPU and write the package."""
    settings = {"aot_inductor.metadata": {KEY: graph.described.to_json()}}
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
        draft = Path(folder) / "model.pt2"
        torch._inductor.aoti_compile_and_package(
            to_program(graph), package_path=str(draft), inductor_configs={**settings, "freezing": True}
        )
        write_file(path, draft.read_bytes())


def open_aoti(path: Path, threads: int) -> Opened:
    """Open a package of AOTInductor.

    It holds a native library, so opening it runs its code.

    Raises:
        ValueError: If the file is not such a package, is damaged, or was compiled for another machine or torch.
    """
    check_sums(path)
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive.")
        with quiet("torch.export"):
            compiled = torch._inductor.aoti_load_package(str(path))
        description = compiled.loader.get_metadata().get(KEY)
    except Exception as error:
        raise ValueError(f"{path} can't be opened as a package of AOTInductor: {error}") from error
    return Opened(description, _runner(compiled, threads))


def _runner(
    module: Callable[[Tensor, dict[str, Tensor]], dict[str, Tensor]], threads: int
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Return a function of named inputs that runs a module on a number of threads."""

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = {name: value for name, value in inputs.items() if name != "images"}
        with on_threads(threads):
            return module(inputs["images"].contiguous(), state)

    return run

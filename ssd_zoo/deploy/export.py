"""Export detectors to files for other runtimes."""

import os
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.deploy.description import Description, Nms, Pixels
from ssd_zoo.deploy.digest import BLANK
from ssd_zoo.deploy.formats import FORMATS, name_format
from ssd_zoo.deploy.graph import Graph
from ssd_zoo.deploy.quantize import calibration_batches
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["OLDEST_TORCH", "export"]

OLDEST_TORCH = "2.9"
"""Oldest version of torch that exports; loading a file needs no newer one than the package."""


@with_near_keywords
def export(
    model: SSD,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    nms: Nms | None = None,
    pixels: Pixels = "float32",
    candidates: int = 1000,
    int8: Iterable[Tensor] | None = None,
    bfloat16: bool = False,
    licence: str | None = None,
    origin: str | None = None,
) -> Path:
    """Export a detector to a file that another runtime runs.

    The input `images` is a batch `(N, in_chans, height, width)` of the model's size, with any N. Files of
    LiteRT, ExecuTorch and Core ML take one image. The file normalises the batch. `ssd_zoo.deploy.load` runs it on any
    number of images of any sizes. Thresholds are the model's at the time of the call.

    With `nms="inside"` the outputs are `boxes (N, K, 4)`, xyxy in input pixels, `scores (N, K)` and `labels (N, K)`,
    padded with zeros. K is the model's `detections_per_img`. `count (N,)` is the number of detections, and
    `exact (N,)` is False if more candidates could change them.

    With `nms="outside"` the outputs are `cls_logits (N, D, C)`, `bbox_regression (N, D, 4)` and `default_boxes (D, 4)`,
    xyxy in input pixels.

    The file of a model that relates the frames of clips computes one step of N streams. Further inputs are the tensors
    of the state, with one row per stream, and further outputs those of the next state, `next.` before their names.

    Args:
        model: A detector in evaluation mode. It is not modified.
        path: The file; its name must end with the format's suffix. OpenVINO's weights are a second file, `.bin`.
        format: `"onnx"`, `"openvino"`, `"litert"`, `"executorch"`, `"coreml"`, `"pt2"` (a program of
            torch.export) or `"aoti"` (compiled by AOTInductor for this machine's CPU); by default that of the suffix.
        nms: Whether the file contains post-processing. LiteRT's, ExecuTorch's and Core ML's don't, all others do by
            default.
        pixels: `"float32"` for pixels from 0 to 1, or `"uint8"` for pixels from 0 to 255.
        candidates: Number of best (box, class) pairs per image that enter the file's NMS.
        int8: Typical images, by which the file is quantised to eight-bit integers: fifty to three hundred, as the
            model takes them. For `"onnx"` and `"openvino"`, and models of images. `compare_detections` of model and
            loaded file shows what changes.
        bfloat16: Whether the file computes in bfloat16 on CPUs that can, which takes half to two thirds of the time.
            Scores then differ by some hundredths. For `"openvino"`.
        licence: Licence of the weights, for the file; by default as far as it is known.
        origin: Origin of the weights, for the file; by default as far as it is known.

    Returns:
        The path.

    Raises:
        ImportError: If the format's packages are missing.
        OSError: If the file can't be written; an old one stays.
        TypeError: If the model is not an `SSD`.
        ValueError: If an argument is not one of those allowed, the model is in training mode, or torch or the format's
            converter does not take its layers.

    Example:
        >>> import ssd_zoo
        >>> model = ssd_zoo.from_pretrained("runs/cells/best").eval()  # doctest: +SKIP
        >>> export(model, "detector.onnx", format="onnx")  # doctest: +SKIP
        PosixPath('detector.onnx')
    """
    path = Path(path)
    kind = format or name_format(path)
    _check(model, path, kind, nms, pixels, candidates)
    known = FORMATS[kind]
    described = Description.of(
        model,
        nms=nms or known.nms[0],
        pixels=pixels,
        int8=int8 is not None,
        bfloat16=bfloat16,
        licence=licence,
        origin=origin,
    )
    described = replace(described, digest=BLANK if known.digest else None)
    if int8 is not None and (described.state or not known.int8):
        able = ", ".join(name for name, other in FORMATS.items() if other.int8)
        raise ValueError(
            f"int8=… (--int8) is for models of images, and for the formats {able}, so no file was written. "
            "Leave it out to export in float."
        )
    if bfloat16 and not known.bfloat16:
        able = ", ".join(name for name, other in FORMATS.items() if other.bfloat16)
        raise ValueError(f"bfloat16 is for the format {able}; leave it out.")
    lacking = [name for name in known.int8 if find_spec(name) is None] if int8 is not None else []
    if lacking:
        extra = "int8" if "nncf" in lacking else "deploy"
        raise ImportError(f'Quantising for {kind} needs {", ".join(lacking)}: pip install "ssd_zoo[{extra}]".')
    calibration = [] if int8 is None else calibration_batches(int8, described)
    try:
        known.write(Graph(model, described, candidates=candidates, calibration=calibration), path)
    except (ImportError, MemoryError, OSError, ValueError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        step = " ssd_zoo.video.export_step(model) returns the step as a program of torch." if described.state else ""
        raise ValueError(
            f"The model can't be exported as {kind!r}: {reason}. Every builder of ssd_zoo.list_models() can as 'onnx' "
            "and 'openvino'. In layers of your own, no step may depend on the values of tensors, and the format needs "
            f"their operators; 'pt2' has all of torch's.{step}"
        ) from error
    return path


def _check(model: SSD, path: Path, format: str, nms: str | None, pixels: str, candidates: int) -> None:
    if torch.__version__ < OLDEST_TORCH:
        raise ImportError(
            f"Exporting needs torch {OLDEST_TORCH} or newer, whose exporter takes batches of any size; this is "
            f"{torch.__version__}: pip install --upgrade torch torchvision. Exported files run with any version."
        )
    if not isinstance(model, SSD):
        raise TypeError(f"export takes an SSD of ssd_zoo, got {type(model).__name__}.")
    options = {"format": (format, tuple(FORMATS)), "nms": (nms or "inside", ("inside", "outside"))}
    for name, (value, allowed) in {**options, "pixels": (pixels, ("float32", "uint8"))}.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
    if nms is not None and nms not in FORMATS[format].nms:
        able = ", ".join(name for name, known in FORMATS.items() if nms in known.nms)
        raise ValueError(
            f"Files of {format} are written with NMS outside: "
            f"leave out nms={nms!r} (--nms {nms}), or take one of {able}."
        )
    if not path.name.endswith(FORMATS[format].suffix) or name_format(path) != format:
        raise ValueError(f"The name of a file of format {format!r} ends with {FORMATS[format].suffix}, got {path}.")
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}.")
    if model.training:
        raise ValueError("Only models in evaluation mode are exported: call model.eval() first.")

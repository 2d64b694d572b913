"""Reader of checkpoint files; it never runs code from a file."""

import os
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.weights.formats.frozen_graph import read_constants
from ssd_zoo.weights.formats.kinds import explain_refusal, name_other_kind
from ssd_zoo.weights.formats.pickles import PickleError, check_pickle
from ssd_zoo.weights.formats.safetensors_file import read_contents
from ssd_zoo.weights.formats.tfjs import read_tfjs
from ssd_zoo.weights.formats.tflite import read_tflite
from ssd_zoo.weights.formats.zip_archive import check_sums
from ssd_zoo.weights.key_tables import unwrap
from ssd_zoo.weights.outside import near_paths, quote

__all__ = ["check_finite", "check_state", "read_checkpoint", "read_pickle"]

_TYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
_ENDINGS = (".bin", ".ckpt", ".pb", ".pt", ".pth", ".safetensors", ".tflite")
# A state dict may list a tensor under a few names.
_MOST_SHARED = 4


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint under their original names.

    Args:
        path: A `.safetensors` file, a frozen TensorFlow graph (`.pb`), a TensorFlow Lite model (`.tflite`), a
            TensorFlow.js model (its `model.json` or folder), or else a file of `torch.save`: a state dict, or a
            training checkpoint that holds one.

    Returns:
        Tensors on the CPU; for a graph all its numeric constants.

    Raises:
        ImportError: If the package that a `.tflite` file needs is missing.
        OSError: If there is no such file, or it is a folder of another kind.
        ValueError: If the file is damaged, holds no state dict, or holds objects that would have to be unpickled.
    """
    file, kind = Path(path), Path(path).suffix.lower()
    if kind == ".json" or (file / "model.json").is_file():
        return read_tfjs(file)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, not a checkpoint; {_what_folder(file)}.")
    if not file.exists():
        raise FileNotFoundError(f"There is no file {file}.{near_paths(file)}")
    other = name_other_kind(file)
    if other is not None:
        raise ValueError(f"{file} {other}.")
    if kind == ".pb":
        return read_constants(file)
    if kind == ".tflite":
        return read_tflite(file)
    if kind == ".safetensors":
        with file.open("rb") as stream:
            return check_state(read_contents(stream, file).tensors, source=str(file))
    state = check_state(read_pickle(file), source=str(file))
    _check_sizes(state, file)
    check_sums(file)
    return state


def _what_folder(folder: Path) -> str:
    """Return the end of an error's sentence: which file or call to take instead of this folder."""
    if (folder / "config.json").is_file():
        return "it holds a saved model, which ssd_zoo.from_pretrained loads; ssd-zoo convert takes it with --images"
    if (folder / "saved_model.pb").is_file():
        return "it holds TensorFlow's SavedModel: export that as a frozen graph, .tflite or TensorFlow.js"
    found = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)
    if any(re.fullmatch(r"group.*shard\d+of\d+(\.bin)?", file.name) for file in folder.iterdir()):
        return "it holds shards of TensorFlow.js, but their model.json is missing"
    return f"name a file in it, such as {found[0]}" if found else "name a file"


def check_state(checkpoint: object, *, source: str = "The checkpoint") -> dict[str, Tensor]:
    """Unwrap a checkpoint's state dict and check its values.

    Args:
        checkpoint: A state dict, or a training checkpoint that holds one.
        source: Name of the checkpoint in messages.

    Returns:
        Tensors by name, without gradients.

    Raises:
        ValueError: If it holds no state dict, or a value is not a dense tensor of real numbers.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{source} is of type {type(checkpoint).__name__}, not a state dict of tensors by name.")
    state = unwrap(checkpoint)
    if not state:
        raise ValueError(f"{source} holds no tensors.")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{source} holds {quote(name)} of type {type(tensor).__name__}, but a state dict holds tensors only; "
                "a training checkpoint has it under 'model', 'state_dict' or 'ema'."
            )
        dense = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
        if not dense or tensor.dtype not in _TYPES:
            raise ValueError(
                f"{source} holds {quote(name)}, a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}; only "
                "dense ones of real numbers load; save it as float32."
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Check that all numbers are finite in float32, the precision of models.

    Raises:
        ValueError: If a tensor holds NaN, infinity or a number beyond float32, or has no values; the message names the
            first.
    """
    for name, tensor in state.items():
        if tensor.is_meta:
            raise ValueError(
                f"Tensor {name!r} is on the meta device and has no values. Load them first; of a model that accelerate "
                "has offloaded, accelerate.hooks.remove_hook_from_module(model, recurse=True) brings them back."
            )
        if tensor.is_floating_point() and not (finite := tensor.float().isfinite()).all():
            raise ValueError(
                f"Tensor {name!r} holds {(~finite).sum().item()} numbers of {tensor.numel()} that are NaN, infinite or "
                "beyond float32: the training has diverged, or the file is damaged."
            )


def _check_sizes(state: Mapping[str, Tensor], file: Path) -> None:
    """Refuse tensors that announce more bytes than their file has."""
    storages = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    size = file.stat().st_size
    for name, tensor in state.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{file} holds {quote(name)} of shape {quote(list(tensor.shape))}, which repeats fewer numbers. Save "
                "tensor.contiguous()."
            )
    if (
        max(storages.values(), default=0) > size
        or sum(tensor.nbytes for tensor in state.values()) > _MOST_SHARED * size
    ):
        raise ValueError(f"{file} has {size} bytes, but its tensors announce more; it is damaged.")


def read_pickle(file: Path) -> object:
    """Read a file of `torch.save` onto the CPU.

    Only tensors, plain values and `argparse.Namespace` are unpickled. Checksums are not checked.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is damaged, asks for too much, or holds objects that would have to be unpickled.
    """
    try:
        with file.open("rb") as stream:
            check_pickle(stream, file)
        # PyTorch warns of some contents; `check_state` refuses those that do not load. torchvision's training loop
        # stores its options, a Namespace, which runs no code either.
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except PickleError:
        raise
    except MemoryError as error:
        raise ValueError(f"{file} takes more memory than there is. It is damaged, or too large here.") from error
    # The type of the error depends on the place of the damage.
    except Exception as error:
        raise ValueError(f"{file} {explain_refusal(file, error)}.") from error

"""Reading the weights that enums name."""

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ssd_zoo.converters import amdegroot, lufficc, mmdet, nvidia, qfgaohao, tensorflow, torchvision
from ssd_zoo.converters._tables import unwrap
from ssd_zoo.models._weights import Weights, set_weights_reader

__all__ = ["read_weights"]

_CONVERTERS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "amdegroot": amdegroot.convert,
    "lufficc": lufficc.convert,
    "mmdet": mmdet.convert,
    "nvidia": nvidia.convert,
    "qfgaohao": qfgaohao.convert,
    "tensorflow": tensorflow.convert,
    "torchvision": torchvision.convert,
}


def read_weights(weights: Weights, progress: bool = True) -> dict[str, Tensor]:
    """Reads a weights entry, from the package or by download, and gives its tensors our names.

    Args:
        weights: The entry.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Tensors by name, in float32 where they are stored in half precision.

    Raises:
        ConnectionError: If the file can't be downloaded; the message says where to put it by hand.
        ValueError: If the file's tensors are not of the origin that the entry names.
    """
    if weights.url.startswith("package:"):
        file = resources.files("ssd_zoo.zoo") / "packaged" / weights.url.removeprefix("package:")
        state = load_safetensors(file.read_bytes())
    else:
        state = unwrap(_download(weights.url, progress))
    state = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}
    return state if weights.layout is None else _CONVERTERS[weights.layout](state)


def _download(url: str, progress: bool) -> Any:
    try:
        return torch.hub.load_state_dict_from_url(
            url, progress=progress, check_hash=True, map_location="cpu", weights_only=True
        )
    except URLError as error:
        folder, file = Path(torch.hub.get_dir()) / "checkpoints", url.rpartition("/")[2]
        raise ConnectionError(
            f"{url} can't be downloaded: {error.reason}. Without a network put the file at {folder / file}, "
            "or build the model with weights=None, weights_backbone=None."
        ) from error


set_weights_reader(read_weights)

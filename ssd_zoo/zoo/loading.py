"""Reading the weights that enums name."""

from collections.abc import Callable, Mapping
from importlib import resources

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
    """
    if weights.url.startswith("package:"):
        file = resources.files("ssd_zoo.zoo") / "packaged" / weights.url.removeprefix("package:")
        state = load_safetensors(file.read_bytes())
    else:
        checkpoint = torch.hub.load_state_dict_from_url(
            weights.url, progress=progress, check_hash=True, map_location="cpu", weights_only=True
        )
        state = unwrap(checkpoint)
    state = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}
    return state if weights.layout is None else _CONVERTERS[weights.layout](state)


set_weights_reader(read_weights)

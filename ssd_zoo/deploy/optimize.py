"""A detector made fast for inference: norms in the kernels, weights frozen, compiled."""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_zoo.deploy.compare import compare_detections
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.detector.ssd import SSD

__all__ = ["optimize"]

_log = logging.getLogger("ssd_zoo")


def optimize(
    model: SSD,
    *,
    compile: bool = True,
    dtype: torch.dtype | None = None,
    freeze: bool = True,
    images: Sequence[Tensor] | Tensor | None = None,
) -> SSD:
    """Gives a copy of a detector that detects the same, faster.

    Norms are folded into the convolutions before them, kernels are laid out in `torch.channels_last`, and the network
    is compiled at its first call, which takes a minute or more, once for a single image and once for any number. How
    much detections differ from the model's, before compilation, which only rounds in another way, is logged in one line
    and kept in the copy's attribute `detection_change`, a `DetectionChange`. Save the model itself, not the copy.

    Args:
        model: A detector in evaluation mode. It stays as it is.
        compile: Whether to compile the network.
        dtype: Precision of the network, as `torch.bfloat16`; by default the model's. CPUs without units for it are
            slower with it.
        freeze: Whether weights become constants, which compilers lay out as the device likes it. They need no
            gradients then, and are not to be changed.
        images: What to compare detections on, as the model is called with; by default one image of noise. Differences
            on images of the model's own kind say more.

    Raises:
        ValueError: If the model is in training mode, or `dtype` is no floating point.

    Example:
        >>> import ssd_zoo
        >>> model = ssd_zoo.ssdlite300_mobilenet_v2(weights="PERSON_V1").eval()
        >>> fast = optimize(model, compile=False)
        >>> fast.detection_change.lost
        0
    """
    if model.training:
        raise ValueError("optimize is for inference: call model.eval() first. The copy cannot be trained.")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.bfloat16, got {dtype}.")
    device = model.default_boxes.device
    fast = copy.deepcopy(model)
    fuse_norms(fast, model.prepare(torch.zeros(1, model.in_chans, *model.size, device=device)))
    fast.to(memory_format=torch.channels_last)
    if dtype is not None:
        fast.to(dtype)
    if freeze:
        fast.requires_grad_(False)
    if images is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(1, model.in_chans, *model.size, generator=generator).to(device)
    change = compare_detections(model, fast, images)
    _log.info("optimize: %s", change)
    fast.__dict__["detection_change"] = change
    if compile:
        _compile_network(fast, freeze=freeze)
    return fast


def _compile_network(model: SSD, *, freeze: bool) -> None:
    compiled = torch.compile(model.forward_raw, fullgraph=True, options={"freezing": True} if freeze else None)

    def forward_raw(batch: Tensor) -> dict[str, Tensor]:
        # Weights become constants only where no gradients are recorded.
        with torch.no_grad():
            return compiled(batch)

    # Beside the method, not over it: the class stays as it is.
    model.__dict__["forward_raw"] = forward_raw if freeze else compiled

"""A detector made fast for inference: norms in the kernels, weights frozen, compiled."""

import copy
import logging
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.compare import compare_detections
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.deploy.kept_kernels import keep_kernels
from ssd_zoo.detector.ssd import SSD

__all__ = ["optimize"]

# Bytes of a map. Where one image's maps fill the cache, as VGG's do, images one after another take less time than
# together, for what they leave in memory has to be fetched from there.
_LARGE_MAP = 2**24

Network = Callable[..., dict[str, Tensor]]

_log = logging.getLogger("ssd_zoo")


def optimize(
    model: SSD,
    *,
    compile: bool | str = True,
    dtype: torch.dtype | None = None,
    freeze: bool = True,
    images: Sequence[Tensor] | Tensor | None = None,
) -> SSD:
    """Gives a copy of a detector that detects the same, faster.

    Norms are folded into the convolutions before them, kernels are laid out in `torch.channels_last`, and the network
    is compiled at its first call, which takes a minute or more, once for a single image and once for any number. How
    much detections differ from the model's, before compilation, which only rounds in another way, is logged in one line
    and kept in the copy's attribute `detection_change`, a `DetectionChange`. Save the model itself, not the copy.

    Set thresholds before: on a GPU post-processing is compiled too, and takes longer where they are others later.

    Args:
        model: A detector in evaluation mode. It stays as it is.
        compile: Whether to compile the network; or a mode of `torch.compile`, as `"reduce-overhead"`, which on a GPU
            replays the network as one graph, and so takes the least time for few images.
        dtype: Precision of the network, as `torch.bfloat16`; by default the model's. CPUs without units for it are
            slower with it.
        freeze: Whether weights become constants, which compilers lay out as the device likes it. They need no
            gradients then, and are not to be changed.
        images: What to compare detections on, as the model is called with; by default one image of noise. Differences
            on images of the model's own kind say more.

    Raises:
        ValueError: If the model is in training mode, `dtype` is no floating point, or `compile` is no mode of
            `torch.compile`.

    Example:
        >>> import ssd_zoo
        >>> model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
        >>> fast = optimize(model, compile=False)
        >>> fast.detection_change.lost
        0
    """
    if model.training:
        raise ValueError("optimize is for inference: call model.eval() first. The copy cannot be trained.")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.bfloat16, got {dtype}.")
    if isinstance(compile, str) and compile not in (modes := list(torch._inductor.list_mode_options())):
        raise ValueError(f"compile must be True, False or one of {', '.join(map(repr, modes))}, got {compile!r}.")
    device = model.default_boxes.device
    fast = copy.deepcopy(model)
    batch = model.prepare(torch.zeros(1, model.in_chans, *model.size, device=device))
    fuse_norms(fast, batch)
    fast.to(memory_format=torch.channels_last)
    if dtype is not None:
        fast.to(dtype)
        batch = batch.to(dtype)
    if freeze:
        fast.requires_grad_(False)
        keep_kernels(fast, batch, in_graphs=bool(compile))
    if images is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(1, model.in_chans, *model.size, generator=generator).to(device)
    change = compare_detections(model, fast, images)
    _log.info("optimize: %s", change)
    fast.__dict__["detection_change"] = change
    _speed_up(fast, batch, compile=compile, freeze=freeze)
    return fast


def _speed_up(model: SSD, batch: Tensor, *, compile: bool | str, freeze: bool) -> None:
    """Puts faster functions beside the methods of a model, not over them: the class stays as it is."""
    one_by_one = batch.device.type == "cpu" and _largest_map(model, batch) > _LARGE_MAP
    if not compile and not one_by_one:
        return
    # What a function calls of its model is no faster: compilers shall see all of it.
    plain = copy.copy(model)
    thresholds = model._thresholds()
    plain.__dict__["_thresholds"] = lambda: thresholds
    options: Any = {"compile": compile, "freeze": freeze, "one_by_one": one_by_one}
    forward_scores = _faster(plain._forward_scores, **options)

    def _forward_scores(batch: Tensor) -> dict[str, Tensor]:
        found = forward_scores(batch)
        # The graph's own detections are those of its thresholds.
        same = model._thresholds() == thresholds
        return found if same else {key: found[key] for key in ("class_scores", "best", "bbox_regression")}

    model.__dict__["forward_raw"] = _faster(plain.forward_raw, **options)
    model.__dict__["_forward_scores"] = _forward_scores


def _faster(function: Network, *, compile: bool | str, freeze: bool, one_by_one: bool) -> Network:
    mode = compile if isinstance(compile, str) else None
    run = torch.compile(_with_own_code(function), fullgraph=True, mode=mode) if compile else function

    def faster(batch: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        if lengths is not None:
            return function(batch, lengths)
        parts = batch.split(1) if one_by_one else [batch]
        if compile:
            for part in parts:
                # That models of other sizes were compiled before makes no size dynamic.
                torch._dynamo.mark_static(part, [1, 2, 3])
        if not freeze:
            return _joined([run(part) for part in parts])
        # Weights become constants only where no gradients are recorded. As an option of torch.compile, freezing does
        # nothing: its tracer asks for it before options count.
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            return _joined([run(part) for part in parts])

    return faster


def _with_own_code(function: Network) -> Network:
    """Wraps a function anew: compilers count by a function's code, and give up after a few models that share it."""

    def call(batch: Tensor) -> dict[str, Tensor]:
        return function(batch)

    return FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _largest_map(model: SSD, batch: Tensor) -> int:
    """Gives the bytes of the largest output of a layer, of one image."""
    sizes = [0]
    hooks = [
        module.register_forward_hook(lambda _module, _args, output: sizes.append(output[:1].nbytes))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model.forward_raw(batch)
    for hook in hooks:
        hook.remove()
    return max(sizes)

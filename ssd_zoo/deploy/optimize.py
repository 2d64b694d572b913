"""Optimise a detector for inference: fold norms, freeze weights, compile."""

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.compare import compare_detections
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.deploy.kept_kernels import keep_kernels
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["optimize"]

# Bytes of an image's largest feature map above which a CPU runs images one by one. Maps of this size (VGG's) fill the
# cache with one image; those of a batch would be read from main memory, which takes longer.
_LARGE_MAP = 2**24

# Attributes of an accelerated model that belong to it alone.
_OWN_FUNCTIONS = ("forward_raw", "_forward_scores", "__deepcopy__", "__reduce_ex__")
Network = Callable[..., dict[str, Tensor]]

_log = logging.getLogger("ssd_zoo")


@with_near_keywords
def optimize(
    model: SSD,
    *,
    compile: bool | str = True,
    dtype: torch.dtype | None = None,
    freeze: bool = True,
    images: Sequence[Tensor] | Tensor | None = None,
) -> SSD:
    """Return an accelerated copy of a detector for inference.

    Norms are folded into the convolutions before them, kernels get the layout `torch.channels_last`, and the network is
    compiled. Compilation happens at the first call with one image, and again at the first with several. Each time it
    takes a minute or more. Save the original model, not the copy.

    The differences between the detections of model and copy are measured before compilation, which changes only
    rounding. They are logged in one line and stored as the copy's attribute `detection_change`, a `DetectionChange`.

    Set thresholds before the call: on a GPU post-processing is compiled for them, and is slower after a change.

    Args:
        model: A detector in evaluation mode. It is not modified.
        compile: Whether to compile the network, or a mode of `torch.compile`. `"reduce-overhead"` replays the network
            as one CUDA graph, which is fastest for few images.
        dtype: Precision of the network, such as `torch.bfloat16`; by default the model's. A CPU without hardware
            support for it becomes slower.
        freeze: Whether weights become constants, which the compiler can store in the device's preferred layout. They
            then have no gradients and must not be changed. Hooks, pruning and the like belong on the model, before.
        images: Images to compare detections on, in the form that the model accepts; by default one image of noise.
            Typical images of the application give more meaningful differences.

    Raises:
        TypeError: If `images` have the wrong type.
        ValueError: If the model is in training mode, `images` are invalid, `dtype` is not a floating-point type, or
            `compile` is not a mode of `torch.compile`.

    Example:
        >>> import ssd_zoo
        >>> model = ssd_zoo.ssdlite320_ultraface_slim().eval()
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
    batch = model.prepare(torch.zeros(1, model.in_chans, *model.size, device=device))
    with torch.no_grad():
        # Computed weights, such as pruned ones, can be copied after a pass without gradients.
        model.forward_raw(batch)
    fast = copy.deepcopy(model)
    # Both share the record of warnings, so that none is given twice.
    fast._told = model._told
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
        # For a model that looks back, a clip of one frame.
        images = [images] if hasattr(model.backbone, "step") else images
    change = compare_detections(model, fast, images)
    _log.info("optimize: %s", change)
    fast.__dict__["detection_change"] = change
    one_by_one = device.type == "cpu" and _largest_map(fast, batch) > _LARGE_MAP
    if compile or one_by_one:
        _speed_up(fast, compile=compile, freeze=freeze, one_by_one=one_by_one)
    return fast


def _speed_up(model: SSD, *, compile: bool | str, freeze: bool, one_by_one: bool) -> None:
    """Set faster functions as attributes of a model, where they replace methods of its class.

    Args:
        model: The model, changed in place.
        compile: See `optimize`.
        freeze: See `optimize`.
        one_by_one: Whether the images of a batch go through the network one after another.
    """
    # The functions call methods of an unchanged copy, so that the compiler traces plain code.
    plain = copy.copy(model)
    thresholds = model._thresholds()
    plain.__dict__["_thresholds"] = lambda: thresholds
    faster = partial(_faster, compile=compile, freeze=freeze, one_by_one=one_by_one)
    again = partial(_speed_up, compile=compile, freeze=freeze, one_by_one=one_by_one)
    forward_scores = faster(plain._forward_scores)

    def _forward_scores(batch: Tensor) -> dict[str, Tensor]:
        if model.score_function != plain.score_function:
            return model._scored(model.forward_raw(batch))
        found = forward_scores(batch)
        # The graph's detections belong to the thresholds of compilation; with others, return only the scores.
        same = model._thresholds() == thresholds
        return found if same else {key: found[key] for key in ("class_scores", "best", "bbox_regression")}

    def copied(memo: dict[int, object]) -> SSD:
        """Return a deep copy with functions of its own, as `__deepcopy__` does.

        `copy.deepcopy` does not copy functions, so they would call the layers of the old model.
        """
        clone = memo[id(model)] = type(model).__new__(type(model))
        clone.__dict__ |= copy.deepcopy(_without_functions(model), memo)
        again(clone)
        return clone

    def reduced(protocol: object) -> tuple[object, ...]:
        """Return what pickle stores, as `__reduce_ex__` does; the functions are made again."""
        del protocol
        return _revive, (type(model), _without_functions(model), again)

    functions = faster(plain.forward_raw), _forward_scores, copied, reduced
    model.__dict__.update(zip(_OWN_FUNCTIONS, functions, strict=True))


def _without_functions(model: SSD) -> dict[str, object]:
    """Return a model's attributes without those that `_speed_up` sets."""
    return {key: value for key, value in model.__dict__.items() if key not in _OWN_FUNCTIONS}


def _revive(kind: type[SSD], state: dict[str, object], speed_up: Callable[[SSD], None]) -> SSD:
    """Return an optimised model from a pickle."""
    model = kind.__new__(kind)
    model.__dict__ |= state
    speed_up(model)
    return model


def _faster(function: Network, *, compile: bool | str, freeze: bool, one_by_one: bool) -> Network:
    """Return a function from batch to outputs that is compiled as asked; see `_speed_up`."""
    mode = compile if isinstance(compile, str) else None
    run = torch.compile(_with_own_code(function), fullgraph=True, mode=mode) if compile else function

    def faster(batch: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        if lengths is not None:
            return function(batch, lengths)
        parts = batch.split(1) if one_by_one else [batch]
        if compile:
            for part in parts:
                # Otherwise Dynamo makes these sizes dynamic if another model of another size was compiled before.
                torch._dynamo.mark_static(part, [1, 2, 3])
        if not freeze:
            return _joined([run(part) for part in parts])
        # Freezing requires no_grad. As an option of torch.compile it has no effect: the tracer reads the config before
        # options are applied.
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            return _joined([run(part) for part in parts])

    return faster


def _with_own_code(function: Network) -> Network:
    """Wrap a function in a code object of its own.

    Dynamo counts recompilations by code object, and stops compiling after a few models that share one.
    """

    def call(batch: Tensor) -> dict[str, Tensor]:
        return function(batch)

    return FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _largest_map(model: SSD, batch: Tensor) -> int:
    """Return the bytes of the largest convolution output for one image."""
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

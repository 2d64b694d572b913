"""Benchmark inference, training and post-processing against torchvision."""

import copy
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from models import batches, build, device, make_images, make_targets
from tables import HALF
from timing import Contenders, alternate
from torch import Tensor
from torchvision.models.detection import _utils as torchvision_utils
from torchvision.models.detection import ssd as torchvision_ssd

import ssd_zoo
from ssd_zoo.deploy import compare_detections, optimize
from ssd_zoo.detector.loss import detector_losses
from ssd_zoo.detector.postprocess.candidates import best_candidates, is_eligible
from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes
from ssd_zoo.detector.postprocess.fixed import postprocess_fixed
from ssd_zoo.detector.postprocess.suppress import suppress_batch, suppress_in_rounds
from ssd_zoo.detector.postprocess.thresholds import Thresholds

Row = dict[str, Any]


def inference(models: list[str], *, seconds: float, compile: bool) -> Iterator[Row]:
    """Time calls of the detectors and of their trunks (backbone and head).

    Variants are eager, optimized and compiled; on a GPU also half precision and CUDA graphs.
    """
    for name in models:
        ours, theirs = (model.eval() for model in build(name))
        fast = {"ssd_zoo optimized": optimize(ours, compile=False)}
        if compile:
            fast["ssd_zoo optimized, compiled"] = optimize(ours)
        if compile and device().type == "cuda":
            fast[f"ssd_zoo optimized, {HALF}, CUDA graphs"] = optimize(
                ours, dtype=torch.float16, compile="reduce-overhead"
            )
        change = compare_detections(theirs, ours, make_images(2))
        for batch in batches():
            images = make_images(batch)
            contenders = {"torchvision": _call(theirs, images), **_kind("ssd_zoo", ours, images)}
            for kind, model in fast.items():
                contenders |= _kind(kind, model, images)
            if device().type == "cuda":
                mixed = {f"torchvision, {HALF}": _call(theirs, images), **_kind(f"ssd_zoo, {HALF}", ours, images)}
                contenders |= {kind: _mixed_precision(run) for kind, run in mixed.items()}
            with _while_memory_lasts(name, batch):
                with torch.inference_mode():
                    times = alternate(contenders, seconds=seconds, at_least=3 if device().type == "cuda" else 5)
                yield {"model": name, "batch": batch, "times": times, "detections": str(change)}


@contextmanager
def _while_memory_lasts(model: str, batch: int) -> Iterator[None]:
    """Skip a measurement that exceeds the GPU's memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        print(f"{model}, batch {batch}, is left out: {error}", file=sys.stderr)


def _call(model: torch.nn.Module, images: list[Tensor]) -> Callable[[], object]:
    return lambda: model(images)


def _kind(name: str, model: ssd_zoo.SSD, images: list[Tensor]) -> Contenders:
    """Return contenders: the whole call, and the trunk on the prepared batch."""
    with torch.inference_mode():
        batch = model.prepare(images)
    return {name: _call(model, images), f"{name}, trunk": lambda: model.forward_raw(batch)}


def _mixed_precision(run: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        with torch.autocast("cuda", dtype=torch.float16):
            return run()

    return call


def training(models: list[str], *, seconds: float, compile: bool) -> Iterator[Row]:
    """Time steps of SGD, and our matching and losses separately."""
    for name in models:
        ours, theirs = (model.train() for model in build(name))
        kinds: dict[str, Any] = {"torchvision": theirs, "ssd_zoo": ours}
        compiled = {}
        if compile:
            # Without the reset, Dynamo makes sizes dynamic when the second model has another input size.
            torch._dynamo.reset()
            # torch 2.14 does not detect the backward pass's convolutions, and would skip layout optimization.
            options = {"force_layout_optimization": True} if device().type == "cpu" else None
            compiled["ssd_zoo compiled"] = torch.compile(copy.deepcopy(ours), options=options)
        for batch in [8] if device().type == "cpu" else batches()[1:]:
            images, targets = make_images(batch), make_targets(batch)
            steps = {kind: _step(model, images, targets) for kind, model in (kinds | compiled).items()}
            contenders = steps
            if device().type == "cuda":
                contenders = {kind: steps[kind] for kind in kinds}
                contenders |= {f"{kind}, {HALF}": _mixed_precision(step) for kind, step in steps.items()}
            with _while_memory_lasts(name, batch):
                contenders["ssd_zoo, loss and matching"] = _losses(ours, images, targets)
                yield {"model": name, "batch": batch, "times": alternate(contenders, seconds=seconds, at_least=3)}


def _step(model: Any, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()

    return step


def _losses(model: ssd_zoo.SSD, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Callable[[], object]:
    with torch.no_grad():
        raw = model.forward_raw(model.prepare(images))
    sizes = [(image.shape[1], image.shape[2]) for image in images]

    def step() -> None:
        leaves = {key: value.detach().requires_grad_() for key, value in raw.items()}
        sum(detector_losses(model, leaves, *model.prepare_targets(targets, sizes)).values()).backward()

    return step


# Classes, default boxes, detections per image; the first row is SSDLite320 on COCO.
POSTPROCESSING = [
    (91, 3234, 300),
    *((classes, 3234, 300) for classes in (2, 21, 366)),
    *((91, boxes, 300) for boxes in (1917, 8732, 24564)),
    *((91, 3234, kept) for kept in (20, 100, 1000)),
]


def postprocessing(models: list[str], *, seconds: float, compile: bool) -> Iterator[Row]:  # noqa: ARG001
    """Time post-processing of one image by numbers of classes, boxes and detections."""
    for scores, spread in (("all over the threshold", 0.1), ("like trained", 4.0)):
        for classes, boxes, kept in POSTPROCESSING:
            raw, default_boxes = _raw(classes, boxes, spread)
            settings: dict[str, Any] = {"nms_thresh": 0.55, "detections_per_img": kept, "topk_candidates": 300}
            settings["score_thresh"] = 1e-4 if spread < 1 else 0.01
            thresholds, scales = Thresholds(**settings), torch.ones(1, 4, device=device())
            theirs = _torchvisions_postprocessing(default_boxes, settings)
            with torch.inference_mode():
                contenders = {
                    "torchvision": lambda raw=raw, theirs=theirs: theirs(raw),
                    "ssd_zoo": lambda raw=raw, default_boxes=default_boxes, thresholds=thresholds, scales=scales: (
                        postprocess_detections(
                            score_boxes(raw, "softmax"), default_boxes, (320, 320), thresholds, scales
                        )
                    ),
                }
                times = alternate(contenders, seconds=seconds / 10, at_least=3)
            yield {"scores": scores, "classes": classes, "boxes": boxes, "detections": kept, "times": times}


def fixed(models: list[str], *, seconds: float, compile: bool) -> Iterator[Row]:  # noqa: ARG001
    """Time what `forward_fixed` does after the network, and NMS within it, with 91 classes."""
    thresholds = Thresholds(score_thresh=1e-4, nms_thresh=0.55, detections_per_img=100, topk_candidates=300)
    raw, default_boxes = _raw(91, 1917, 0.1)
    for count in (1, 8):
        scored = score_boxes({key: value.repeat(count, 1, 1) for key, value in raw.items()}, "softmax")
        for take in (1000, 200):
            scores, labels, boxes = best_candidates(scored, default_boxes, take)
            eligible = is_eligible(scores, labels, 91, thresholds)
            contenders: Contenders = {
                "post-processing": functools.partial(
                    postprocess_fixed, scored, default_boxes, (320, 320), thresholds, candidates=take
                ),
                "NMS": functools.partial(
                    suppress_in_rounds, boxes, labels, eligible, thresholds.nms_thresh, most=100, rounds=24
                ),
                "NMS by the operator": functools.partial(
                    suppress_batch, boxes, labels, eligible, 91, thresholds.nms_thresh
                ),
            }
            with torch.inference_mode():
                yield {"images": count, "candidates": take, "times": alternate(contenders, seconds=seconds / 4)}


def _raw(classes: int, boxes: int, spread: float) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, boxes, classes, generator=generator) * spread
    if spread > 1:
        # A trained detector assigns nearly all boxes to the background.
        logits[..., 0] += 6 * spread * (torch.rand(1, boxes, generator=generator) < 0.97)
    corners = torch.rand(boxes, 2, generator=generator) * 250
    default_boxes = torch.cat([corners, corners + 20 + torch.rand(boxes, 2, generator=generator) * 80], dim=1)
    offsets = torch.randn(1, boxes, 4, generator=generator)
    return {key: value.to(device()) for key, value in (("cls_logits", logits), ("bbox_regression", offsets))}, (
        default_boxes.to(device())
    )


def _torchvisions_postprocessing(default_boxes: Tensor, settings: dict[str, Any]) -> Callable[[Any], object]:
    model = torchvision_ssd.SSD.__new__(torchvision_ssd.SSD)
    torch.nn.Module.__init__(model)
    model.box_coder = torchvision_utils.BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    for name, value in settings.items():
        setattr(model, name, value)
    return lambda raw: model.postprocess_detections(dict(raw), [default_boxes], [(320, 320)])

"""Checking, batching and scaling of targets."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, TVTensor

from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.inputs import check_dense, check_device

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = [
    "batch_targets",
    "box_scales",
    "check_target_faults",
    "check_targets",
    "find_odd_boxes",
    "prepare_targets",
    "scale_boxes",
    "target_faults",
    "warn_of_odd_boxes",
]

Size = tuple[int, int]
# Share of a side by which labelled boxes may exceed an image without a warning.
_BEYOND = 0.1


def prepare_targets(
    model: "SSD", targets: Sequence[dict[str, Tensor]] | None, image_sizes: Sequence[Size]
) -> tuple[Tensor, Tensor, Tensor]:
    """Check, scale and pad targets; implements `SSD.prepare_targets`.

    Values on a GPU are checked later.
    """
    num_classes, size = len(model.categories), model.size
    checked = check_targets(targets, len(image_sizes), model.default_boxes.device)
    boxes, labels, valid = batch_targets(checked)
    faults = target_faults(boxes, labels, num_classes) & valid
    # Invalid objects are left out even if they raise an error, because on a GPU it is raised only later.
    usable = valid & ~faults.any(0)
    if model.on_invalid_boxes == "drop":
        faults = faults[:1]
    model._checks.add(faults, partial(check_target_faults, targets=checked, num_classes=num_classes))
    scaled = boxes * box_scales(image_sizes, [size] * len(image_sizes), boxes.device).unsqueeze(1)
    model._checks.add(find_odd_boxes(boxes, scaled, usable, size), partial(warn_of_odd_boxes, told=model._told))
    return scaled, labels, usable


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Scale boxes from one image size to another.

    Args:
        boxes: `(..., 4)`, xyxy in pixels.
        from_size: (height, width) of the image that the boxes belong to.
        to_size: (height, width) that the image is resized to.

    Returns:
        `(..., 4)`, not clipped.
    """
    return boxes * box_scales([from_size], [to_size], boxes.device)[0]


def box_scales(from_sizes: Sequence[Size], to_sizes: Sequence[Size], device: torch.device) -> Tensor:
    """Return the factors that scale boxes between image sizes.

    Args:
        from_sizes: N sizes (height, width) that the boxes belong to.
        to_sizes: N sizes (height, width) that the images are resized to.
        device: Device of the result.

    Returns:
        `(N, 4)`, one row per pair of sizes, by which boxes `(..., 4)`, xyxy, are multiplied.
    """
    scales = [(to[1] / of[1], to[0] / of[0]) * 2 for of, to in zip(from_sizes, to_sizes, strict=True)]
    return torch.tensor(scales, dtype=torch.float32, device="cpu").to(device, non_blocking=True)


def check_targets(targets: object, num_images: int, device: torch.device) -> list[dict[str, Tensor]]:
    """Check types, shapes and devices of a batch's targets.

    Args:
        targets: One dict per image: `boxes (G, 4)`, xyxy in the image's pixels, and `labels (G,)`, integers from 1.
            Images without objects have `boxes (0, 4)` and `labels (0,)`.
        num_images: Number of images.
        device: Device of the model.

    Returns:
        One dict per image: `boxes (G, 4)`, floating point, and `labels (G,)`, int64.

    Raises:
        TypeError: If targets are missing, or have the wrong type.
        ValueError: If numbers or shapes are wrong, boxes are declared in another format than xyxy, or a tensor is on
            another device. The message names the target.
    """
    if targets is None:
        raise TypeError("Losses need targets: call model(images, targets), or model.eval() first for detections alone.")
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise TypeError(f"targets must be a list of one dict per image, got {type(targets).__name__}.")
    if len(targets) != num_images:
        raise ValueError(f"Got {num_images} images and {len(targets)} targets; each image needs one.")
    return [_check_target(target, i, device) for i, target in enumerate(targets)]


def _check_target(target: object, i: int, device: torch.device) -> dict[str, Tensor]:
    if not isinstance(target, dict) or not {"boxes", "labels"} <= target.keys():
        got = sorted(target) if isinstance(target, dict) else type(target).__name__
        raise TypeError(f"targets[{i}] must be a dict with 'boxes' and 'labels', got {got}.")
    boxes, labels = target["boxes"], target["labels"]
    for name, value in (("boxes", boxes), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"targets[{i}]['{name}'] must be a tensor, got {type(value).__name__}.")
        check_dense(f"targets[{i}]['{name}']", value)
        check_device(f"targets[{i}]['{name}']", value, device)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"targets[{i}]['boxes'] has shape {tuple(boxes.shape)}; expected (G, 4), xyxy in pixels. "
            "An image without objects has torch.zeros(0, 4)."
        )
    if labels.shape != boxes.shape[:1]:
        raise ValueError(
            f"targets[{i}] has {len(boxes)} boxes and labels of shape {tuple(labels.shape)}; expected ({len(boxes)},)."
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"targets[{i}]['labels'] has dtype {labels.dtype}; expected integers.")
    check_format(f"targets[{i}]['boxes']", boxes)
    boxes, labels = (value.as_subclass(Tensor) if isinstance(value, TVTensor) else value for value in (boxes, labels))
    return {"boxes": boxes if boxes.dtype == torch.float64 else boxes.float(), "labels": labels.long()}


def check_format(name: str, boxes: object) -> None:
    """Raise ValueError if boxes are declared in a format other than xyxy."""
    if isinstance(boxes, BoundingBoxes) and boxes.format != BoundingBoxFormat.XYXY:
        raise ValueError(
            f"{name} are in the format {boxes.format.name}; convert them with "
            "torchvision.transforms.v2.ConvertBoundingBoxFormat('XYXY')."
        )


def target_faults(boxes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Find objects with invalid labels or boxes.

    Args:
        boxes: `(..., 4)`, xyxy in pixels.
        labels: `(...)`, int64.
        num_classes: Number of classes, background counted.

    Returns:
        `(2, ...)`, bool: whether the label is not an object class, and whether the box is not finite or has no area.
    """
    no_class = (labels < 1) | (labels >= num_classes)
    no_box = ~(boxes.isfinite().all(-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1))
    return torch.stack([no_class, no_box])


def check_target_faults(faults: Tensor, targets: Sequence[dict[str, Tensor]], num_classes: int) -> None:
    """Raise an error for the first fault.

    Args:
        faults: `(2, N, G)` from `target_faults`, False for padding.
        targets: The checked targets, from `check_targets`.
        num_classes: Number of classes, background counted.

    Raises:
        ValueError: If there is a fault. The message names the target and the box.
    """
    if not faults.any():
        return
    kind, i, k = faults.nonzero()[0].tolist()
    if kind == 0:
        label = int(targets[i]["labels"][k])
        why = "0 is the background, objects start at 1" if label == 0 else "background is counted"
        raise ValueError(
            f"targets[{i}]['labels'][{k}] is {label}; "
            f"with {num_classes} classes labels go from 1 to {num_classes - 1} ({why})."
        )
    raise ValueError(
        f"targets[{i}]['boxes'][{k}] is {targets[i]['boxes'][k].tolist()}; expected finite xyxy with x1 < x2 and "
        "y1 < y2. Correct it, or build the model with on_invalid_boxes='drop' to train without such boxes."
    )


def find_odd_boxes(boxes: Tensor, scaled: Tensor, usable: Tensor, size: Size) -> Tensor:
    """Find signs that boxes are not in the pixels of their images.

    Args:
        boxes: `(N, G, 4)`, xyxy in the images' pixels.
        scaled: The same boxes in input pixels.
        usable: `(N, G)`, False for boxes that do not count.
        size: (height, width) of the input.

    Returns:
        `(2,)`, bool: whether a box lies beyond its image by more than a tenth of it, and whether all lie within 0
        and 1.
    """
    beyond = torch.zeros_like(usable)
    for axis, side in enumerate((size[1], size[0])):
        along = scaled[..., axis::2]
        beyond |= ((along < -_BEYOND * side) | (along > (1 + _BEYOND) * side)).any(-1)
    relative = (((boxes >= 0) & (boxes <= 1)).all(-1) | ~usable).all() & usable.any()
    return torch.stack([(beyond & usable).any(), relative])


def warn_of_odd_boxes(odd: Tensor, told: set[str]) -> None:
    """Warn once of each sign that `find_odd_boxes` found.

    Args:
        odd: `(2,)` from `find_odd_boxes`.
        told: What was told before; it is added to.
    """
    texts = (
        "A target has a box that lies beyond its image. Boxes must be xyxy in the pixels of the image as it is passed: "
        "if you resize or crop images, change their boxes too.",
        "All boxes of the targets lie between 0 and 1, so they seem to be fractions. Multiply x by the image's width "
        "and y by its height: boxes must be in pixels.",
    )
    for text, found in zip(texts, odd.tolist(), strict=True):
        if found and text not in told:
            told.add(text)
            warn_caller(text)


def batch_targets(targets: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad checked targets to the same number of objects, at least one.

    Returns:
        `boxes (N, G, 4)`, `labels (N, G)` and `valid (N, G)`, bool, False for the padding.
    """
    counts = [len(target["labels"]) for target in targets]
    # An extra image with one object, dropped below, makes G at least 1.
    one_object = {"boxes": targets[0]["boxes"].new_zeros(1, 4), "labels": targets[0]["labels"].new_zeros(1)}
    boxes, labels = (
        pad_sequence([target[key] for target in (*targets, one_object)], batch_first=True)[:-1]
        for key in ("boxes", "labels")
    )
    valid = torch.arange(labels.shape[1], device="cpu") < torch.tensor(counts, device="cpu").unsqueeze(1)
    return boxes, labels, valid.to(labels.device, non_blocking=True)

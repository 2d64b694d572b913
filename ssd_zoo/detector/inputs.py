"""Images and targets: checked, resized, batched."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

__all__ = ["batch_images", "batch_targets", "check_images", "check_targets", "scale_boxes"]

Size = tuple[int, int]


def check_images(images: Any, in_chans: int) -> None:
    """Checks what a detector is called with.

    Args:
        images: A list of `(in_chans, H, W)` tensors of any sizes, or a batch `(N, in_chans, H, W)`; uint8, or floating
            point between 0 and 1.
        in_chans: Number of channels that the model takes.

    Raises:
        TypeError: If an image is no tensor, or neither uint8 nor floating point.
        ValueError: If there is no image, or one has another rank, other channels, or no pixels.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        raise ValueError(f"Got one image of shape {tuple(images.shape)}; pass a list of images: model([image]).")
    if not isinstance(images, (Tensor, Sequence)) or isinstance(images, str):
        raise TypeError(f"Expected a list of image tensors (C, H, W), got {type(images).__name__}.")
    if len(images) == 0:
        raise ValueError("Got no images: the list is empty. Pass at least one tensor (C, H, W).")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(
                f"images[{i}] is a {type(image).__name__}, not a tensor. "
                "For a file use ssd_zoo.data.read_image, for PIL images torchvision.transforms.v2.functional.to_image."
            )
        shape = tuple(image.shape)
        if image.ndim != 3:
            raise ValueError(f"images[{i}] has shape {shape}; expected (C, H, W) with C = {in_chans}.")
        if image.shape[0] != in_chans:
            way_out = f"Repeat it with image.expand({in_chans}, -1, -1)" if shape[0] == 1 else "Convert the image"
            raise ValueError(
                f"images[{i}] has shape {shape}, so {shape[0]} channels; this model takes {in_chans}. {way_out}."
            )
        if image.numel() == 0:
            raise ValueError(f"images[{i}] has shape {shape} and no pixels.")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(
                f"images[{i}] has dtype {image.dtype}; expected uint8 (0 to 255) or floating point (0 to 1)."
            )


def batch_images(images: Sequence[Tensor] | Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Resizes checked images to one size, bilinearly, and stacks them.

    Args:
        images: A list of `(C, H, W)` tensors, or one `(N, C, H, W)`; uint8, or floating point between 0 and 1.
        size: (height, width) to resize to; the aspect ratio is not kept.
        antialias: Whether to average over the pixels that fall together when an image gets smaller. torchvision's
            detectors do not.

    Returns:
        `(N, C, height, width)`, floating point between 0 and 1.
    """
    if isinstance(images, Tensor):
        return _resize(_as_float(images), size, antialias)
    return torch.cat([_resize(_as_float(image).unsqueeze(0), size, antialias) for image in images])


def _as_float(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _resize(batch: Tensor, size: Size, antialias: bool) -> Tensor:
    if batch.shape[-2:] == size:
        return batch
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def check_pixels(batch: Tensor) -> None:
    """Looks for pixels that no image between 0 and 1 has.

    Args:
        batch: `(N, C, H, W)`, before normalisation.

    Raises:
        ValueError: If an image holds NaN or infinite values.

    Warns:
        UserWarning: If values look as if they went to 255.
    """
    low, high = batch.flatten(1).aminmax(dim=1)
    finite = low.isfinite() & high.isfinite()
    if not finite.all():
        raise ValueError(f"images[{finite.int().argmin()}] holds NaN or infinite pixels.")
    if (high > 2).any():
        i = int(high.argmax())
        warnings.warn(
            f"images[{i}] has floating-point pixels up to {high[i]:.4g}; they should lie between 0 and 1. "
            "Divide them by 255, or pass the image as uint8.",
            stacklevel=4,
        )


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Moves boxes from an image of one size to the same image at another.

    Args:
        boxes: `(..., 4)`, xyxy in pixels.
        from_size: (height, width) that they belong to.
        to_size: (height, width) that they shall belong to.
    """
    scale_y, scale_x = (
        torch.tensor(to, dtype=torch.float32) / torch.tensor(old, dtype=torch.float32)
        for old, to in zip(from_size, to_size, strict=True)
    )
    return boxes * torch.stack([scale_x, scale_y, scale_x, scale_y]).to(boxes.device)


def check_targets(targets: Any, num_images: int, num_classes: int, on_invalid_boxes: str) -> list[dict[str, Tensor]]:
    """Checks the targets of a batch and leaves out invalid boxes if told to.

    Args:
        targets: One dict an image: `boxes (G, 4)`, xyxy in the image's pixels, and `labels (G,)`, integers from 1 to
            `num_classes - 1`. Images without objects have `boxes (0, 4)` and `labels (0,)`.
        num_images: How many images there are.
        num_classes: Number of classes, background counted.
        on_invalid_boxes: `"raise"`, or `"drop"` for training without the boxes that are not finite or have no area.

    Returns:
        Per image a dict of `boxes (G, 4)`, floating point, and `labels (G,)`, int64.

    Raises:
        TypeError: If targets are missing, or have the wrong type.
        ValueError: If shapes, labels or boxes are invalid. The message names the target and the box.
    """
    if targets is None:
        raise TypeError("Losses need targets: call model(images, targets), or model.eval() first for detections alone.")
    if len(targets) != num_images:
        raise ValueError(f"Got {num_images} images and {len(targets)} targets; each image needs one.")
    return [_check_target(target, i, num_classes, on_invalid_boxes) for i, target in enumerate(targets)]


def _check_target(target: Any, i: int, num_classes: int, on_invalid_boxes: str) -> dict[str, Tensor]:
    if not isinstance(target, dict) or not {"boxes", "labels"} <= target.keys():
        got = sorted(target) if isinstance(target, dict) else type(target).__name__
        raise TypeError(f"targets[{i}] must be a dict with 'boxes' and 'labels', got {got}.")
    boxes, labels = target["boxes"], target["labels"]
    for name, value in (("boxes", boxes), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"targets[{i}]['{name}'] must be a tensor, got {type(value).__name__}.")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"targets[{i}]['boxes'] has shape {tuple(boxes.shape)}; expected (G, 4), xyxy in pixels. "
            "An image without objects has torch.zeros(0, 4)."
        )
    if labels.shape != boxes.shape[:1]:
        raise ValueError(
            f"targets[{i}] has {len(boxes)} boxes and labels of shape {tuple(labels.shape)}; expected ({len(boxes)},)."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"targets[{i}]['labels'] has dtype {labels.dtype}; expected integers.")
    if isinstance(boxes, BoundingBoxes) and boxes.format != BoundingBoxFormat.XYXY:
        raise ValueError(
            f"targets[{i}]['boxes'] are in the format {boxes.format.name}; convert them with "
            "torchvision.transforms.v2.ConvertBoundingBoxFormat('XYXY')."
        )
    boxes, labels = boxes.as_subclass(Tensor), labels.as_subclass(Tensor).long()
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()

    wrong_label = (labels < 1) | (labels >= num_classes)
    if wrong_label.any():
        k = int(wrong_label.int().argmax())
        why = "0 is the background, objects start at 1" if labels[k] == 0 else "background is counted"
        raise ValueError(
            f"targets[{i}]['labels'][{k}] is {int(labels[k])}; "
            f"with {num_classes} classes labels go from 1 to {num_classes - 1} ({why})."
        )
    valid = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not valid.all():
        if on_invalid_boxes == "drop":
            return {"boxes": boxes[valid], "labels": labels[valid]}
        k = int(valid.int().argmin())
        raise ValueError(
            f"targets[{i}]['boxes'][{k}] is {boxes[k].tolist()}; expected finite xyxy with x1 < x2 and y1 < y2. "
            "Correct it, or build the model with on_invalid_boxes='drop' to train without such boxes."
        )
    return {"boxes": boxes, "labels": labels}


def batch_targets(targets: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pads checked targets to the same number of objects, at least one.

    Returns:
        `boxes (N, G, 4)`, `labels (N, G)` and `valid (N, G)`, False for the padding.
    """
    most = max(1, *(len(target["labels"]) for target in targets))
    boxes, labels, valid = [], [], []
    for target in targets:
        missing = most - len(target["labels"])
        boxes.append(F.pad(target["boxes"], (0, 0, 0, missing)))
        labels.append(F.pad(target["labels"], (0, missing)))
        valid.append(torch.arange(most, device=target["labels"].device) < most - missing)
    return torch.stack(boxes), torch.stack(labels), torch.stack(valid)

"""Transform images and targets for training and evaluation."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

__all__ = ["Augmentation", "DetectionPresetEval", "DetectionPresetTrain", "collate"]

Augmentation = Literal["ssd", "ssdlite", "light", "none"]

_PER_OBJECT = ("labels", "area", "iscrowd", "difficult")


class DetectionPresetTrain:
    """Augmentation of image and target for training.

    It returns a float image between 0 and 1 and plain tensors. Crowds (`iscrowd`) and boxes without area are removed.

    Args:
        kind: `"ssd"`, the paper's augmentation (sections 2.2 and 3.6): photometric distortion, zooming out onto a
            canvas, cropping with a minimum IoU, flipping. `"ssdlite"`, cropping and flipping, as in torchvision's
            training of SSDLite. `"light"`, flipping and a weak jitter of colour, position and scale. `"none"`.
        mean: Colour of the canvas, RGB between 0 and 1.
        size: (height, width) to resize to, in pixels. Resizing here keeps batches small and fast to transfer. None
            leaves resizing to the model.
        antialias: Whether to resize with antialiasing; choose the model's setting.
        flip_vertically: Whether to flip vertically too, for example in aerial images.

    Raises:
        ValueError: If the kind is unknown.
    """

    def __init__(
        self,
        kind: Augmentation = "ssd",
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        size: tuple[int, int] | None = None,
        antialias: bool = True,
        flip_vertically: bool = False,
    ) -> None:
        if kind not in get_args(Augmentation):
            raise ValueError(f"kind must be one of {', '.join(map(repr, get_args(Augmentation)))}, got {kind!r}.")
        fill = [round(255 * value) for value in mean]
        steps: list[Any] = [v2.ToImage()]
        if kind == "ssd":
            # Distortion precedes zooming out, which enlarges the image: it then changes fewer pixels.
            steps += [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=fill), v2.RandomIoUCrop()]
        elif kind == "ssdlite":
            steps += [v2.RandomIoUCrop()]
        elif kind == "light":
            jitter = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
            affine = v2.RandomAffine(degrees=0, translate=(0.1, 0.1), scale=(0.8, 1.25), fill=fill)
            steps += [v2.RandomApply([jitter], p=0.5), v2.RandomApply([affine], p=0.5)]
        if kind != "none":
            steps += [v2.RandomHorizontalFlip(), *([v2.RandomVerticalFlip()] if flip_vertically else [])]
        if size is not None:
            steps.append(v2.Resize(size, antialias=antialias))
        steps += [
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(labels_getter=_per_object),
            v2.ToDtype(torch.float32, scale=True),
            v2.ToPureTensor(),
        ]
        self.kind = kind
        self.transforms = v2.Compose(steps)

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Augment an image (tensor or PIL) and a target with `tv_tensors.BoundingBoxes`."""
        return self.transforms(image, _without_crowds(target))

    def __repr__(self) -> str:
        return f"DetectionPresetTrain({self.kind!r})"


class DetectionPresetEval:
    """Conversion to tensors for evaluation; the detector itself resizes and normalises."""

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Convert an image (tensor or PIL) to float between 0 and 1."""
        transforms = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
        return transforms(image, target)


def _per_object(sample: tuple[Any, dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(sample[1][key] for key in _PER_OBJECT if key in sample[1])


def _without_crowds(target: dict[str, Any]) -> dict[str, Any]:
    if "iscrowd" not in target or not target["iscrowd"].any():
        return target
    keep = target["iscrowd"] == 0
    changed = {key: target[key][keep] for key in _PER_OBJECT if key in target}
    return {**target, **changed, "boxes": tv_tensors.wrap(target["boxes"][keep], like=target["boxes"])}


def collate(batch: Sequence[tuple[Any, dict[str, Any]]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Collate items into a list of images and a list of targets.

    Example:
        >>> from ssd_zoo.data import collate
        >>> images, targets = collate([(torch.zeros(3, 4, 5), {"image_id": 1})])
        >>> images[0].shape, targets
        (torch.Size([3, 4, 5]), [{'image_id': 1}])
    """
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)

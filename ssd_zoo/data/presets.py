"""What is done to images and targets before training and evaluation."""

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
    """Augmentation of image and target; gives a float image between 0 and 1 and plain tensors.

    Crowds are left out, for they are no objects to learn, and so are boxes that have no area left.

    Args:
        kind: `"ssd"`, all that the paper has: photometric distortion, zooming out onto a canvas of the mean colour,
            cropping to a least IoU, flipping (section 2.2 and 3.6); `"ssdlite"`, cropping and flipping, after
            torchvision's training of SSDLite; `"light"`, flipping and a little jitter of colour and scale; `"none"`.
        mean: Colour of the canvas, between 0 and 1.
        size: (height, width) to resize to, which the model would do else; then batches are small and quick to move.
        antialias: Whether to average the pixels that fall together then, as the model does or does not.
        flip_vertically: Whether up and down may change too, as in pictures taken from above.

    Raises:
        ValueError: If there is no such kind.
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
            # Zooming out comes last of what enlarges, so that colours are changed on fewer pixels.
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
        """Augments an image, a tensor or PIL's, with a target whose boxes are `tv_tensors.BoundingBoxes`."""
        return self.transforms(image, _without_crowds(target))

    def __repr__(self) -> str:
        return f"DetectionPresetTrain({self.kind!r})"


class DetectionPresetEval:
    """What a detector needs to be evaluated: tensors. It resizes and normalises by itself."""

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Turns an image, a tensor or PIL's, into a float tensor `(C, H, W)` between 0 and 1; the target stays."""
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
    """Makes a batch as detectors take it: a list of images and a list of targets.

    Example:
        >>> from ssd_zoo.data import collate
        >>> images, targets = collate([(torch.zeros(3, 4, 5), {"image_id": 1})])
        >>> images[0].shape, targets
        (torch.Size([3, 4, 5]), [{'image_id': 1}])
    """
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)

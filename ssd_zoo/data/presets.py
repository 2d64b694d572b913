"""Transform images, clips and their targets for training and evaluation."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssd_zoo.detector.frames import holds_clips, refuse_tiles
from ssd_zoo.detector.overlap import area_of
from ssd_zoo.detector.tiles import shown_size

__all__ = [
    "PER_OBJECT",
    "Augmentation",
    "CropWithObjects",
    "DetectionPresetEval",
    "DetectionPresetTrain",
    "RandomTile",
    "collate",
    "per_object",
    "without_crowds",
]

Augmentation = Literal["ssd", "ssdlite", "light", "none"]
Target = dict[str, Tensor]
Picture = Tensor | Image.Image
A = TypeVar("A")
B = TypeVar("B")

PER_OBJECT = ("labels", "area", "iscrowd", "difficult", "frame_index", "track_ids")
"""Keys of a target, apart from `boxes`, that have one value per object."""


class DetectionPresetTrain:
    """Augmentation of an image or a clip, with its target, for training.

    All frames of a clip get the same random values. The result is floating point between 0 and 1, with plain tensors in
    the target. Crowds (`iscrowd`) and boxes under 1 pixel in width or height, measured after resizing, are removed,
    with all that belongs to them.

    Args:
        kind: `"ssd"`, the paper's augmentation (sections 2.2 and 3.6): photometric distortion, zooming out onto a
            canvas, cropping with a minimum IoU, flipping. `"ssdlite"`, cropping and flipping, after torchvision's
            training of SSDLite. `"light"`, flipping and a weak jitter of colour, position and scale. `"none"`, without
            flips too.
        mean: Colour of the canvas, RGB between 0 and 1.
        size: (height, width) to resize to, in pixels. Resizing here keeps batches small and fast to transfer. None
            leaves resizing to the model.
        antialias: Whether to resize with antialiasing; choose the model's setting.
        flip: Whether to flip half of the images left to right; not if classes are mirror images, as arrows or letters.
        flip_vertically: Whether to flip vertically too, for example in aerial images.
        tile: (height, width) of a tile that is drawn from the image first; see `RandomTile`. None for none, as clips
            need.

    Raises:
        ValueError: If the kind is unknown; when called, if a clip meets `tile`.
    """

    def __init__(
        self,
        kind: Augmentation = "ssd",
        *,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        size: tuple[int, int] | None = None,
        antialias: bool = True,
        flip: bool = True,
        flip_vertically: bool = False,
        tile: tuple[int, int] | None = None,
    ) -> None:
        if kind not in get_args(Augmentation):
            raise ValueError(f"kind must be one of {', '.join(map(repr, get_args(Augmentation)))}, got {kind!r}.")
        steps: list[nn.Module] = [v2.ToImage(), *([] if tile is None else [RandomTile(tile)])]
        if kind == "ssd":
            # Distortion precedes zooming out, which enlarges the image: it then changes fewer pixels.
            steps += [v2.RandomPhotometricDistort(), _Filled(v2.RandomZoomOut, mean), CropWithObjects()]
        elif kind == "ssdlite":
            steps += [CropWithObjects()]
        elif kind == "light":
            jitter = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
            affine = partial(v2.RandomAffine, degrees=0, translate=(0.1, 0.1), scale=(0.8, 1.25))
            steps += [v2.RandomApply([jitter], p=0.5), v2.RandomApply([_Filled(affine, mean)], p=0.5)]
        if kind != "none":
            steps += [v2.RandomHorizontalFlip()] if flip else []
            steps += [v2.RandomVerticalFlip()] if flip_vertically else []
        if size is not None:
            steps.append(v2.Resize(size, antialias=antialias))
        steps += [
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(labels_getter=per_object),
            v2.ToDtype(torch.float32, scale=True),
            v2.ToPureTensor(),
        ]
        self.kind = kind
        self.transforms = v2.Compose(steps)

    def __call__(self, image: Picture, target: Target) -> tuple[Tensor, Target]:
        """Augment an image (tensor or PIL) or a clip (tensor), and a target with boxes in xyxy.

        Tensors are `(3, H, W)` or `(T, 3, H, W)`, uint8 or floating point between 0 and 1.
        """
        return self.transforms(image, _declared(image, without_crowds(target)))

    def __repr__(self) -> str:
        return f"DetectionPresetTrain({self.kind!r})"


class DetectionPresetEval:
    """Conversion to tensors for evaluation; the detector itself resizes and normalises."""

    def __call__(self, image: Picture, target: Target) -> tuple[Tensor, Target]:
        """Convert an image (tensor or PIL) or a clip to float between 0 and 1.

        The target is returned with plain tensors, otherwise unchanged.
        """
        transforms = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
        return transforms(image, target)


class _Filled(nn.Module):
    """Transform whose added area has a colour, for uint8 and floating-point pixels.

    Args:
        make: Returns the transform for a keyword `fill`, such as its class.
        mean: The colour, RGB between 0 and 1.
    """

    def __init__(self, make: Callable[..., nn.Module], mean: Sequence[float]) -> None:
        super().__init__()
        self.of_bytes = make(fill=[round(255 * value) for value in mean])
        self.of_floats = make(fill=list(mean))

    def forward(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Transform an image or a clip, and its target."""
        return (self.of_floats if image.is_floating_point() else self.of_bytes)(image, target)


class CropWithObjects(nn.Module):
    """Random minimum-IoU crop as torchvision's, which leaves thin images whole.

    torchvision's crop takes at least .3 of each side, and divides by zero where that is less than a pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crop = v2.RandomIoUCrop()

    def forward(self, image: Picture, target: Target) -> tuple[Picture, Target]:
        """Crop an image or a clip, and its target."""
        fits = min(v2.functional.get_size(image)) * self.crop.min_scale >= 1
        return self.crop(image, target) if fits else (image, target)


class RandomTile(nn.Module):
    """Random tile of an image that is larger than it.

    Three of four tiles show an object whole, drawn at random, at a random place in the tile; if the object is larger
    than the tile, they show its centre. The others lie anywhere. Objects of which less than half lies in the tile are
    left out; the boxes of the others are cut at its edges.

    Args:
        tile: (height, width) of the tile in pixels. Where the image is smaller, so is the tile.
    """

    def __init__(self, tile: tuple[int, int]) -> None:
        super().__init__()
        self.tile = tile

    def forward(self, image: Picture, target: Target) -> tuple[Picture, Target]:
        """Cut the tile from an image and its target in xyxy.

        An image that is no larger than the tile is returned unchanged.

        Raises:
            ValueError: If it is a clip.
        """
        if holds_clips([image]):
            refuse_tiles(self.tile)
        height, width = v2.functional.get_size(image)
        tile = shown_size((height, width), self.tile)
        if tile == (height, width):
            return image, target
        boxes = target["boxes"].as_subclass(Tensor)
        low, high = [0, 0], [width, height]
        if len(boxes) and torch.rand(()) < 0.75:
            low, high = _around(boxes[int(torch.randint(len(boxes), ()))].tolist(), tile)
        left, top = (
            _draw(a, b, whole - side) for a, b, whole, side in zip(low, high, (width, height), tile[::-1], strict=True)
        )
        moved = boxes - torch.tensor([left, top, left, top])
        cut = torch.stack([moved[:, 0::2].clamp(0, tile[1]), moved[:, 1::2].clamp(0, tile[0])], -1).flatten(1)
        keep = area_of(cut[:, 2:] - cut[:, :2]) >= 0.5 * area_of(boxes[:, 2:] - boxes[:, :2])
        rows = {key: target[key][keep] for key in PER_OBJECT if key in target}
        kept = tv_tensors.BoundingBoxes(cut[keep], format="XYXY", canvas_size=tile)
        return v2.functional.crop(image, top, left, *tile), {**target, **rows, "boxes": kept}


def _around(box: Sequence[float], tile: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return the least and the greatest (left, top) of tiles that show a box.

    Along an axis on which the box is larger than the tile, they show its centre.

    `box` is xyxy, `tile` (height, width). They may lie outside the image; `_draw` clamps them.
    """
    low, high = [], []
    for start, end, side in zip(box[:2], box[2:], tile[::-1], strict=True):
        if end - start > side:
            start = end = (start + end) / 2
        low.append(math.ceil(end - side))
        high.append(math.floor(start))
    return low, high


def _draw(low: int, high: int, most: int) -> int:
    """Draw a whole number from `low` to `high`, both first clamped to 0 … `most`."""
    low = min(max(0, low), most)
    return int(torch.randint(low, max(low, min(high, most)) + 1, ()))


def _declared(image: Picture, target: Target) -> Target:
    """Declare plain boxes as xyxy, because transforms leave plain tensors as they are."""
    if isinstance(target["boxes"], tv_tensors.BoundingBoxes):
        return target
    height, width = v2.functional.get_size(image)
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width))
    return {**target, "boxes": boxes}


def per_object(sample: tuple[Picture, Target]) -> tuple[Tensor, ...]:
    """Return a target's values per object, without the boxes.

    In the order of `PER_OBJECT`; keys that the target lacks are skipped.
    """
    return tuple(sample[1][key] for key in PER_OBJECT if key in sample[1])


def without_crowds(target: Target) -> Target:
    """Return a target without the objects that `iscrowd` marks.

    A clip's labeled frames stay.
    """
    if "iscrowd" not in target or not target["iscrowd"].any():
        return target
    keep = target["iscrowd"] == 0
    changed = {key: target[key][keep] for key in PER_OBJECT if key in target}
    boxes = target["boxes"][keep]
    if isinstance(target["boxes"], tv_tensors.BoundingBoxes):
        boxes = tv_tensors.wrap(boxes, like=target["boxes"])
    return {**target, **changed, "boxes": boxes}


def collate(batch: Sequence[tuple[A, B]]) -> tuple[list[A], list[B]]:
    """Collate items into a list of images and a list of targets.

    Example:
        >>> from ssd_zoo.data import collate
        >>> images, targets = collate([(torch.zeros(3, 4, 5), {"image_id": 1})])
        >>> images[0].shape, targets
        (torch.Size([3, 4, 5]), [{'image_id': 1}])
    """
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)

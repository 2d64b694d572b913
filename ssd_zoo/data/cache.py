"""Cache decoded images in memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ssd_zoo.data.dataset import DetectionDataset

__all__ = ["CachedDataset"]

Target = dict[str, Tensor]


class CachedDataset(torch.utils.data.Dataset[tuple[Tensor, Target]]):
    """Data set that holds its decoded images in memory.

    An image that can't be read is an error at once, as in `read_image`.

    Args:
        dataset: Data set of `open_dataset`; its transforms run on every access.
        longest: Longest side in pixels. Larger images are downscaled once, with their boxes and areas. None keeps all
            sizes.
    """

    def __init__(self, dataset: DetectionDataset, longest: int | None = None) -> None:
        self.categories = dataset.categories
        self.images = dataset.images
        self.transforms: Callable[[Tensor, Target], tuple[Tensor, Target]] | None = dataset.transforms
        plain = dataset.with_transforms(None)
        with ThreadPoolExecutor() as pool:
            self._items = list(pool.map(lambda i: _shrink(*plain[i], longest), range(len(plain))))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self._items[index]
        return (image, dict(target)) if self.transforms is None else self.transforms(image, dict(target))


def _shrink(image: Tensor, target: Target, longest: int | None) -> tuple[Tensor, Target]:
    height, width = image.shape[-2:]
    if longest is None or max(height, width) <= longest:
        return tv_tensors.Image(image.contiguous()), target
    scale = longest / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    small = F.resize(image, size, antialias=True)
    return small, {**target, "boxes": F.resize(target["boxes"], size), "area": target["area"] * scale**2}

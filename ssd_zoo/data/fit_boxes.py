"""Fit default boxes to a data set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.presets import without_crowds
from ssd_zoo.data.video_datasets import VideoDataset
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.feature_maps import feature_map_shapes
from ssd_zoo.detector.overlap import box_iou
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.targets import scale_boxes
from ssd_zoo.detector.tiles import shown_boxes

__all__ = ["DefaultBoxFit", "fit_default_boxes"]

# Approximate ratio of a default box's size to its map's stride in the SSD paper.
_SIZE_OVER_STRIDE = 2.5

Size = tuple[int, int]
Items = Iterable[tuple[Tensor | Image, dict[str, Tensor]]]


@dataclass(frozen=True)
class DefaultBoxFit:
    """Default boxes fitted to a data set, with statistics before and after.

    Attributes:
        default_boxes: Generator to pass to builders as `default_boxes`.
        objects: Number of objects in the data set.
        iou_thresh: The matcher's threshold.
        unreached_before: Number of objects whose best IoU with the model's default boxes is below `iou_thresh`.
        unreached_after: Same for the fitted default boxes.
        mean_iou_before: Mean over objects of the best IoU with the model's default boxes.
        mean_iou_after: Same for the fitted default boxes.
    """

    default_boxes: DefaultBoxGenerator
    objects: int
    iou_thresh: float
    unreached_before: int
    unreached_after: int
    mean_iou_before: float
    mean_iou_after: float

    def __str__(self) -> str:
        """Return a summary in one line."""
        return (
            f"{self.objects} objects; no default box reaches IoU {self.iou_thresh} for {self.unreached_before} before, "
            f"{self.unreached_after} after; mean best IoU {self.mean_iou_before:.3f} before, "
            f"{self.mean_iou_after:.3f} after"
        )


def fit_default_boxes(dataset: DetectionDataset | VideoDataset | Items, model: SSD) -> DefaultBoxFit:
    """Fit default boxes to a data set by clustering under IoU.

    An object's size is the root of its area. It is assigned to the coarsest feature map whose stride is at most its
    size over 2.5, or else to the finest map. The sizes of a map's objects are clustered into as many shapes as the map
    has, so the model's weights still fit. A map with fewer objects than shapes keeps its shapes. (Clustering as in
    Redmon and Farhadi, "YOLO9000", section 2. https://arxiv.org/abs/1612.08242)

    Args:
        dataset: Data set of `open_dataset`, whose images are not decoded if it has no transforms. Or one of
            `open_video_dataset`, whose videos are taken whole. Or pairs of an image, `(C, H, W)` or PIL, or a clip, and
            a target with `boxes (G, 4)`, xyxy in pixels. Crowds (`iscrowd`) and boxes without area are ignored.
        model: The detector; it is not modified. If it has tiles, objects are as large as in them. Build a new one with
            `default_boxes=fit.default_boxes`.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If the data set has no objects, or an image or video can't be read.

    Example:
        >>> model = ssd_zoo.ssdlite320_ultraface_slim()
        >>> objects = torch.tensor([[10.0, 10, 40, 90], [100, 50, 130, 130], [200, 200, 230, 280]])
        >>> fit = fit_default_boxes([(torch.zeros(3, 300, 300), {"boxes": objects})], model)
        >>> fit.objects, fit.unreached_after <= fit.unreached_before
        (3, True)
    """
    scaled = [
        scale_boxes(*shown_boxes(without_crowds(target)["boxes"].as_subclass(Tensor), size, model.tile), model.size)
        for size, target in _sizes_and_targets(dataset)
    ]
    objects = torch.cat(scaled or [torch.zeros(0, 4)]).float()
    objects = objects[(objects[:, 2:] > objects[:, :2]).all(1)]
    if len(objects) == 0:
        raise ValueError("The data set has no objects to fit default boxes to.")
    map_sizes = [shape[1:] for shape in feature_map_shapes(model.backbone, model.size, model.in_chans)]
    before = model.default_box_generator
    strides = torch.tensor([max(model.size[0] / rows, model.size[1] / columns) for rows, columns in map_sizes])
    sizes = objects[:, 2:] - objects[:, :2]
    of_map = (sizes.prod(1).sqrt().unsqueeze(1) >= _SIZE_OVER_STRIDE * strides).sum(1).sub(1).clamp(min=0)
    shapes = [
        _cluster(sizes[of_map == k], len(old)).div(min(model.size)).tolist() if (of_map == k).sum() >= len(old) else old
        for k, old in enumerate(before.shapes)
    ]
    after = DefaultBoxGenerator(shapes=shapes, steps=before.steps, offsets=before.offsets, clip=before.clip)
    iou_before, iou_after = (_best_iou(objects, make(map_sizes, model.size)) for make in (before, after))
    return DefaultBoxFit(
        default_boxes=after,
        objects=len(objects),
        iou_thresh=model.iou_thresh,
        unreached_before=int((iou_before < model.iou_thresh).sum()),
        unreached_after=int((iou_after < model.iou_thresh).sum()),
        mean_iou_before=iou_before.mean().item(),
        mean_iou_after=iou_after.mean().item(),
    )


def _sizes_and_targets(dataset: DetectionDataset | VideoDataset | Items) -> Iterator[tuple[Size, dict[str, Tensor]]]:
    if isinstance(dataset, DetectionDataset) and dataset.transforms is None:
        for i, entry in enumerate(dataset.images):
            size = entry.read_size()
            yield size, dataset.target(i, size)
    elif isinstance(dataset, VideoDataset):
        for video in dataset.videos:
            frame = next(iter(video))
            yield (frame.shape[-2], frame.shape[-1]), video.target
    else:
        for image, target in cast(Items, dataset):
            size = (image.shape[-2], image.shape[-1]) if isinstance(image, Tensor) else (image.height, image.width)
            yield size, target


def _best_iou(objects: Tensor, default_boxes: Tensor) -> Tensor:
    """Return each object's largest IoU with a default box, `(G,)`."""
    chunks: Sequence[Tensor] = objects.split(256)
    return torch.cat([box_iou(chunk, default_boxes).amax(1) for chunk in chunks])


def _cluster(sizes: Tensor, count: int) -> Tensor:
    """Cluster sizes `(n, 2)` into `count` medians under IoU, smallest area first."""
    by_area = sizes[sizes.prod(1).argsort()]
    # Boxes with a common corner.
    boxes = F.pad(sizes, (2, 0))
    medians = by_area[torch.linspace(0, len(sizes) - 1, count).round().long()]
    for _ in range(100):
        nearest = box_iou(boxes, F.pad(medians, (2, 0))).argmax(1)
        moved = torch.stack(
            [sizes[nearest == k].median(0).values if (nearest == k).any() else medians[k] for k in range(count)]
        )
        if torch.equal(moved, medians):
            break
        medians = moved
    return medians[medians.prod(1).argsort()]

"""Default boxes that a checkpoint holds itself."""

import torch
from torch import Tensor

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.feature_maps import feature_map_shapes
from ssd_zoo.detector.ssd import SSD

__all__ = ["boxes_of_file"]

# Largest difference of equal boxes, as a share of the input's side. Boxes in 8 bits differ by up to half a step.
_MOST_DIFFERENCE = 0.004


def boxes_of_file(model: SSD, boxes: Tensor) -> dict[str, DefaultBoxGenerator]:
    """Return the builder's argument for the default boxes of a file.

    Args:
        model: A model with the expected default boxes; it may be on the meta device. Its default boxes are replaced if
            they differ.
        boxes: `(D, 4)`, xyxy as fractions of the input.

    Returns:
        A generator as `default_boxes`; empty if the expected default boxes are the file's.

    Raises:
        ValueError: If their number is another, or they do not lie on the grids of the model's feature maps.
    """
    height, width = model.size
    boxes = boxes * torch.tensor([width, height, width, height])
    if len(boxes) != len(model.default_boxes):
        raise ValueError(f"The file has {len(boxes)} default boxes, but this model {len(model.default_boxes)}.")
    if _are_equal(boxes, model):
        return {}
    generator, maps = model.default_box_generator, feature_map_shapes(model.backbone, model.size, model.in_chans)
    per_location = generator.boxes_per_location
    counts = [rows * columns * count for (_, rows, columns), count in zip(maps, per_location, strict=True)]
    sizes = ((boxes[:, 2:] - boxes[:, :2]) / min(model.size)).split(counts)
    shapes = [
        of_map.view(-1, count, 2).median(0).values.tolist() for of_map, count in zip(sizes, per_location, strict=True)
    ]
    found = DefaultBoxGenerator(shapes=shapes, steps=generator.steps, offsets=generator.offsets, clip=generator.clip)
    model.register_constant("default_boxes", found([of_map[1:] for of_map in maps], model.size))
    if not _are_equal(boxes, model):
        raise ValueError("The file's default boxes do not lie on the grids of this model's feature maps.")
    return {"default_boxes": found}


def _are_equal(boxes: Tensor, model: SSD) -> bool:
    return bool((boxes - model.default_boxes).abs().max() <= _MOST_DIFFERENCE * max(model.size))

"""Default boxes, and box offsets relative to them.

Liu et al., "SSD: Single Shot MultiBox Detector", section 2.2 and equation 2.
https://arxiv.org/abs/1512.02325
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

__all__ = ["DefaultBoxGenerator", "box_shapes", "decode_boxes", "encode_boxes", "tf_box_shapes"]

# One over the variances 0.1 and 0.2 of the paper's code.
CENTRE_WEIGHT, SIZE_WEIGHT = 10.0, 5.0
# To make 8 million boxes takes about a gigabyte of memory.
_MOST_BOXES = 2**23
MAX_LOG_SCALE = math.log(1000 / 16)

Shapes = tuple[tuple[tuple[float, float], ...], ...]


def box_shapes(aspect_ratios: Sequence[Sequence[float]], scales: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Return the box shapes of SSD's paper.

    Each feature map has two squares, then a wide and a tall box for each aspect ratio. The second square's scale is the
    geometric mean of the map's scale and the next one.

    Args:
        aspect_ratios: Per feature map, the ratios other than 1. Each also stands for its inverse.
        scales: One scale per feature map and one more, as fractions of the input's shorter side.

    Returns:
        Per feature map, a list of (width, height), as fractions of the input's shorter side.

    Raises:
        ValueError: If the number of scales is not the number of feature maps plus one.
    """
    if len(scales) != len(aspect_ratios) + 1:
        raise ValueError(
            f"{len(aspect_ratios)} feature maps need {len(aspect_ratios) + 1} scales "
            f"(one each and one for the last map's larger square), got {len(scales)}."
        )
    shapes = []
    for ratios, (scale, next_scale) in zip(aspect_ratios, pairwise(scales), strict=True):
        larger = math.sqrt(scale * next_scale)
        shapes_of_map = [(scale, scale), (larger, larger)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes_of_map += [(long, short), (short, long)]
        shapes.append(shapes_of_map)
    return shapes


def tf_box_shapes(scales: Sequence[float], *, reduce_lowest: bool = True) -> list[list[tuple[float, float]]]:
    """Return the box shapes of TensorFlow's `ssd_anchor_generator`.

    The function belongs to the TensorFlow Object Detection API. Its shapes are the paper's with aspect ratios 2 and 3,
    in another order. The first feature map has three other shapes.

    Args:
        scales: One scale per feature map and one more, as fractions of the input's shorter side.
        reduce_lowest: Whether the first map has the three shapes of `reduce_boxes_in_lowest_layer`.

    Returns:
        Per feature map, a list of (width, height), as fractions of the input's shorter side.
    """
    shapes = []
    for k, (scale, next_scale) in enumerate(pairwise(scales)):
        if k == 0 and reduce_lowest:
            scaled_ratios = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            # TensorFlow's configurations write a third as 0.3333.
            scaled_ratios = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)]
            scaled_ratios.append((math.sqrt(scale * next_scale), 1.0))
        shapes.append([(s * math.sqrt(ratio), s / math.sqrt(ratio)) for s, ratio in scaled_ratios])
    return shapes


@dataclass(frozen=True, init=False)
class DefaultBoxGenerator:
    """Box shapes tiled over the cells of feature maps.

    Args:
        aspect_ratios: Per feature map, the ratios other than 1; see `box_shapes`.
        scales: One scale per feature map and one more; see `box_shapes`.
        shapes: Alternative to both: per feature map, a list of (width, height) in the order of the head's predictions.
            They are fractions of the input's shorter side.
        steps: Per feature map, the distance between neighbouring boxes in input pixels. By default the boxes of a map
            divide the input evenly.
        offsets: Per feature map, (x, y) of the first centre in input pixels. By default it is half a step from the left
            and upper edges.
        clip: Parts of the boxes that are clamped to the input. `"sizes"` clamps width and height, as torchvision does.
            `"all"` also clamps the centres, as lufficc/SSD does. `"none"` is used by Caffe's COCO models and
            TensorFlow.

    Raises:
        ValueError: If the lengths of the arguments do not agree, `shapes` is given with the other two or none is given,
            or `clip` is unknown.

    Example:
        >>> boxes = DefaultBoxGenerator(aspect_ratios=[[2], []], scales=[0.2, 0.5, 0.9])
        >>> boxes.boxes_per_location
        [4, 2]
        >>> boxes([(2, 2), (1, 1)], (64, 64)).shape
        torch.Size([18, 4])
    """

    shapes: Shapes
    steps: tuple[float, ...] | None
    offsets: tuple[tuple[float, float], ...] | None
    clip: Literal["sizes", "all", "none"]

    def __init__(
        self,
        aspect_ratios: Sequence[Sequence[float]] | None = None,
        scales: Sequence[float] | None = None,
        *,
        shapes: Sequence[Sequence[Sequence[float]]] | None = None,
        steps: Sequence[float] | None = None,
        offsets: Sequence[Sequence[float]] | None = None,
        clip: Literal["sizes", "all", "none"] = "sizes",
    ) -> None:
        if shapes is None:
            if aspect_ratios is None or scales is None:
                raise ValueError("Give either aspect_ratios and scales, or shapes.")
            shapes = box_shapes(aspect_ratios, scales)
        elif aspect_ratios is not None or scales is not None:
            raise ValueError("shapes replaces aspect_ratios and scales; give one or the other.")
        for name, entries in (("steps", steps), ("offsets", offsets)):
            if entries is not None and len(entries) != len(shapes):
                raise ValueError(f"{name} must have one entry per feature map ({len(shapes)}), got {len(entries)}.")
        if clip not in ("sizes", "all", "none"):
            raise ValueError(f"clip must be 'sizes', 'all' or 'none', got {clip!r}.")
        frozen = tuple(tuple((float(width), float(height)) for width, height in of_map) for of_map in shapes)
        object.__setattr__(self, "shapes", frozen)
        object.__setattr__(self, "steps", None if steps is None else tuple(steps))
        first = None if offsets is None else tuple((float(x), float(y)) for x, y in offsets)
        object.__setattr__(self, "offsets", first)
        object.__setattr__(self, "clip", clip)

    @property
    def boxes_per_location(self) -> list[int]:
        """Return the number of default boxes per cell of each feature map."""
        return [len(of_map) for of_map in self.shapes]

    def __call__(self, map_sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
        """Return the default boxes of one input.

        Args:
            map_sizes: (height, width) of each feature map.
            size: (height, width) of the input in pixels.

        Returns:
            Boxes `(D, 4)`, xyxy in input pixels, float32 on the CPU, ordered by map, row, column, shape.

        Raises:
            ValueError: If the numbers of feature maps and of shape lists differ, or there are too many boxes.
        """
        if len(map_sizes) != len(self.shapes):
            raise ValueError(f"Got {len(map_sizes)} feature maps, but shapes for {len(self.shapes)}.")
        count = sum(
            rows * columns * len(of_map) for (rows, columns), of_map in zip(map_sizes, self.shapes, strict=True)
        )
        if count > _MOST_BOXES:
            raise ValueError(f"These maps have {count} default boxes; at most {_MOST_BOXES} are allowed.")
        height, width = size
        cpu = torch.device("cpu")
        in_pixels = torch.tensor([width, height], device=cpu)
        # Sizes are relative to the shorter side, so that squares stay square on any input.
        shorter = torch.tensor([min(size) / width, min(size) / height], dtype=torch.float32, device=cpu)
        boxes = []
        for k, (rows, columns) in enumerate(map_sizes):
            step = self.steps[k] if self.steps else None
            first_x, first_y = self.offsets[k] if self.offsets else (None, None)
            y, x = _centres(rows, height, step, first_y), _centres(columns, width, step, first_x)
            sizes = torch.tensor(self.shapes[k], dtype=torch.float32, device=cpu) * shorter
            if self.clip != "none":
                sizes = sizes.clamp(0, 1)
            if self.clip == "all":
                x, y = x.clamp(0, 1), y.clamp(0, 1)
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            centres = torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 1, 2)
            corners = torch.cat([(centres - 0.5 * sizes) * in_pixels, (centres + 0.5 * sizes) * in_pixels], dim=-1)
            boxes.append(corners.reshape(-1, 4))
        return torch.cat(boxes)


def _centres(cells: int, side: int, step: float | None, first: float | None) -> Tensor:
    """Return the centres of cells along one axis, `(cells,)`, as fractions of the input's side.

    Args:
        cells: Number of cells.
        side: The input's side in pixels.
        step: Distance between centres in pixels; None to divide the side evenly.
        first: The first centre in pixels; None for half a step.
    """
    cells_a_side = side / step if step else cells
    before = 0.5 if first is None else first * cells_a_side / side
    return (torch.arange(cells, dtype=torch.float32, device="cpu") + before) / cells_a_side


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x, y) of the centres and (width, height), `(..., 2)` each, of xyxy boxes."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sizes, sizes


def encode_boxes(boxes: Tensor, default_boxes: Tensor) -> Tensor:
    """Encode boxes as offsets from default boxes (equation 2).

    The offsets are divided by the variances 0.1 and 0.2.

    Args:
        boxes: `(..., D, 4)`, xyxy in pixels.
        default_boxes: `(D, 4)`, xyxy in pixels.

    Returns:
        Offsets `(..., D, 4)`: x, y, width, height.
    """
    centres, sizes = _centre_size(boxes)
    default_centres, default_sizes = _centre_size(default_boxes)
    moves = CENTRE_WEIGHT * (centres - default_centres) / default_sizes
    growth = SIZE_WEIGHT * torch.log(sizes / default_sizes)
    return torch.cat([moves, growth], dim=-1)


def decode_boxes(offsets: Tensor, default_boxes: Tensor) -> Tensor:
    """Decode offsets to boxes, the inverse of `encode_boxes`.

    A box grows to at most 62.5 times its default box, as in torchvision.

    Args:
        offsets: `(..., D, 4)`: x, y, width, height.
        default_boxes: `(..., D, 4)`, xyxy in pixels.

    Returns:
        Boxes `(..., D, 4)`, xyxy in pixels, not clipped.
    """
    default_centres, default_sizes = _centre_size(default_boxes)
    centres = offsets[..., :2] / CENTRE_WEIGHT * default_sizes + default_centres
    growth = (offsets[..., 2:] / SIZE_WEIGHT).clamp(max=MAX_LOG_SCALE)
    half = 0.5 * (torch.exp(growth) * default_sizes)
    return torch.cat([centres - half, centres + half], dim=-1)

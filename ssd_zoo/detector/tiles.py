"""Detection in tiles of pictures that are much larger than the input.

A picture is cut into overlapping tiles, each tile is an image of its own, and the detections are joined. Boxes of two
tiles are one object if they overlap within the area that both tiles show. A part of an object at the edge of a tile is
thus recognised by what the other tile shows of it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssd_zoo.detector.frames import holds_clips, refuse_tiles
from ssd_zoo.detector.inputs import check_images
from ssd_zoo.detector.overlap import box_iou
from ssd_zoo.detector.ranges import check_fraction
from ssd_zoo.detector.sizes import parse_size, sizes_of

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = ["check_tiles", "detect_in_tiles", "forward_tiles", "join_tiles", "shown_boxes", "shown_size", "tile_grid"]

Detections = dict[str, Tensor]
Size = tuple[int, int]

_SMALLEST_SIDE, _MOST_OVERLAP, _MOST_TILES = 16, 0.9, 4096
# Tiles that are detected in at once.
_AT_ONCE = 8
# A box is cut if it ends this near to its tile's edge, as a share of the tile's side.
_NEAR = 0.02
# Least score of another part of an object, as a share of the best part's score.
_LEAST_SHARE = 0.5


def check_tiles(tile: object, overlap: object) -> Size | None:
    """Check the size and overlap of tiles; return their (height, width) in pixels, None for None.

    Raises:
        TypeError: If the overlap is not a number.
        ValueError: If a side is below 16, or the overlap does not lie between 0 and .9.
    """
    check_fraction("tile_overlap", overlap, "a share of the tile's sides")
    if float(overlap) > _MOST_OVERLAP:  # type: ignore[arg-type]
        raise ValueError(f"tile_overlap must be at most {_MOST_OVERLAP}, got {overlap}.")
    if tile is None:
        return None
    try:
        size = parse_size(tile)
    except ValueError as error:
        raise ValueError(f"tile: {error} None takes pictures whole.") from error
    if min(size) < _SMALLEST_SIDE:
        raise ValueError(f"The sides of a tile must be at least {_SMALLEST_SIDE} pixels, got {size[0]} × {size[1]}.")
    return size


def shown_size(picture: Size, tile: Size | None) -> Size:
    """Return the (height, width) of what one input shows of a picture.

    It is the tile, cut to the picture where that is smaller. Without tiles it is the whole picture.
    """
    return picture if tile is None else (min(picture[0], tile[0]), min(picture[1], tile[1]))


def shown_boxes(boxes: Tensor, picture: Size, tile: Size | None) -> tuple[Tensor, Size]:
    """Move each box into the coordinates of the tile around its centre.

    The tiles lie side by side here, without overlap. Boxes keep their size, also beyond the tile's edges.

    Args:
        boxes: `(G, 4)`, xyxy in the picture's pixels.
        picture: (height, width) of the picture.
        tile: (height, width) of a tile; None for none.

    Returns:
        `(G, 4)`, xyxy in pixels of each box's tile, and the tile's (height, width) as `shown_size` returns it.
    """
    size = shown_size(picture, tile)
    if size == picture:
        return boxes, size
    sides = boxes.new_tensor([size[1], size[0]])
    tiles_before = ((boxes[:, :2] + boxes[:, 2:]) / 2 / sides).floor()
    return boxes - (tiles_before * sides).repeat(1, 2), size


def tile_grid(picture: Size, tile: Size, overlap: float) -> Tensor:
    """Return the tiles that cover a picture, row by row.

    Tiles of a row lie at equal steps, and so do those of a column. Neighbours share at least `overlap` of their side,
    up to a pixel. A tile is nowhere larger than the picture.

    Args:
        picture: (height, width) in pixels.
        tile: (height, width) in pixels.
        overlap: Share of a tile's side, below 1.

    Returns:
        `(T, 4)`, xyxy in pixels, int64.

    Raises:
        ValueError: If there would be more than 4096 tiles.

    Example:
        >>> from ssd_zoo.detector.tiles import tile_grid
        >>> tile_grid((100, 250), (100, 100), 0.25).tolist()
        [[0, 0, 100, 100], [75, 0, 175, 100], [150, 0, 250, 100]]
    """
    height, width = shown_size(picture, tile)
    rows, columns = (_steps(length, side, overlap) for length, side in zip(picture, tile, strict=True))
    number = (rows + 1) * (columns + 1)
    if number > _MOST_TILES:
        raise ValueError(
            f"An image of {picture[0]} × {picture[1]} pixels would be cut into {number} tiles of {height} × {width}; "
            f"the limit is {_MOST_TILES}. Choose a larger tile or less overlap."
        )
    tops = [round(k * (picture[0] - height) / max(1, rows)) for k in range(rows + 1)]
    lefts = [round(k * (picture[1] - width) / max(1, columns)) for k in range(columns + 1)]
    return torch.tensor([[left, top, left + width, top + height] for top in tops for left in lefts])


def _steps(length: int, side: int, overlap: float) -> int:
    """Return the number of steps from the first tile along an axis to the last."""
    # What is left of a pixel comes from rounding.
    return max(0, math.ceil((length - side) / (side * (1 - overlap)) - 1e-9))


def forward_tiles(model: "SSD", images: Sequence[Tensor] | Tensor, return_losses: bool) -> list[Detections]:
    """Return detections of images, as `SSD.forward` does, tile by tile.

    Raises:
        ValueError: If the input is clips, losses are asked for, or images are invalid.
    """
    if holds_clips(images):
        refuse_tiles(model.tile)
    if return_losses:
        raise ValueError("A model with tiles has no losses of whole images. Set model.tile = None for them.")
    check_images(images, model.in_chans, model.default_boxes.device)
    return detect_in_tiles(
        lambda parts: model._detections(model._forward_scores(model.prepare(parts)), sizes_of(parts)),
        images,
        tile=model.tile,
        overlap=model.tile_overlap,
        nms_thresh=model.nms_thresh,
    )


def detect_in_tiles(
    detect: Callable[[Sequence[Tensor]], Sequence[Detections]],
    images: Sequence[Tensor] | Tensor,
    *,
    tile: object,
    overlap: float,
    nms_thresh: float,
) -> list[Detections]:
    """Detect in the tiles of images, and join what was found.

    Args:
        detect: Returns the detections of images, xyxy in their pixels, after NMS. It gets up to eight tiles at once, or
            as many as there are images.
        images: Tensors `(C, H, W)`.
        tile: Side, or (height, width), of a tile in the images' pixels; None to take images whole.
        overlap: Share of a tile's side that neighbours have in common.
        nms_thresh: Largest IoU of two detections of a class.

    Returns:
        As `join_tiles`, one dict per image.

    Raises:
        ValueError: If tile or overlap is out of range, or an image has more than 4096 tiles.
    """
    size = check_tiles(tile, overlap)
    grids = [tile_grid(picture, size or picture, overlap) for picture in sizes_of(images)]
    parts = [
        image[:, top:bottom, left:right]
        for image, grid in zip(images, grids, strict=True)
        for left, top, right, bottom in grid.tolist()
    ]
    at_once = max(_AT_ONCE, len(images))
    found = iter([one for first in range(0, len(parts), at_once) for one in detect(parts[first : first + at_once])])
    return [join_tiles([next(found) for _ in grid], grid, nms_thresh) for grid in grids]


def join_tiles(found: Sequence[Detections], tiles: Tensor, nms_thresh: float) -> Detections:
    """Join the detections of a picture's tiles.

    Two boxes of a class, of two tiles, are one object if their IoU is above `nms_thresh` within the area that both
    tiles show. The best box stays. If it ends at an inner edge of its tile, the object is cut there: the box becomes
    the one around all parts with at least half its score, and the parts of these parts.

    Args:
        found: Per tile `boxes (n, 4)`, xyxy in the tile's pixels, `labels (n,)` and `scores (n,)`, after NMS.
        tiles: `(T, 4)`, from `tile_grid`.
        nms_thresh: Largest IoU of two detections of a class.

    Returns:
        The same keys, with boxes in the picture's pixels, in descending order of score.
    """
    if len(found) == 1:
        return dict(found[0])
    device = found[0]["boxes"].device
    tiles = tiles.float()
    counts = [len(one["scores"]) for one in found]
    places = tiles.repeat_interleave(torch.tensor(counts), 0)
    boxes, labels, scores = (torch.cat([one[key] for one in found]).cpu() for key in ("boxes", "labels", "scores"))
    boxes = boxes + places[:, [0, 1, 0, 1]]
    cut = _are_cut(boxes, places, tiles)
    partners = _partners(boxes, labels, tiles, counts, nms_thresh)
    kept, groups = _grouped(scores, cut, partners)
    for best, group in zip(kept, groups, strict=True):
        if len(group) > 1:
            boxes[best] = torch.cat([boxes[group, :2].amin(0), boxes[group, 2:].amax(0)])
    return {key: value[kept].to(device) for key, value in (("boxes", boxes), ("labels", labels), ("scores", scores))}


def _are_cut(boxes: Tensor, places: Tensor, tiles: Tensor) -> list[bool]:
    """Return which boxes end at an inner edge of their tile, so that an object may go on.

    Args:
        boxes: `(n, 4)`, xyxy in the picture's pixels.
        places: `(n, 4)`, the tile of each box, likewise.
        tiles: `(T, 4)`, from `tile_grid`.
    """
    picture = torch.cat([tiles[:, :2].amin(0), tiles[:, 2:].amax(0)])
    sides = (places[:, 2:] - places[:, :2]).repeat(1, 2)
    near = ((boxes - places).abs() <= _NEAR * sides) & (places != picture)
    return near.any(1).tolist()


def _partners(
    boxes: Tensor, labels: Tensor, tiles: Tensor, counts: Sequence[int], nms_thresh: float
) -> dict[int, list[int]]:
    """Return, by index of a box, the boxes of other tiles that show the same object."""
    ends = torch.tensor(counts).cumsum(0).tolist()
    starts = [end - count for end, count in zip(ends, counts, strict=True)]
    partners: dict[int, list[int]] = defaultdict(list)
    top_left = torch.max(tiles[:, None, :2], tiles[:, :2])
    bottom_right = torch.min(tiles[:, None, 2:], tiles[:, 2:])
    some = torch.tensor(counts) > 0
    meet = (bottom_right > top_left).all(-1).triu(1) & some & some.unsqueeze(1)
    for a, b in meet.nonzero().tolist():
        low, high = top_left[a, b].repeat(2), bottom_right[a, b].repeat(2)
        one, other = (boxes[starts[k] : ends[k]].clamp(low, high) for k in (a, b))
        alike = labels[starts[a] : ends[a], None] == labels[starts[b] : ends[b]]
        for i, j in ((box_iou(one, other) > nms_thresh) & alike).nonzero().tolist():
            partners[starts[a] + i].append(starts[b] + j)
            partners[starts[b] + j].append(starts[a] + i)
    return partners


def _grouped(scores: Tensor, cut: Sequence[bool], partners: dict[int, list[int]]) -> tuple[list[int], list[list[int]]]:
    """Group boxes by object: return each object's best box, and the boxes of its parts.

    Objects are in descending order of score. The parts begin with the best box itself; it has others only where it is
    cut.

    All are indices of boxes. Boxes that show an object again are in no group.
    """
    values = scores.tolist()
    gone: set[int] = set()
    kept, groups = [], []
    for best in scores.argsort(descending=True, stable=True).tolist():
        if best in gone:
            continue
        gone.add(best)
        group, todo = [best], [best]
        while todo:
            others = [other for other in partners.get(todo.pop(), ()) if other not in gone]
            gone.update(others)
            parts = [other for other in others if cut[best] and values[other] >= _LEAST_SHARE * values[best]]
            group += parts
            todo += parts
        kept.append(best)
        groups.append(group)
    return kept, groups

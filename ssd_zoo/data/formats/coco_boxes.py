"""Boxes of COCO's annotations: by bbox, outline or run lengths."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_zoo.data.annotations import Box, Item
from ssd_zoo.data.images import size_if_readable
from ssd_zoo.weights.outside import JSON, listing, number, whole

__all__ = ["box_of", "check_corners"]

_LARGEST_SIDE = 2**20


def box_of(entry: Mapping[str, JSON]) -> Box:
    """Return the box as xyxy in pixels, from `bbox` or around `segmentation`.

    Raises:
        ValueError: If there is neither, or it is invalid.
    """
    what = "needs four numbers, x, y, width and height, as its bbox, or an outline or run lengths as its segmentation"
    if entry.get("bbox"):
        values = [number(value, f"{what}: one") for value in listing(entry["bbox"], what, shortest=4, longest=4)]
        return values[0], values[1], values[0] + values[2], values[1] + values[3]
    parts = entry.get("segmentation")
    if isinstance(parts, dict):
        return _box_of_runs(parts, what)
    if not parts or not isinstance(parts, list):
        raise ValueError(what)
    outlines = [listing(part, what, shortest=6) for part in parts]
    xs = [number(value, what) for outline in outlines for value in outline[::2]]
    ys = [number(value, what) for outline in outlines for value in outline[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _box_of_runs(segmentation: Mapping[str, JSON], what: str) -> Box:
    """Return the box, xyxy in pixels, around a mask in COCO's run-length code.

    The code counts pixels down the columns: runs outside and inside the mask alternate.

    Raises:
        ValueError: If the runs are invalid, or the mask is empty; the message begins with `what`.
    """
    sides = listing(segmentation.get("size"), what, shortest=2, longest=2)
    height, width = (whole(side, f"{what}: a side", low=1, high=_LARGEST_SIDE) for side in sides)
    written = segmentation.get("counts")
    runs = _decode(written) if isinstance(written, str) else [whole(run, what) for run in listing(written, what)]
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(f"{what}; its run lengths do not add up to its size")
    x1, y1, x2, y2, at = width, height, 0, 0, 0
    for i, run in enumerate(runs):
        if i % 2 and run:
            (left, top), (right, bottom) = divmod(at, height), divmod(at + run - 1, height)
            top, bottom = (top, bottom) if left == right else (0, height - 1)
            x1, y1, x2, y2 = min(x1, left), min(y1, top), max(x2, right + 1), max(y2, bottom + 1)
        at += run
    if x2 == 0:
        raise ValueError(f"{what}; its mask is empty")
    return float(x1), float(y1), float(x2), float(y2)


def _decode(written: str) -> list[int]:
    """Decode COCO's text of run lengths.

    Each letter holds five bits of a number, the lowest first, and a bit that says whether more letters follow. From the
    fourth number on, the text holds its difference to the number two before.

    Raises:
        ValueError: If it can't be read.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in written:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("has run lengths that can't be read as its segmentation")
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # The highest bit is the sign.
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def check_corners(items: Sequence[Item], annotations: Sequence[JSON], file: Path) -> None:
    """Raise ValueError if boxes are surely given by corners.

    Read as corners, nine of ten boxes must lie within their images, with a margin of a twentieth of a side. Then they
    are corners if one of two signs holds. Read as x, y, width and height, a tenth of the boxes ends beyond the image,
    or one of at least 20. Or all areas in the file fit the corners alone.
    """
    boxes = areas = beyond = misfits = 0
    for item in items:
        height, width = (1.05 * side for side in item.size or size_if_readable(item.file) or (0, 0))
        for thing in item.things:
            entry = annotations[thing.entry]
            if not isinstance(entry, dict) or not entry.get("bbox"):
                continue
            x1, y1, right, bottom = thing.box
            x2, y2 = right - x1, bottom - y1
            boxes += 1
            if not (x1 < x2 <= width + 1 and y1 < y2 <= height + 1):
                misfits += 1
                continue
            beyond += right > width + 1 or bottom > height + 1
            fits = thing.area is not None and abs(thing.area - (x2 - x1) * (y2 - y1)) < 1
            areas += fits and abs((thing.area or 0) - x2 * y2) >= 1
    if misfits * 10 > boxes:
        return
    some = (boxes >= 5 and beyond * 10 >= boxes) or (boxes >= 20 and beyond)
    if boxes and (areas == boxes - misfits or some):
        raise ValueError(
            f"{file}: the boxes are corners, x1 y1 x2 y2, where COCO's format has x, y, width and height; write "
            "[x1, y1, x2 - x1, y2 - y1]."
        )

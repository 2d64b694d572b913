"""Read annotations in LabelMe's format: one JSON file per image, with shapes."""

import contextlib
import math
from functools import partial
from pathlib import Path

from ssd_zoo.data.annotations import Box, Item, Thing
from ssd_zoo.data.formats.split_lists import by_split
from ssd_zoo.data.formats.tree import Layout, Tree, pair, read_each, unused_images
from ssd_zoo.weights.outside import (
    JSON,
    listing,
    mapping,
    number,
    parse_json,
    quote,
    read_start,
    read_text,
    text,
    whole,
)

__all__ = ["find", "is_labelme"]

_SNIFFED = 20
# Shapes that have no inside.
_FLAT = ("point", "points", "line", "linestrip")


def find(tree: Tree) -> Layout | None:
    """Recognise JSON files with `shapes`; splits are folders such as `train/`.

    None if there is none among the first 20 JSON files.

    None if there is none among the first 20 JSON files.
    """
    files = tree.files(".json")
    if not any(is_labelme(file.path) for file in files[:_SNIFFED]):
        return None
    pairs = pair(files, tree.images, _image_name)
    files = [file for file in files if file in pairs or is_labelme(file.path)]
    notes = unused_images(tree, (image.path for image in pairs.values()), "a JSON file")
    groups = by_split(tree, files, pairs, notes)
    splits = {name: partial(read_each, group, pairs, _item) for name, group in groups.items()}
    return Layout("LabelMe", "JSON files with shapes", splits, notes=notes)


def is_labelme(file: Path) -> bool:
    """Check for the keys of LabelMe's JSON."""
    content = read_start(file, 2**20)
    return '"shapes"' in content and ('"imagePath"' in content or '"shape_type"' in content)


def _image_name(file: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(_content(file).get("imagePath") or "")
    return ""


def _content(file: Path) -> dict[str, JSON]:
    return mapping(parse_json(read_text(file), file), f"{file}: its content")


def _item(file: Path, image: Path, problems: list[str]) -> Item:
    content = _content(file)
    things: list[Thing] = []
    groups: dict[tuple[str, str], int] = {}
    for i, shape in enumerate(listing(content.get("shapes"), f"{file}: shapes")):
        try:
            part = mapping(shape, "the shape")
            thing, group = _thing(part, i), part.get("group_id")
            # Shapes of one class and group are parts of one object.
            at = len(things) if group is None else groups.setdefault((thing.name, str(group)), len(things))
            if at < len(things):
                things[at] = _joined(things[at], thing)
            else:
                things.append(thing)
        except ValueError as error:
            problems.append(f"{file}: shapes[{i}]: {str(error).rstrip('.')}: {quote(shape)}")
    sides = [content.get(key) or 0 for key in ("imageHeight", "imageWidth")]
    height, width = (whole(side, f"{file}: a side of the image", low=0) for side in sides)
    return Item(image, file, things, (height, width) if height and width else None)


def _thing(shape: dict[str, JSON], i: int) -> Thing:
    name = text(shape.get("label"), "the label").strip()
    if not name:
        raise ValueError("the label is empty")
    return Thing(name, _box(shape), i)


def _joined(one: Thing, other: Thing) -> Thing:
    """Return one object for two parts of it, with the box around both."""
    (x1, y1, x2, y2), (left, top, right, bottom) = one.box, other.box
    return one._replace(box=(min(x1, left), min(y1, top), max(x2, right), max(y2, bottom)))


def _box(shape: dict[str, JSON]) -> Box:
    kind = shape.get("shape_type") or "polygon"
    if kind in _FLAT:
        raise ValueError(f"a {kind} has no box; draw a rectangle or a polygon")
    points = [
        [number(value, "a coordinate") for value in listing(point, "a point", shortest=2, longest=2)]
        for point in listing(shape.get("points"), "points", shortest=2)
    ]
    xs, ys = zip(*points, strict=True)
    if kind == "circle":  # Its middle, and a point on it.
        radius = math.dist(points[0], points[1])
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    return min(xs), min(ys), max(xs), max(ys)

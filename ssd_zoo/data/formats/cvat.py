"""Read annotations in one XML file of CVAT's format for images, 1.1."""

import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.data.annotations import Box, Item, Records, Thing, around_turned, check_class_names, number_of
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import Layout, Tree, none_or_many, unused_images
from ssd_zoo.weights.outside import parse_number, parse_xml, read_start, read_text

__all__ = ["find"]

_LARGEST = 2**30


class _Image(NamedTuple):
    """An `<image>` of an XML file, and where it is."""

    file: Path
    line: int
    element: ET.Element
    paths: list[Path]  # One, unless there is none or several have the name.


def find(tree: Tree) -> Layout | None:
    """Recognise XML files with `<annotations>` around `<image>`; None if there is none.

    Splits are CVAT's subsets, or else files that are named as splits, or else `all`.

    Raises:
        ValueError: If a file is not XML, or class names are invalid.
    """
    found = {file.path: file.folder for file in tree.files(".xml") if _is_cvat(file.path)}
    files = list(found)
    if not files:
        return None
    splits: dict[str, list[_Image]] = defaultdict(list)
    names: dict[str, None] = {}
    for file in files:
        content = read_text(file, limit=_LARGEST)
        root = parse_xml(content, file)
        names |= dict.fromkeys((label.text or "").strip() for label in root.iterfind("meta//labels/label/name"))
        lines = [content.count("\n", 0, match.start()) + 1 for match in re.finditer(r"<image[\s>]", content)]
        for line, element in zip(lines, root.findall("image"), strict=False):
            subset = element.get("subset") or canonical_split(file.stem) or "all"
            paths = tree.images_named(element.get("name") or "", (*found[file], subset))
            splits[subset].append(_Image(file, line, element, paths))
    used = [path for images in splits.values() for image in images for path in image.paths]
    notes = unused_images(tree, used, "an entry in the XML file")
    readers = {name: partial(_read, images) for name, images in splits.items()}
    return Layout("CVAT", "XML files with images", readers, check_class_names(names, files[0]) or None, notes)


def _is_cvat(file: Path) -> bool:
    content = read_start(file, 2**20)
    return re.search(r"<annotations[\s>]", content) is not None and re.search(r"<image[\s>]", content) is not None


def _read(images: Sequence[_Image]) -> Records:
    records = Records()
    for file, line, element, paths in images:
        if len(paths) != 1:
            records.problems.append(f"{file}:{line}: {none_or_many(element.get('name') or '', paths)}")
            continue
        things = []
        for shape in element:
            try:
                if shape.tag in _SHAPES:
                    things.append(Thing((shape.get("label") or "").strip(), _SHAPES[shape.tag](shape), line))
                elif shape.tag not in ("tag", "attribute"):
                    raise ValueError(f"a {shape.tag} is not read; draw a box or a polygon")
            except ValueError as error:
                records.problems.append(f"{file}:{line}: {str(error).rstrip('.')}")
        try:
            size = round(_side(element, "height")), round(_side(element, "width"))
        except ValueError as error:
            records.problems.append(f"{file}:{line}: {str(error).rstrip('.')}")
            size = None
        records.items.append(Item(paths[0], file, things, size))
    tags = sum(len(element.findall("tag")) for _, _, element, _ in images)
    records.notes += [f"{number_of(tags, 'tag')} of whole images, left out"] if tags else []
    return records


def _side(element: ET.Element, key: str) -> float:
    return parse_number(element.get(key) or "", f"{element.tag}'s {key}")


def _angle(shape: ET.Element) -> float:
    """Return the angle by which a shape is turned about its centre, clockwise, in radians."""
    return math.radians(_side(shape, "rotation")) if shape.get("rotation") else 0.0


def _box(shape: ET.Element) -> Box:
    x1, y1, x2, y2 = (_side(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    if not (angle := _angle(shape)):
        return x1, y1, x2, y2
    return around_turned((x1 + x2) / 2, (y1 + y2) / 2, abs(x2 - x1), abs(y2 - y1), angle)


def _ellipse(shape: ET.Element) -> Box:
    cx, cy, rx, ry = (_side(shape, key) for key in ("cx", "cy", "rx", "ry"))
    across, down = math.cos(_angle(shape)), math.sin(_angle(shape))
    half_width, half_height = math.hypot(rx * across, ry * down), math.hypot(rx * down, ry * across)
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def _polygon(shape: ET.Element) -> Box:
    values = [parse_number(value, "a coordinate") for value in re.split("[,;]", shape.get("points") or "")]
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _mask(shape: ET.Element) -> Box:
    left, top, width, height = (_side(shape, key) for key in ("left", "top", "width", "height"))
    return left, top, left + width, top + height


_SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}

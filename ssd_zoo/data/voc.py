"""Read annotations in Pascal VOC's layout.

The layout has the folders `JPEGImages/` and `Annotations/`, and splits in `ImageSets/Main/`.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

import torchvision

from ssd_zoo.data.annotations import Annotations, LabelledImage, LabelledObject, check_categories
from ssd_zoo.data.images import image_endings

__all__ = ["find_voc", "read_voc"]

_VOC_NAMES: list[str] = torchvision.models.segmentation.FCN_ResNet50_Weights.DEFAULT.meta["categories"]
_LINE = "line of this tag"
_FLAG = re.compile(r"\s+(-1|0|1)$")


def find_voc(folder: Path) -> dict[str, Path]:
    """Find the split files of a folder in Pascal VOC's layout.

    Splits are `ImageSets/Main/NAME.txt`. Lists of a single class (`cat_train.txt`) are skipped.
    """
    files = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
    stems = {file.stem for file in files}
    return {file.stem: file for file in files if file.stem.rpartition("_")[2] not in stems or "_" not in file.stem}


def read_voc(folder: Path, split: Path, categories: Sequence[str] | None = None) -> Annotations:
    """Read the annotations of one split.

    Coordinates are kept as in the files; VOC counts pixels from 1.

    Args:
        folder: Folder with `JPEGImages`, `Annotations` and `ImageSets`.
        split: List of image names, one per line; VOC's flags -1, 0 and 1 after a name are ignored.
        categories: Class names, background first. By default VOC's, if they cover all objects in the folder; otherwise
            the sorted names of those objects.

    Raises:
        ValueError: If an annotation is invalid. The message names file and line.
        FileNotFoundError: If an image has no annotation file.
    """
    problems: list[str] = []
    names: dict[str, int] = {}
    for number, line in enumerate(split.read_text(encoding="utf-8").splitlines(), start=1):
        name = _FLAG.sub("", line.strip())
        if name in names:
            problems.append(f"{split}:{number}: {name} occurs twice")
        elif name:
            names[name] = number
    sources = {name: folder / "Annotations" / f"{name}.xml" for name in names}
    for name, source in sources.items():
        if not source.is_file():
            raise FileNotFoundError(f"{split}:{names[name]}: {name} has no annotations: there is no {source}.")
    trees = {name: _parse(source) for name, source in sources.items()}
    categories = _categories(folder, trees, categories)
    endings = image_endings()
    pictures = {file.stem: file for file in (folder / "JPEGImages").iterdir() if file.suffix.lower() in endings}
    images = [
        LabelledImage(
            file=pictures.get(name, folder / "JPEGImages" / f"{name}.jpg"),
            image_id=i,
            size=_size(tree, sources[name]),
            source=sources[name],
            objects=tuple(_object(element, categories, sources[name]) for element in tree.iterfind("object")),
        )
        for i, (name, tree) in enumerate(trees.items(), start=1)
    ]
    return Annotations(images, categories, list(range(len(categories))), problems)


def _parse(file: Path) -> ET.Element:
    """Parse XML, and store each element's line number as an attribute.

    ElementTree's own parser keeps no line numbers.
    """
    builder, parser = ET.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: builder.start(tag, {_LINE: str(parser.CurrentLineNumber)})
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{file}:{error.lineno} is not XML: {expat.errors.messages[error.code]}.") from error
    return builder.close()


def _categories(folder: Path, trees: dict[str, ET.Element], asked: Sequence[str] | None) -> list[str]:
    def names_of(tree: ET.Element) -> set[str]:
        return {(element.findtext("name") or "").strip() for element in tree.iterfind("object")}

    if asked is not None:
        return check_categories(asked, sorted(set().union(*map(names_of, trees.values()))))
    others = [file for file in sorted((folder / "Annotations").glob("*.xml")) if file.stem not in trees]
    known = set().union(*map(names_of, trees.values()), *(names_of(_parse(file)) for file in others))
    return list(_VOC_NAMES) if known <= set(_VOC_NAMES) else ["background", *sorted(known)]


def _size(tree: ET.Element, file: Path) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    return round(_number(size, "height", file)), round(_number(size, "width", file))


def _object(element: ET.Element, categories: list[str], file: Path) -> LabelledObject:
    line = int(element.attrib[_LINE])
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    if box is None or name not in categories[1:]:
        raise ValueError(f"{file}:{line}: an object needs a name and a bndbox.")
    x1, y1, x2, y2 = (_number(box, side, file) for side in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return LabelledObject((x1, y1, x2, y2), categories.index(name, 1), (x2 - x1) * (y2 - y1), False, difficult, line)


def _number(parent: ET.Element, tag: str, file: Path) -> float:
    element = parent.find(tag)
    place = f"{file}:{(parent if element is None else element).attrib[_LINE]}"
    if element is None:
        raise ValueError(f"{place}: {parent.tag} lacks {tag}.")
    try:
        return float(element.text or "")
    except ValueError as error:
        raise ValueError(f"{place}: {tag} is not a number: {element.text!r}.") from error

"""Read annotations in Pascal VOC's format: one XML file per image.

The files lie in `Annotations/` with splits in `ImageSets/Main/`, beside the images, or in any folder of their own.
"""

import contextlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from ssd_zoo.data.annotations import Item, Records, Thing, around_turned, some
from ssd_zoo.data.formats.split_lists import by_split
from ssd_zoo.data.formats.tree import File, Layout, Tree, pair, read_each, unused_images
from ssd_zoo.weights.categories import VOC_CATEGORIES
from ssd_zoo.weights.outside import parse_number, parse_xml, quote, read_start, read_text

__all__ = ["find"]

_FLAG = re.compile(r"\s+(-1|0|1)$")
_SNIFFED = 20
_TURNED = ("cx", "cy", "w", "h", "angle")

Parse = Callable[[Path], tuple[ET.Element, list[int]]]
Read = Callable[[Path, Path, list[str]], Item]


def find(tree: Tree) -> Layout | None:
    """Recognise Pascal VOC's XML files, and their splits.

    Splits are the lists `ImageSets/Main/NAME.txt`, without those of a single class (`cat_train.txt`), or folders such
    as `train/` and `valid/`.

    None if none of the first 20 XML files is VOC's.

    Raises:
        ValueError: If two folders have lists, or files lie both in folders of splits and outside.
    """
    files = tree.files(".xml")
    if not any(_is_voc(file.path) for file in files[:_SNIFFED]):
        return None
    parse = cache(_parse)
    pairs = pair(files, tree.images, partial(_file_name, parse))
    read = partial(_item, parse)
    notes = unused_images(tree, (image.path for image in pairs.values()), "an XML file")
    lists = _lists(tree)
    if lists:
        splits = {
            name: partial(_read_list, file.path, _below(files, file), pairs, read) for name, file in lists.items()
        }
        why = "XML files, with splits in ImageSets"
        lines = {line.strip() for file in lists.values() for line in read_text(file.path).splitlines()}
        listed = {name for line in lines for name in _shortened(line)}
        rest = [file.path for file in pairs if file.stem not in listed]
        notes += [f"{some(rest, 'XML file')} in no list of ImageSets, left out"] if rest else []
    else:
        groups = by_split(tree, files, pairs, notes)
        splits = {name: partial(read_each, group, pairs, read) for name, group in groups.items()}
        beside = any(image.folder == file.folder for file, image in pairs.items())
        why = "XML files beside the images" if beside else "XML files in a folder of their own"
    return Layout("Pascal VOC", why, splits, _names(files, parse), notes)


def _is_voc(file: Path) -> bool:
    return re.search(r"<annotation[\s>]", read_start(file, 4096)) is not None


def _lists(tree: Tree) -> dict[str, File]:
    """Return the lists in `ImageSets` by split, without those of a single class.

    Raises:
        ValueError: If two folders have lists.
    """
    files = [file for file in tree.files(".txt") if file.folder[-2:] == ("ImageSets", "Main")]
    files = files or [file for file in tree.files(".txt") if file.folder[-1:] == ("ImageSets",)]
    files = [file for file in files if file.folder[0] == "ImageSets"] or files
    if len(folders := {file.folder for file in files}) > 1:
        places = " and ".join(str(tree.root.joinpath(*folder)) for folder in sorted(folders))
        raise ValueError(f"There are lists of splits in {places}; open the folder above one of them.")
    stems = {file.stem for file in files}
    return {file.stem: file for file in files if file.stem.rpartition("_")[2] not in stems or "_" not in file.stem}


def _below(files: Sequence[File], listed: File) -> list[File]:
    """Return the files below the folder that holds a list's `ImageSets`."""
    root = listed.folder[: listed.folder.index("ImageSets")]
    return [file for file in files if file.folder[: len(root)] == root]


def _names(files: Sequence[File], parse: Parse) -> list[str]:
    """Return the class names: VOC's 20 if most of them occur and no other, else those that occur.

    Files that can't be read are skipped.
    """
    known: set[str] = set()
    for file in files:
        try:
            root, _ = parse(file.path)
        except ValueError:
            continue  # Reading the split reports it.
        known |= {(element.findtext("name") or "").strip() for element in root.iterfind("object")} - {""}
    voc = VOC_CATEGORIES[1:]
    return list(voc) if known <= set(voc) and len(known) >= len(voc) / 2 else sorted(known)


def _read_list(listed: Path, files: Sequence[File], pairs: dict[File, File], read: Read) -> Records:
    """Read the images that a list names, one per line.

    VOC's flags -1, 0 and 1 after a name are ignored. Names without annotations, and second ones, become problems.
    """
    upwards = sorted(files, key=lambda file: -len(file.folder))  # Of two with one name the upper one counts.
    by_name = {"/".join((*file.folder[-1:], file.stem)): file for file in upwards}
    by_name |= {file.stem: file for file in upwards}
    chosen: dict[File, None] = {}
    problems = []
    for number, line in enumerate(read_text(listed).splitlines(), start=1):
        name = line.strip().strip('"')
        if name not in by_name:
            name = next((short for short in _shortened(name) if short in by_name), name)
        if name and name not in by_name:
            problems.append(f"{listed}:{number}: {name} has no annotations: there is no {name}.xml")
        elif name and by_name[name] in chosen:
            problems.append(f"{listed}:{number}: {name} occurs twice")
        elif name:
            chosen[by_name[name]] = None
    records = read_each(chosen, pairs, read)
    records.problems[:0] = problems
    return records


def _shortened(name: str) -> list[str]:
    """Return names that a line of a list may mean: without flag and quotes, and without folders or ending."""
    plain = _FLAG.sub("", name).strip('"')
    return [plain, Path(plain).stem, Path(plain).name]


def _item(parse: Parse, file: Path, image: Path, problems: list[str]) -> Item:
    root, lines = parse(file)
    things = []
    for element, line in zip(root.iterfind("object"), lines, strict=True):
        try:
            things.append(_thing(element, line))
        except ValueError as error:
            problems.append(f"{file}:{line}: {str(error).rstrip('.')}")
    return Item(image, file, things, _size(root))


def _file_name(parse: Parse, file: Path) -> str:
    with contextlib.suppress(ValueError):
        return (parse(file)[0].findtext("filename") or "").strip()
    return ""


def _parse(file: Path) -> tuple[ET.Element, list[int]]:
    """Return the root, and the lines of its objects.

    Raises:
        ValueError: If the file is not an annotation in VOC's format.
    """
    content = read_text(file)
    root = parse_xml(content, file)
    if root.tag != "annotation":
        raise ValueError(f"{file}:1: the outermost element is <{root.tag}>, not <annotation>.")
    objects = root.findall("object")
    if not objects and any(element.tag.lower() in ("object", "bndbox") for element in root.iter()):
        raise ValueError(f"{file}:1: its objects do not lie directly in <annotation>; move them there.")
    lines = [content.count("\n", 0, match.start()) + 1 for match in re.finditer(r"<object[\s>/]", content)]
    return root, lines if len(lines) == len(objects) else [1] * len(objects)


def _size(root: ET.Element) -> tuple[int, int] | None:
    """Return (height, width); zeros, which some tools write, mean unknown."""
    try:
        sides = [round(parse_number(root.findtext(f"size/{tag}") or "0", tag)) for tag in ("height", "width")]
    except ValueError:
        return None
    return (sides[0], sides[1]) if min(sides) > 0 else None


def _thing(element: ET.Element, line: int) -> Thing:
    name, box, turned = (element.findtext("name") or "").strip(), element.find("bndbox"), element.find("robndbox")
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    if name and turned is not None:  # As roLabelImg writes boxes.
        return Thing(name, around_turned(*(_side(turned, tag) for tag in _TURNED)), line, difficult=difficult)
    if not name or box is None:
        raise ValueError(f"an object needs a name and a bndbox, got name {quote(name)}")
    x1, y1, x2, y2 = (_side(box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return Thing(name, (x1, y1, x2, y2), line, difficult=difficult)


def _side(box: ET.Element, tag: str) -> float:
    written = box.findtext(tag)
    if written is None:
        raise ValueError(f"{box.tag} lacks {tag}")
    return parse_number(written, tag)

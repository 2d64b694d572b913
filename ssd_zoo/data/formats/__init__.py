"""Layouts of labelled images, a module each, and their recognition."""

from collections.abc import Callable
from pathlib import Path

from ssd_zoo.data.formats import coco, csv_tables, cvat, kitti, labelme, voc, widerface, yolo
from ssd_zoo.data.formats.folders import canonical_split
from ssd_zoo.data.formats.tree import Layout, Tree
from ssd_zoo.weights.outside import near_paths, read_start

__all__ = ["FORMATS", "Layout", "canonical_split", "recognise"]

FORMATS: dict[str, Callable[[Tree], Layout | None]] = {
    "voc": voc.find,
    "coco": coco.find,
    "yolo": yolo.find,
    "labelme": labelme.find,
    "cvat": cvat.find,
    "kitti": kitti.find,
    "widerface": widerface.find,
    "table": csv_tables.find,
}
# Formats that are often exported beside another one; they are read only where they stand alone.
_SECOND = ("table",)
# Formats of one file per image, whose splits may be lists of images; reading these tells what is not read.
_LISTED = {"voc", "yolo", "labelme", "kitti"}


def recognise(path: Path, layout: str | None = None, names: list[str] | None = None) -> Layout:
    """Recognise the layout of a data set.

    Args:
        path: A folder or an annotation file.
        layout: Name of the layout, one of `FORMATS`; by default it is detected.
        names: Class names, without background, for formats that have none.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the layout is unknown, no layout or several are recognised, or a reader finds the files
            contradictory.
    """
    if layout is not None and layout not in FORMATS:
        raise ValueError(f"layout must be one of {', '.join(FORMATS)}, got {layout!r}.")
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.{near_paths(path)}")
    tree = Tree(path, names)
    found: dict[str, Layout] = {}
    for name in FORMATS if layout is None else [layout]:
        if (name not in _SECOND or not found) and (recognised := FORMATS[name](tree)):
            found[name] = recognised
    if not found:
        raise ValueError(_unknown(tree, path, layout))
    if len(found) > 1:
        both = " and ".join(f"{layout.name} ({layout.why})" for layout in found.values())
        names_found = " or ".join(map(repr, found))
        raise ValueError(
            f"{path} holds labels in two layouts, {both}; choose one by layout={names_found} (--layout), or open its "
            "annotation file."
        )
    [result] = found.values()
    if tree.file is None:
        result.notes += tree.left_out
        lists = [file.path.name for file in tree.files(".txt") if not file.folder and canonical_split(file.stem)]
        if lists and list(result.splits) == ["all"] and not found.keys() & _LISTED:
            result.notes.append(
                f"{', '.join(lists)} may list the images of splits, and all images are one split: name the lists in a "
                "data.yaml, as in train: train.txt, or move them to ImageSets/Main of Pascal VOC"
            )
    return result


def _unknown(tree: Tree, path: Path, layout: str | None) -> str:
    if layout is not None:
        return f"{path} is not in the layout {layout!r}; leave it out to detect the layout."
    from ssd_zoo.data.video_layouts import VIDEO_LAYOUTS, video_splits

    if video_splits(path):
        return f"{path} holds videos: open_video_dataset opens it; ssd-zoo data, train and evaluate take it."
    known = "Pascal VOC, COCO, YOLO, LabelMe, CVAT, KITTI, WIDER FACE or a CSV table"
    if tree.file is None:
        known += f"; of videos {VIDEO_LAYOUTS}"
    files = [file.path for suffix in (".json", ".jsonl", ".xml", ".csv", ".txt") for file in tree.files(suffix)[:20]]
    foreign = next((why for file in files if (why := _foreign(file))), "")
    if zips := [path] if path.suffix.lower() == ".zip" else [file.path for file in tree.files(".zip")]:
        return f"{path} has no known layout: {known}. Unpack {zips[0].name} and give the folder."
    labels = any(tree.files(suffix) for suffix in (".xml", ".json", ".csv", ".txt", ".yaml", ".yml"))
    missing = ", and no file of labels" if tree.contents and not labels else ""
    holds = f" It holds {tree.contents or 'no file'}{missing}." if tree.file is None else ""
    return f"{path} has no known layout: {known}.{foreign or holds}"


def _foreign(file: Path) -> str:
    content = read_start(file, 2**20)
    if not content:
        return f" {file} is empty."
    if file.suffix.lower() == ".csv":
        head = content.splitlines()[0]
        return f" {file} begins with {head!r:.200}; a table needs columns filename, class, xmin, ymin, xmax, ymax."
    if file.name == "metadata.jsonl":
        return f" {file} is of Hugging Face: give datasets.load_dataset('imagefolder', data_dir=…) to open_dataset."
    if file.suffix.lower() != ".json":
        return ""
    for (tool, way), keys in _FOREIGN.items():
        if all(f'"{key}"' in content for key in keys):
            return f" {file} is of {tool}; {way}."
    if all(f'"{key}"' in content for key in ("images", "categories")):
        return f" {file} is like COCO's, but has no annotations."
    return ""


# JSON files of tools, with the way to a layout that is read, and keys by which they are known.
_FOREIGN = {
    ("Datumaro", "convert it by `datum convert -i FOLDER -if datumaro -f coco_instances -o OUT --save-media`"): (
        "items",
        "categories",
    ),
    ("Label Studio", "export it as COCO or Pascal VOC"): ("result", "from_name"),
    ("VGG Image Annotator", "export it as COCO"): ("regions", "shape_attributes"),
    ("CreateML", "export it as COCO or Pascal VOC"): ("annotations", "coordinates"),
    ("Supervisely", "export it as COCO or Pascal VOC"): ("objects", "classTitle"),
}

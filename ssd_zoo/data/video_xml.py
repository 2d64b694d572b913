"""Read annotations of videos in XML: CVAT for video, ImageNet VID."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from ssd_zoo.data.annotations import check_class_names
from ssd_zoo.data.video_annotations import LabelledVideo, Labels, VideoObject
from ssd_zoo.weights.outside import parse_number, parse_xml, quote, read_bytes, read_start, whole

__all__ = ["is_cvat", "is_cvat_of_images", "read_cvat", "read_imagenet_vid"]

_LARGEST = 1e9
_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def is_cvat(file: Path) -> bool:
    """Check whether an XML file is one of CVAT's."""
    start = read_start(file, 2000)
    return "<annotations>" in start and "<meta>" in start


def is_cvat_of_images(file: Path) -> bool:
    """Check whether an XML file of CVAT's holds images, and not a video."""
    return re.search(r"<image[\s>]", read_start(file, 2**20)) is not None


def read_cvat(files: Sequence[Path], split: str) -> Labels:  # noqa: ARG001
    """Read XML files of CVAT for video.

    The frames are the video file that the XML names, or else a video file or folder beside it that has the XML's name,
    or the folder `images`. Boxes that are `outside` are left out.

    Args:
        files: The XML files, one per video.
        split: Not needed.

    Raises:
        ValueError: If a file is invalid. The message names it.
    """
    videos, names = [], dict[str, None]()
    for file in files:
        root = parse_xml(read_bytes(file), file)
        names |= dict.fromkeys((label.text or "").strip() for label in root.iterfind("meta//labels/label/name"))
        if root.find("image") is not None:
            raise ValueError(f'{file} is of "CVAT for images"; open_dataset opens it; videos are "CVAT for video".')
        objects = [
            VideoObject(_whole(shape.get("frame"), file, "a frame"), track, _label(element, file), _box(shape, file))
            for track, element in enumerate(root.iterfind("track"))
            for shape in element
            if shape.get("outside") != "1"
        ]
        names |= dict.fromkeys(thing.category for thing in objects)
        count, height, width, start = (
            _whole(written, file, name) if (written := root.findtext(f"meta//{name}")) else None
            for name in ("size", "original_size/height", "original_size/width", "start_frame")
        )
        labeled, step = None, _step(root, file)
        if count and (start or step > 1):
            # A part of a video: frames are numbered as in the whole one, and the others are not annotated.
            labeled, count = [(start or 0) + step * i for i in range(count)], None
        size = None if height is None or width is None else (height, width)
        videos.append(LabelledVideo(file.stem, _frames_of(file, root), file, objects, count, labeled, size))
    return videos, ["background", *check_class_names(names, files[0])]


def _label(track: ET.Element, file: Path) -> str:
    if not (label := (track.get("label") or "").strip()):
        raise ValueError(f"{file}: the track {track.get('id')!s:.40} has no label.")
    return label


def _step(root: ET.Element, file: Path) -> int:
    """Return the step between frames of a task, as its `frame_filter` tells it."""
    written = (root.findtext("meta//frame_filter") or "").strip()
    return whole(_whole(written.removeprefix("step="), file, "frame_filter"), f"{file}: step", low=1) if written else 1


def _box(shape: ET.Element, file: Path) -> tuple[float, float, float, float]:
    """Return the box of a shape of CVAT: of a box itself, or around points."""
    if shape.tag == "box":
        x1, y1, x2, y2 = (_number(shape.get(side), file) for side in ("xtl", "ytl", "xbr", "ybr"))
        return x1, y1, x2, y2
    if shape.get("points") is None:
        raise ValueError(f"{file} has a shape {quote(shape.tag)}; boxes, polygons, polylines and points are read.")
    points = [_number(value, file) for value in shape.get("points", "").replace(";", ",").split(",")]
    return min(points[::2]), min(points[1::2], default=0), max(points[::2]), max(points[1::2], default=0)


def _frames_of(file: Path, root: ET.Element) -> Path:
    """Return the video or folder that belongs to a file of CVAT."""
    named = [Path(source.text).name for source in root.iterfind("meta//source") if source.text]
    places = [*named, *(file.stem + ending for ending in ("", *_ENDINGS)), "images"]
    found = [path for place in places if (path := file.parent / place).exists() and path != file]
    if not found:
        raise FileNotFoundError(f"{file}: there is no video beside it; looked for {', '.join(places)}.")
    return found[0]


def read_imagenet_vid(folders: Sequence[Path], split: str) -> Labels:
    """Read a split of ImageNet VID.

    Args:
        folders: One folder in `Data/VID`.
        split: Its name.

    Raises:
        FileNotFoundError: If the split has no frames.
        ValueError: If an annotation is invalid. The message names the file.
    """
    [root] = folders
    notes = root.parents[2] / "Annotations" / "VID" / split
    snippets = sorted({file.parent for file in root.rglob("*.JPEG")})
    if not snippets:
        raise FileNotFoundError(f"{root} holds no frames (*.JPEG).")
    videos = [_of_vid(frames, notes / frames.relative_to(root), root) for frames in snippets]
    return videos, ["background", *_IMAGENET_VID.values()]


def _of_vid(frames: Path, notes: Path, root: Path) -> LabelledVideo:
    objects: list[VideoObject] = []
    labeled: list[int] = []
    size: tuple[int, int] | None = None
    files = sorted(frames.glob("*.JPEG"))
    for t, file in enumerate(files):
        xml = notes / f"{file.stem}.xml"
        if not xml.is_file():
            continue
        labeled.append(t)
        tree = parse_xml(read_bytes(xml), xml)
        height, width = (_whole(tree.findtext(f"size/{side}"), xml, side) for side in ("height", "width"))
        size = (height, width)
        for thing in tree.iterfind("object"):
            synset = thing.findtext("name", "")
            if synset not in _IMAGENET_VID:
                raise ValueError(f"{xml} has an object {quote(synset)}, which is none of ImageNet VID's 30 classes.")
            # The files count pixels from 0, so no offset is subtracted.
            x1, y1, x2, y2 = (
                _number(thing.findtext(f"bndbox/{side}"), xml) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            track = _whole(thing.findtext("trackid", "0"), xml, "a trackid")
            objects.append(VideoObject(t, track, _IMAGENET_VID[synset], (x1, y1, x2, y2)))
    name = frames.relative_to(root).as_posix()
    return LabelledVideo(name, frames, notes, objects, len(files), labeled if len(labeled) < len(files) else None, size)


def _number(text: str | None, file: Path) -> float:
    return parse_number(text or "", f"{file}: a side of a box", low=-_LARGEST, high=_LARGEST)


def _whole(text: str | None, file: Path, what: str) -> int:
    what = f"{file}: {what}"
    return whole(parse_number(text or "", what), what, low=-int(_LARGEST), high=int(_LARGEST))


_IMAGENET_VID = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
"""Names of ImageNet VID's 30 classes by WordNet id, in the official order."""

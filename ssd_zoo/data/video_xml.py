"""Read annotations of videos in XML: CVAT for video, ImageNet VID."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from ssd_zoo.data.annotations import Box, check_class_names, some
from ssd_zoo.data.images import VIDEO_ENDINGS
from ssd_zoo.data.video_annotations import LabelledVideo, Labels, VideoObject, collected
from ssd_zoo.weights.outside import parse_number, parse_xml, quote, read_bytes, read_start, whole

__all__ = ["is_cvat", "is_cvat_of_images", "read_cvat", "read_imagenet_vid"]

_LARGEST = 1e9


def is_cvat(file: Path) -> bool:
    """Return whether an XML file is one of CVAT's, by `<annotations>` and `<meta>` in its first 2000 bytes."""
    start = read_start(file, 2000)
    return "<annotations>" in start and "<meta>" in start


def is_cvat_of_images(file: Path) -> bool:
    """Return whether a CVAT XML file is of images, not of a video."""
    return re.search(r"<image[\s>]", read_start(file, 2**20)) is not None


def read_cvat(files: Sequence[Path], split: str) -> Labels:  # noqa: ARG001
    """Read XML files of CVAT for video.

    The frames are the video file that the XML names, or else a video file or folder beside it that has the XML's name,
    or the folder `images`. Boxes that are `outside` are left out.

    Invalid shapes are left out, with a message in `problems`. A video whose files can't be read stays, with a `fault`.

    Args:
        files: The XML files, one per video.
        split: Not needed.

    Raises:
        ValueError: If class names are invalid.
    """
    names, problems = dict[str, None](), list[str]()
    videos = [_of_cvat(file, names, problems) for file in files]
    names |= dict.fromkeys(thing.category for video in videos for thing in video.objects)
    return Labels(videos, ["background", *check_class_names(names, files[0])], problems, [])


def _of_cvat(file: Path, names: dict[str, None], problems: list[str]) -> LabelledVideo:
    """Read a file of CVAT; its class names and problems are added to `names` and `problems`.

    Whatever makes the video unusable becomes its `fault`.
    """
    video = LabelledVideo(file.stem, file, file, [])
    try:
        root = parse_xml(read_bytes(file), file)
        names |= dict.fromkeys((label.text or "").strip() for label in root.iterfind("meta//labels/label/name"))
        if root.find("image") is not None:
            raise ValueError(f'{file} is of "CVAT for images"; open_dataset opens it; videos are "CVAT for video"')
        for track, element in enumerate(root.iterfind("track")):
            for shape in element:
                if shape.get("outside") != "1":
                    with collected(problems):
                        video.objects.append(_of_track(shape, element, track, file))
        count, height, width, start = (
            _whole(written, f"{file}: {name}") if (written := root.findtext(f"meta//{name}")) else None
            for name in ("size", "original_size/height", "original_size/width", "start_frame")
        )
        labeled: range | None = None
        step = _step(root, file)
        if count and (start or step > 1):
            # A part of a video: frames are numbered as in the whole one, and the others are not annotated.
            labeled, count = range(start or 0, (start or 0) + step * count, step), None
        size = None if height is None or width is None else (height, width)
        frames = _frames_of(file, root)
        return video._replace(frames=frames, num_frames=count, labeled=labeled, size=size)
    except (ValueError, OSError) as error:
        return video._replace(fault=str(error).rstrip("."))


def _of_track(shape: ET.Element, track: ET.Element, number: int, file: Path) -> VideoObject:
    place = f"{file}: track {track.get('id')!s:.40}, frame {shape.get('frame')!s:.40}"
    if not (label := (track.get("label") or "").strip()):
        raise ValueError(f"{place}: the track has no label.")
    return VideoObject(_whole(shape.get("frame"), f"{place}: the frame"), number, label, _box(shape, place))


def _step(root: ET.Element, file: Path) -> int:
    """Return the step between annotated frames, from the task's `frame_filter`; 1 without it."""
    written, what = (root.findtext("meta//frame_filter") or "").strip(), f"{file}: step of the frame_filter"
    return whole(_whole(written.removeprefix("step="), what), what, low=1) if written else 1


def _box(shape: ET.Element, place: str) -> Box:
    """Return the box, xyxy, of a shape of CVAT: a box itself, or around its points.

    Raises:
        ValueError: If a side is not a number, or the shape has neither box nor points.
    """
    if shape.tag == "box":
        x1, y1, x2, y2 = (_side(shape.get(side), place) for side in ("xtl", "ytl", "xbr", "ybr"))
        return x1, y1, x2, y2
    if shape.get("points") is None:
        raise ValueError(f"{place} has a shape {quote(shape.tag)}; boxes, polygons, polylines and points are read.")
    points = [_side(value, place) for value in shape.get("points", "").replace(";", ",").split(",")]
    return min(points[::2]), min(points[1::2], default=0), max(points[::2]), max(points[1::2], default=0)


def _frames_of(file: Path, root: ET.Element) -> Path:
    """Return the video or folder that belongs to a file of CVAT.

    Raises:
        FileNotFoundError: If there is none.
    """
    named = [Path(source.text).name for source in root.iterfind("meta//source") if source.text]
    places = [*named, *(file.stem + ending for ending in ("", *VIDEO_ENDINGS)), "images"]
    found = [path for place in places if (path := file.parent / place).exists() and path != file]
    if not found:
        raise FileNotFoundError(f"{file}: there is no video beside it; looked for {', '.join(places)}.")
    return found[0]


def read_imagenet_vid(folders: Sequence[Path], split: str) -> Labels:
    """Read a split of ImageNet VID.

    Frames without an XML file count as not annotated. XML files and objects that can't be read are left out, with a
    message in `problems`.

    Args:
        folders: One folder in `Data/VID`.
        split: Its name.

    Raises:
        FileNotFoundError: If the split has no frames (`*.JPEG`).
    """
    [root] = folders
    labels = root.parents[2] / "Annotations" / "VID" / split
    snippets = sorted({file.parent for file in root.rglob("*.JPEG")})
    if not snippets:
        raise FileNotFoundError(f"{root} holds no frames (*.JPEG).")
    problems, without = list[str](), list[Path]()
    videos = [_of_vid(frames, labels / frames.relative_to(root), root, problems, without) for frames in snippets]
    notes = [f"{some(without, 'frame')} without an XML file, taken as not annotated"] if without else []
    return Labels(videos, ["background", *_IMAGENET_VID.values()], problems, notes)


def _of_vid(frames: Path, folder: Path, root: Path, problems: list[str], without: list[Path]) -> LabelledVideo:
    """Read one video of ImageNet VID, with an XML file per frame.

    Args:
        frames: Folder of the frames.
        folder: Folder of the XML files.
        root: Root of the data set.
        problems: Messages about objects that can't be read are added.
        without: Paths of frames without an XML file are added.
    """
    video = LabelledVideo(frames.relative_to(root).as_posix(), frames, folder, [])
    labeled: list[int] = []
    size: tuple[int, int] | None = None
    files = sorted(frames.glob("*.JPEG"))
    for t, file in enumerate(files):
        xml = folder / f"{file.stem}.xml"
        if not xml.is_file():
            without.append(file.relative_to(root))
            continue
        with collected(problems):
            tree = parse_xml(read_bytes(xml), xml)
            height, width = (_whole(tree.findtext(f"size/{side}"), f"{xml}: {side}") for side in ("height", "width"))
            size = (height, width)
            labeled.append(t)
            for thing in tree.iterfind("object"):
                with collected(problems):
                    video.objects.append(_of_synset(thing, t, xml))
    part = labeled if len(labeled) < len(files) else None
    return video._replace(num_frames=len(files), labeled=part, size=size)


def _of_synset(thing: ET.Element, frame: int, xml: Path) -> VideoObject:
    synset = thing.findtext("name", "")
    if synset not in _IMAGENET_VID:
        raise ValueError(f"{xml} has an object {quote(synset)}, which is none of ImageNet VID's 30 classes.")
    # The files count pixels from 0, so no offset is subtracted.
    x1, y1, x2, y2 = (_side(thing.findtext(f"bndbox/{side}"), str(xml)) for side in ("xmin", "ymin", "xmax", "ymax"))
    return VideoObject(
        frame, _whole(thing.findtext("trackid", "0"), f"{xml}: a trackid"), _IMAGENET_VID[synset], (x1, y1, x2, y2)
    )


def _side(text: str | None, place: str) -> float:
    return parse_number(text or "", f"{place}: a side of a box", low=-_LARGEST, high=_LARGEST)


def _whole(text: str | None, what: str) -> int:
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

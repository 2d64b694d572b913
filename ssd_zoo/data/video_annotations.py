"""Read annotations of videos: this project's `clips.json`, and MOTChallenge's text."""

import configparser
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.data.annotations import check_class_names
from ssd_zoo.weights.categories import is_background
from ssd_zoo.weights.outside import parse_json, parse_number, quote, read_text, whole

__all__ = [
    "CLIPS_FILE",
    "Labels",
    "LabelledVideo",
    "VideoObject",
    "read_clips_json",
    "read_mot",
    "splits_of_clips_json",
]

CLIPS_FILE = "clips.json"

# Classes of MOTChallenge that are ignored as persons: on vehicles, static, distractors, reflections, crowds.
# (Milan et al., "MOT16", section 3.2. https://arxiv.org/abs/1603.00831)
_NEUTRAL = {2, 7, 8, 12, 13}
_MOT_CLASSES = 13
# Keys of clips.json, of a video and of an object.
_OF_VIDEO = ("file", "split", "frames", "height", "width", "labeled_frames", "objects")
_OF_OBJECT = ("frame", "track", "category", "box", "ignored")


class VideoObject(NamedTuple):
    """One box of one frame, as its file has it.

    Attributes:
        frame: The frame, from 0.
        track: Number of the object; -1 if unknown.
        category: Name of its class.
        box: xyxy in pixels.
        ignored: Whether evaluation ignores the object.
    """

    frame: int
    track: int
    category: str
    box: tuple[float, float, float, float]
    ignored: bool = False


class LabelledVideo(NamedTuple):
    """Annotations of one video.

    Attributes:
        name: Name in the data set.
        frames: The video file, or the folder of frames.
        source: File of the annotations.
        objects: The annotated objects.
        num_frames: Number of frames, if the annotations tell it.
        labeled: The annotated frames, if not all are.
        size: (height, width) in pixels, if the annotations tell it.
    """

    name: str
    frames: Path
    source: Path
    objects: list[VideoObject]
    num_frames: int | None = None
    labeled: list[int] | None = None
    size: tuple[int, int] | None = None


Labels = tuple[list[LabelledVideo], list[str]]


def splits_of_clips_json(file: Path) -> list[str]:
    """List the splits that a `clips.json` names; `""` is that of videos without one."""
    videos = _entries(_read_json(file), "videos", str(file))
    return list(dict.fromkeys(_text(video, "split", f"{file}: videos[{i}]", "") for i, video in enumerate(videos)))


def read_clips_json(files: Sequence[Path], split: str) -> Labels:
    """Read this project's format.

    Args:
        files: One `clips.json`.
        split: The videos to read, by their `split`.

    Returns:
        The videos, and the class names, background first.

    Raises:
        ValueError: If an entry is invalid. The message names it.
    """
    [file] = files
    content = _read_json(file)
    names = content.get("categories")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{file}: categories must be a list of class names, got {names!r:.200}.")
    names = [name for name in check_class_names(names, file) if not is_background(name)]
    videos: list[LabelledVideo] = []
    for i, entry in enumerate(_entries(content, "videos", str(file))):
        if _text(entry, "split", f"{file}: videos[{i}]", "") == split:
            videos.append(_of_json(entry, file, f"{file}: videos[{i}]"))
            if any(videos[-1].frames.resolve() == video.frames.resolve() for video in videos[:-1]):
                raise ValueError(f"{file}: videos[{i}] is the second entry of {videos[-1].name}; make them one.")
    return videos, ["background", *names]


def _of_json(entry: Mapping[str, object], file: Path, place: str) -> LabelledVideo:
    name = _text(entry, "file", place)
    _check_keys(entry, _OF_VIDEO, place)
    objects = []
    for k, thing in enumerate(_entries(entry, "objects", place)):
        where = f"{place}.objects[{k}]"
        _check_keys(thing, _OF_OBJECT, where)
        box = thing.get("box")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{where} needs a box [x1, y1, x2, y2] in pixels, got {box!r:.200}.")
        x1, y1, x2, y2 = (_float(value, f"{where}.box") for value in box)
        frame, track = _whole(thing, "frame", where), thing.get("track")
        number = -1 if track is None else _whole(thing, "track", where)
        ignored = thing.get("ignored", False)
        if not isinstance(ignored, bool):
            raise ValueError(f"{where}: ignored must be true or false, got {ignored!r:.200}.")
        objects.append(VideoObject(frame, number, _text(thing, "category", where), (x1, y1, x2, y2), ignored))
    labeled = entry.get("labeled_frames")
    if labeled is not None and not (isinstance(labeled, list) and all(map(_is_whole, labeled))):
        raise ValueError(f"{place}: labeled_frames must be a list of frames, from 0, got {labeled!r:.200}.")
    count = _whole(entry, "frames", place) if "frames" in entry else None
    sides = "height" in entry or "width" in entry
    size = (_whole(entry, "height", place), _whole(entry, "width", place)) if sides else None
    labeled = None if labeled is None else sorted(set(labeled))
    return LabelledVideo(name, file.parent / name, file, objects, count, labeled, size)


def _check_keys(entry: Mapping[str, object], known: Sequence[str], place: str) -> None:
    """Refuse keys that are nearly known ones; others may hold what is not read."""
    for key in entry.keys() - set(known):
        if close := get_close_matches(key, known, n=1, cutoff=0.8):
            raise ValueError(f"{place} has {quote(key)}; did you mean {close[0]!r}?")


def read_mot(folders: Sequence[Path], split: str) -> Labels:  # noqa: ARG001
    """Read sequences in the layout of MOTChallenge.

    Frames and pixels are counted from 1 there. `gt/labels.txt`, which CVAT writes, names the classes. Without it the
    objects are MOTChallenge's pedestrians; its other classes are left out, or ignored where they show persons.

    Args:
        folders: Folders with `gt/gt.txt` and `img1`.
        split: Not needed.

    Raises:
        ValueError: If a line is invalid. The message names file and line.
    """
    videos, names = [], dict[str, None]()
    for folder in folders:
        file, own = folder / "gt" / "gt.txt", folder / "gt" / "labels.txt"
        known = check_class_names(_lines(own), own) if own.is_file() else None
        names |= dict.fromkeys(["pedestrian"] if known is None else known)
        rows = [_of_mot(line, known, f"{file}:{i}") for i, line in enumerate(_lines(file), start=1) if line.strip()]
        count, size = _sequence_info(folder / "seqinfo.ini")
        objects = [row for row in rows if row is not None]
        videos.append(LabelledVideo(folder.name, folder / "img1", file, objects, count, size=size))
    return videos, ["background", *(name for name in names if not is_background(name))]


def _of_mot(line: str, names: Sequence[str] | None, place: str) -> VideoObject | None:
    """Read a line: frame, id, left, top, width, height, whether it counts, class, visibility."""
    values = [parse_number(value, f"{place}: a value", low=-1e9, high=1e9) for value in line.split(",")]
    if len(values) < 6:
        raise ValueError(f"{place} needs frame, id, left, top, width and height, got {quote(line)}.")
    first, track, x, y, width, height, counts, kind = [*values, *(1.0, -1.0)[len(values) - 6 :]][:8]
    frame = whole(first, f"{place}: the frame", low=1) - 1
    box = (x - 1, y - 1, x - 1 + width, y - 1 + height)
    ignored = counts == 0
    number, kind = whole(track, f"{place}: the id", low=-1), whole(kind, f"{place}: the class", low=-1)
    if names is None:
        if kind != -1 and not 1 <= kind <= _MOT_CLASSES:
            raise ValueError(
                f"{place} has the class {kind}, and MOTChallenge has 1 to {_MOT_CLASSES}. Own classes are named in "
                "labels.txt, one a line."
            )
        if kind in _NEUTRAL or kind in (-1, 1):
            return VideoObject(frame, number, "pedestrian", box, ignored or kind in _NEUTRAL)
        return None
    if not 1 <= kind <= len(names):
        raise ValueError(f"{place} has the class {kind}, but labels.txt has {len(names)} lines.")
    return VideoObject(frame, number, names[kind - 1], box, ignored)


def _sequence_info(file: Path) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of frames and the (height, width) of a `seqinfo.ini`, where there is one."""
    if not file.is_file():
        return None, None
    parser = configparser.ConfigParser()
    try:
        parser.read_string("\n".join(_lines(file)))
        section = parser["Sequence"]
        size = int(section["imHeight"]), int(section["imWidth"])
        if min(size) < 1:
            raise ValueError(f"an image of {size[0]} × {size[1]} pixels")
        return section.getint("seqLength"), size
    except (configparser.Error, KeyError, ValueError) as error:
        raise ValueError(f"{file} needs seqLength, imWidth and imHeight under [Sequence]: {error!s:.200}.") from error


def _read_json(file: Path) -> Mapping[str, object]:
    content = parse_json(read_text(file), file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be an object with categories and videos.")
    return content


def _entries(parent: Mapping[str, object], key: str, place: str) -> list[dict[str, object]]:
    entries = parent.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{place}: {key} must be a list of objects, got {entries!r:.200}.")
    return entries


def _text(entry: Mapping[str, object], key: str, place: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{place} needs the {key}, a text, got {value!r:.200}.")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _whole(entry: Mapping[str, object], key: str, place: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or not _is_whole(value):
        raise ValueError(f"{place} needs the {key}, a whole number from 0, got {value!r:.200}.")
    return value


def _float(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(f"{place} needs finite numbers, got {value!r:.200}.")
    return float(value)


def _lines(file: Path) -> list[str]:
    return read_text(file).splitlines()

"""Read annotations of videos: this project's `clips.json`, and MOTChallenge's text."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ssd_zoo.data.annotations import Box, check_class_names, some
from ssd_zoo.data.images import VIDEO_ENDINGS, image_endings
from ssd_zoo.weights.categories import is_background
from ssd_zoo.weights.outside import number, parse_json, parse_number, quote, read_text, text, whole

__all__ = [
    "CLIPS_FILE",
    "Labels",
    "LabelledVideo",
    "VideoObject",
    "collected",
    "read_clips_json",
    "read_mot",
    "splits_of_clips_json",
]

CLIPS_FILE = "clips.json"

# Classes of MOTChallenge that are ignored as persons: on vehicles, static, distractors, reflections, crowds.
# (Milan et al., "MOT16", section 3.2. https://arxiv.org/abs/1603.00831)
_NEUTRAL = {2, 7, 8, 12, 13}
_MOT_CLASSES = 13
_NO_PERSONS = {
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "vehicle without a motor",
    9: "occluder",
    10: "occluder on the ground",
    11: "full occluder",
}
# Keys of clips.json, of a video and of an object.
_OF_VIDEO = ("file", "split", "frames", "height", "width", "labeled_frames", "objects")
_OF_OBJECT = ("frame", "track", "category", "box", "ignored")
_LARGEST = 2**31 - 1
_FARTHEST = 1e9


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
    box: Box
    ignored: bool = False


class LabelledVideo(NamedTuple):
    """Annotations of one video.

    Attributes:
        name: Name in the data set.
        frames: The video file, or the folder of frames.
        source: File of the annotations.
        objects: One `VideoObject` per box: an object in ten frames has ten.
        num_frames: Number of frames; None if the annotations do not tell it.
        labeled: The annotated frames from 0, in order; None if all are.
        size: (height, width) in pixels; None if the annotations do not tell it.
        fault: Why the video can't be used; None if it can.
    """

    name: str
    frames: Path
    source: Path
    objects: list[VideoObject]
    num_frames: int | None = None
    labeled: Sequence[int] | None = None
    size: tuple[int, int] | None = None
    fault: str | None = None


class Labels(NamedTuple):
    """What a reader finds in one split.

    Attributes:
        videos: The videos.
        names: Class names, background first.
        problems: Messages about objects that are left out because they can't be used.
        notes: Messages about files and objects that were not found or not used.
    """

    videos: list[LabelledVideo]
    names: list[str]
    problems: list[str]
    notes: list[str]


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Within a with-statement, append an error to the problems.

    A ValueError or OSError inside ends the statement and is not raised.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        problems.append(str(error).rstrip("."))


def splits_of_clips_json(file: Path) -> list[str]:
    """List the splits of a `clips.json`; `""` stands for videos without one.

    Raises:
        ValueError: If the file is not JSON, or has no list of videos.
    """
    return list(dict.fromkeys(split for split, _ in _videos_of_json(_read_json(file), file)))


def _videos_of_json(content: Mapping[str, object], file: Path) -> list[tuple[str, dict[str, object]]]:
    """Return pairs of a split and an entry, one per video of a `clips.json`."""
    entries = _entries(content, "videos", str(file))
    return [(text(entry.get("split", ""), f"{file}: videos[{i}].split"), entry) for i, entry in enumerate(entries)]


def read_clips_json(files: Sequence[Path], split: str) -> Labels:
    """Read this project's format; null means absent.

    Invalid objects are left out, with a message in `problems`. An invalid video stays, with a `fault`.

    Args:
        files: One `clips.json`.
        split: The videos to read, by their `split`.

    Raises:
        ValueError: If the file as a whole is invalid.
    """
    [file] = files
    content = _read_json(file)
    names = content.get("categories")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{file}: categories must be a list of class names, got {names!r:.200}.")
    names = [name for name in check_class_names(names, file) if not is_background(name)]
    entries, problems = _videos_of_json(content, file), list[str]()
    places = {f"{file}: videos[{i}]": entry for i, (name, entry) in enumerate(entries) if name == split}
    videos = [_of_json(entry, file, place, problems) for place, entry in places.items()]
    count = Counter(os.path.realpath(video.frames) for video in videos)
    for i, video in enumerate(videos):
        if count[os.path.realpath(video.frames)] > 1 and video.fault is None:
            videos[i] = video._replace(fault=f"{file} has several entries of {video.name}; make them one")
    return Labels(videos, ["background", *names], problems, _unnamed(file, [entry for _, entry in entries]))


def _of_json(entry: Mapping[str, object], file: Path, place: str, problems: list[str]) -> LabelledVideo:
    video = LabelledVideo(place, file, file, [])
    try:
        for k, thing in enumerate(_entries(entry, "objects", place)):
            with collected(problems):
                video.objects.append(_object_of_json(thing, f"{place}.objects[{k}]"))
        name = text(entry.get("file"), f"{place}: the file")
        video = video._replace(name=name, frames=file.parent / name)
        _check_keys(entry, _OF_VIDEO, place)
        labeled = entry.get("labeled_frames")
        if labeled is not None and not isinstance(labeled, list):
            raise ValueError(f"{place}: labeled_frames must be a list of frames, from 0, got {quote(labeled)}.")
        frames = {_whole(frame, f"{place}: a frame of labeled_frames") for frame in labeled or ()}
        count = _whole(entry["frames"], f"{place}: frames") if "frames" in entry else None
        sides = [_whole(entry.get(side), f"{place}: the {side}") for side in ("height", "width")
                 if "height" in entry or "width" in entry]  # fmt: skip
        size = (sides[0], sides[1]) if sides else None
        return video._replace(num_frames=count, labeled=None if labeled is None else sorted(frames), size=size)
    except ValueError as error:
        return video._replace(fault=str(error).rstrip("."))


def _object_of_json(thing: Mapping[str, object], place: str) -> VideoObject:
    _check_keys(thing, _OF_OBJECT, place)
    box = thing.get("box")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"{place} needs a box [x1, y1, x2, y2] in pixels, got {quote(box)}.")
    x1, y1, x2, y2 = (number(value, f"{place}.box", low=-_FARTHEST, high=_FARTHEST) for value in box)
    track = _whole(thing["track"], f"{place}: the track") if "track" in thing else -1
    ignored = thing.get("ignored", False)
    if not isinstance(ignored, bool):
        raise ValueError(f"{place}: ignored must be true or false, got {quote(ignored)}.")
    category = text(thing.get("category"), f"{place}: the category")
    return VideoObject(_whole(thing.get("frame"), f"{place}: the frame"), track, category, (x1, y1, x2, y2), ignored)


def _check_keys(entry: Mapping[str, object], known: Sequence[str], place: str) -> None:
    """Raise ValueError for a key that is a misspelt known one.

    Other unknown keys may hold anything, and are ignored.
    """
    for key in entry.keys() - set(known):
        if close := get_close_matches(key, known, n=1, cutoff=0.8):
            raise ValueError(f"{place} has {quote(key)}; did you mean {close[0]!r}?")


def _unnamed(file: Path, entries: Sequence[Mapping[str, object]]) -> list[str]:
    """Return a note about videos beside a `clips.json` that it does not list, if there are any."""
    named = {os.path.abspath(file.parent / str(entry.get("file"))) for entry in entries}
    others: list[str] = []
    for folder in sorted({Path(path).parent for path in named}):
        with suppress(OSError, ValueError):
            folders = any(path.is_dir() and os.path.abspath(path) in named for path in folder.iterdir())
            others += [
                os.path.relpath(path, file.parent)
                for path in sorted(folder.iterdir())
                if os.path.abspath(path) not in named
                and (path.suffix.lower() in VIDEO_ENDINGS or (folders and _has_images(path)))
            ]
    return [f"{some(others, 'video')} without an entry in {file.name}, left out"] if others else []


def _has_images(folder: Path) -> bool:
    endings = image_endings()
    return folder.is_dir() and any(path.suffix.lower() in endings for path in folder.iterdir())


def read_mot(folders: Sequence[Path], split: str) -> Labels:  # noqa: ARG001
    """Read sequences in the layout of MOTChallenge.

    Frames and pixels are counted from 1 there. `gt/labels.txt`, which CVAT writes, names the classes. Without it the
    objects are MOTChallenge's pedestrians; its other classes are left out, or ignored where they show persons.

    Invalid lines are left out, with a message in `problems`. A video whose files can't be read stays, with a `fault`.

    Args:
        folders: Folders with `gt/gt.txt` and `img1`.
        split: Not needed.
    """
    videos, names, problems, left_out = list[LabelledVideo](), dict[str, None](), list[str](), Counter[int]()
    for folder in folders:
        file, own = folder / "gt" / "gt.txt", folder / "gt" / "labels.txt"
        video = LabelledVideo(folder.name, folder / "img1", file, [])
        try:
            known = check_class_names(_lines(own), own) if own.is_file() else None
            names |= dict.fromkeys(["pedestrian"] if known is None else known)
            for i, line in enumerate(_lines(file), start=1):
                with collected(problems):
                    if line.strip() and (row := _of_mot(line, known, f"{file}:{i}", left_out)):
                        video.objects.append(row)
            count, size = _sequence_info(folder / "seqinfo.ini")
            videos.append(video._replace(num_frames=count, size=size))
        except (ValueError, OSError) as error:
            videos.append(video._replace(fault=str(error).rstrip(".")))
    kinds = ", ".join(f"{many} of {_NO_PERSONS[kind]}" for kind, many in sorted(left_out.items()))
    notes = [f"boxes of MOTChallenge's classes that are no persons, left out: {kinds}"] if kinds else []
    return Labels(videos, ["background", *(name for name in names if not is_background(name))], problems, notes)


def _of_mot(line: str, names: Sequence[str] | None, place: str, left_out: Counter[int]) -> VideoObject | None:
    """Read a line of `gt.txt`; None for an object of a class that is left out, which `left_out` counts.

    A line has frame, id, left, top, width, height, whether it counts, class, visibility.

    Args:
        line: The line.
        names: Class names of `labels.txt`; None for MOTChallenge's classes.
        place: File and line, for messages.
        left_out: Number of objects by MOTChallenge's class.

    Raises:
        ValueError: If the line is invalid.
    """
    values = [parse_number(value, f"{place}: a value", low=-_FARTHEST, high=_FARTHEST) for value in line.split(",")]
    if len(values) < 6:
        raise ValueError(f"{place} needs frame, id, left, top, width and height, got {quote(line)}.")
    first, track, x, y, width, height, counts, kind = [*values, *(1.0, -1.0)[len(values) - 6 :]][:8]
    frame = whole(first, f"{place}: the frame", low=1) - 1
    box = (x - 1, y - 1, x - 1 + width, y - 1 + height)
    ignored = counts == 0
    track, kind = whole(track, f"{place}: the id", low=-1), whole(kind, f"{place}: the class", low=-1)
    if names is None:
        if kind in _NO_PERSONS:
            left_out[kind] += 1
            return None
        if kind != -1 and not 1 <= kind <= _MOT_CLASSES:
            raise ValueError(
                f"{place} has the class {kind}, and MOTChallenge has 1 to {_MOT_CLASSES}. Own classes are named in "
                "labels.txt, one a line."
            )
        return VideoObject(frame, track, "pedestrian", box, ignored or kind in _NEUTRAL)
    if not 1 <= kind <= len(names):
        raise ValueError(f"{place} has the class {kind}, but labels.txt has {len(names)} lines.")
    return VideoObject(frame, track, names[kind - 1], box, ignored)


def _sequence_info(file: Path) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of frames and the (height, width) in pixels of a `seqinfo.ini`.

    (None, None) if there is no such file. The number is None if the file lacks it; the size must be there.

    Raises:
        ValueError: If the size is missing, or a value is not a whole number of at least 1.
    """
    if not file.is_file():
        return None, None
    pairs = [line.partition("=") for line in _lines(file)]
    values = {key.strip().lower(): value.strip() for key, _, value in pairs}

    def read(key: str) -> int:
        what = f"{file}: {key}"
        return whole(parse_number(values.get(key.lower(), ""), what), what, low=1, high=_LARGEST)

    return read("seqLength") if "seqlength" in values else None, (read("imHeight"), read("imWidth"))


def _read_json(file: Path) -> Mapping[str, object]:
    content = parse_json(read_text(file), file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be an object with categories and videos.")
    return content


def _entries(parent: Mapping[str, object], key: str, place: str) -> list[dict[str, object]]:
    """Return the mappings in a list, without their nulls, which mean absent.

    Args:
        parent: The mapping that has the list.
        key: Key of the list.
        place: Place of the mapping, for messages.

    Raises:
        ValueError: If there is no such list, or an entry is not a mapping.
    """
    entries = parent.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{place}: {key} must be a list of objects, got {quote(entries)}.")
    return [{key: value for key, value in entry.items() if value is not None} for entry in entries]


def _whole(value: object, what: str) -> int:
    return whole(value, what, low=0, high=_LARGEST)


def _lines(file: Path) -> list[str]:
    return read_text(file).splitlines()

"""Open data sets of annotated videos, and draw clips from them."""

import json
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ssd_zoo.data.images import read_image
from ssd_zoo.data.video import read_clip

__all__ = ["AnnotatedVideo", "ClipSampler", "VideoDataset", "open_video_dataset"]

Target = dict[str, Tensor]
_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


@dataclass(frozen=True)
class AnnotatedVideo:
    """Video with its annotated objects.

    Attributes:
        name: Name in the data set.
        frames: The video file, or one image file per frame.
        num_frames: Number of frames.
        target: `boxes (G, 4)`, xyxy in pixels, `labels (G,)`, `frame_index (G,)`, `track_ids (G,)`, and
            `labeled_frames (K,)` if some frames are not annotated.
        size: (height, width) in pixels.
        meta: Other fields of the data set, such as `source` or `fold`.
    """

    name: str
    frames: Path | Sequence[Path]
    num_frames: int
    target: Target
    size: tuple[int, int]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipSampler:
    """Random sampler of a clip's frames.

    Args:
        length: Number of frames per clip; a shorter video is taken whole.
        strides: Steps between successive frames to draw from. Several strides give motion at several speeds. Strides
            too long for the video are skipped.
    """

    length: int
    strides: Sequence[int] = (1,)

    def __call__(self, num_frames: int) -> list[int]:
        """Draw the indices of the frames with Python's `random`."""
        length = min(self.length, num_frames)
        fitting = [stride for stride in self.strides if (length - 1) * stride < num_frames] or [1]
        stride = random.choice(fitting)
        first = random.randrange(num_frames - (length - 1) * stride)
        return [first + t * stride for t in range(length)]


class VideoDataset(Dataset[tuple[Tensor, Target]]):
    """Data set of clips and targets.

    An item is a pair of a clip, `tv_tensors.Video (T, 3, H, W)`, and a target as for `SSD.forward`.

    Args:
        videos: The annotated videos.
        categories: Class names, background first.
        sampler: Function from the number of frames to the frame indices of a clip; None for whole videos.
        transforms: Function of clip and target, such as one of torchvision's transforms v2.
        trimmed: Whether videos are cut to their tubes; kept as an attribute only.
    """

    def __init__(
        self,
        videos: Sequence[AnnotatedVideo],
        categories: Sequence[str],
        *,
        sampler: Callable[[int], list[int]] | None = None,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        trimmed: bool = False,
    ) -> None:
        self.videos, self.categories, self.trimmed = list(videos), list(categories), trimmed
        self.sampler, self.transforms = sampler, transforms

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        video = self.videos[index]
        frames = list(range(video.num_frames)) if self.sampler is None else self.sampler(video.num_frames)
        if isinstance(video.frames, Path):
            pixels = read_clip(video.frames, frames)
        else:
            pixels = torch.stack([read_image(video.frames[frame]) for frame in frames])
        clip = tv_tensors.Video(pixels)
        target = _target_of(video.target, frames)
        size = (clip.shape[-2], clip.shape[-1])
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        return (clip, target) if self.transforms is None else self.transforms(clip, target)


def _target_of(target: Target, frames: Sequence[int]) -> Target:
    """Select the target of some frames, and renumber these from 0."""
    place = {frame: t for t, frame in enumerate(frames)}
    here = torch.tensor([int(frame) in place for frame in target["frame_index"]], dtype=torch.bool)
    chosen = {key: value[here] for key, value in target.items() if key != "labeled_frames"}
    chosen["frame_index"] = torch.tensor([place[int(frame)] for frame in chosen["frame_index"]], dtype=torch.int64)
    if "labeled_frames" in target:
        labeled = [place[int(frame)] for frame in target["labeled_frames"] if int(frame) in place]
        chosen["labeled_frames"] = torch.tensor(labeled, dtype=torch.int64)
    return chosen


def open_video_dataset(folder: str | Path, *, split: str | None = None, **settings: Any) -> VideoDataset:
    """Open a data set of annotated videos; its layout is detected.

    * `annotations.json` with a folder `clips`: this project's layout of UCF101-24 (tubes, boxes as xywh) and J-HMDB-21
      (one box per frame, xyxy).
    * ImageNet VID: the folders `Data/VID` and `Annotations/VID`.

    Args:
        folder: Folder of the data set.
        split: For ImageNet VID, the folder in `Data/VID`, by default `"train"`. The other layout has no splits; select
            from `dataset.videos` by `meta["fold"]`.
        **settings: `sampler` and `transforms` of `VideoDataset`.

    Raises:
        FileNotFoundError: If the folder or a video does not exist, or the layout is not recognised.
        ValueError: If an annotation names a missing frame or an unknown class.
    """
    folder = Path(folder)
    if (folder / "annotations.json").is_file():
        described = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
        videos = [_read_described(folder, name, video) for name, video in described["videos"].items()]
        trimmed = all("boxes" in video for video in described["videos"].values())
        return VideoDataset(videos, ["background", *described["classes"]], trimmed=trimmed, **settings)
    if (folder / "Data" / "VID").is_dir():
        split = split or "train"
        root = folder / "Data" / "VID" / split
        folders = sorted({file.parent for file in root.rglob("*.JPEG")})
        if not folders:
            raise FileNotFoundError(f"{root} holds no frames (*.JPEG).")
        of_frames = [_read_imagenet_vid(frames, folder / "Annotations" / "VID" / split, root) for frames in folders]
        return VideoDataset(of_frames, ["background", *_IMAGENET_VID.values()], **settings)
    raise FileNotFoundError(
        f"{folder} is not a known data set of videos: it has neither annotations.json nor Data/VID."
    )


def _read_described(folder: Path, name: str, video: dict[str, Any]) -> AnnotatedVideo:
    file = next((path for ending in _ENDINGS if (path := folder / "clips" / f"{name}{ending}").is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder / 'clips'} has no video {name} ({', '.join(_ENDINGS)}).")
    boxes: list[Sequence[float]] = []
    frame_index: list[int] = []
    track_ids: list[int] = []
    if "tubes" in video:
        for track, tube in enumerate(video["tubes"]):
            boxes += [[x, y, x + width, y + height] for x, y, width, height in tube["boxes"]]
            frame_index += range(tube["start"], tube["start"] + len(tube["boxes"]))
            track_ids += [track] * len(tube["boxes"])
        num_frames, size = video["n_frames"], (256, 340)
        scale = torch.tensor([340 / 320, 256 / 240] * 2)  # Boxes refer to the original size, 320 × 240.
    else:
        boxes, num_frames, size = video["boxes"], len(video["boxes"]), (240, 320)
        frame_index, track_ids = list(range(num_frames)), [0] * num_frames
        scale = torch.ones(4)
    if frame_index and max(frame_index) >= num_frames:
        raise ValueError(f"{name} has {num_frames} frames, but a box on frame {max(frame_index)}.")
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * scale,
        "labels": torch.full((len(boxes),), video["label"] + 1),
        "frame_index": torch.tensor(frame_index, dtype=torch.int64),
        "track_ids": torch.tensor(track_ids, dtype=torch.int64),
    }
    target["boxes"][:, 0::2].clamp_(0, size[1])
    target["boxes"][:, 1::2].clamp_(0, size[0])
    meta = {key: value for key, value in video.items() if key not in ("tubes", "boxes", "n_frames", "label")}
    return AnnotatedVideo(name, file, num_frames, target, size, meta)


def _read_imagenet_vid(frames: Path, annotations: Path, root: Path) -> AnnotatedVideo:
    files = sorted(frames.glob("*.JPEG"))
    name = frames.relative_to(root).as_posix()
    labels_of = {synset: label for label, synset in enumerate(_IMAGENET_VID, start=1)}
    rows: list[tuple[list[float], int, int, int]] = []
    labeled: list[int] = []
    size = (0, 0)
    for t, file in enumerate(files):
        xml = annotations / name / f"{file.stem}.xml"
        if not xml.is_file():
            continue
        labeled.append(t)
        tree = ET.parse(xml)
        size = (int(tree.findtext("size/height", "0")), int(tree.findtext("size/width", "0")))
        for thing in tree.iterfind("object"):
            synset = thing.findtext("name", "")
            if synset not in labels_of:
                raise ValueError(f"{xml} has an object {synset!r}, which is none of ImageNet VID's 30 classes.")
            # The files count pixels from 0, so no offset is subtracted.
            box = [float(thing.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax")]
            rows.append((box, labels_of[synset], t, int(thing.findtext("trackid", "0"))))
    target = {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "frame_index": torch.tensor([row[2] for row in rows], dtype=torch.int64),
        "track_ids": torch.tensor([row[3] for row in rows], dtype=torch.int64),
    }
    if len(labeled) < len(files):
        target["labeled_frames"] = torch.tensor(labeled, dtype=torch.int64)
    return AnnotatedVideo(name, files, len(files), target, size)


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

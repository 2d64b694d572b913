"""Data sets of annotated videos, and clips from them."""

import random
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import resize

from ssd_zoo.data.images import MAX_PIXELS, read_image
from ssd_zoo.data.video import open_video, read_clip
from ssd_zoo.detector.targets import scale_boxes

__all__ = ["AnnotatedVideo", "ClipSampler", "VideoDataset"]

Target = dict[str, Tensor]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


@dataclass(frozen=True)
class AnnotatedVideo:
    """Video, or a part of one, with its annotated objects.

    Attributes:
        name: Name in the data set.
        frames: The video file, one image file per frame, or the frames themselves, uint8 `(T, 3, H, W)`.
        num_frames: Number of frames.
        target: `boxes (G, 4)`, xyxy in pixels, `labels (G,)` and `frame_index (G,)`; where they are known,
            `track_ids (G,)` and `iscrowd (G,)`; and `labeled_frames (K,)` if some frames are not annotated.
        size: (height, width) in pixels as annotated; None if unknown.
        start: Index in `frames` of the first frame.
        source: File of the annotations, for messages.
        meta: Other fields of the data set, such as `fold`.
        max_pixels: Largest number of pixels of a frame in a file; None for no limit.
        fault: Why the video can't be used; None if it can.
    """

    name: str
    frames: Path | Sequence[Path] | Tensor
    num_frames: int
    target: Target
    size: tuple[int, int] | None = None
    start: int = 0
    source: Path | None = None
    meta: dict[str, object] = field(default_factory=dict)
    max_pixels: int | None = MAX_PIXELS
    fault: str | None = None

    def read(self, frames: Sequence[int] | None = None) -> Tensor:
        """Read frames, by default all.

        Args:
            frames: Their indices from 0, counted from `start`.

        Returns:
            RGB, uint8 `(T, 3, H, W)`.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the video can't be used, or a frame can't be read. The message names the file.
        """
        if self.fault is not None:
            raise ValueError(f"{self.fault}.")
        wanted = [self.start + frame for frame in (range(self.num_frames) if frames is None else frames)]
        if isinstance(self.frames, Path):
            return read_clip(open_video(self.frames, max_pixels=self.max_pixels), wanted)
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self.frames):
            raise ValueError(f"{self.name} has {len(self.frames)} frames, so no frame {max(wanted)}.")
        if isinstance(self.frames, Tensor):
            return self.frames[wanted]
        return torch.stack([read_image(self.frames[frame], max_pixels=self.max_pixels) for frame in wanted])

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the frames, each uint8 `(3, H, W)`, without keeping them; errors are those of `read`."""
        if isinstance(self.frames, Path) and self.fault is None:
            for t, frame in enumerate(open_video(self.frames, max_pixels=self.max_pixels)):
                if self.start <= t < self.start + self.num_frames:
                    yield frame
        else:
            for t in range(self.num_frames):
                yield self.read([t])[0]

    @property
    def labeled_frames(self) -> list[int]:
        """Indices of the annotated frames."""
        labeled = self.target.get("labeled_frames")
        return list(range(self.num_frames)) if labeled is None else labeled.tolist()

    def pieces(self, length: int) -> "list[AnnotatedVideo]":
        """Cut the video into successive pieces of at most `length` frames.

        Pieces without an annotated frame are left out.
        """
        labeled = set(self.labeled_frames)
        parts = [range(first, min(first + length, self.num_frames)) for first in range(0, self.num_frames, length)]
        return [
            replace(self, start=self.start + part[0], num_frames=len(part), target=select_frames(self.target, part))
            for part in parts
            if not labeled.isdisjoint(part)
        ]


@dataclass(frozen=True)
class ClipSampler:
    """Random sampler of a clip's frames.

    Args:
        length: Number of frames per clip; a shorter video is taken whole.
        strides: Steps between successive frames to draw from. Several strides give motion at several speeds. Strides
            too long for the video are skipped; if all are, it is 1.
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
        sampler: Function from the number of frames to the frame indices of a clip; None for whole videos. A clip
            without an annotated frame is moved to one.
        transforms: Function of clip and target, such as `DetectionPresetTrain`.
        trimmed: Whether videos are cut to their tubes, so that objects are visible in every frame.
        problems: Messages about entries that were left out.
        layout: The recognised layout.
        notes: Messages about files that were not found or not used.
    """

    def __init__(
        self,
        videos: Sequence[AnnotatedVideo],
        categories: Sequence[str],
        *,
        sampler: Callable[[int], list[int]] | None = None,
        transforms: Transform | None = None,
        trimmed: bool = False,
        problems: Sequence[str] = (),
        layout: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        self.videos, self.categories, self.trimmed = list(videos), list(categories), trimmed
        self.sampler, self.transforms, self.problems = sampler, transforms, list(problems)
        self.layout, self.notes = layout, list(notes)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        video = self.videos[index]
        frames = range(video.num_frames) if self.sampler is None else _to_labels(self.sampler(video.num_frames), video)
        clip, target = tv_tensors.Video(video.read(frames)), select_frames(video.target, frames)
        size = (clip.shape[-2], clip.shape[-1])
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        return (clip, target) if self.transforms is None else self.transforms(clip, target)

    def with_videos(self, videos: Sequence[AnnotatedVideo]) -> "VideoDataset":
        """Return a copy with other videos, for example a subset."""
        changed = copy(self)
        changed.videos = list(videos)
        return changed

    def clips(self, length: int, strides: Sequence[int] = (1,)) -> "VideoDataset":
        """Return a data set of random clips of `length` frames, for training.

        A video occurs once for every `length` frames that it has, so long videos are not seen less than short ones.
        """
        clips = self.with_videos([video for video in self.videos for _ in range(-(-video.num_frames // length))])
        clips.sampler = ClipSampler(length, strides)
        return clips

    def pieces(self, length: int) -> "VideoDataset":
        """Return a data set of successive pieces, for validation in training.

        Pieces have at most `length` frames.
        """
        return self.with_videos([piece for video in self.videos for piece in video.pieces(length)])

    def in_memory(self, longest: int | None = None) -> "VideoDataset":
        """Return a copy whose videos are read now, and kept.

        Args:
            longest: Longest side in pixels; larger frames are downscaled, with their boxes. None keeps all sizes.
        """
        return self.with_videos([_read_small(video, longest) for video in self.videos])

    def __repr__(self) -> str:
        return f"VideoDataset({len(self)} videos, categories={self.categories})"


def _read_small(video: AnnotatedVideo, longest: int | None) -> AnnotatedVideo:
    frames = []
    for frame in video:
        scale = 1.0 if longest is None else min(1.0, longest / max(frame.shape[-2:]))
        size = [max(1, round(side * scale)) for side in frame.shape[-2:]]
        frames.append(frame if scale == 1 else resize(frame, size, antialias=True))
    pixels = torch.stack(frames)
    height, width = frame.shape[-2:]
    boxes = scale_boxes(video.target["boxes"], (height, width), (pixels.shape[-2], pixels.shape[-1]))
    return replace(video, frames=pixels, start=0, size=None, target={**video.target, "boxes": boxes})


def select_frames(target: Target, frames: Sequence[int]) -> Target:
    """Return a clip's target for some of its frames, renumbered from 0.

    Its `labeled_frames`, if any, are those among the chosen ones.
    """
    place = {frame: t for t, frame in enumerate(frames)}
    here = torch.tensor([frame in place for frame in target["frame_index"].tolist()], dtype=torch.bool)
    chosen = {key: value[here] for key, value in target.items() if key != "labeled_frames"}
    chosen["frame_index"] = torch.tensor([place[frame] for frame in chosen["frame_index"].tolist()], dtype=torch.int64)
    if "labeled_frames" in target:
        labeled = [place[frame] for frame in target["labeled_frames"].tolist() if frame in place]
        chosen["labeled_frames"] = torch.tensor(labeled, dtype=torch.int64)
    return chosen


def _to_labels(frames: list[int], video: AnnotatedVideo) -> list[int]:
    """Move a clip without an annotated frame to one, because it would teach nothing.

    Args:
        frames: Indices of the clip's frames.
        video: The video.

    Returns:
        The frames, shifted together if possible; unchanged if the video has no annotated frame or no shift fits.
    """
    labeled = video.labeled_frames
    if not labeled or not set(frames).isdisjoint(labeled):
        return frames
    at = random.choice(labeled)
    shifts = [
        at - frame for frame in frames if frames[0] + at - frame >= 0 and frames[-1] + at - frame < video.num_frames
    ]
    shift = random.choice(shifts) if shifts else 0
    return [frame + shift for frame in frames]

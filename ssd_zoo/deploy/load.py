"""Run exported detectors behind the API of the model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.description import Description
from ssd_zoo.deploy.digest import check_digest
from ssd_zoo.deploy.file_settings import check_file_setting
from ssd_zoo.deploy.formats import find_format
from ssd_zoo.deploy.graph import NEXT, outputs_of
from ssd_zoo.deploy.runtime import Opened, on_threads
from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.frames import check_clips, holds_clips, join_frames, refuse_tiles, streams_of, warn_of_images
from ssd_zoo.detector.inputs import check_images, check_output, check_pixel_range
from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.detector.ranges import check_count
from ssd_zoo.detector.targets import box_scales
from ssd_zoo.detector.tiles import detect_in_tiles
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.weights.outside import near_paths

__all__ = ["ExportedDetector", "load"]

Detections = list[dict[str, Tensor]]
State = dict[str, Tensor]


@with_near_keywords
def load(
    path: str | os.PathLike[str], *, score_thresh: float | None = None, threads: int | None = None, callers: int = 1
) -> "ExportedDetector":
    """Load an exported detector, to be called as the model is.

    Args:
        path: A file of `export`; Core ML's can't be loaded.
        score_thresh: Scores of detections must be greater; by default the file's. A file that contains post-processing
            has dropped lower scores, so for it this can't be less than its own.
        threads: Number of threads; by default torch's.
        callers: Number of threads that may call the detector at once. Those of ONNX Runtime share its threads;
            elsewhere each has threads of its own.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the format's runtime is missing.
        TypeError: If an argument has the wrong type.
        ValueError: If the file was not written by `export`, is damaged, or can't be used.

    Warns:
        UserWarning: If the file should hold a digest and holds none, because it is old or was edited.
    """
    path = Path(path)
    if threads is not None:
        check_count("threads", threads)
    check_count("callers", callers)
    threads = threads or torch.get_num_threads()
    opened, described = _open(path, threads, callers)
    detector = ExportedDetector(described, opened, str(path), threads, callers)
    if score_thresh is not None:
        detector.score_thresh = score_thresh
    if described.digest is None and find_format(path).digest:
        warn_caller(f"{path} holds no digest, so damage to it can't be noticed. Export the model again.")
    return detector


def _open(path: Path, threads: int, callers: int) -> tuple[Opened, Description]:
    known = find_format(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.{near_paths(path)}")
    if path.is_file():
        if path.stat().st_size == 0:
            raise ValueError(f"{path} can't be opened as an exported file: it is empty.")
        check_digest(path)
    opened = known.open(path, threads, callers)
    return opened, Description.from_json(opened.description, str(path))


class ExportedDetector(nn.Module):
    """An exported detector, called as the model that it was exported from.

    It runs on the CPU. Images and detections may be on another device: move it there by `.to(device)`. A copy, or a
    pickled detector, opens the file again.

    Thresholds may be set if NMS is outside the file. Otherwise only a `score_thresh` above the file's own has effect;
    other values are a ValueError. So are settings that the file can't have, such as another `size`.

    Attributes:
        description: What the file says about its detector.
        categories: Names of the classes, background first.
        size: (height, width) of the input in pixels.
        in_chans: Channels of an image.
        score_thresh: Scores of detections must be greater.
        nms_thresh: Largest IoU of two detections of a class.
        detections_per_img: Most detections per image.
        topk_candidates: Most candidates per class; None for all.
        clip_before_nms: See `Thresholds`.
        tile: (height, width) of the tiles that larger images are cut into; None takes images whole.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side.
        default_boxes: `(D, 4)`, xyxy in input pixels; empty if the file contains post-processing.
    """

    default_boxes: Tensor
    score_thresh: float
    nms_thresh: float
    detections_per_img: int
    topk_candidates: int | None
    clip_before_nms: bool

    def __init__(
        self, description: Description, opened: Opened, source: str, threads: int = 1, callers: int = 1
    ) -> None:
        super().__init__()
        self._run, self._busy, self._threads, self._callers = opened.run, opened.busy, threads, callers
        self._told: set[str] = set()
        self._file, self.description = Path(source).absolute(), description
        self.categories, self.size, self.in_chans = description.categories, description.size, description.in_chans
        for name, value in asdict(description.thresholds).items():
            setattr(self, name, value)
        self.tile, self.tile_overlap = description.tile, description.tile_overlap
        boxes = self._first_run(source).get("default_boxes", torch.empty(0, 4))
        self.register_buffer("default_boxes", boxes, persistent=False)
        self.eval()

    def _first_run(self, source: str) -> dict[str, Tensor]:
        """Run the file on a blank image and return its outputs.

        Raises:
            ValueError: If the file can't be run, or its outputs do not fit its description.
        """
        expected = outputs_of(self.description)
        try:
            blank = torch.zeros(1, self.in_chans, *self.size, dtype=getattr(torch, self.description.pixels))
            found = self._run({"images": blank, **self.description.blank_state(1)})
        except Exception as error:
            raise ValueError(f"{source} can't be run on the input that it describes: {error}") from error
        if set(found) != set(expected):
            raise ValueError(f"{source} has the outputs {', '.join(found)}; expected {', '.join(expected)}.")
        named, classes = len(self.categories), found["cls_logits"].shape[-1] if "cls_logits" in found else None
        if classes is not None and classes != named:
            raise ValueError(f"{source} has {classes} classes with the background, but its description names {named}.")
        return found

    def __setattr__(self, name: str, value: object) -> None:
        if "description" in self.__dict__:
            check_file_setting(self.description, self._file, name, value)
        super().__setattr__(name, value)  # type: ignore[arg-type]

    def _thresholds(self) -> Thresholds:
        return Thresholds(**{name: getattr(self, name) for name in Thresholds.__annotations__})

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_run": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        opened, described = _open(self._file, self._threads, self._callers)
        if described != self.description:
            raise ValueError(f"{self._file} was replaced since the detector was copied or pickled. Load it again.")
        self._run = opened.run

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor] | Tensor) -> Detections:
        """Return the detections of each image.

        Args:
            images: A list of `(in_chans, H, W)` tensors of any sizes, or a batch `(N, in_chans, H, W)`. They are uint8,
                or floating point between 0 and 1. Clips are `(T, in_chans, H, W)` each.

        Returns:
            One dict per image: `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)` and `scores (n,)`, in
            descending order of score. For clips see `SSD.forward`.

        Raises:
            TypeError: If images have the wrong type.
            ValueError: If images are invalid, whose message names which; the output is NaN; or clips meet a `tile`.

        Warns:
            UserWarning: If an image has more candidates than the file compares, so that detections may be missing.
        """
        if holds_clips(images):
            return self.step(images)[0]
        if self.description.state:
            warn_of_images(self._told)
        if self.tile is not None:
            check_images(images, self.in_chans, self.default_boxes.device)
            return detect_in_tiles(
                self._whole, images, tile=self.tile, overlap=self.tile_overlap, nms_thresh=self.nms_thresh
            )
        return self._whole(images)

    def _whole(self, images: Sequence[Tensor] | Tensor) -> Detections:
        state = self.description.blank_state(len(images)) if self.description.state else {}
        return self._detect(images, state)[0]

    def _detect(self, images: Sequence[Tensor] | Tensor, state: State) -> tuple[Detections, State]:
        """Run the file; return detections in the images' pixels, and the next state."""
        check_images(images, self.in_chans, self.default_boxes.device)
        with on_threads(1):
            batch, low_high = self._resized(images)
            if low_high is not None:
                check_pixel_range(low_high.cpu())
            found = self._run({"images": batch.cpu(), **state})
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            scales = box_scales([self.size] * len(sizes), sizes, torch.device("cpu"))
            detections = (self._cut if self.description.nms == "inside" else self._choose)(found, scales)
        where = self.default_boxes.device
        moved = [{key: value.to(where) for key, value in of_image.items()} for of_image in detections]
        return moved, {name: found[NEXT + name] for name in state}

    def _resized(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor | None]:
        """Resize images to the file's batch; several images on a thread each.

        The range of pixels is None if all images are uint8.
        """
        resize = self.description.resize
        if self._threads == 1 or len(images) == 1 or images[0].is_cuda:
            with on_threads(1 if self._busy else self._threads):
                return resize(images)
        with ThreadPoolExecutor(self._threads) as pool:
            parts = list(pool.map(lambda image: resize(image.detach().unsqueeze(0)), images))
        ranges = [torch.zeros(2, 1) if low_high is None else low_high for _, low_high in parts]
        return torch.cat([batch for batch, _ in parts]), torch.cat(ranges, 1)

    def _cut(self, found: dict[str, Tensor], scales: Tensor) -> Detections:
        """Return the detections of a file with NMS inside, without padding and low scores.

        Raises:
            ValueError: If a label has no name.
        """
        if not found["exact"].all():
            warn_caller(
                "An image has more candidates than the file compares, so the detections may lack some. "
                "ssd_zoo.deploy.export takes a larger number of candidates."
            )
        if (largest := int(found["labels"].amax())) >= len(self.categories):
            raise ValueError(f"{self._file} found the class {largest}, which its description does not name.")
        counts = (found["scores"] > self.score_thresh).sum(1).minimum(found["count"]).tolist()
        boxes = found["boxes"] * scales.unsqueeze(1)
        return [
            {"boxes": boxes[i, :count], "scores": found["scores"][i, :count], "labels": found["labels"][i, :count]}
            for i, count in enumerate(counts)
        ]

    def _choose(self, found: dict[str, Tensor], scales: Tensor) -> Detections:
        """Return the detections from a file's raw output, as the model does."""
        check_output(found["cls_logits"].sum((1, 2)) + found["bbox_regression"].sum((1, 2)))
        scored = score_boxes(found, self.description.score_function)
        return postprocess_detections(scored, self.default_boxes.cpu(), self.size, self._thresholds(), scales)

    @torch.no_grad()
    def step(self, images: Sequence[Tensor] | Tensor, state: State | None = None) -> tuple[Detections, State]:
        """Detect objects in the next frames of streams; see `SSD.step`.

        The state is on the CPU. Its number of streams must be that of the images.

        Raises:
            TypeError: If a frame has the wrong type.
            ValueError: If the frames or the state do not fit, or the detector has a `tile`.
        """
        refuse_tiles(self.tile)
        clips = streams_of(images, self.in_chans, self.default_boxes.device)
        frames = check_clips(clips, self.in_chans, self.default_boxes.device)
        lengths = [len(clip) for clip in clips]
        if state is None:
            state = {"frames_seen": torch.zeros(len(clips), dtype=torch.int64)}
            state |= self.description.blank_state(len(clips))
        before = state["frames_seen"].tolist()
        if len(before) != len(clips):
            raise ValueError(f"The state has {len(before)} streams, but there are frames of {len(clips)}.")
        if self.description.state:
            found, state = self._in_turn(frames, lengths, state)
        else:
            found, _ = self._detect(frames, {})
            state = {"frames_seen": state["frames_seen"] + torch.tensor(lengths)}
        shown = [list(range(first, first + length)) for first, length in zip(before, lengths, strict=True)]
        if self.description.last_frame_only:
            ends = torch.tensor(lengths).cumsum(0).tolist()
            found, shown = [found[end - 1] for end in ends], [numbers[-1:] for numbers in shown]
        return join_frames(found, shown), state

    def _in_turn(self, frames: Sequence[Tensor], lengths: Sequence[int], state: State) -> tuple[Detections, State]:
        """Run a file with a state, which takes one frame of each stream at a time."""
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        found: Detections = [{} for _ in frames]
        state = dict(state)
        for t in range(max(lengths)):
            streams = [i for i, length in enumerate(lengths) if length > t]
            places = [starts[i] + t for i in streams]
            here, after = self._detect(
                [frames[place] for place in places], {name: value[streams] for name, value in state.items()}
            )
            for place, one in zip(places, here, strict=True):
                found[place] = one
            rows = torch.tensor(streams)
            state = {name: value.index_copy(0, rows, after[name]) for name, value in state.items()}
        return found, state

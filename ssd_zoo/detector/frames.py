"""Conversion between clips and batches of frames.

Only the backbone sees time. All other parts treat the F frames of all clips, one after another, as F images.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.compiled import not_compiled
from ssd_zoo.detector.inputs import check_dense, check_device, check_images
from ssd_zoo.detector.loss import detector_losses
from ssd_zoo.detector.sizes import sizes_of

if TYPE_CHECKING:
    from ssd_zoo.detector.ssd import SSD

__all__ = [
    "check_clip_targets",
    "check_clips",
    "check_time",
    "forward_clips",
    "holds_clips",
    "join_frames",
    "refuse_tiles",
    "shown_frames",
    "split_frames",
    "step_streams",
    "step_streams_raw",
    "streams_of",
    "targets_of_frames",
    "warn_of_images",
]

Detections = dict[str, Tensor]
_log = logging.getLogger("ssd_zoo")


def holds_clips(images: object) -> "TypeGuard[Sequence[Tensor] | Tensor]":
    """Return whether a model's input is clips.

    Clips are a list of `(T, C, H, W)`, of which the first tensor decides, or a batch `(N, T, C, H, W)`.

    Raises:
        TypeError: If a batch is not a dense tensor.
    """
    if isinstance(images, Tensor):
        check_dense("images", images)
        return images.ndim == 5
    return isinstance(images, (list, tuple)) and len(images) > 0 and getattr(images[0], "ndim", 0) == 4


@not_compiled
def check_time(model: "SSD", clips: bool) -> None:
    """Warn once if a video model gets images or is untrained.

    A video model is one whose backbone relates frames. Before training on clips its weights for earlier frames are
    zeros, which is logged. For other models nothing happens.

    Args:
        model: The model.
        clips: Whether the input is clips, or frames of streams.

    Warns:
        UserWarning: If the input is images.
    """
    if not hasattr(model.backbone, "step"):
        return
    if not clips:
        warn_of_images(model._told)
    elif not model.training and "time" not in model._told:
        model._told.add("time")
        if not getattr(model.backbone, "looks_back", True):
            _log.warning(
                "This model does not look back yet: its weights for the frames before are zeros, so it detects in each "
                "frame alone, until ssd-zoo train or ssd_zoo.training.fit trains it on clips."
            )


@not_compiled
def warn_of_images(told: set[str]) -> None:
    """Warn once that a video model treats each image alone.

    Args:
        told: Names of the warnings that were given before; `"images"` is added.
    """
    if "images" not in told:
        told.add("images")
        warn_caller(
            "This model looks back in time, but images (C, H, W), and a batch of them, are taken one by one. Frames of "
            "a video are a clip (T, C, H, W) in a list, or go to detect_stream; an image alone is a clip of one frame."
        )


def refuse_tiles(tile: object) -> None:
    """Raise ValueError if a model that gets clips has tiles (`SSD.tile`)."""
    if tile is not None:
        raise ValueError(
            f"Tiles are for images, not for clips and videos, but tile is {tile}. Set model.tile = None (--tile 0)."
        )


def check_clips(clips: Sequence[Tensor] | Tensor, in_chans: int, device: torch.device) -> list[Tensor]:
    """Check shapes and devices of clips; return all frames in one list.

    Args:
        clips: Tensors `(T, in_chans, H, W)` of any lengths and sizes.
        in_chans: Channels of a frame.
        device: Device of the model.

    Returns:
        F tensors `(in_chans, H, W)`, the frames of the first clip before those of the second.

    Raises:
        TypeError: If a clip is not a dense tensor. Types of pixels are not checked here.
        ValueError: If a clip has a wrong rank, wrong channels, no frame or another device.
    """
    frames: list[Tensor] = []
    for i, clip in enumerate(clips):
        if not isinstance(clip, Tensor):
            raise TypeError(f"clips[{i}] is a {type(clip).__name__}, not a tensor (T, C, H, W).")
        check_dense(f"clips[{i}]", clip)
        shape = tuple(clip.shape)
        if clip.ndim != 4:
            raise ValueError(
                f"clips[{i}] has shape {shape}; expected (T, C, H, W) as of clips[0]. An image is a clip of one frame: "
                "image.unsqueeze(0)."
            )
        if shape[1] != in_chans:
            way_out = "clip.transpose(0, 1) puts time first" if shape[0] == in_chans else "Convert the clip"
            raise ValueError(f"clips[{i}] has shape {shape}; expected (T, {in_chans}, H, W). {way_out}.")
        if shape[0] == 0:
            raise ValueError(f"clips[{i}] has shape {shape}, so no frame.")
        check_device(f"clips[{i}]", clip, device)
        frames += clip.as_subclass(Tensor).unbind(0)
    return frames


def check_clip_targets(targets: Sequence[dict[str, Tensor]], lengths: Sequence[int]) -> None:
    """Check `frame_index` and, if given, `labeled_frames` of clips' targets.

    Args:
        targets: One dict per clip, whose `boxes (G, 4)` and `labels (G,)` are checked already. `frame_index (G,)` is
            each box's frame, `labeled_frames (K,)` are the annotated frames, by default all.
        lengths: Frames of each clip.

    Raises:
        TypeError: If `frame_index` is missing, or indices are not integers.
        ValueError: If `frame_index` has a wrong shape, an index is out of range, an object is on an unlabeled frame, or
            a tensor is on another device.
    """
    for i, (target, length) in enumerate(zip(targets, lengths, strict=True)):
        if "frame_index" not in target:
            raise TypeError(f"targets[{i}] has no 'frame_index' (G,), the index of each box's frame.")
        for name in target.keys() & {"frame_index", "labeled_frames"}:
            if not isinstance(target[name], Tensor):
                raise TypeError(f"targets[{i}]['{name}'] must be a tensor, got {type(target[name]).__name__}.")
            check_dense(f"targets[{i}]['{name}']", target[name])
            check_device(f"targets[{i}]['{name}']", target[name], target["labels"].device)
        if target["frame_index"].shape != target["labels"].shape:
            raise ValueError(
                f"targets[{i}] has {len(target['labels'])} boxes and a frame_index of shape "
                f"{tuple(target['frame_index'].shape)}; expected ({len(target['labels'])},)."
            )
        for name in ("frame_index", "labeled_frames"):
            index = target.get(name, torch.zeros(0, dtype=torch.int64))
            if index.is_floating_point() or index.dtype == torch.bool:
                raise TypeError(f"targets[{i}]['{name}'] has dtype {index.dtype}; expected integers.")
            if ((index < 0) | (index >= length)).any():
                raise ValueError(
                    f"targets[{i}]['{name}'] goes from {int(index.min())} to {int(index.max())}; "
                    f"the clip's {length} frames are 0 to {length - 1}."
                )
        if "labeled_frames" in target:
            stray = ~torch.isin(target["frame_index"], target["labeled_frames"])
            if stray.any():
                frame = int(target["frame_index"][stray][0])
                raise ValueError(f"targets[{i}] has a box on frame {frame}, which is not among its labeled_frames.")


def shown_frames(backbone: nn.Module, lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of the frames that get feature maps, by clip.

    Args:
        backbone: The backbone; with `frames="last"` it gives maps of each clip's last frame alone.
        lengths: Frames of each clip.
    """
    last_only = getattr(backbone, "frames", "all") == "last"
    return [[length - 1] if last_only else list(range(length)) for length in lengths]


def targets_of_frames(
    targets: Sequence[dict[str, Tensor]], shown: Sequence[Sequence[int]]
) -> tuple[list[dict[str, Tensor]], list[int]]:
    """Split targets of clips into targets of frames.

    Args:
        targets: One dict per clip: `boxes (G, 4)`, `labels (G,)`, `frame_index (G,)` and, where not all frames are
            labeled, `labeled_frames (K,)`.
        shown: Indices of the requested frames of each clip.

    Returns:
        One dict per requested frame that is labeled, and their positions among all requested frames.
    """
    found, rows = [], []
    row = -1
    for target, frames in zip(targets, shown, strict=True):
        labeled = set(target["labeled_frames"].tolist()) if "labeled_frames" in target else set(frames)
        for frame in frames:
            row += 1
            if frame in labeled:
                here = target["frame_index"] == frame
                found.append({"boxes": target["boxes"][here], "labels": target["labels"][here]})
                rows.append(row)
    return found, rows


def join_frames(detections: Sequence[Detections], shown: Sequence[Sequence[int]]) -> list[Detections]:
    """Join detections of frames into detections of clips.

    Args:
        detections: One dict per frame, clip by clip.
        shown: Indices, at least one, of each clip's frames to which the detections belong.

    Returns:
        One dict per clip: its frames' detections, frame by frame, and `frame_index (n,)`, int64.
    """
    joined = []
    left = iter(detections)
    for frames in shown:
        of_clip = [next(left) for _ in frames]
        clip = {key: torch.cat([found[key] for found in of_clip]) for key in of_clip[0]}
        counts = torch.tensor([len(found["scores"]) for found in of_clip])
        index = torch.tensor(frames).repeat_interleave(counts)
        clip["frame_index"] = index.to(clip["labels"].device)
        joined.append(clip)
    return joined


def split_frames(detections: Detections, num_frames: int, *, start: int = 0) -> list[Detections]:
    """Split a clip's detections, or its target, by frame.

    Args:
        detections: Tensors with one row per box, including `frame_index (n,)`. `labeled_frames` is dropped.
        num_frames: Frames of the clip.
        start: Index of the first frame; in streams, the number of frames before it.

    Returns:
        One dict per frame, without rows in some, with its rows in their original order, without `frame_index`.
    """
    index = detections["frame_index"]
    rows = {key: value for key, value in detections.items() if key not in ("frame_index", "labeled_frames")}
    return [{key: value[index == frame] for key, value in rows.items()} for frame in range(start, start + num_frames)]


def forward_clips(
    model: "SSD", clips: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None, return_losses: bool
) -> "Detections | list[Detections] | tuple[list[Detections], dict[str, Tensor]]":
    """Return losses or detections of clips; implements `SSD.forward`."""
    batch = model.prepare(clips)
    lengths = [len(clip) for clip in clips]
    shown = _shown(model, lengths)
    sizes = _sizes(clips, shown)
    if not model.training and not return_losses:
        return join_frames(model._detections(model._scored(model.forward_raw(batch, lengths)), sizes), shown)
    # Errors name the clip, so clips are checked before their frames.
    model.prepare_targets(targets, sizes_of(clips))
    targets = targets or []
    check_clip_targets(targets, lengths)
    labeled, rows = targets_of_frames(targets, shown)
    if not labeled:
        raise ValueError("The loss needs a labeled frame, but no frame that gets feature maps is labeled.")
    objects = model.prepare_targets(labeled, [sizes[row] for row in rows])
    raw = model.forward_raw(batch, lengths)
    losses = detector_losses(model, {key: value[rows] for key, value in raw.items()}, *objects)
    return losses if model.training else (join_frames(model._detections(model._scored(raw), sizes), shown), losses)


def streams_of(images: Sequence[Tensor] | Tensor, in_chans: int, device: torch.device) -> list[Tensor]:
    """Return the next frames of streams as clips.

    Args:
        images: One frame `(in_chans, H, W)` per stream, or several `(T, in_chans, H, W)`, in a list.
        in_chans: Channels of a frame.
        device: Device of the model.

    Raises:
        TypeError: If a frame is not a dense tensor.
        ValueError: If the frames are not in a list, or one has a wrong shape.
    """
    if isinstance(images, Tensor) and images.ndim in (3, 4):
        several = ", or step(list(frames), state) if each is of another stream" if images.ndim == 4 else ""
        raise ValueError(
            f"Got one tensor of shape {tuple(images.shape)}; step takes a list with the next frames of each stream: "
            f"step([{'frames' if several else 'frame'}], state){several}."
        )
    if not holds_clips(images):
        check_images(images, in_chans, device)
        return [image.unsqueeze(0) for image in images]
    check_clips(images, in_chans, device)
    return list(images)


def step_streams(
    model: "SSD", images: Sequence[Tensor] | Tensor, state: dict[str, Tensor] | None
) -> tuple[list[Detections], dict[str, Tensor]]:
    """Detect objects in the next frames of streams; implements `SSD.step`."""
    if model.training:
        raise ValueError("Streams are for detecting: call model.eval() first.")
    refuse_tiles(model.tile)
    check_time(model, clips=True)
    clips = streams_of(images, model.in_chans, model.default_boxes.device)
    lengths = [len(clip) for clip in clips]
    before = [0] * len(clips) if state is None else state["frames_seen"].tolist()
    if len(before) != len(clips):
        raise ValueError(f"The state has {len(before)} streams, but there are frames of {len(clips)}.")
    raw, state = model.step_raw(model.prepare(clips), lengths, state)
    shown = [[first + t for t in frames] for first, frames in zip(before, _shown(model, lengths), strict=True)]
    return join_frames(model._detections(model._scored(raw), _sizes(clips, shown)), shown), state


def step_streams_raw(
    model: "SSD", batch: Tensor, lengths: Sequence[int] | None, state: dict[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run backbone and head on streams' next frames; implements `SSD.step_raw`."""
    if lengths is None and state is None:
        raise ValueError("lengths=None needs the state of the streams; for their first frames pass lengths=[1, …].")
    step = getattr(model.backbone, "step", None)
    if step is not None:
        maps, state = step(batch, lengths, state)
        return model.head(maps), state
    seen = torch.tensor([1] if lengths is None else lengths, device=batch.device)
    return model.forward_raw(batch), {"frames_seen": seen if state is None else state["frames_seen"] + seen}


def _shown(model: "SSD", lengths: Sequence[int]) -> list[list[int]]:
    """Return, by clip, the indices of the frames that get feature maps."""
    last_only = getattr(model.backbone, "frames", "all") == "last"
    return [[length - 1] if last_only else list(range(length)) for length in lengths]


def _sizes(clips: Sequence[Tensor], shown: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return (height, width) of each shown frame, clip by clip."""
    return [size for size, frames in zip(sizes_of(clips), shown, strict=True) for _ in frames]

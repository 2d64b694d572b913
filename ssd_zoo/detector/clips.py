"""Conversion between clips and batches of frames.

Only the backbone sees time. All other parts treat the F frames of all clips, one after another, as F images.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssd_zoo.detector.inputs import check_device

__all__ = [
    "check_clip_targets",
    "check_clips",
    "holds_clips",
    "join_frames",
    "shown_frames",
    "split_frames",
    "targets_of_frames",
]

Detections = dict[str, Tensor]


def holds_clips(images: Any) -> bool:
    """Return whether a model's input is clips.

    Clips are a list of `(T, C, H, W)` or a batch `(N, T, C, H, W)`.
    """
    if isinstance(images, Tensor):
        return images.ndim == 5
    return isinstance(images, (list, tuple)) and len(images) > 0 and getattr(images[0], "ndim", 0) == 4


def check_clips(clips: Sequence[Tensor] | Tensor, in_chans: int, device: torch.device) -> list[Tensor]:
    """Check clips and return their frames, one after another.

    Args:
        clips: Tensors `(T, in_chans, H, W)` of any lengths and sizes.
        in_chans: Channels of a frame.
        device: Device of the model.

    Returns:
        F tensors `(in_chans, H, W)`.

    Raises:
        TypeError: If a clip is not a tensor.
        ValueError: If a clip has a wrong rank, wrong channels, no frame or another device.
    """
    frames: list[Tensor] = []
    for i, clip in enumerate(clips):
        if not isinstance(clip, Tensor):
            raise TypeError(f"clips[{i}] is a {type(clip).__name__}, not a tensor (T, C, H, W).")
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
    """Check the frame indices of clips' targets.

    Args:
        targets: One dict per clip, whose `boxes (G, 4)` and `labels (G,)` are checked already.
        lengths: Frames of each clip.

    Raises:
        TypeError: If `frame_index` is missing, or indices are not integers.
        ValueError: If `frame_index` has a wrong shape, an index is out of range, or an object is on an unlabeled frame.
    """
    for i, (target, length) in enumerate(zip(targets, lengths, strict=True)):
        if "frame_index" not in target:
            raise TypeError(f"targets[{i}] has no 'frame_index' (G,), the index of each box's frame.")
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
        shown: Numbers of the frames of each clip.

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
        One dict per frame with its rows in their original order, without `frame_index`.
    """
    index = detections["frame_index"]
    rows = {key: value for key, value in detections.items() if key not in ("frame_index", "labeled_frames")}
    return [{key: value[index == frame] for key, value in rows.items()} for frame in range(start, start + num_frames)]

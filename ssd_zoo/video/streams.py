"""Detect in streams, reset their state, and export their step.

A state is a dict of tensors with one row per stream. `{key: value[rows] for key, value in state.items()}` selects
streams, `torch.cat` on each key joins them, and any file format for tensors stores them.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ssd_zoo.data.batching import batch_items
from ssd_zoo.detector.frames import split_frames
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import with_near_keywords

__all__ = ["detect_stream", "export_step", "reset_streams"]

State = dict[str, Tensor]


@with_near_keywords
def detect_stream(
    model: SSD, frames: Iterable[Tensor], *, batch_size: int = 1
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Detect objects in a stream of frames of any length.

    Args:
        model: A detector in evaluation mode.
        frames: Frames `(C, H, W)`, such as a `Video`. An error in this iterable is raised after the detections of the
            frames before it.
        batch_size: Number of frames per batch. It affects speed only.

    Yields:
        Each frame, and its detections on the CPU.

    Raises:
        TypeError: If the model is not a detector, or the frames are a path; raised at the first frame, as all errors.
        ValueError: If the model is in training mode or has tiles, or a frame is invalid.
    """
    if not hasattr(model, "step"):
        raise TypeError(
            f"Expected a detector, got {model!r}. A name is opened by ssd_zoo.prediction.open_detector; "
            "torchvision's detectors take no streams."
        )
    if isinstance(frames, (str, os.PathLike)):
        raise TypeError(f"Expected frames (C, H, W), got {frames!r}. A video is opened by ssd_zoo.data.open_video.")
    state, count = None, 0
    for batch in batch_items(frames, batch_size, lambda frame: frame.shape):
        with torch.inference_mode():
            [found], state = model.step([torch.stack(batch).to(model.default_boxes.device)], state)
        parts = split_frames({key: value.cpu() for key, value in found.items()}, len(batch), start=count)
        yield from zip(batch, parts, strict=True)
        count += len(batch)


def reset_streams(state: Mapping[str, Tensor], streams: Sequence[int] | Tensor) -> State:
    """Reset streams, for example at the start of another video.

    Args:
        state: State of S streams from `model.step`; it is not modified.
        streams: Indices of the streams to reset, or a mask `(S,)`.

    Returns:
        The state for the next step.
    """
    chosen = torch.as_tensor(streams, device=state["frames_seen"].device)
    frames_seen = state["frames_seen"].clone()
    frames_seen[chosen] = 0
    return {**state, "frames_seen": frames_seen}


@with_near_keywords
def export_step(model: SSD, *, num_streams: int = 1) -> tuple[ExportedProgram, State]:
    """Export the step of any number of streams with `torch.export`.

    Args:
        model: A detector in evaluation mode.
        num_streams: Number of streams S of the initial state, which is all zeros.

    Returns:
        The program and the initial state. The program maps frames `(S, in_chans, height, width)`, as from
        `model.prepare`, and a state of S streams to raw output and the next state. S may vary from call to call. No
        tensor has more than four axes.

    Raises:
        ValueError: If the model is in training mode.
    """
    if model.training:
        raise ValueError("Streams are for detecting: call model.eval() first.")
    parameter = next(model.parameters())
    # torch.export takes a size of one for a constant.
    frames = torch.zeros(2, model.in_chans, *model.size, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        _, state = model.step_raw(frames, [1, 1])
        state = {key: torch.zeros_like(value) for key, value in state.items()}
        streams = torch.export.Dim("streams", min=1)
        shapes = {"frames": {0: streams}, "state": {key: {0: streams} for key in state}}
        program = torch.export.export(_Step(model), (frames, state), dynamic_shapes=shapes, strict=False)
    return program, {key: value[:1].repeat_interleave(num_streams, 0) for key, value in state.items()}


class _Step(nn.Module):
    """A detector's step as a module, from frames and state to raw output and the next state."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        return self.model.step_raw(frames, None, state)

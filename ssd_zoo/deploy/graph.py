"""A detector as one graph: pixels and state in, named tensors out."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ssd_zoo.deploy.description import Description
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.detector.postprocess.dispatch import score_boxes
from ssd_zoo.detector.postprocess.fixed import postprocess_fixed
from ssd_zoo.detector.ssd import SSD

__all__ = ["NEXT", "Graph", "outputs_of"]

NEXT = "next."
"""Beginning of the names of outputs that hold the next state."""

_INSIDE = ("boxes", "scores", "labels", "count", "exact")
_OUTSIDE = ("cls_logits", "bbox_regression", "default_boxes")


def outputs_of(described: Description) -> tuple[str, ...]:
    """Return the names of a file's outputs, in order."""
    return (*(_INSIDE if described.nms == "inside" else _OUTSIDE), *(NEXT + name for name in described.state))


class Graph(nn.Module):
    """A detector as exporters take it: with normalisation, perhaps with NMS.

    Args:
        model: A detector in evaluation mode. It is copied, in float32 and with its norms folded.
        described: Its description.
        candidates: Number of best (box, class) pairs per image that enter NMS.
        calibration: Batches of one image that the ranges of eight-bit integers are measured on; none for a file in
            float.

    Attributes:
        inputs: Names of the inputs, `images` first, then those of the state.
        outputs: Names of the outputs; see `outputs_of`.
    """

    def __init__(
        self, model: SSD, described: Description, *, candidates: int, calibration: Sequence[np.ndarray] = ()
    ) -> None:
        super().__init__()
        self.calibration = calibration
        self.model = copy.deepcopy(model).float().cpu().requires_grad_(False)
        self.described, self.candidates = described, candidates
        self.inputs = ("images", *described.state)
        self.outputs = outputs_of(described)
        fuse_norms(self.model, self.example()[0].float())
        for module in self.model.modules():
            # torch takes several times as long to export activations in place.
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        self.eval()

    def example(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return arguments of the right shapes and types, for two images."""
        shape = (2, self.model.in_chans, *self.model.size)
        return torch.zeros(shape, dtype=getattr(torch, self.described.pixels)), self.described.blank_state(2)

    def forward(self, images: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs, named and ordered as `outputs`.

        Args:
            images: `(N, in_chans, height, width)`, of the model's size; see `Description.pixels`.
            state: For models of clips, the state of N streams by name, empty for others; the state's tensors have a row
                per stream, of which the images are the next frames.
        """
        model = self.model
        pixels = images.float() / 255 if self.described.pixels == "uint8" else images
        batch = (pixels - model.image_mean) / model.image_std
        raw, after = model.step_raw(batch, None, state) if state else (model.forward_raw(batch), {})
        following = {NEXT + name: after[name] for name in state}
        if self.described.nms == "outside":
            return {**raw, "default_boxes": model.default_boxes.clone(), **following}
        scored = score_boxes(raw, model.score_function)
        found = postprocess_fixed(
            scored, model.default_boxes, model.size, self.described.thresholds, candidates=self.candidates, rounds=None
        )
        return {**found, **following}

"""A detector as one graph of fixed shapes: pixels in, tensors with names out."""

import copy

import torch
from torch import Tensor, nn

from ssd_zoo.deploy.description import Description
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.detector.postprocess.dispatch import score_boxes
from ssd_zoo.detector.postprocess.fixed import postprocess_fixed
from ssd_zoo.detector.ssd import SSD

__all__ = ["Graph"]

INSIDE = ("boxes", "scores", "labels", "count", "exact")
OUTSIDE = ("cls_logits", "bbox_regression", "default_boxes")


class Graph(nn.Module):
    """A detector as exporters take it, with normalisation and, if asked for, NMS.

    Args:
        model: A detector in evaluation mode. It is copied, in float32 and with its norms folded.
        described: Its description.
        candidates: Number of best (box, class) pairs per image that enter NMS.
    """

    def __init__(self, model: SSD, described: Description, *, candidates: int) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).float().cpu().requires_grad_(False)
        self.described, self.candidates = described, candidates
        self.outputs = INSIDE if described.nms == "inside" else OUTSIDE
        fuse_norms(self.model, self.example().float())
        for module in self.model.modules():
            # torch takes several times as long to export activations in place.
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        self.eval()

    def example(self, images: int = 2) -> Tensor:
        """Return an input of the right shape and type."""
        shape = (images, self.model.in_chans, *self.model.size)
        return torch.zeros(shape, dtype=getattr(torch, self.described.pixels))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs, named and ordered as `outputs`.

        Args:
            images: `(N, in_chans, height, width)`, of the model's size; see `Description.pixels`.
        """
        model = self.model
        pixels = images.float() / 255 if self.described.pixels == "uint8" else images
        raw = model.forward_raw((pixels - model.image_mean) / model.image_std)
        if self.described.nms == "outside":
            return {**raw, "default_boxes": model.default_boxes.clone()}
        scored = score_boxes(raw, model.score_function)
        return postprocess_fixed(
            scored, model.default_boxes, model.size, self.described.thresholds, candidates=self.candidates, rounds=None
        )

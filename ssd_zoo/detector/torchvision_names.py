"""Errors that lead from names of torchvision's SSD to ours."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["WithWaysOut"]

_PREDICTORS = "model.head has cls_logits and bbox_regression; for other classes build the model with categories=[…]"
_WAYS_OUT = {
    "anchor_generator": "It is model.default_box_generator; the builder's default_boxes= takes another",
    "box_coder": "ssd_zoo.detector.boxes has encode_boxes and decode_boxes",
    "classification_head": _PREDICTORS,
    "compute_loss": "model(images, targets) returns the losses in training mode, and with return_losses=True too",
    "neg_to_pos_ratio": "It is model.positive_fraction, the share of positives",
    "postprocess_detections": "model(images) returns detections; model.forward_raw(model.prepare(images)) raw output",
    "proposal_matcher": "Its threshold is model.iou_thresh",
    "regression_head": _PREDICTORS,
    "transform": "model.prepare(images) resizes and normalises; the builder takes size=, image_mean=, image_std=",
}


class WithWaysOut(nn.Module):
    """Module whose errors translate names of torchvision's detectors to ours.

    Reading or assigning such a name is an AttributeError.
    """

    def __getattr__(self, name: str) -> Any:
        if name in _WAYS_OUT and name not in self._modules:
            raise _no_attribute(self, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: object) -> None:
        # It would have no effect.
        if name in _WAYS_OUT:
            raise _no_attribute(self, name)
        super().__setattr__(name, value)  # type: ignore[arg-type]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load tensors, as `torch.nn.Module.load_state_dict` does.

        Raises:
            RuntimeError: If names or shapes are not this module's. For another project's names the message points to
                `load_checkpoint`.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            # DistributedDataParallel and torch.compile put these prefixes before our names. Names of backbones do not
            # tell whose tensors they are: torchvision's are partly the same.
            bare = {re.sub(r"^(module\.|_orig_mod\.)+", "", name) for name in state_dict}
            ours, backbone = self.state_dict().keys() & bare, {name for name in bare if name.startswith("backbone.")}
            if ours - backbone or bare == backbone:
                raise
            raise RuntimeError(
                "These tensors have other names than this detector's. ssd_zoo.load_checkpoint(state_dict) builds a "
                "model of the tensors of torchvision's and other projects' detectors."
            ) from error


def _no_attribute(module: nn.Module, name: str) -> AttributeError:
    kind = type(module).__name__
    message = f"{kind!r} object has no attribute {name!r}, unlike torchvision's. {_WAYS_OUT[name]}."
    return AttributeError(message, name=name, obj=module)

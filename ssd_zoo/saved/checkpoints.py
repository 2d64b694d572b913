"""Loading of other projects' checkpoints as models with the same detections."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.folded import folded_norms
from ssd_zoo.models.loading import note_loaded
from ssd_zoo.models.registry import get_model, with_near_keywords
from ssd_zoo.saved.file_boxes import boxes_of_file
from ssd_zoo.weights.categories import is_background
from ssd_zoo.weights.converters import ORIGINS
from ssd_zoo.weights.formats.checkpoint import check_finite, check_state, read_checkpoint
from ssd_zoo.weights.key_tables import Match
from ssd_zoo.weights.origin import Checkpoint, count_head

__all__ = ["OpenedCheckpoint", "load_checkpoint", "open_checkpoint", "warn_of_folded"]

_log = logging.getLogger("ssd_zoo")


@with_near_keywords
def load_checkpoint(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, object],
    origin: str | None = None,
    *,
    categories: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
) -> SSD:
    """Load a checkpoint of another project as a model.

    Number and order of classes, normalisation, default boxes and thresholds are those of the file and its origin. So
    the model has the detections of the original.

    Args:
        path_or_state_dict: A file of `torch.save` (only tensors and plain values are unpickled), a `.safetensors` file,
            a frozen TensorFlow graph (`.pb`), a TensorFlow Lite model (`.tflite`), a TensorFlow.js model (`model.json`
            or its folder), or tensors by name. Training checkpoints are unwrapped.
        origin: Project of the file: `amdegroot`, `lufficc`, `mmdet`, `nvidia`, `qfgaohao`, `tensorflow`, `torchvision`
            or `ultraface`; by default recognised by the tensors' names.
        categories: Names of the classes, background first; by default those of the origin's models with the same number
            of classes, else "class 1" and so on.
        size: Side, or (height, width), of the input in pixels; by default the origin's. Tensors do not show it.

    Returns:
        The model, on the CPU, in evaluation mode. Builders and `from_pretrained` return theirs in training mode.

    Raises:
        ImportError: If the package that a `.tflite` file needs is missing.
        OSError: If there is no such file.
        ValueError: If the file is damaged, holds objects that would have to be unpickled, or has an unknown origin; if
            tensors are missing, unexpected, of a wrong shape, or not finite; if the number of `categories` is wrong.
    """
    model = open_checkpoint(path_or_state_dict, origin).build(categories=categories, size=size)
    warn_of_folded(model)
    return model


def warn_of_folded(model: SSD) -> None:
    """Log a warning if a model's norms are folded into convolutions."""
    if folded := folded_norms(model):
        _log.warning(
            "The source has %d norms folded into convolutions. The model detects as it does. Before you train it, "
            "restore them by ssd_zoo.restore_norms(model, images), or by ssd-zoo convert FILE --images DIR --output "
            "DIR.",
            len(folded),
        )


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint with a recognised origin.

    Attributes:
        name: Name of the file; "a state dict" for tensors by name.
        origin: Name of the origin, one of `ORIGINS`.
        match: Match of the names with the origin's key table.
        state: Tensors by the names in the file; half precision is float32.
        shapes: The same tensors by our names, on the meta device.
    """

    name: str
    origin: str
    match: Match
    state: Mapping[str, Tensor]
    shapes: Mapping[str, Tensor]

    @property
    def num_classes(self) -> int:
        """Number of classes, background counted."""
        return count_head(self.shapes)[1]

    def build(
        self,
        *,
        categories: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        licence: str | None = None,
    ) -> SSD:
        """Build the model, as `load_checkpoint` does; `licence` is that of the weights, by its SPDX name."""
        origin, theirs = ORIGINS[self.origin], self.match.kept()
        # Check shapes before anything is computed with the tensors.
        model = self._build(categories, None if size is None else parse_size(size))
        _check_shapes(model, self.shapes, theirs)
        check_finite({name: self.state[name] for name in theirs.values()})
        model.load_state_dict(origin.convert(self.state, self.match))
        note_loaded(model, "", source=self.name, origin=f"{self.name}, a file of {self.origin}", licence=licence)
        return model.eval()

    def _build(self, categories: Sequence[str] | None, size: tuple[int, int] | None) -> SSD:
        describe = ORIGINS[self.origin].describe
        recipe = describe(Checkpoint(self.state, self.shapes, self.match.table, size))
        if categories is None:
            categories = recipe.known.get(self.num_classes)
        elif len(categories) != self.num_classes:
            named = ["background", *categories]
            lacks_it = len(named) == self.num_classes and not is_background(categories[0])
            way_out = f" Write categories={named}." if lacks_it else ""
            raise ValueError(
                f"The file has {self.num_classes} classes, background counted, so categories must be "
                f"{self.num_classes} names, the background's first; got {len(categories)}.{way_out}"
            )
        names = {"num_classes": self.num_classes} if categories is None else {"categories": list(categories)}
        build = partial(get_model, recipe.builder, weights_backbone=None, **names)
        arguments = dict(recipe.arguments)
        if recipe.arguments or recipe.default_boxes is not None:
            try:
                with torch.device("meta"):
                    of_file = build(**arguments)
            except (TypeError, ValueError) as error:
                raise ValueError(f"The settings in {self.name} make no detector: {error}") from error
            if recipe.default_boxes is not None:
                arguments |= boxes_of_file(of_file, recipe.default_boxes)
        return build(**arguments if size is None else {**arguments, "size": size})


def open_checkpoint(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, object], origin: str | None = None
) -> OpenedCheckpoint:
    """Read a checkpoint and recognise its origin.

    Args:
        path_or_state_dict: See `load_checkpoint`.
        origin: See `load_checkpoint`.

    Returns:
        The file's name, the origin's, what its names were matched to, and the tensors, under their names and converted
        to ours without values.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is damaged, holds objects that would have to be unpickled, or has an unknown or an
            ambiguous origin.
    """
    if isinstance(path_or_state_dict, (str, os.PathLike)):
        path = Path(path_or_state_dict)
        # TensorFlow.js has one name for all models.
        file = "/".join(path.absolute().parts[-2:]) if path.name == "model.json" else path.name
        state = read_checkpoint(path_or_state_dict)
    else:
        file, state = "a state dict", check_state(path_or_state_dict)
    name, match = _recognise(state, origin)
    state = {name: tensor.float() if _is_narrow(tensor) else tensor for name, tensor in state.items()}
    shapes = ORIGINS[name].convert({name: tensor.to("meta") for name, tensor in state.items()}, match)
    return OpenedCheckpoint(file, name, match, state, shapes)


def _recognise(state: Mapping[str, Tensor], origin: str | None) -> tuple[str, Match]:
    """Find the origin of a state dict, and match its names.

    Args:
        state: Tensors by their names.
        origin: The expected origin; None to try all.

    Raises:
        ValueError: If the names do not fit the expected origin, or it is unknown, or they fit none or several of all.
    """
    if origin is not None and origin not in ORIGINS:
        raise ValueError(f"Unknown origin {origin!r}; known are {', '.join(ORIGINS)}.")
    matches = {name: ORIGINS[name].match(state) for name in ([origin] if origin else ORIGINS)}
    unknown = {name: match.unknown for name, match in matches.items()}
    fitting = [name for name, of_origin in unknown.items() if not of_origin]
    if len(fitting) == 1:
        return fitting[0], matches[fitting[0]]
    if fitting:
        raise ValueError(f"The tensors' names fit several origins, {', '.join(fitting)}: give one as origin.")
    if origin is None and any(name.startswith("head.cls_logits.") for name in state):
        raise ValueError(
            "These names are ssd_zoo's own. A saved model loads by ssd_zoo.from_pretrained, a bare state dict by the "
            "model's load_state_dict."
        )
    nearest = min(unknown, key=lambda name: len(unknown[name]))
    examples = ", ".join(map(repr, unknown[nearest][:3]))
    if origin is not None:
        raise ValueError(
            f"The file is not of the origin {origin!r}, or not of a detector that it is known for: "
            f"{len(unknown[origin])} of {len(state)} names are unknown there, among them {examples}."
        )
    raise ValueError(
        f"The file is of no known origin: its tensors' names fit none of {', '.join(ORIGINS)}. "
        + (
            f"Nearest is {nearest}, which does not know {examples}."
            if len(unknown[nearest]) < len(state)
            else f"They begin with {examples}."
        )
    )


def _is_narrow(tensor: Tensor) -> bool:
    """Return whether a tensor is floating point of fewer bytes than float32."""
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def _beside(name: str, theirs: Mapping[str, str]) -> str:
    """Return a tensor's name, with the file's name of a tensor of the same layer, if there is one.

    Args:
        name: Our name of a tensor.
        theirs: The file's names by ours.
    """
    layer = name.rpartition(".")[0]
    neighbour = next((other for ours, other in theirs.items() if ours.rpartition(".")[0] == layer), None)
    return name if neighbour is None or name in theirs else f"{name} (beside {neighbour!r})"


def _check_shapes(model: SSD, tensors: Mapping[str, Tensor], theirs: Mapping[str, str]) -> None:
    """Check that tensors fit a model exactly; counters of batches may be missing.

    Args:
        model: The model.
        tensors: Tensors by our names.
        theirs: Their names in the file.

    Raises:
        ValueError: If tensors are missing, unexpected, or of a wrong shape; the message names them.
    """
    own = model.state_dict()
    # Files from before PyTorch 0.4.1, and TensorFlow's, have no counter of batches.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [theirs.get(name, name) for name in tensors if name not in own]
    for what, names in (
        ("lacks tensors of this model", missing),
        ("holds tensors that it has no place for", unexpected),
    ):
        if names:
            listed = ", ".join(_beside(name, theirs) for name in names[:3]) + (" …" if len(names) > 3 else "")
            raise ValueError(f"The file {what}: {len(names)} of them, {listed}.")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"Tensor {theirs.get(name, name)!r} ({name!r} here) must have shape {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}."
            )

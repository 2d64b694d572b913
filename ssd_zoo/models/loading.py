"""Loading of tensors into models that may differ from them.

These differences are allowed:

* Other categories: the last layers of the class head get the background's row and the rows of the classes that the
  weights know. Classes are matched by name, with COCO's and VOC's synonyms. The row of another class is a fresh one
  plus the mean of the weights' classes, so that it begins with what all objects have in common. With other default
  boxes per cell these layers start fresh.
* Other channels: the first convolution is summed to one channel, or its red, green and blue kernels repeat in turn.
  Repeated kernels are scaled so that the output keeps its magnitude.
* A finer feature map: the predictors of the others keep their maps, and those of the new one start fresh.
* Other default boxes, sizes or norms: tensors of the head, of extra layers and of norms without a counterpart start
  fresh.

Any other difference is an error: the weights belong to another model.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ssd_zoo.backbones.temporal import CausalConv3d, TemporalConv
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.options import Options
from ssd_zoo.weights.categories import list_names, match_classes
from ssd_zoo.weights.entries import Weights, WeightsEnum

__all__ = [
    "LoadReport",
    "find_report",
    "fit_state",
    "load_backbone",
    "load_report",
    "load_weights",
    "note_inflated",
    "note_loaded",
    "split_clip_weights",
    "without_tensors",
]

W = TypeVar("W")

_log = logging.getLogger("ssd_zoo")
_PREDICTOR = re.compile(r"(?P<kind>head\.\w+\.)(?P<map>\d+)")
# Attribute of a model, so that the report is copied, pickled and moved with it.
_REPORT = "load_report"


@dataclass(frozen=True)
class LoadReport:
    """Report on what became of each tensor of a model.

    Attributes:
        source: Name of the weights.
        tensors: Per tensor `"loaded"`, `"copied by class name"`, `"averaged over classes"`, `"adapted to channels"`,
            `"inflated"` or `"new"`.
        classes: Categories whose rows were copied by name, the background among them.
        unused: Tensors of the weights that the model does not have.
        synonyms: The weights' name for each of `classes` that they name differently.
        licence: Licence of the weights; None if unknown.
        origin: Where the weights come from; None if no more is known than their name.
    """

    source: str
    tensors: dict[str, str]
    classes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    origin: str | None = None

    def __str__(self) -> str:
        """Return one line: numbers of tensors by kind, and the new parts."""
        counts = Counter(self.tensors.values())
        text = ", ".join(f"{count} {what}" for what, count in counts.items())
        if self.classes:
            classes = [f"{name} from {self.synonyms[name]}" if name in self.synonyms else name for name in self.classes]
            text += f" ({list_names(classes, 21)})"
        new = sorted({".".join(name.split(".")[:2]) for name, what in self.tensors.items() if what == "new"})
        return f"{self.source}: of {len(self.tensors)} tensors {text}" + (f"; new in {', '.join(new)}" if new else "")


def load_report(model: nn.Module) -> LoadReport:
    """Return the report on the weights that a builder loaded.

    Args:
        model: The model, a copy of it, or a module that holds it, as `torch.compile` and data-parallel training make.

    Raises:
        ValueError: If the builder loaded nothing.
    """
    report = find_report(model)
    if report is None:
        raise ValueError("No builder loaded weights into this model; all its tensors started fresh.")
    return report


def find_report(model: nn.Module) -> LoadReport | None:
    """Return a model's report as `load_report`, or None if there is none."""
    reports = (vars(module).get(_REPORT) for module in model.modules())
    return next((report for report in reports if isinstance(report, LoadReport)), None)


def _keep(model: SSD, report: LoadReport) -> None:
    """Attach a report to a model, in place of an earlier one."""
    vars(model)[_REPORT] = report


def load_weights(model: SSD, weights: WeightsEnum | None, options: Options) -> SSD:
    """Load a detector's weights; log the report if tensors are missing.

    Args:
        model: The detector.
        weights: The weights; None or an entry without address to load nothing, which leaves no report.
        options: The caller's options.

    Raises:
        ValueError: If the weights belong to another model.
    """
    if weights is not None and weights.url:
        state = weights.get_state_dict(progress=options.get("progress", True))
        # The names of a mere number of classes are made up, so they match nothing.
        made_up = options.get("num_classes") is not None and options.get("categories") is None
        known = weights.meta["categories"]
        report = fit_state(model, state, known, source=str(weights), by_name=not made_up)
        _keep(model, _with_licence(report, weights))
        if set(report.tensors.values()) != {"loaded"}:
            _log.warning("%s", report)
    return model


def load_backbone(model: SSD, weights: WeightsEnum | None, *, progress: bool) -> None:
    """Load a classifier's weights into a detector's backbone.

    Extra layers and head stay unchanged. None loads nothing.

    Raises:
        ValueError: If the weights belong to another backbone.
    """
    if weights is not None:
        state = {f"backbone.{name}": tensor for name, tensor in weights.get_state_dict(progress=progress).items()}
        _keep(model, _with_licence(fit_state(model, state, None, source=str(weights)), weights))


def _with_licence(report: LoadReport, weights: WeightsEnum) -> LoadReport:
    """Return a report with the licence and origin of its weights."""
    return replace(report, licence=weights.meta.get("licence"), origin=weights.meta.get("origin"))


def note_loaded(model: SSD, prefix: str, *, source: str, origin: str | None = None, licence: str | None = None) -> None:
    """Record that a part of a model was loaded by other code.

    timm loads the weights of its backbones itself. All other tensors are reported as new.

    Args:
        model: The detector.
        prefix: Beginning of the names of the loaded part's tensors.
        source: Name of the weights in the report.
        origin: Where the weights come from.
        licence: Licence of the weights, by its SPDX name.
    """
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    tensors = {name: "loaded" if name.startswith(prefix) else "new" for name in names}
    _keep(model, LoadReport(source, tensors, licence=licence, origin=origin))


def split_clip_weights(weights: W) -> tuple[W | Weights, W | None]:
    """Split weights into those to load before and after inflation.

    Weights of images are loaded into the image model, before. Of weights of clips, only the settings are needed before;
    all tensors are loaded into the clip model, after.

    Returns:
        The weights of the image model, and those of the clip model or None.
    """
    entry = weights.value if isinstance(weights, WeightsEnum) else weights
    if isinstance(entry, Weights) and (entry.base or str(entry.meta.get("builder")).endswith("_3d")):
        return without_tensors(entry), weights
    return weights, None


def without_tensors(weights: Weights) -> Weights:
    """Return an entry with the same settings and without tensors."""
    return Weights("", weights.transforms, weights.meta, settings=weights.settings)


def note_inflated(model: SSD) -> None:
    """Mark kernels that were inflated, and layers added in time, in the report."""
    report = vars(model).get(_REPORT)
    if isinstance(report, LoadReport):
        known = report.tensors
        inflated = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, CausalConv3d)}
        tensors = {
            name: "inflated" if name in inflated and known.get(name) == "loaded" else known.get(name, "inflated")
            for name in model.state_dict()
            if not name.endswith("num_batches_tracked")
        }
        _keep(model, replace(report, tensors=tensors))


def fit_state(
    model: SSD, state: Mapping[str, Tensor], categories: Sequence[str] | None, *, source: str, by_name: bool = True
) -> LoadReport:
    """Load tensors into a model by the rules of this module.

    Args:
        model: The detector to fill.
        state: Tensors by our names.
        categories: The categories that the class head of `state` has, background first; None for a backbone's tensors.
        source: Name of the weights in the report.
        by_name: Whether other categories get the rows of classes with the same name, or only the background does.

    Raises:
        ValueError: If the tensors belong to another model.
    """
    own, state = model.state_dict(), _shift_predictors(state, model)
    other_classes = categories is not None and list(categories[1:]) != model.categories[1:]
    class_layers = _class_layers(model) if other_classes else set()
    classes = {0: 0, **(match_classes(model.categories, categories or ()) if by_name else {})}
    fitted: dict[str, Tensor] = {}
    tensors: dict[str, str] = {}
    for name, tensor in own.items():
        given, what = state.get(name), "loaded"
        if given is not None and name.rpartition(".")[0] in class_layers:
            given = _fit_classes(given, tensor, classes, categories or (), len(model.categories))
            what = "copied by class name" if len(classes) > 1 else "averaged over classes"
        elif given is not None and given.shape != tensor.shape:
            given, what = _fit_channels(given, tensor), "adapted to channels"
        fitted[name] = tensor if given is None else given
        if not name.endswith("num_batches_tracked"):
            tensors[name] = "new" if given is None else what

    unused = [name for name in state if name not in own]
    may_differ = _tensors_that_may_differ(model)
    strange = [name for name, what in tensors.items() if what == "new" and not may_differ(name)]
    # A layer in time that starts fresh changes no output. A trained one in the weights can't be left out.
    strange += [name for name in unused if ".temporal." in name or not may_differ(name)]
    if strange:
        in_time = any(".temporal." in name for name in (*strange, *unused))
        hint = " Layers that look back in time need the temporal and temporal_stages of the weights." if in_time else ""
        raise ValueError(
            f"{source} does not fit this model: {len(strange)} tensors of other names or shapes, "
            f"among them {', '.join(strange[:3])}.{hint}"
        )
    model.load_state_dict(fitted)
    copied = classes if "copied by class name" in tensors.values() else {}
    names = [(model.categories[label], (categories or ())[other]) for label, other in copied.items()]
    synonyms = {name: other for name, other in names[1:] if name.casefold() != other.casefold()}
    return LoadReport(source, tensors, tuple(name for name, _ in names), tuple(unused), synonyms)


def _shift_predictors(state: Mapping[str, Tensor], model: SSD) -> Mapping[str, Tensor]:
    """Renumber the head's predictors for a model with more, or fewer, of the finer feature maps.

    Maps are numbered from the finest, so another finest map shifts all numbers.
    """
    places = {name: _PREDICTOR.match(name) for name in state}
    maps = 1 + max((int(place["map"]) for place in places.values() if place), default=-1)
    more = len(model.default_box_generator.shapes) - maps
    if not maps or not hasattr(model.backbone, "finer_maps"):
        return state
    return {
        name if place is None else f"{place['kind']}{int(place['map']) + more}{name[place.end() :]}": state[name]
        for name, place in places.items()
        if place is None or int(place["map"]) + more >= 0
    }


def _class_layers(model: SSD) -> set[str]:
    """Return the names of the layers whose output channels are boxes × classes."""
    layers = set()
    for i, predictor in enumerate(model.head.get_submodule("cls_logits").children()):
        *_, last = (name for name, module in predictor.named_modules() if isinstance(module, nn.Conv2d))
        layers.add(f"head.cls_logits.{i}.{last}".rstrip("."))
    return layers


def _fit_classes(
    given: Tensor, tensor: Tensor, classes: Mapping[int, int], known: Sequence[str], num_classes: int
) -> Tensor | None:
    """Fit a class predictor's rows to other classes.

    Args:
        given: The weights' kernel or bias, `(boxes * classes, …)`.
        tensor: The model's own, likewise.
        classes: The weights' labels by the model's, 0 for the background.
        known: The weights' categories, background first.
        num_classes: Number of the model's classes, background counted.

    Returns:
        The new tensor; None if the boxes per cell or the channels differ.
    """
    if len(given) % len(known):
        return None
    # (boxes * classes, ...) -> (boxes, classes, ...)
    source, fitted = given.unflatten(0, (-1, len(known))), tensor.clone().unflatten(0, (-1, num_classes))
    if source.shape[:1] + source.shape[2:] != fitted.shape[:1] + fitted.shape[2:]:
        return None
    objects = [label for label, name in enumerate(known) if label and name != "N/A"]
    fitted += source[:, objects].float().mean(1, keepdim=True).to(fitted)
    fitted[:, list(classes)] = source[:, list(classes.values())].to(fitted)
    return fitted.flatten(0, 1)


def _fit_channels(given: Tensor, tensor: Tensor) -> Tensor | None:
    """Fit a kernel for RGB to the model's channels; None if they differ in more than that."""
    in_chans = tensor.shape[1] if tensor.ndim > 1 else 0
    if given.ndim != 4 or given.shape[1] != 3 or tensor.shape != (given.shape[0], in_chans, *given.shape[2:]):
        return None
    if in_chans == 1:
        return given.sum(1, keepdim=True)
    return given[:, torch.arange(in_chans) % 3] * (3 / in_chans)


def _tensors_that_may_differ(model: SSD) -> Callable[[str], bool]:
    """Return a test of names: may a tensor start fresh if the weights lack it or it has another shape?"""
    new_layers: tuple[str, ...] = getattr(model.backbone, "new_layers", ())
    prefixes = ("head.", *(f"backbone.{name}." for name in new_layers))
    norms = tuple(f"{name}." for name, module in model.named_modules() if _may_be_norm(name, module))
    return lambda name: name.startswith(prefixes + norms)


def _may_be_norm(name: str, module: nn.Module) -> bool:
    if name.rpartition(".")[2] == "norm":
        return True
    return not any(module.children()) and not isinstance(module, (nn.Conv2d, nn.Linear, TemporalConv))

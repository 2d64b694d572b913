"""The keywords that all builders share, with their types, docs and defaults."""

import inspect
import re
from collections.abc import Sequence
from typing import Literal, TypedDict, get_args, get_type_hints

from ssd_zoo.detector.box_losses import BoxLoss, BoxLossName
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.loss import ClassificationLoss, ClassificationLossName
from ssd_zoo.detector.ssd import SSD, Head
from ssd_zoo.layers.basic import NormLayer

__all__ = ["DEFAULTS", "Options", "Settings", "describe_options", "expand_options"]


class Settings(TypedDict, total=False):
    """Keywords of `SSD`, documented there. Weights and builders set their own defaults."""

    head: Head
    image_mean: Sequence[float]
    image_std: Sequence[float]
    antialias: bool
    score_function: Literal["softmax", "sigmoid"]
    score_thresh: float
    nms_thresh: float
    detections_per_img: int
    topk_candidates: int | None
    clip_before_nms: bool
    iou_thresh: float
    classification_loss: ClassificationLossName | ClassificationLoss
    box_loss: BoxLossName | BoxLoss
    positive_fraction: float
    min_negatives: int
    on_invalid_boxes: Literal["raise", "drop"]
    tile: int | tuple[int, int] | None
    tile_overlap: float


class Options(Settings, total=False):
    """Keywords of every builder. Each also names its `weights` and `weights_backbone`.

    Args:
        weights: Weights of the whole detector: an entry, its name, or the address of a saved model.
        weights_backbone: Weights of the backbone alone; not used where `weights` is given.
        num_classes: Number of classes with the background; by default that of the weights, else COCO's 91. With
            another number than the weights' no class has a known name.
        categories: Names of the classes in place of their number, background first.
        size: Side, or (height, width), of the input; by default the weights', else the one in the builder's name.
        in_chans: Channels of an image. Pretrained weights of the first convolution are adapted to them.
        trainable_backbone_layers: Number of backbone stages that train, counted from the last; by default all.
        norm_layer: Makes a norm from a number of channels; by default the norm of the original. With another `eps`
            than the original's, pretrained weights detect otherwise.
        default_boxes: Default boxes in place of the weights' or the original's; for the same number of feature maps.
        progress: Whether to show a progress bar during downloads.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other, or the size is too small; the message names one that works.
    """

    num_classes: int | None
    categories: Sequence[str] | None
    size: int | tuple[int, int] | None
    in_chans: int
    trainable_backbone_layers: int | None
    norm_layer: NormLayer | None
    default_boxes: DefaultBoxGenerator | None
    progress: bool


DEFAULTS: Options = {
    "num_classes": None,
    "categories": None,
    "size": None,
    "in_chans": 3,
    "trainable_backbone_layers": None,
    "norm_layer": None,
    "default_boxes": None,
    "progress": True,
}


def expand_options(signature: inspect.Signature) -> inspect.Signature:
    """Replace `**options` in a builder's signature by each option.

    Settings of `SSD` get the default `...`, which stands for that of the weights or the builder. A signature without
    `Options` is returned unchanged.
    """
    own = {name: item for name, item in signature.parameters.items() if Options not in get_args(item.annotation)}
    if len(own) == len(signature.parameters):
        return signature
    annotations, defaults = get_type_hints(Options), {**DEFAULTS, **dict.fromkeys(get_type_hints(Settings), ...)}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotations[name])
        for name, default in defaults.items()
    ]
    return signature.replace(parameters=[*own.values(), *options])


def describe_options(docstring: str, signature: inspect.Signature) -> str:
    """Complete a builder's docstring with the shared arguments and errors.

    Where the builder documents an argument itself, its text is kept.
    """
    own, shared, of_ssd = (_sections(text) for text in (docstring, Options.__doc__ or "", SSD.__doc__ or ""))
    entries = {**_entries(of_ssd["Args"]), **_entries(shared["Args"]), **_entries(own.pop("Args", ""))}
    summary = own.pop("")
    sections = {
        "Args": "".join(entries.get(name, "") for name in signature.parameters),
        "Raises": shared["Raises"],
        **own,
    }
    return "\n\n".join([summary.rstrip(), *(f"{title}:\n{text.rstrip()}" for title, text in sections.items())]) + "\n"


def _sections(docstring: str) -> dict[str, str]:
    """Split a docstring into sections by title; the title of what comes first is empty."""
    text, *rest = re.split(r"^(\w+):\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": text, **dict(zip(rest[::2], rest[1::2], strict=True))}


def _entries(section: str) -> dict[str, str]:
    """Map each argument that a section lists to its lines."""
    found = re.finditer(r"^ {4}(\w+): .*\n?(?: {5,}.*\n?)*", section, flags=re.MULTILINE)
    return {match[1]: f"{match[0].rstrip()}\n" for match in found}

"""Prints a hash of what each builder builds, so that a change of the code can be shown to change no model.

    PYTHONPATH=. python tests/fingerprint.py [PATTERN ...] > before.txt

One line a builder and variant, and the hash of them all at the end. A hash covers the names and shapes of tensors,
the printed modules, the settings of `SSD`, the default boxes, what trains, and the saved config. The script uses public
names, and the function that makes the config, so that it runs before and after modules move.
"""

import hashlib
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

import ssd_zoo
from ssd_zoo.weights.config import describe as config

NORM = partial(nn.BatchNorm2d, eps=0.25)
SETTINGS = {
    name: parameter
    for name, parameter in inspect.signature(ssd_zoo.SSD).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
# What is passed for each setting of `SSD`, to see that it arrives.
ASKED = {
    "antialias": True,
    "score_thresh": 0.125,
    "nms_thresh": 0.375,
    "detections_per_img": 7,
    "topk_candidates": None,
    "clip_before_nms": True,
    "iou_thresh": 0.625,
    "box_loss": "giou",
    "positive_fraction": 0.5,
    "min_negatives": 1,
    "on_invalid_boxes": "drop",
    "image_mean": (0.1, 0.2, 0.3),
}
OWN = {
    "reduced_tail": [False],
    "temporal": ["2plus1d", "shift", "depthwise"],
    "temporal_stages": [(3, 4)],
    "inflate": ["average"],
    "frames": ["last"],
    "backbone": ["mobilenetv3_small_050"],
}


def settings_only(categories: list[str], **settings: object) -> ssd_zoo.Weights:
    """Gives weights without tensors: a builder that gets them freezes layers and takes their settings."""
    transforms = ssd_zoo.SSD300_VGG16D_Weights.COCO_V1.transforms
    return ssd_zoo.Weights("", transforms, {"categories": categories}, settings=settings)


class AnyBackbone(ssd_zoo.Weights):
    """Weights of a backbone that fit whatever is built; what counts is their settings."""

    def get_state_dict(self, progress: bool = True) -> dict[str, torch.Tensor]:
        with torch.device("meta"):
            model = ssd_zoo.get_model(self.meta["builder"], weights_backbone=None)
        return model.backbone.state_dict()


def variants(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    parameters = inspect.signature(ssd_zoo.get_model_builder(name)).parameters
    few = {"num_classes": 4}
    yield "default", {}
    yield "categories", {"categories": ["background", "cat", "dog"]}
    yield "gray", {**few, "in_chans": 1}
    yield "oblong", {**few, "size": (352, 544)}
    yield "norm", {**few, "norm_layer": NORM}
    yield "settings", {**few, **ASKED}
    with torch.device("meta"):
        shapes = ssd_zoo.get_model(name, weights_backbone=None).default_box_generator.shapes
    boxes = ssd_zoo.DefaultBoxGenerator(shapes=[[(w / 2, h / 3) for w, h in of_map] for of_map in shapes])
    yield "boxes", {**few, "default_boxes": boxes}
    for layers in (None, 0, 2):
        weights = settings_only(["background", "cat"], score_thresh=0.75, default_boxes={"clip": "all"})
        # A new tail must train.
        tail = {"reduced_tail": False} if "reduced_tail" in parameters else {}
        yield f"trainable {layers}", {"weights": weights, "trainable_backbone_layers": layers, **tail}
    for entry in ssd_zoo.get_model_weights(name).__members__.values():
        yield entry.name, {"weights": settings_only(entry.meta["categories"], **entry.settings)}
    of_backbone = parameters["weights_backbone"].default
    if isinstance(of_backbone, ssd_zoo.WeightsEnum) and not name.endswith("_3d"):
        weights = AnyBackbone("any", of_backbone.transforms, {"builder": name}, settings=of_backbone.settings)
        yield "backbone", {"weights_backbone": weights, "trainable_backbone_layers": 3}
    for key in OWN.keys() & parameters.keys():
        for value in OWN[key]:
            yield f"{key}={value}", {**few, key: value}


def describe(name: str, arguments: dict[str, object]) -> list[object]:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = ssd_zoo.get_model(name, **{"weights_backbone": None, **arguments})
        except ValueError as error:
            return [f"refused: {error}"]
    return [
        [(key, list(tensor.shape), str(tensor.dtype)) for key, tensor in model.state_dict().items()],
        [key for key, parameter in model.named_parameters() if parameter.requires_grad],
        repr(model),
        {key: repr(getattr(model, key)) for key in SETTINGS if key != "head"},
        [model.size, model.categories],
        hashlib.sha256(model.default_boxes.numpy().tobytes()).hexdigest(),
        config(model),
    ]


def signature_names(name: str) -> list[str]:
    """Names all keywords of a builder; what stands for the settings of `SSD` is replaced by their names."""
    parameters = inspect.signature(ssd_zoo.get_model_builder(name)).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = {key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    return sorted(names | (SETTINGS.keys() if open_ended else set()))


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    total = []
    for name in ssd_zoo.list_models(sys.argv[1:] or None):
        lines = [(f"{name}: signature", digest(signature_names(name)))]
        for variant, arguments in variants(name):
            found = describe(name, arguments)
            refused = f" {found[0]}" if len(found) == 1 else ""
            lines.append((f"{name}: {variant}{refused}", digest(found)))
        for title, value in sorted(lines):
            print(f"{value}  {title}", flush=True)
        total.append(sorted(lines))
    print(f"{digest(total)}  total")


if __name__ == "__main__":
    main()

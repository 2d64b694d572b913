"""Functions that make the entries of weights that other projects have published."""

from collections.abc import Mapping, Sequence

import torchvision

from ssd_zoo.weights.entries import Weights, detection_transforms
from ssd_zoo.weights.settings import LUFFICC, MMDET, BoxSettings

__all__ = [
    "lufficc_weights",
    "mmdet_weights",
    "timm_weights",
    "torchvision_weights",
]

_RELEASES = "https://github.com/lufficc/SSD/releases/download/1.2"
_OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0/ssd"


def lufficc_weights(
    file: str,
    categories: Sequence[str],
    *,
    num_params: int,
    macs: float,
    file_size: float,
    metrics: Mapping[str, Mapping[str, float]],
    config: str | None = None,
    default_boxes: BoxSettings | None = None,
) -> Weights:
    """Return the entry of a file of lufficc/SSD's release 1.2.

    Args:
        file: Name of the file, without the suffix.
        categories: Names of the classes, background first.
        num_params: Number of parameters.
        macs: Multiply–adds for one image.
        file_size: Size of the converted safetensors file, in bytes.
        metrics: Per data set its published figures.
        config: Name of the configuration; by default that of the file.
        default_boxes: Keywords of `DefaultBoxGenerator` that differ from the builder's.
    """
    return Weights(
        url=f"{_RELEASES}/{file}.pth",
        transforms=detection_transforms,
        layout="lufficc",
        settings={**LUFFICC, "default_boxes": {"clip": "all", **(default_boxes or {})}},
        meta={
            "num_params": num_params,
            "macs": macs,
            "file_size": file_size,
            "categories": list(categories),
            "licence": "MIT",
            "origin": "https://github.com/lufficc/SSD",
            "recipe": f"https://github.com/lufficc/SSD/blob/master/configs/{config or file}.yaml",
            "metrics": {data: {**figures, "source": "published"} for data, figures in metrics.items()},
        },
    )


def mmdet_weights(
    file: str,
    categories: Sequence[str],
    *,
    config: str,
    num_params: int,
    macs: float,
    file_size: float,
    metrics: Mapping[str, Mapping[str, float]],
    default_boxes: BoxSettings | None = None,
    **settings: object,
) -> Weights:
    """Return the entry of a file of MMDetection's model zoo.

    Args:
        file: Path of the file below the zoo's folder `ssd`.
        categories: Names of the classes, background first.
        config: Name of the configuration.
        num_params: Number of parameters.
        macs: Multiply–adds for one image.
        file_size: Bytes of the converted safetensors file.
        metrics: Per data set its published figures.
        default_boxes: Keywords of `DefaultBoxGenerator` that differ from the builder's.
        **settings: Keywords of `SSD` that differ from those of mmdet's SSD300.
    """
    return Weights(
        url=f"{_OPENMMLAB}/{file}",
        transforms=detection_transforms,
        layout="mmdet",
        settings={**MMDET, "default_boxes": {"clip": "none", **(default_boxes or {})}, **settings},
        meta={
            "num_params": num_params,
            "macs": macs,
            "file_size": file_size,
            "categories": list(categories),
            "licence": "Apache-2.0",
            "origin": "https://github.com/open-mmlab/mmdetection",
            "recipe": f"https://github.com/open-mmlab/mmdetection/blob/v3.3.0/configs/ssd/{config}.py",
            "metrics": {data: {**figures, "source": "published"} for data, figures in metrics.items()},
        },
    )


def timm_weights(
    name: str, *prefixes: str, num_params: int, licence: str = "BSD-3-Clause", **settings: object
) -> Weights:
    """Return the entry of a timm classifier, for a backbone.

    Args:
        name: timm's name, with the weights' tag.
        *prefixes: Beginnings of the names of the backbone's tensors.
        num_params: Number of the backbone's parameters.
        licence: Licence of the weights.
        **settings: Keywords of `SSD` that differ from the builder's.
    """
    return Weights(
        url=f"hf-hub:timm/{name}",
        transforms=detection_transforms,
        layout="timm",
        prefixes=prefixes,
        settings=settings,
        meta={"num_params": num_params, "licence": licence, "origin": f"timm, {name}"},
    )


def torchvision_weights(theirs: torchvision.models.WeightsEnum, *, num_params: int) -> Weights:
    """Return the entry of a torchvision classifier, for a backbone.

    Args:
        theirs: torchvision's own entry.
        num_params: Number of the backbone's parameters.
    """
    return Weights(
        url=theirs.url,
        transforms=detection_transforms,
        layout="torchvision",
        meta={
            "num_params": num_params,
            "licence": "BSD-3-Clause",
            "origin": f"torchvision, {theirs}",
            "recipe": theirs.meta["recipe"],
        },
    )

"""Tensors of other projects under our names; one file an origin."""

from ssd_zoo.weights.converters import (
    amdegroot,
    lufficc,
    mmdet,
    nvidia,
    qfgaohao,
    tensorflow,
    timm,
    torchvision,
    ultraface,
)
from ssd_zoo.weights.origin import Origin

__all__ = ["LAYOUTS", "ORIGINS"]

ORIGINS: dict[str, Origin] = {
    "amdegroot": amdegroot.ORIGIN,
    "lufficc": lufficc.ORIGIN,
    "mmdet": mmdet.ORIGIN,
    "nvidia": nvidia.ORIGIN,
    "qfgaohao": qfgaohao.ORIGIN,
    "tensorflow": tensorflow.ORIGIN,
    "torchvision": torchvision.ORIGIN,
    "ultraface": ultraface.ORIGIN,
}
"""The projects whose detectors are read, by name."""

LAYOUTS: dict[str, Origin] = {**ORIGINS, "timm": timm.ORIGIN}
"""The same, and timm, whose classifiers backbones start from."""

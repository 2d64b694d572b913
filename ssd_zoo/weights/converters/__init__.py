"""Converters of other projects' tensors to our names, one module an origin."""

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
"""Projects whose detectors can be read, by name."""

LAYOUTS: dict[str, Origin] = {**ORIGINS, "timm": timm.ORIGIN}
"""`ORIGINS`, and timm, whose classifiers are weights of backbones."""

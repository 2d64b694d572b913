"""Optimise detectors for inference, and export them to other runtimes."""

from ssd_zoo.deploy.compare import DetectionChange, compare_detections
from ssd_zoo.deploy.description import Description
from ssd_zoo.deploy.export import export
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.deploy.load import ExportedDetector, load
from ssd_zoo.deploy.optimize import optimize

__all__ = [
    "Description",
    "DetectionChange",
    "ExportedDetector",
    "compare_detections",
    "export",
    "fuse_norms",
    "load",
    "optimize",
]

"""Optimise detectors for inference."""

from ssd_zoo.deploy.compare import DetectionChange, compare_detections
from ssd_zoo.deploy.fuse import fuse_norms
from ssd_zoo.deploy.optimize import optimize

__all__ = ["DetectionChange", "compare_detections", "fuse_norms", "optimize"]

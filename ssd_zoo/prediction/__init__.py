"""Detect objects in images of any kind by one call."""

from ssd_zoo.prediction.cluster import ClusterCounts, detect_on_cluster
from ssd_zoo.prediction.detections import Detections
from ssd_zoo.prediction.opening import open_detector, pick_device, pick_thresh
from ssd_zoo.prediction.predict import predict

__all__ = [
    "ClusterCounts",
    "Detections",
    "detect_on_cluster",
    "open_detector",
    "pick_device",
    "pick_thresh",
    "predict",
]

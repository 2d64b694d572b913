"""Detect objects in images of any kind by one call."""

from ssd_zoo.prediction.detections import Detections
from ssd_zoo.prediction.opening import open_detector, pick_device
from ssd_zoo.prediction.predict import predict

__all__ = ["Detections", "open_detector", "pick_device", "predict"]

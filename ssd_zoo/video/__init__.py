"""Streams, tubes and their metrics."""

from ssd_zoo.detector.clips import split_frames
from ssd_zoo.video.streams import export_step, reset_streams

__all__ = ["export_step", "reset_streams", "split_frames"]

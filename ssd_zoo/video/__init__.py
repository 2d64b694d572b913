"""Detect in streams, track objects, link tubes, and compute their metrics."""

from ssd_zoo.detector.frames import split_frames
from ssd_zoo.detector.tubes import link_tubes, tube_iou, tubes_of_target
from ssd_zoo.training.metrics.video_ap import (
    bootstrap_difference,
    frame_map,
    match_frames,
    match_tubes,
    mean_ap,
    video_map,
)
from ssd_zoo.video.streams import detect_stream, export_step, reset_streams
from ssd_zoo.video.tracking import Tracker

__all__ = [
    "Tracker",
    "bootstrap_difference",
    "detect_stream",
    "export_step",
    "frame_map",
    "link_tubes",
    "match_frames",
    "match_tubes",
    "mean_ap",
    "reset_streams",
    "split_frames",
    "tube_iou",
    "tubes_of_target",
    "video_map",
]

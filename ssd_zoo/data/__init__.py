"""Read images, videos and data sets; draw detections; fit default boxes."""

from ssd_zoo.data.annotations import Annotations, LabelledImage, LabelledObject
from ssd_zoo.data.dataset import DetectionDataset, open_dataset, splits
from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.drop import usable
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.data.images import find_images, image_endings, read_image
from ssd_zoo.data.inspection import DataReport, inspect_dataset
from ssd_zoo.data.join import join_datasets
from ssd_zoo.data.presets import DetectionPresetEval, DetectionPresetTrain, RandomTile, collate
from ssd_zoo.data.video import Frame, Video, open_camera, open_video, read_clip
from ssd_zoo.data.video_datasets import AnnotatedVideo, ClipSampler, VideoDataset
from ssd_zoo.data.video_layouts import open_video_dataset, video_splits
from ssd_zoo.data.video_transforms import clip_augmentation
from ssd_zoo.data.video_writer import VideoWriter

__all__ = [
    "Annotations",
    "DataReport",
    "DefaultBoxFit",
    "DetectionDataset",
    "DetectionPresetEval",
    "DetectionPresetTrain",
    "LabelledImage",
    "LabelledObject",
    "RandomTile",
    "collate",
    "AnnotatedVideo",
    "ClipSampler",
    "Frame",
    "Video",
    "VideoDataset",
    "VideoWriter",
    "clip_augmentation",
    "draw_detections",
    "find_images",
    "fit_default_boxes",
    "image_endings",
    "inspect_dataset",
    "join_datasets",
    "open_dataset",
    "open_camera",
    "open_video",
    "open_video_dataset",
    "read_clip",
    "read_image",
    "splits",
    "usable",
    "video_splits",
]

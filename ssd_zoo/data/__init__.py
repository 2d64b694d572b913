"""Images and videos, pictures of what was found in them, and default boxes for data of one's own."""

from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.data.images import find_images, image_endings, read_image
from ssd_zoo.data.video import Video, VideoWriter, open_camera, open_video, read_clip
from ssd_zoo.data.video_datasets import AnnotatedVideo, ClipSampler, VideoDataset, open_video_dataset
from ssd_zoo.data.video_transforms import clip_augmentation

__all__ = [
    "AnnotatedVideo",
    "ClipSampler",
    "DefaultBoxFit",
    "Video",
    "VideoDataset",
    "VideoWriter",
    "clip_augmentation",
    "draw_detections",
    "find_images",
    "fit_default_boxes",
    "image_endings",
    "open_camera",
    "open_video",
    "open_video_dataset",
    "read_clip",
    "read_image",
]

"""Images, pictures of what was found in them, and default boxes for data of one's own."""

from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.data.images import find_images, image_endings, read_image

__all__ = [
    "DefaultBoxFit",
    "draw_detections",
    "find_images",
    "fit_default_boxes",
    "image_endings",
    "read_image",
]

"""Reading images, and drawing what was found in them."""

from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.images import find_images, image_endings, read_image

__all__ = ["draw_detections", "find_images", "image_endings", "read_image"]

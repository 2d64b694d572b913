"""Images, data sets of labelled images, pictures of what was found, and default boxes for data of one's own."""

from ssd_zoo.data.annotations import Annotations, LabelledImage, LabelledObject
from ssd_zoo.data.dataset import DetectionDataset, open_dataset, splits
from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.data.images import find_images, image_endings, read_image
from ssd_zoo.data.presets import DetectionPresetEval, DetectionPresetTrain, collate
from ssd_zoo.data.report import DataReport, inspect_dataset, usable

__all__ = [
    "Annotations",
    "DataReport",
    "DefaultBoxFit",
    "DetectionDataset",
    "DetectionPresetEval",
    "DetectionPresetTrain",
    "LabelledImage",
    "LabelledObject",
    "collate",
    "draw_detections",
    "find_images",
    "fit_default_boxes",
    "image_endings",
    "inspect_dataset",
    "open_dataset",
    "read_image",
    "splits",
    "usable",
]

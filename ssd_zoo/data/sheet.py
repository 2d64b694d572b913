"""Draw a contact sheet of labelled images."""

import math

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2 import functional as F

from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.draw import draw_detections

__all__ = ["contact_sheet"]

_GAP, _CAPTION = 4, 16


def contact_sheet(dataset: DetectionDataset, *, images: int = 16, tile: int = 320) -> Image.Image:
    """Draw some images of a data set with their boxes, classes and names.

    The images are taken at equal steps from those with objects.

    Args:
        dataset: The data set, as `usable` returns it: boxes must be valid.
        images: Number of images.
        tile: Longest side of each in pixels.

    Returns:
        The sheet, RGB.

    Raises:
        ValueError: If no image has objects.
    """
    labelled = [i for i, entry in enumerate(dataset.images) if entry.objects]
    if not labelled:
        raise ValueError("No image has objects, so there is nothing to draw.")
    chosen = [labelled[i * len(labelled) // images] for i in range(images)] if len(labelled) > images else labelled
    pictures = [_picture(dataset, i, tile) for i in chosen]
    columns = math.ceil(math.sqrt(len(pictures)))
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _GAP + _CAPTION
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (index, picture) in enumerate(zip(chosen, pictures, strict=True)):
        left, top = _GAP + i % columns * width, _GAP + i // columns * height
        sheet.paste(picture, (left, top))
        name = dataset.images[index].file.name
        while len(name) > 1 and draw.textlength(name, font) > width - _GAP:
            name = name[1:]  # Its end tells more than its beginning.
        draw.text((left, top + picture.height + 2), name, "black", font)
    return sheet


def _picture(dataset: DetectionDataset, index: int, tile: int) -> Image.Image:
    image, target = dataset.with_transforms(None)[index]
    height, width = image.shape[-2:]
    scale = tile / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    boxes = target["boxes"].as_subclass(torch.Tensor) * scale
    small = F.resize(image, size, antialias=True).as_subclass(torch.Tensor)
    return draw_detections(small, {"boxes": boxes, "labels": target["labels"]}, dataset.categories)

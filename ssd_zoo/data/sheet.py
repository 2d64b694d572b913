"""Draw a contact sheet of labelled images or frames."""

import math
from itertools import groupby

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssd_zoo.data.dataset import DetectionDataset
from ssd_zoo.data.draw import draw_detections
from ssd_zoo.data.video_datasets import VideoDataset

__all__ = ["contact_sheet", "labelled_pictures"]

_GAP, _CAPTION = 4, 16
Place = tuple[int, int]


def labelled_pictures(dataset: DetectionDataset | VideoDataset) -> list[Place]:
    """List the images, or the frames of videos, that have objects.

    Returns:
        Pairs of an item's index in the data set and a frame from 0, which is 0 for an image.
    """
    if isinstance(dataset, VideoDataset):
        frames = [sorted(set(video.target["frame_index"].tolist())) for video in dataset.videos]
        return [(i, t) for i, of_video in enumerate(frames) for t in of_video]
    return [(i, 0) for i, entry in enumerate(dataset.images) if entry.objects]


def contact_sheet(dataset: DetectionDataset | VideoDataset, *, images: int = 16, tile: int = 320) -> Image.Image:
    """Draw images or frames of a data set with boxes and classes.

    Each has its name below.

    They are taken at equal steps from those with objects.

    Args:
        dataset: The data set, as `usable` returns it: boxes must be valid.
        images: Number of images.
        tile: Longest side of each in pixels.

    Returns:
        The sheet, RGB.

    Raises:
        ValueError: If no image has objects.
    """
    labelled = labelled_pictures(dataset)
    if not labelled:
        raise ValueError("No image has objects, so there is nothing to draw.")
    chosen = [labelled[i * len(labelled) // images] for i in range(images)] if len(labelled) > images else labelled
    if isinstance(dataset, VideoDataset):
        # A video is decoded once for all frames of it.
        parts = ((i, [t for _, t in part]) for i, part in groupby(chosen, lambda place: place[0]))
        named = [picture for i, frames in parts for picture in _of_video(dataset, i, frames, tile)]
    else:
        named = [_of_image(dataset, i, tile) for i, _ in chosen]
    columns = math.ceil(math.sqrt(len(named)))
    width = max(picture.width for _, picture in named) + _GAP
    height = max(picture.height for _, picture in named) + _GAP + _CAPTION
    rows = math.ceil(len(named) / columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (name, picture) in enumerate(named):
        left, top = _GAP + i % columns * width, _GAP + i // columns * height
        sheet.paste(picture, (left, top))
        while len(name) > 1 and draw.textlength(name, font) > width - _GAP:
            name = name[1:]  # Its end tells more than its beginning.
        draw.text((left, top + picture.height + 2), name, "black", font)
    return sheet


def _of_image(dataset: DetectionDataset, index: int, tile: int) -> tuple[str, Image.Image]:
    image, target = dataset.with_transforms(None)[index]
    return dataset.images[index].file.name, _picture(image, target, dataset.categories, tile)


def _of_video(dataset: VideoDataset, index: int, frames: list[int], tile: int) -> list[tuple[str, Image.Image]]:
    video, drawn = dataset.videos[index], []
    for t, image in zip(frames, video.read(frames), strict=True):
        here = video.target["frame_index"] == t
        target = {key: value[here] for key, value in video.target.items() if key != "labeled_frames"}
        drawn.append((f"{video.name}, frame {t}", _picture(image, target, dataset.categories, tile)))
    return drawn


def _picture(image: Tensor, target: dict[str, Tensor], categories: list[str], tile: int) -> Image.Image:
    height, width = image.shape[-2:]
    scale = tile / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    boxes = target["boxes"].as_subclass(torch.Tensor) * scale
    small = F.resize(image, size, antialias=True).as_subclass(torch.Tensor)
    shown = {key: value for key, value in target.items() if key in ("labels", "track_ids")}
    return draw_detections(small, {"boxes": boxes, **shown}, categories)

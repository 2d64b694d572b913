"""Draw detections on images."""

import colorsys
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_detections"]

Rectangle = tuple[float, float, float, float]


def draw_detections(image: Tensor, detections: dict[str, Tensor], categories: Sequence[str]) -> Image.Image:
    """Draw detected boxes with class and score.

    Each class has its own colour. Detections with higher scores are drawn on top. A label is placed at its box where it
    covers no label of a higher score, if possible. It is omitted if it does not fit into the picture.

    Args:
        image: RGB, uint8 `(3, H, W)`; it is not modified.
        detections: `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)` and optional `scores (n,)`, in falling
            order of score. Optional `track_ids (n,)` add a number and a colour per track; -1 means no track.
        categories: Class names, background first.

    Returns:
        The picture, in the image's size.

    Raises:
        ValueError: If the image has another dtype or shape, a label has no category, or a box is reversed or not a
            number.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        raise ValueError(
            f"Expected an RGB image, uint8 (3, H, W), got {image.dtype} {tuple(image.shape)}. "
            "For floating point use (image * 255).round().byte(), for one channel image.expand(3, -1, -1)."
        )
    boxes, labels = detections["boxes"].tolist(), detections["labels"].tolist()
    scores = detections["scores"].tolist() if "scores" in detections else [None] * len(boxes)
    tracks = detections["track_ids"].tolist() if "track_ids" in detections else [-1] * len(boxes)
    texts = [_text(*row, categories) for row in zip(labels, tracks, scores, strict=True)]
    colours = [_colour(label if track < 0 else track) for label, track in zip(labels, tracks, strict=True)]

    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    draw = ImageDraw.Draw(picture)
    shorter = min(picture.size)
    line = max(1, round(shorter / 200))
    font = ImageFont.load_default(max(10, shorter / 30))
    plates: list[Rectangle | None] = []
    for box, text in zip(boxes, texts, strict=True):
        if not (box[0] <= box[2] and box[1] <= box[3]):
            raise ValueError(f"Box {box} is reversed or not a number; expected xyxy with x1 <= x2 and y1 <= y2.")
        _, _, width, height = draw.textbbox((0, 0), text, font=font, anchor="lt")
        plates.append(_place(box, (width + 4 * line, height + 4 * line), picture.size, plates))

    worst_first = list(zip(boxes, colours, texts, plates, strict=True))[::-1]
    for box, colour, _, _ in worst_first:
        draw.rectangle(box, outline=colour, width=line)
    for _, colour, text, plate in worst_first:
        if plate is not None:
            draw.rectangle(plate, fill=colour)
            draw.text((plate[0] + 2 * line, plate[1] + 2 * line), text, "black", font, anchor="lt")
    return picture


def _text(label: int, track: int, score: float | None, categories: Sequence[str]) -> str:
    """Return the text at a box: class, number of the track, and score.

    Without a track or score these are left out.

    Raises:
        ValueError: If the label has no name.
    """
    if not 0 <= label < len(categories):
        raise ValueError(f"Label {label} has no name: categories has labels 0 to {len(categories) - 1}.")
    name = categories[label] if track < 0 else f"{categories[label]} {track}"
    return name if score is None else f"{name} {score:.2f}"


def _place(
    box: Rectangle, size: tuple[float, float], picture_size: tuple[int, int], others: Sequence[Rectangle | None]
) -> Rectangle | None:
    """Place a box's label above, inside or below the box.

    The first place without overlap with other labels is taken, or else the first place.

    Args:
        box: The box, xyxy in pixels.
        size: (width, height) of the label.
        picture_size: (width, height) of the picture.
        others: Rectangles of the labels placed before; None for those left out.

    Returns:
        The label's rectangle, xyxy in pixels, or None if it does not fit into the picture.
    """
    most_x, most_y = picture_size[0] - 1 - size[0], picture_size[1] - 1 - size[1]
    if most_x < 0 or most_y < 0:
        return None
    plates = []
    for y in (box[1] - size[1], box[1], box[3] - size[1], box[3]):
        for x in (box[0], box[2] - size[0]):
            left, top = min(max(0, round(x)), most_x), min(max(0, round(y)), most_y)
            plates.append((left, top, left + size[0], top + size[1]))
    return next((plate for plate in plates if not any(other and _overlap(plate, other) for other in others)), plates[0])


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _colour(number: int) -> tuple[int, int, int]:
    # Hues at steps of the golden ratio: successive numbers get distinct colours.
    red, green, blue = colorsys.hsv_to_rgb((0.35 + number * 0.618034) % 1, 0.65, 1)
    return round(255 * red), round(255 * green), round(255 * blue)

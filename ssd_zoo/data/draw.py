"""Pictures of detections."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_detections"]


def draw_detections(image: Tensor, detections: dict[str, Tensor], categories: Sequence[str]) -> Image.Image:
    """Draws boxes with their class and score.

    Args:
        image: RGB, uint8 `(3, H, W)`.
        detections: `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)`, and `scores (n,)` where there are any.
        categories: Names of the classes, background first.

    Returns:
        The picture, of the image's size. Better detections are drawn over worse.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    draw = ImageDraw.Draw(picture)
    shorter = min(picture.size)
    line = max(1, round(shorter / 200))
    font = ImageFont.load_default(max(10, shorter / 30))
    boxes, labels = detections["boxes"].tolist(), detections["labels"].tolist()
    scores = detections["scores"].tolist() if "scores" in detections else [None] * len(boxes)
    for box, label, score in reversed(list(zip(boxes, labels, scores, strict=True))):
        colour = _colour(label)
        draw.rectangle(box, outline=colour, width=line)
        text = categories[label] if score is None else f"{categories[label]} {score:.2f}"
        _, _, text_width, text_height = draw.textbbox((0, 0), text, font=font, anchor="lt")
        pad = 2 * line
        x = min(max(0, box[0]), max(0, picture.width - text_width - 2 * pad))
        y = max(0, box[1] - text_height - 2 * pad)
        draw.rectangle((x, y, x + text_width + 2 * pad, y + text_height + 2 * pad), fill=colour)
        draw.text((x + pad, y + pad), text, fill="black", font=font, anchor="lt")
    return picture


def _colour(label: int) -> tuple[int, int, int]:
    # Steps of the golden ratio around the colour circle keep neighbouring labels apart.
    red, green, blue = colorsys.hsv_to_rgb((0.35 + label * 0.618034) % 1, 0.65, 1)
    return round(255 * red), round(255 * green), round(255 * blue)

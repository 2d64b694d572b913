"""Recipes of SSD300 and SSD512 on VGG-16, which several origins share."""

from collections.abc import Sequence
from typing import Literal

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.weights.origin import Recipe
from ssd_zoo.weights.settings import OriginSettings

__all__ = ["COCO_SIDES", "VOC_SIDES", "vgg16_recipe"]

# Box sides in pixels of the paper's configurations, by number of feature maps, and one further side.
VOC_SIDES = {6: (30, 60, 111, 162, 213, 264, 315), 7: (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.65)}
COCO_SIDES = {6: (21, 45, 99, 153, 207, 261, 315), 7: (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)}

_RATIOS = {
    300: [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    512: [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
}
_STEPS = {300: [8, 16, 32, 64, 100, 300], 512: [8, 16, 32, 64, 128, 256, 512]}


def vgg16_recipe(
    sides: Sequence[float],
    settings: OriginSettings,
    clip: Literal["all", "none"],
    size: tuple[int, int] | None,
    **others: object,
) -> Recipe:
    """Return the recipe of SSD300 (7 sides) or SSD512 (8 sides).

    Args:
        sides: Side of the smaller square of each feature map, in pixels of the nominal input, and one further side.
        settings: The origin's settings.
        clip: See `DefaultBoxGenerator`.
        size: (height, width) of the input in pixels where it differs from the nominal one; else None.
        **others: Arguments of the builder that go before the settings.
    """
    nominal = 300 if len(sides) == 7 else 512
    default_boxes = DefaultBoxGenerator(
        aspect_ratios=_RATIOS[nominal],
        scales=[side / nominal for side in sides],
        steps=_STEPS[nominal] if size in (None, (nominal, nominal)) else None,
        clip=clip,
    )
    return Recipe(f"ssd{nominal}_vgg16d", {**settings, **others, "default_boxes": default_boxes})

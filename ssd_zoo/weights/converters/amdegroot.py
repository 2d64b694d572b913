"""Weights of github.com/amdegroot/ssd.pytorch."""

from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, count_head, settings_of, vgg16_boxes
from ssd_zoo.weights.settings import AMDEGROOT
from ssd_zoo.weights.tables import Tables

__all__ = ["ORIGIN"]

_LEAF = r"(weight|bias)"
# SSD512's extra layers are a list of ten convolutions, two for each layer; ReLUs are not in it.
_SSD_VGG16 = [
    (rf"vgg\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    (r"L2Norm\.weight", r"backbone.conv4_3_norm.weight"),
    *((rf"extras\.{i}\.{_LEAF}", rf"backbone.extras.{i // 2}.{i % 2 * 2}.\1") for i in range(10)),
    (rf"conf\.(\d)\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"loc\.(\d)\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]


# Box sides in pixels, from data/config.py. The project has no SSD512; its sides are the paper's.
_VOC = {6: (30, 60, 111, 162, 213, 264, 315), 7: (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.65)}
_COCO = {6: (21, 45, 99, 153, 207, 261, 315), 7: (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)}
# The project's configuration for COCO has num_classes 201.
_COCO_CLASSES = (81, 201)

_TABLES: Tables = [(None, _SSD_VGG16)]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If predictors of the first feature map are missing or do not fit each other.
    """
    maps, classes = count_head(checkpoint.tensors)
    sides = (_COCO if classes in _COCO_CLASSES else _VOC)[maps]
    return Recipe(
        "ssd300_vgg16d" if maps == 6 else "ssd512_vgg16d",
        settings_of(
            AMDEGROOT,
            detections_per_img=200 * (classes - 1),
            default_boxes=vgg16_boxes(sides, "all", checkpoint.size),
        ),
    )


ORIGIN = Origin(_TABLES, describe=_describe)

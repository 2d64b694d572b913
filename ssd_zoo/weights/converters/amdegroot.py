"""Weights of github.com/amdegroot/ssd.pytorch."""

from ssd_zoo.weights.converters._vgg16 import COCO_SIDES, VOC_SIDES, vgg16_recipe
from ssd_zoo.weights.key_tables import Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, count_head
from ssd_zoo.weights.settings import AMDEGROOT

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


# The project's configuration for COCO says 201 classes by mistake, and its checkpoints have as many outputs.
_COCO_CLASSES = (81, 201)

_TABLES: Tables = [(None, _SSD_VGG16)]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If predictors of the first feature map are missing or do not fit each other.
    """
    maps, classes = count_head(checkpoint.tensors)
    # From data/config.py. The project has no SSD512; its sides are the paper's.
    sides = (COCO_SIDES if classes in _COCO_CLASSES else VOC_SIDES)[maps]
    return vgg16_recipe(sides, AMDEGROOT, "all", checkpoint.size, detections_per_img=200 * (classes - 1))


ORIGIN = Origin(_TABLES, describe=_describe)

"""Convert checkpoints of MMDetection."""

import re

from torch import Tensor

from ssd_zoo.weights.converters._mobilenet import conv_norm
from ssd_zoo.weights.converters._vgg16 import vgg16_recipe
from ssd_zoo.weights.key_tables import Table, Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, boxes_per_cell, count_head
from ssd_zoo.weights.settings import MMDET

__all__ = ["ORIGIN"]

_LEAF = r"(weight|bias)"


def _conv_module(theirs: str, ours: str) -> Table:
    return conv_norm(rf"{theirs}\.conv", rf"{theirs}\.bn", ours)


_SSD_VGG16 = [
    (rf"backbone\.features\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    (r"neck\.l2_norm\.weight", r"backbone.conv4_3_norm.weight"),
    *((rf"neck\.extra_layers\.(\d)\.{i}\.conv\.{_LEAF}", rf"backbone.extras.\1.{2 * i}.\2") for i in range(2)),
    (rf"bbox_head\.cls_convs\.(\d)\.0\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"bbox_head\.reg_convs\.(\d)\.0\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]
_SSDLITE_MOBILENET_V2 = [
    *_conv_module(r"backbone\.conv1", "backbone.stem"),
    *(
        row
        for layer, first_block in zip(range(1, 8), (0, 1, 3, 6, 10, 13, 16), strict=True)
        for i in range(4)
        for theirs, ours in (("expand", "expand"), ("depthwise", "depthwise"), ("linear", "project"))
        for row in _conv_module(
            rf"backbone\.layer{layer}\.{i}\.{theirs}_conv", f"backbone.blocks.{first_block + i}.{ours}"
        )
    ),
    *_conv_module(r"backbone\.conv2", "backbone.last"),
    *_conv_module(r"neck\.extra_layers\.(\d)\.0", r"backbone.extras.\1.0"),
    *_conv_module(r"neck\.extra_layers\.(\d)\.1\.depthwise_conv", r"backbone.extras.\1.1"),
    *_conv_module(r"neck\.extra_layers\.(\d)\.1\.pointwise_conv", r"backbone.extras.\1.2"),
    *(
        row
        for theirs, ours in (("cls_convs", "cls_logits"), ("reg_convs", "bbox_regression"))
        for row in [
            *_conv_module(rf"bbox_head\.{theirs}\.(\d)\.0", rf"head.{ours}.\1.0"),
            (rf"bbox_head\.{theirs}\.(\d)\.1\.{_LEAF}", rf"head.{ours}.\1.1.\2"),
        ]
    ),
]

# Last layers of the class predictors; their rows are boxes × classes.
_CLASS_ROWS = r"head\.cls_logits\.\d(\.1)?\.(weight|bias)"

# Box sides in pixels. SSDAnchorGenerator truncates them; VOC's configurations have another basesize_ratio_range.
_VOC = {6: (30, 60, 111, 162, 213, 264, 315), 7: (35, 76, 153, 230, 307, 384, 460, 537)}
_COCO = {6: (21, 45, 99, 153, 207, 261, 315), 7: (20, 51, 133, 215, 296, 378, 460, 542)}

_TABLES: Tables = [("backbone.features.0.weight", _SSD_VGG16), (None, _SSDLITE_MOBILENET_V2)]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If predictors of the first feature map are missing or do not fit each other.
    """
    if checkpoint.table is _SSDLITE_MOBILENET_V2:
        return Recipe("ssdlite320_mobilenet_v2")
    maps, classes = count_head(checkpoint.tensors)
    return vgg16_recipe((_VOC if classes == 21 else _COCO)[maps], MMDET, "none", checkpoint.size)


def _finish(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the background's rows from last, as in mmdet, to first.

    Raises:
        ValueError: If a head's tensors do not fit each other.
    """
    for name, tensor in tensors.items():
        if re.fullmatch(_CLASS_ROWS, name):
            boxes = boxes_per_cell(tensors, name)
            # (boxes * classes, ...) -> (boxes, classes, ...)
            tensors[name] = tensor.unflatten(0, (boxes, -1)).roll(1, dims=1).flatten(0, 1)
    return tensors


ORIGIN = Origin(_TABLES, describe=_describe, finish=_finish)

"""Weights of MMDetection."""

import re
from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

_LEAF = r"(weight|bias)"
_SSD_VGG16 = [
    (rf"backbone\.features\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    (r"neck\.l2_norm\.weight", r"backbone.conv4_3_norm.weight"),
    *((rf"neck\.extra_layers\.(\d)\.{i}\.conv\.{_LEAF}", rf"backbone.extras.\1.{2 * i}.\2") for i in range(2)),
    (rf"bbox_head\.cls_convs\.(\d)\.0\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"bbox_head\.reg_convs\.(\d)\.0\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]


# The last layers of the class predictors: their rows are boxes × classes.
_CLASS_ROWS = r"head\.cls_logits\.\d(\.1)?\.(weight|bias)"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a detector, and moves the background's rows, which are mmdet's last, to the front.

    Raises:
        ValueError: If a tensor is of another model.
    """
    renamed = rename(state, _SSD_VGG16)
    for name, tensor in renamed.items():
        if re.fullmatch(_CLASS_ROWS, name):
            boxes = len(renamed[name.replace("cls_logits", "bbox_regression")]) // 4
            # (boxes * classes, ...) -> (boxes, classes, ...)
            renamed[name] = tensor.unflatten(0, (boxes, -1)).roll(1, dims=1).flatten(0, 1)
    return renamed

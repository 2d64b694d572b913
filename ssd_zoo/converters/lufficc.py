"""Weights of github.com/lufficc/SSD."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

_LEAF = r"(weight|bias)"
# SSD512 has ten convolutions in its extra layers, in one list: two a layer, without the ReLUs between.
_SSD_VGG16 = [
    (rf"backbone\.vgg\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    (r"backbone\.l2_norm\.weight", r"backbone.conv4_3_norm.weight"),
    *((rf"backbone\.extras\.{i}\.{_LEAF}", rf"backbone.extras.{i // 2}.{i % 2 * 2}.\1") for i in range(10)),
    (rf"box_head\.predictor\.cls_headers\.(\d)\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"box_head\.predictor\.reg_headers\.(\d)\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a detector.

    Raises:
        ValueError: If a tensor is of another model.
    """
    return rename(state, _SSD_VGG16)

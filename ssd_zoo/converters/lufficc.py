"""Weights of github.com/lufficc/SSD."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._mobilenet import conv_norm, fold_biases, mobilenet_v2
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

_SSDLITE_MOBILENET_V2 = [
    *mobilenet_v2(r"backbone\.", "backbone."),
    *(
        row
        for i, (conv, norm) in enumerate([(r"0\.0", r"0\.1"), (r"1\.0", r"1\.1"), ("2", "3")])
        for row in conv_norm(
            rf"backbone\.extras\.(\d)\.conv\.{conv}",
            rf"backbone\.extras\.(\d)\.conv\.{norm}",
            rf"backbone.extras.\1.{i}",
        )
    ),
    *(
        row
        for theirs, ours in (("cls_headers", "cls_logits"), ("reg_headers", "bbox_regression"))
        for row in [
            *conv_norm(
                rf"box_head\.predictor\.{theirs}\.(\d)\.conv\.0",
                rf"box_head\.predictor\.{theirs}\.(\d)\.conv\.1",
                rf"head.{ours}.\1.0",
            ),
            (rf"box_head\.predictor\.{theirs}\.(\d)\.conv\.3\.{_LEAF}", rf"head.{ours}.\1.1.\2"),
            (rf"box_head\.predictor\.{theirs}\.(\d)\.{_LEAF}", rf"head.{ours}.\1.\2"),
        ]
    ),
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a detector on VGG-16 or MobileNetV2; which one it is, their names tell.

    Raises:
        ValueError: If a tensor is of another model.
    """
    if "backbone.features.0.0.weight" in state:
        return fold_biases(rename(state, _SSDLITE_MOBILENET_V2))
    return rename(state, _SSD_VGG16)

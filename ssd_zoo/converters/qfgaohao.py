"""Weights of github.com/qfgaohao/pytorch-ssd."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._mobilenet import conv_norm, fold_biases
from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

_LEAF = r"(weight|bias)"
_HEADS = [("classification_headers", "cls_logits"), ("regression_headers", "bbox_regression")]
_PLAIN_HEADS = [(rf"{theirs}\.(\d)\.{_LEAF}", rf"head.{ours}.\1.\2") for theirs, ours in _HEADS]

_SSD_VGG16 = [
    (rf"base_net\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    # A batch norm, or an L2 norm in older files.
    (r"source_layer_add_ons\.0\.(\w+)", r"backbone.conv4_3_norm.\1"),
    (rf"extras\.(\d\.[02])\.{_LEAF}", r"backbone.extras.\1.\2"),
    *_PLAIN_HEADS,
]

_SSD_MOBILENET_V1 = [
    *conv_norm(r"base_net\.0\.0", r"base_net\.0\.1", "backbone.stem"),
    *(
        row
        for i in range(1, 14)
        for row in [
            *conv_norm(rf"base_net\.{i}\.0", rf"base_net\.{i}\.1", f"backbone.blocks.{i - 1}.0"),
            *conv_norm(rf"base_net\.{i}\.3", rf"base_net\.{i}\.4", f"backbone.blocks.{i - 1}.1"),
        ]
    ),
    *((rf"extras\.(\d)\.{2 * i}\.{_LEAF}", rf"backbone.extras.\1.{i}.conv.\2") for i in range(2)),
    *_PLAIN_HEADS,
]

# A block is one sequence: convolution, norm, ReLU6, and so on. The first block does not expand.
_SSDLITE_MOBILENET_V2 = [
    *conv_norm(r"base_net\.0\.0", r"base_net\.0\.1", "backbone.stem"),
    *conv_norm(r"base_net\.1\.conv\.0", r"base_net\.1\.conv\.1", "backbone.blocks.0.depthwise"),
    *conv_norm(r"base_net\.1\.conv\.3", r"base_net\.1\.conv\.4", "backbone.blocks.0.project"),
    *(
        row
        for i in range(2, 18)
        for j, part in ((0, "expand"), (3, "depthwise"), (6, "project"))
        for row in conv_norm(
            rf"base_net\.{i}\.conv\.{j}", rf"base_net\.{i}\.conv\.{j + 1}", f"backbone.blocks.{i - 1}.{part}"
        )
    ),
    *conv_norm(r"base_net\.18\.0", r"base_net\.18\.1", "backbone.last"),
    *(
        row
        for i in range(3)
        for row in conv_norm(
            rf"extras\.(\d)\.conv\.{3 * i}", rf"extras\.(\d)\.conv\.{3 * i + 1}", rf"backbone.extras.\1.{i}"
        )
    ),
    *(
        row
        for theirs, ours in _HEADS
        for row in [
            *conv_norm(rf"{theirs}\.(\d)\.0", rf"{theirs}\.(\d)\.1", rf"head.{ours}.\1.0"),
            (rf"{theirs}\.(\d)\.3\.{_LEAF}", rf"head.{ours}.\1.1.\2"),
        ]
    ),
    *_PLAIN_HEADS,
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a detector on VGG-16, MobileNetV1 or MobileNetV2; which one it is, their names tell.

    Raises:
        ValueError: If a tensor is of another model.
    """
    if "base_net.1.conv.0.weight" in state:
        return fold_biases(rename(state, _SSDLITE_MOBILENET_V2))
    return rename(state, _SSD_MOBILENET_V1 if "base_net.1.3.weight" in state else _SSD_VGG16)

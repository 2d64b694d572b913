"""Weights of github.com/qfgaohao/pytorch-ssd."""

from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.weights.converters._mobilenet import conv_norm, fold_biases
from ssd_zoo.weights.converters._vgg16 import VOC_SIDES, vgg16_recipe
from ssd_zoo.weights.key_tables import Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, count_head
from ssd_zoo.weights.settings import AMDEGROOT

__all__ = ["ORIGIN"]

_LEAF = r"(weight|bias)"
_HEADS = [("classification_headers", "cls_logits"), ("regression_headers", "bbox_regression")]
_PLAIN_HEADS = [(rf"{theirs}\.(\d)\.{_LEAF}", rf"head.{ours}.\1.\2") for theirs, ours in _HEADS]

_SSD_VGG16 = [
    (rf"base_net\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    # Older files have an L2 norm (`scale`), newer ones a batch norm.
    (r"source_layer_add_ons\.0\.scale", r"backbone.conv4_3_norm.weight"),
    (r"source_layer_add_ons\.0\.(\w+)", r"backbone.conv4_3_norm.\1"),
    (rf"extras\.(\d\.[02])\.{_LEAF}", r"backbone.extras.\1.\2"),
    *_PLAIN_HEADS,
]

_MOBILENET_V1 = [
    *conv_norm(r"base_net\.0\.0", r"base_net\.0\.1", "backbone.stem"),
    *(
        row
        for i in range(1, 14)
        for row in [
            *conv_norm(rf"base_net\.{i}\.0", rf"base_net\.{i}\.1", f"backbone.blocks.{i - 1}.0"),
            *conv_norm(rf"base_net\.{i}\.3", rf"base_net\.{i}\.4", f"backbone.blocks.{i - 1}.1"),
        ]
    ),
]
_SSD_MOBILENET_V1 = [
    *_MOBILENET_V1,
    *((rf"extras\.(\d)\.{2 * i}\.{_LEAF}", rf"backbone.extras.\1.{i}.conv.\2") for i in range(2)),
    *_PLAIN_HEADS,
]
_SSDLITE_MOBILENET_V1 = [
    *_MOBILENET_V1,
    (rf"extras\.(\d)\.0\.{_LEAF}", r"backbone.extras.\1.0.\2"),
    *((rf"extras\.(\d)\.2\.{2 * i}\.{_LEAF}", rf"backbone.extras.\1.{2 + 2 * i}.\2") for i in range(2)),
    *((rf"{theirs}\.(\d)\.([02])\.{_LEAF}", rf"head.{ours}.\1.\2.\3") for theirs, ours in _HEADS),
    *_PLAIN_HEADS,
]

# A block is one sequence of convolutions, norms and ReLU6. The first block does not expand.
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

_TABLES: Tables = [
    ("base_net.1.conv.0.weight", _SSDLITE_MOBILENET_V2),
    ("extras.3.2.0.weight", _SSDLITE_MOBILENET_V1),
    ("base_net.13.3.weight", _SSD_MOBILENET_V1),
    (None, _SSD_VGG16),
]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If predictors of the first feature map are missing or do not fit each other.
    """
    table, (_, classes) = checkpoint.table, count_head(checkpoint.tensors)
    # The source limits detections by class alone, 200 of each.
    limit = 200 * (classes - 1)
    for of_builder, builder in (
        (_SSDLITE_MOBILENET_V2, "ssdlite300_mobilenet_v2_qfgaohao"),
        (_SSDLITE_MOBILENET_V1, "ssdlite300_mobilenet_v1_qfgaohao"),
        (_SSD_MOBILENET_V1, "ssd300_mobilenet_v1_qfgaohao"),
    ):
        if table is of_builder:
            return Recipe(builder, {"detections_per_img": limit})
    norm = {"norm_layer": BatchNorm2d} if "backbone.conv4_3_norm.running_mean" in checkpoint.tensors else {}
    # From vision/ssd/config/vgg_ssd_config.py.
    return vgg16_recipe(VOC_SIDES[6], AMDEGROOT, "all", checkpoint.size, detections_per_img=limit, **norm)


ORIGIN = Origin(_TABLES, describe=_describe, finish=fold_biases)

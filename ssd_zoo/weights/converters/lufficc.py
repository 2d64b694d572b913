"""Weights of github.com/lufficc/SSD."""

import re

from torch import Tensor

from ssd_zoo.weights.converters._mobilenet import conv_norm, fold_biases, mobilenet_v2
from ssd_zoo.weights.converters._vgg16 import COCO_SIDES, VOC_SIDES, vgg16_recipe
from ssd_zoo.weights.key_tables import Table, Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, count_head
from ssd_zoo.weights.settings import LUFFICC

__all__ = ["ORIGIN"]

_LEAF = r"(weight|bias)"
_PLAIN_HEADS = [
    (rf"box_head\.predictor\.cls_headers\.(\d)\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"box_head\.predictor\.reg_headers\.(\d)\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]
# SSD512's extra layers are a list of ten convolutions, two for each layer; ReLUs are not in it.
_SSD_VGG16 = [
    (rf"backbone\.vgg\.(\d+)\.{_LEAF}", r"backbone.features.\1.\2"),
    (r"backbone\.l2_norm\.weight", r"backbone.conv4_3_norm.weight"),
    *((rf"backbone\.extras\.{i}\.{_LEAF}", rf"backbone.extras.{i // 2}.{i % 2 * 2}.\1") for i in range(10)),
    *_PLAIN_HEADS,
]

_SQUEEZE = re.compile(r".*\.fc[12]\.weight")
_LITE_HEADS = [
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
    *_LITE_HEADS,
]


def _block(theirs: str, expand: str, depthwise: str, squeeze: str, project: str) -> Table:
    """Return the rows of a key table for a MobileNetV3 block.

    Theirs is a sequence of layers, in which activations are numbered too.

    Args:
        theirs: Pattern of the block's name.
        expand: Our name of the expanding convolution and its norm.
        depthwise: The same of the depthwise convolution.
        squeeze: Our name of squeeze and excitation.
        project: Our name of the projection and its norm.
    """
    return [
        *conv_norm(rf"{theirs}\.0", rf"{theirs}\.1", expand),
        *conv_norm(rf"{theirs}\.3", rf"{theirs}\.4", depthwise),
        (rf"{theirs}\.5\.fc\.0\.(?P<leaf>weight|bias)", rf"{squeeze}.fc1.\g<leaf>"),
        (rf"{theirs}\.5\.fc\.2\.(?P<leaf>weight|bias)", rf"{squeeze}.fc2.\g<leaf>"),
        *conv_norm(rf"{theirs}\.7", rf"{theirs}\.8", project),
    ]


_SSDLITE_MOBILENET_V3 = [
    *conv_norm(r"backbone\.features\.0\.0", r"backbone\.features\.0\.1", "backbone.stem"),
    # The first block does not expand.
    *conv_norm(r"backbone\.features\.1\.conv\.0", r"backbone\.features\.1\.conv\.1", "backbone.blocks.0.depthwise"),
    *conv_norm(r"backbone\.features\.1\.conv\.4", r"backbone\.features\.1\.conv\.5", "backbone.blocks.0.project"),
    *(
        row
        for i in range(2, 16)
        for row in _block(
            rf"backbone\.features\.{i}\.conv",
            *(f"backbone.blocks.{i - 1}.{part}" for part in ("expand", "depthwise", "squeeze", "project")),
        )
    ),
    *conv_norm(r"backbone\.features\.16\.0", r"backbone\.features\.16\.1", "backbone.last"),
    *_block(r"backbone\.extras\.(\d)\.conv", *(rf"backbone.extras.\1.{i}" for i in (0, 1, 2, 4))),
    *_LITE_HEADS,
]


_SSD_EFFICIENTNET_B3 = [
    *conv_norm(r"backbone\._conv_stem", r"backbone\._bn0", "backbone.stem"),
    *(
        row
        for conv, norm, ours in (
            ("_expand_conv", "_bn0", "expand"),
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        )
        for row in conv_norm(
            rf"backbone\._blocks\.(\d+)\.{conv}", rf"backbone\._blocks\.(\d+)\.{norm}", rf"backbone.blocks.\1.{ours}"
        )
    ),
    (rf"backbone\._blocks\.(\d+)\._se_reduce\.{_LEAF}", r"backbone.blocks.\1.squeeze.fc1.\2"),
    (rf"backbone\._blocks\.(\d+)\._se_expand\.{_LEAF}", r"backbone.blocks.\1.squeeze.fc2.\2"),
    (rf"backbone\.extras\.(\d)\.([02])\.{_LEAF}", r"backbone.extras.\1.\2.\3"),
    *_PLAIN_HEADS,
]


_TABLES: Tables = [
    ("backbone.features.1.conv.0.0.weight", _SSDLITE_MOBILENET_V2),
    ("backbone.features.1.conv.0.weight", _SSDLITE_MOBILENET_V3),
    ("backbone._conv_stem.weight", _SSD_EFFICIENTNET_B3),
    (None, _SSD_VGG16),
]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If predictors of the first feature map are missing or do not fit each other.
    """
    table = checkpoint.table
    if table is _SSDLITE_MOBILENET_V2:
        return Recipe("ssdlite320_mobilenet_v2_lufficc")
    if table is _SSDLITE_MOBILENET_V3:
        return Recipe("ssdlite320_mobilenet_v3_large_lufficc")
    if table is _SSD_EFFICIENTNET_B3:
        return Recipe("ssd300_efficientnet_b3")
    maps, classes = count_head(checkpoint.tensors)
    # From configs/vgg_ssd{300,512}_{voc0712,coco_trainval35k}.yaml.
    return vgg16_recipe((COCO_SIDES if classes == 81 else VOC_SIDES)[maps], LUFFICC, "all", checkpoint.size)


def _finish(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # Squeeze-and-excitation has linear layers there and 1 × 1 convolutions here.
    return {
        name: tensor[..., None, None] if _SQUEEZE.fullmatch(name) and tensor.ndim == 2 else tensor
        for name, tensor in fold_biases(tensors).items()
    }


ORIGIN = Origin(_TABLES, describe=_describe, finish=_finish)

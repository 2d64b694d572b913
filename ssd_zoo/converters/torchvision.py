"""Weights of torchvision's detectors and classifiers."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._mobilenet import conv_norm, mobilenet_v2
from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

# conv4_3's ReLU is the last of torchvision's `features`; its `extra.0` goes on from the pool after it (index 23).
_SSD_VGG16 = [
    (r"backbone\.features\.(\d+)\.(weight|bias)", r"backbone.features.\1.\2"),
    (r"backbone\.scale_weight", r"backbone.conv4_3_norm.weight"),
    *((rf"backbone\.extra\.0\.{i}\.(weight|bias)", rf"backbone.features.{23 + i}.\1") for i in (1, 3, 5)),
    (r"backbone\.extra\.0\.7\.1\.(weight|bias)", r"backbone.features.31.\1"),
    (r"backbone\.extra\.0\.7\.3\.(weight|bias)", r"backbone.features.33.\1"),
    *((rf"backbone\.extra\.{i}\.([02])\.(weight|bias)", rf"backbone.extras.{i - 1}.\1.\2") for i in range(1, 5)),
    (r"head\.classification_head\.module_list\.(\d)\.(weight|bias)", r"head.cls_logits.\1.\2"),
    (r"head\.regression_head\.module_list\.(\d)\.(weight|bias)", r"head.bbox_regression.\1.\2"),
]

# The linear layers belong to the classifier.
_VGG16 = [(r"features\.(\d+)\.(weight|bias)", r"features.\1.\2"), (r"classifier\..*", "")]

_RESNET = [(r"((conv1|bn1|layer\d)\..*)", r"\1"), (r"fc\..*", "")]

_MOBILENET_V2 = [*mobilenet_v2(), (r"classifier\..*", "")]

_MOBILENET_V3 = [
    *conv_norm(r"features\.0\.0", r"features\.0\.1", "stem"),
    # The first block does not expand. Some squeeze, so that the projection is their third or fourth layer.
    *conv_norm(r"features\.1\.block\.0\.0", r"features\.1\.block\.0\.1", "blocks.0.depthwise"),
    *conv_norm(r"features\.1\.block\.1\.0", r"features\.1\.block\.1\.1", "blocks.0.project"),
    *(
        row
        for i in range(2, 16)
        for row in [
            *conv_norm(rf"features\.{i}\.block\.0\.0", rf"features\.{i}\.block\.0\.1", f"blocks.{i - 1}.expand"),
            *conv_norm(rf"features\.{i}\.block\.1\.0", rf"features\.{i}\.block\.1\.1", f"blocks.{i - 1}.depthwise"),
            (rf"features\.{i}\.block\.2\.(fc[12]\.weight|fc[12]\.bias)", rf"blocks.{i - 1}.squeeze.\1"),
            *conv_norm(rf"features\.{i}\.block\.[23]\.0", rf"features\.{i}\.block\.[23]\.1", f"blocks.{i - 1}.project"),
        ]
    ),
    *conv_norm(r"features\.16\.0", r"features\.16\.1", "last"),
    (r"classifier\..*", ""),
]

# torchvision cuts the classifier's sequence in two behind the expansion of its layer 13.
_UNCUT = [
    (r"backbone\.features\.0\.13\.(.*)", r"backbone.features.13.block.0.\1"),
    (r"backbone\.features\.0\.(\d+\..*)", r"backbone.features.\1"),
    (r"backbone\.features\.1\.0\.(.*)", r"backbone.features.13.block.\1"),
    *((rf"backbone\.features\.1\.{i}\.(.*)", rf"backbone.features.{13 + i}.\1") for i in (1, 2, 3)),
    (r"(.*)", r"\1"),
]
_SSDLITE_MOBILENET_V3 = [
    *((rf"backbone\.{theirs}", f"backbone.{ours}") for theirs, ours in _MOBILENET_V3),
    *conv_norm(r"backbone\.extra\.(\d)\.(\d)\.0", r"backbone\.extra\.(\d)\.(\d)\.1", r"backbone.extras.\1.\2"),
    *(
        row
        for theirs, ours in (("classification_head", "cls_logits"), ("regression_head", "bbox_regression"))
        for row in [
            *conv_norm(
                rf"head\.{theirs}\.module_list\.(\d)\.0\.0",
                rf"head\.{theirs}\.module_list\.(\d)\.0\.1",
                rf"head.{ours}.\1.0",
            ),
            (rf"head\.{theirs}\.module_list\.(\d)\.1\.(weight|bias)", rf"head.{ours}.\1.1.\2"),
        ]
    ),
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a detector or a classifier; which one it is, their names tell.

    The detectors are `ssd300_vgg16` and `ssdlite320_mobilenet_v3_large`, the classifiers `vgg16`, `mobilenet_v2`,
    `mobilenet_v3_large` and ResNets.

    Raises:
        ValueError: If it is none of them.
    """
    if "backbone.scale_weight" in state:
        return rename(state, _SSD_VGG16)
    if "layer1.0.conv1.weight" in state:
        return rename(state, _RESNET)
    if "backbone.extra.0.0.0.weight" in state:
        return rename(rename(state, _UNCUT), _SSDLITE_MOBILENET_V3)
    if "features.0.1.weight" not in state:
        return rename(state, _VGG16)
    return rename(state, _MOBILENET_V3 if "features.1.block.0.0.weight" in state else _MOBILENET_V2)

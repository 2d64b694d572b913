"""Weights of torchvision's detectors and classifiers."""

from collections.abc import Mapping

from torch import Tensor

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

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_MOBILENET_V2 = [
    (r"features\.0\.0\.weight", r"stem.conv.weight"),
    (rf"features\.0\.1\.{_NORM}", r"stem.norm.\1"),
    (r"features\.1\.conv\.0\.0\.weight", r"blocks.0.depthwise.conv.weight"),
    (rf"features\.1\.conv\.0\.1\.{_NORM}", r"blocks.0.depthwise.norm.\1"),
    (r"features\.1\.conv\.1\.weight", r"blocks.0.project.conv.weight"),
    (rf"features\.1\.conv\.2\.{_NORM}", r"blocks.0.project.norm.\1"),
    *(
        pair
        for i in range(2, 18)
        for pair in (
            (rf"features\.{i}\.conv\.0\.0\.weight", rf"blocks.{i - 1}.expand.conv.weight"),
            (rf"features\.{i}\.conv\.0\.1\.{_NORM}", rf"blocks.{i - 1}.expand.norm.\1"),
            (rf"features\.{i}\.conv\.1\.0\.weight", rf"blocks.{i - 1}.depthwise.conv.weight"),
            (rf"features\.{i}\.conv\.1\.1\.{_NORM}", rf"blocks.{i - 1}.depthwise.norm.\1"),
            (rf"features\.{i}\.conv\.2\.weight", rf"blocks.{i - 1}.project.conv.weight"),
            (rf"features\.{i}\.conv\.3\.{_NORM}", rf"blocks.{i - 1}.project.norm.\1"),
        )
    ),
    (r"features\.18\.0\.weight", r"last.conv.weight"),
    (rf"features\.18\.1\.{_NORM}", r"last.norm.\1"),
    (r"classifier\..*", ""),
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of `ssd300_vgg16`, `vgg16`, `mobilenet_v2` or a ResNet, told apart by their names.

    Raises:
        ValueError: If it is none of them.
    """
    if "backbone.scale_weight" in state:
        return rename(state, _SSD_VGG16)
    if "layer1.0.conv1.weight" in state:
        return rename(state, _RESNET)
    return rename(state, _MOBILENET_V2 if "features.0.1.weight" in state else _VGG16)

"""Weights of torchvision's detectors and classifiers."""

from collections.abc import Callable

from ssd_zoo.weights.categories import COCO_CATEGORIES
from ssd_zoo.weights.converters._mobilenet import conv_norm, mobilenet_v2
from ssd_zoo.weights.key_tables import Table, Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe

__all__ = ["ORIGIN"]

# torchvision's `features` end with conv4_3's ReLU, and `extra.0` begins with the pool after it (index 23).
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


def _mobilenet_v3(layer: Callable[[int], str], block: Callable[[int], str], expand_13: str, ours: str = "") -> Table:
    """Return the rows of a key table for MobileNetV3.

    Args:
        layer: Returns the pattern of one of the 17 layers.
        block: Returns the pattern of the sequence within layers 1 to 15.
        expand_13: Pattern of the expansion of layer 13.
        ours: Prefix of our names.
    """
    layers = [
        (layer(0), "stem"),
        # The first block does not expand. Projections are the third layer, or the fourth after a squeeze.
        (rf"{block(1)}\.0", "blocks.0.depthwise"),
        (rf"{block(1)}\.1", "blocks.0.project"),
        *((rf"{block(i)}\.0" if i != 13 else expand_13, f"blocks.{i - 1}.expand") for i in range(2, 16)),
        *((rf"{block(i)}\.1", f"blocks.{i - 1}.depthwise") for i in range(2, 16)),
        *((rf"{block(i)}\.[23]", f"blocks.{i - 1}.project") for i in range(2, 16)),
        (layer(16), "last"),
    ]
    squeezes = [
        (rf"{block(i)}\.2\.(fc[12]\.weight|fc[12]\.bias)", rf"{ours}blocks.{i - 1}.squeeze.\1") for i in range(2, 16)
    ]
    convolutions = [row for theirs, name in layers for row in conv_norm(rf"{theirs}\.0", rf"{theirs}\.1", ours + name)]
    return squeezes + convolutions


_MOBILENET_V3 = [
    *_mobilenet_v3(
        lambda i: rf"features\.{i}", lambda i: rf"features\.{i}\.block", expand_13=r"features\.13\.block\.0"
    ),
    (r"classifier\..*", ""),
]


# The detector divides the classifier's sequence in two after the expansion of layer 13.
def _cut_layer(i: int) -> str:
    """Return the pattern of a layer in the detector."""
    return rf"backbone\.features\.0\.{i}" if i < 13 else rf"backbone\.features\.1\.{i - 13}"


def _cut_block(i: int) -> str:
    """Return the pattern of the sequence within a layer of the detector."""
    return _cut_layer(i) if i == 13 else rf"{_cut_layer(i)}\.block"


_SSDLITE_MOBILENET_V3 = [
    *_mobilenet_v3(_cut_layer, _cut_block, expand_13=r"backbone\.features\.0\.13", ours="backbone."),
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

_TABLES: Tables = [
    ("backbone.scale_weight", _SSD_VGG16),
    ("backbone.extra.0.0.0.weight", _SSDLITE_MOBILENET_V3),
    ("layer1.0.conv1.weight", _RESNET),
    ("features.1.block.0.0.weight", _MOBILENET_V3),
    ("features.0.1.weight", _MOBILENET_V2),
    (None, _VGG16),
]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments."""
    known = {len(COCO_CATEGORIES): COCO_CATEGORIES}
    if checkpoint.table is _SSD_VGG16:
        return Recipe("ssd300_vgg16d", known=known)
    reduced = checkpoint.tensors["backbone.last.conv.weight"].shape[0] < 960
    return Recipe("ssdlite320_mobilenet_v3_large", {"reduced_tail": reduced}, known)


ORIGIN = Origin(_TABLES, describe=_describe)

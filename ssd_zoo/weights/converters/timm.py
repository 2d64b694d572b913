"""Weights of timm's classifiers, for backbones of the same name.

VGG-16, ResNets and MobileNetV2 compute the same as timm's. Norms of MobileNetV3 have an eps of 1e-5 in timm, and of
1e-3 in torchvision and here. With timm's weights pass `norm_layer=partial(BatchNorm2d, eps=1e-5)` for timm's numbers.
"""

from collections.abc import Sequence

from ssd_zoo.weights.converters._mobilenet import conv_norm
from ssd_zoo.weights.key_tables import Table, Tables
from ssd_zoo.weights.origin import Origin

__all__ = ["ORIGIN"]

# The linear layers belong to the classifier.
_VGG16 = [(r"features\.(\d+)\.(weight|bias)", r"features.\1.\2"), (r"(pre_logits|head)\..*", "")]
_RESNET = [(r"((conv1|bn1|layer\d)\..*)", r"\1"), (r"fc\..*", "")]


def _blocks(stages: Sequence[int]) -> Table:
    """Return the rows of a key table for MobileNet's blocks.

    timm counts blocks within each stage; our blocks are counted throughout.

    Args:
        stages: Number of blocks of each stage.
    """
    # The first block does not expand, and its convolutions have other names.
    layers = [
        (r"blocks\.0\.0", "conv_dw", "bn1", "blocks.0.depthwise"),
        (r"blocks\.0\.0", "conv_pw", "bn2", "blocks.0.project"),
    ]
    squeezes = []
    places = [(stage, i) for stage, blocks in enumerate(stages) for i in range(blocks)]
    for ours, (stage, i) in enumerate(places[1:], start=1):
        theirs = rf"blocks\.{stage}\.{i}"
        layers += [
            (theirs, "conv_pw", "bn1", f"blocks.{ours}.expand"),
            (theirs, "conv_dw", "bn2", f"blocks.{ours}.depthwise"),
            (theirs, "conv_pwl", "bn3", f"blocks.{ours}.project"),
        ]
        squeezes += [
            (rf"{theirs}\.se\.conv_reduce\.(weight|bias)", rf"blocks.{ours}.squeeze.fc1.\1"),
            (rf"{theirs}\.se\.conv_expand\.(weight|bias)", rf"blocks.{ours}.squeeze.fc2.\1"),
        ]
    rows = [
        row for block, conv, norm, ours in layers for row in conv_norm(rf"{block}\.{conv}", rf"{block}\.{norm}", ours)
    ]
    return [*conv_norm("conv_stem", "bn1", "stem"), *rows, *squeezes]


_MOBILENET_V2 = [*_blocks([1, 2, 3, 4, 3, 3, 1]), *conv_norm("conv_head", "bn2", "last"), (r"classifier\..*", "")]
_MOBILENET_V3 = [
    *_blocks([1, 2, 3, 4, 2, 3]),
    *conv_norm(r"blocks\.6\.0\.conv", r"blocks\.6\.0\.bn1", "last"),
    (r"(conv_head|classifier)\..*", ""),
]
_TABLES: Tables = [
    ("features.0.weight", _VGG16),
    ("layer1.0.conv1.weight", _RESNET),
    ("blocks.6.0.conv.weight", _MOBILENET_V3),
    (None, _MOBILENET_V2),
]


ORIGIN = Origin(_TABLES)

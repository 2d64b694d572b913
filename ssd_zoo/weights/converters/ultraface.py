"""Weights of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB."""

from ssd_zoo.weights.converters._mobilenet import conv_norm
from ssd_zoo.weights.key_tables import Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe

__all__ = ["ORIGIN"]

_LEAF = r"(weight|bias)"


def _conv_module(theirs: str, ours: str) -> list[tuple[str, str]]:
    return list(conv_norm(rf"{theirs}\.conv", rf"{theirs}\.bn", ours))


_SLIM = [
    *conv_norm(r"base_net\.0\.0", r"base_net\.0\.1", "backbone.stem"),
    *(
        row
        for i in range(1, 13)
        for row in [
            *conv_norm(rf"base_net\.{i}\.0", rf"base_net\.{i}\.1", f"backbone.blocks.{i - 1}.0"),
            *conv_norm(rf"base_net\.{i}\.3", rf"base_net\.{i}\.4", f"backbone.blocks.{i - 1}.1"),
        ]
    ),
    (rf"extras\.0\.0\.{_LEAF}", r"backbone.extra.0.\1"),
    (rf"extras\.0\.2\.0\.{_LEAF}", r"backbone.extra.2.\1"),
    (rf"extras\.0\.2\.2\.{_LEAF}", r"backbone.extra.4.\1"),
    *(
        row
        for theirs, ours in (("classification_headers", "cls_logits"), ("regression_headers", "bbox_regression"))
        for row in [
            (rf"{theirs}\.([0-2])\.([02])\.{_LEAF}", rf"head.{ours}.\1.\2.\3"),
            (rf"{theirs}\.3\.{_LEAF}", rf"head.{ours}.3.\1"),
        ]
    ),
]
_RFB = [
    *_conv_module(r"base_net\.7\.branch(\d)\.(\d)", r"backbone.blocks.6.branches.\1.\2"),
    *_conv_module(r"base_net\.7\.ConvLinear", "backbone.blocks.6.join"),
    *_conv_module(r"base_net\.7\.shortcut", "backbone.blocks.6.shortcut"),
    *_SLIM,
]
_TABLES: Tables = [("base_net.7.ConvLinear.conv.weight", _RFB), (None, _SLIM)]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    The tensors do not show the input's size; the builder's default is 240 × 320 (height, width).
    """
    builder = "ssdlite320_ultraface_rfb" if checkpoint.table is _RFB else "ssdlite320_ultraface_slim"
    return Recipe(builder, known={2: ["background", "face"]})


ORIGIN = Origin(_TABLES, describe=_describe)

"""Weights of NVIDIA's DeepLearningExamples, and of MLPerf's SSD300 by the same authors."""

from torch import Tensor

from ssd_zoo.weights.key_tables import Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, boxes_per_cell

__all__ = ["ORIGIN"]

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_LEAF = r"(weight|bias)"
_HEADS = [
    (rf"conf\.(\d)\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"loc\.(\d)\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]
# Their backbone is a sequence: convolution, norm, ReLU, pool, then the stages.
_SSD_RESNET = [
    (r"feature_extractor\.feature_extractor\.0\.weight", r"backbone.conv1.weight"),
    (rf"feature_extractor\.feature_extractor\.1\.{_NORM}", r"backbone.bn1.\1"),
    *((rf"feature_extractor\.feature_extractor\.{3 + i}\.(.*)", rf"backbone.layer{i}.\1") for i in (1, 2, 3)),
    (rf"additional_blocks\.(\d\.\d)\.{_NORM}", r"backbone.extras.\1.\2"),
    *_HEADS,
]
# MLPerf's backbone is two sequences, divided before conv4.
_SSD_RESNET_MLPERF = [
    (r"model\.layer1\.0\.weight", r"backbone.conv1.weight"),
    (rf"model\.layer1\.1\.{_NORM}", r"backbone.bn1.\1"),
    *((rf"model\.layer1\.{3 + i}\.(.*)", rf"backbone.layer{i}.\1") for i in (1, 2)),
    (r"model\.layer2\.0\.(.*)", r"backbone.layer3.\1"),
    (rf"additional_blocks\.(\d\.[02])\.{_LEAF}", r"backbone.extras.\1.\2"),
    *_HEADS,
]


# ResNets by the number of conv4's blocks, and whether a block has three convolutions.
_DEPTHS = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101}

_TABLES: Tables = [("model.layer1.0.weight", _SSD_RESNET_MLPERF), (None, _SSD_RESNET)]


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a checkpoint's model, and its arguments.

    Raises:
        ValueError: If no builder has a ResNet of this depth.
    """
    if checkpoint.table is _SSD_RESNET_MLPERF:
        return Recipe("ssd300_resnet34_mlperf")
    blocks = {name.split(".")[2] for name in checkpoint.tensors if name.startswith("backbone.layer3.")}
    depth = _DEPTHS.get((len(blocks), "backbone.layer3.0.conv3.weight" in checkpoint.tensors))
    if depth is None:
        raise ValueError(f"No builder has a ResNet with {len(blocks)} blocks of this file's kind in conv4.")
    return Recipe(f"ssd300_resnet{depth}")


def _finish(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reorder the head's rows.

    NVIDIA's rows are (classes or coordinates) × boxes; ours are boxes × (classes or coordinates).

    Raises:
        ValueError: If a head's tensors do not fit each other.
    """
    for name, tensor in tensors.items():
        if name.startswith("head."):
            boxes = boxes_per_cell(tensors, name)
            # (columns * boxes, ...) -> (boxes * columns, ...)
            tensors[name] = tensor.unflatten(0, (-1, boxes)).transpose(0, 1).flatten(0, 1)
    return tensors


ORIGIN = Origin(_TABLES, describe=_describe, finish=_finish)

"""Weights of NVIDIA's DeepLearningExamples."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_LEAF = r"(weight|bias)"
# Their backbone is a sequence: convolution, norm, ReLU, pool, then the stages.
_SSD_RESNET = [
    (r"feature_extractor\.feature_extractor\.0\.weight", r"backbone.conv1.weight"),
    (rf"feature_extractor\.feature_extractor\.1\.{_NORM}", r"backbone.bn1.\1"),
    *((rf"feature_extractor\.feature_extractor\.{3 + i}\.(.*)", rf"backbone.layer{i}.\1") for i in (1, 2, 3)),
    (rf"additional_blocks\.(\d\.\d)\.{_NORM}", r"backbone.extras.\1.\2"),
    (rf"conf\.(\d)\.{_LEAF}", r"head.cls_logits.\1.\2"),
    (rf"loc\.(\d)\.{_LEAF}", r"head.bbox_regression.\1.\2"),
]


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of an SSD300 on any ResNet, and reorders the head's rows.

    NVIDIA's heads count their output channels by class, or coordinate, and then by the shape of the box; ours the
    other way round.

    Raises:
        ValueError: If a tensor is of another model.
    """
    renamed = rename(state, _SSD_RESNET)
    for name, tensor in renamed.items():
        if name.startswith("head."):
            boxes = len(renamed[name.replace("cls_logits", "bbox_regression")]) // 4
            # (columns * boxes, ...) -> (boxes * columns, ...)
            renamed[name] = tensor.unflatten(0, (-1, boxes)).transpose(0, 1).flatten(0, 1)
    return renamed

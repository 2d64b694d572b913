"""Weights of the TensorFlow Object Detection API."""

import re
from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.converters._tables import rename

__all__ = ["convert"]

_LEAVES = {
    "weights": "conv.weight",
    "depthwise_weights": "conv.weight",
    "BatchNorm/gamma": "norm.weight",
    "BatchNorm/beta": "norm.bias",
    "BatchNorm/moving_mean": "norm.running_mean",
    "BatchNorm/moving_variance": "norm.running_var",
}
_EXTRACTOR = "FeatureExtractor/MobilenetV2"
_MOBILENET_V2 = [
    (rf"{_EXTRACTOR}/Conv", r"backbone.stem"),
    (rf"{_EXTRACTOR}/expanded_conv/(depthwise|project)", r"backbone.blocks.0.\1"),
    (rf"{_EXTRACTOR}/expanded_conv_(\d+)/(expand|depthwise|project)", r"backbone.blocks.\1.\2"),
    (rf"{_EXTRACTOR}/Conv_1", r"backbone.last"),
    # The extra layers are counted from 2; the name of the pointwise one speaks of the depthwise one before it.
    *((rf"{_EXTRACTOR}/layer_19_1_Conv2d_{i + 2}_1x1_\d+", rf"backbone.extras.{i}.0") for i in range(4)),
    *((rf"{_EXTRACTOR}/layer_19_2_Conv2d_{i + 2}_3x3_s2_\d+_depthwise", rf"backbone.extras.{i}.1") for i in range(4)),
    *((rf"{_EXTRACTOR}/layer_19_2_Conv2d_{i + 2}_3x3_s2_\d+", rf"backbone.extras.{i}.2") for i in range(4)),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor_depthwise", r"head.bbox_regression.\1.0"),
    (r"BoxPredictor_(\d)/ClassPredictor_depthwise", r"head.cls_logits.\1.0"),
]
_SSDLITE_MOBILENET_V2 = [
    *((f"{module}/{leaf}", f"{ours}.{name}") for module, ours in _MOBILENET_V2 for leaf, name in _LEAVES.items()),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/weights", r"head.bbox_regression.\1.1.weight"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/biases", r"head.bbox_regression.\1.1.bias"),
    (r"BoxPredictor_(\d)/ClassPredictor/weights", r"head.cls_logits.\1.1.weight"),
    (r"BoxPredictor_(\d)/ClassPredictor/biases", r"head.cls_logits.\1.1.bias"),
]

_EXTRACTOR_V1 = "FeatureExtractor/MobilenetV1"
_MOBILENET_V1 = [
    (rf"{_EXTRACTOR_V1}/Conv2d_0", r"backbone.stem"),
    *((rf"{_EXTRACTOR_V1}/Conv2d_{i}_depthwise", rf"backbone.blocks.{i - 1}.0") for i in range(1, 14)),
    *((rf"{_EXTRACTOR_V1}/Conv2d_{i}_pointwise", rf"backbone.blocks.{i - 1}.1") for i in range(1, 14)),
    *((rf"{_EXTRACTOR_V1}/Conv2d_13_pointwise_1_Conv2d_{i + 2}_1x1_\d+", rf"backbone.extras.{i}.0") for i in range(4)),
    *(
        (rf"{_EXTRACTOR_V1}/Conv2d_13_pointwise_2_Conv2d_{i + 2}_3x3_s2_\d+", rf"backbone.extras.{i}.1")
        for i in range(4)
    ),
]
_SSD_MOBILENET_V1 = [
    *((f"{module}/{leaf}", f"{ours}.{name}") for module, ours in _MOBILENET_V1 for leaf, name in _LEAVES.items()),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/weights", r"head.bbox_regression.\1.weight"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/biases", r"head.bbox_regression.\1.bias"),
    (r"BoxPredictor_(\d)/ClassPredictor/weights", r"head.cls_logits.\1.weight"),
    (r"BoxPredictor_(\d)/ClassPredictor/biases", r"head.cls_logits.\1.bias"),
]

# The last layers of the box predictors: their rows are boxes × coordinates.
_BOX_ROWS = r"head\.bbox_regression\.\d(\.1)?\.(weight|bias)"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames and reorders the variables of an SSD on MobileNetV1 or an SSDLite on MobileNetV2.

    TensorFlow's kernels are (height, width, in, out), depthwise ones (height, width, in, 1); its offsets are
    y, x, height, width.

    Args:
        state: The graph's variables by name.

    Raises:
        ValueError: If a variable is of another model.
    """
    table = _SSD_MOBILENET_V1 if f"{_EXTRACTOR_V1}/Conv2d_0/weights" in state else _SSDLITE_MOBILENET_V2
    renamed = rename({name: _as_torch(name, tensor) for name, tensor in state.items()}, table)
    for name, tensor in renamed.items():
        if re.fullmatch(_BOX_ROWS, name):
            renamed[name] = tensor.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
    return renamed


def _as_torch(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("/depthwise_weights"):
        return tensor.permute(2, 3, 0, 1).contiguous()
    return tensor.permute(3, 2, 0, 1).contiguous() if name.endswith("/weights") else tensor

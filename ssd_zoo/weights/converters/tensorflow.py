"""Weights of the TensorFlow Object Detection API."""

import re

from torch import Tensor

from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.weights.categories import COCO_CATEGORIES
from ssd_zoo.weights.converters._tensorflow_constants import (
    Constants,
    check_box_coder,
    read_box_shapes,
    read_default_boxes,
)
from ssd_zoo.weights.converters._tensorflow_fpn import (
    FPNLITE,
    FPNLITE_MARK,
    FPNLITE_OWN_TOWERS,
    levels_differ,
    split_levels,
)
from ssd_zoo.weights.folded_norms import fill_folded_norms
from ssd_zoo.weights.key_tables import Tables
from ssd_zoo.weights.origin import Checkpoint, Origin, Recipe, boxes_per_cell

__all__ = ["ORIGIN"]

_LEAVES = {
    "weights": "conv.weight",
    "depthwise_weights": "conv.weight",
    "BatchNorm/gamma": "norm.weight",
    "BatchNorm/beta": "norm.bias",
    "BatchNorm/moving_mean": "norm.running_mean",
    "BatchNorm/moving_variance": "norm.running_var",
    # Of a norm TensorFlow.js keeps an offset, and the gain, alone or within the kernel.
    "Conv2D/merged_input": "conv.weight",
    "BatchNorm/batchnorm/mul": "norm.weight",
    "BatchNorm/batchnorm/sub": "norm.bias",
    # TensorFlow Lite keeps the offset alone, as the convolution's bias.
    "biases": "norm.bias",
}
_EXTRACTOR = "FeatureExtractor/MobilenetV2"
_MOBILENET_V2 = [
    (rf"{_EXTRACTOR}/Conv", r"backbone.stem"),
    (rf"{_EXTRACTOR}/expanded_conv/(depthwise|project)", r"backbone.blocks.0.\1"),
    (rf"{_EXTRACTOR}/expanded_conv_(\d+)/(expand|depthwise|project)", r"backbone.blocks.\1.\2"),
    (rf"{_EXTRACTOR}/Conv_1", r"backbone.last"),
    # The extra layers are counted from 2.
    *((rf"{_EXTRACTOR}/layer_19_1_Conv2d_{i + 2}_1x1_\d+", rf"backbone.extras.{i}.0") for i in range(4)),
]
_MOBILENET_V2_LITE = [
    *_MOBILENET_V2,
    # The pointwise layer has the depthwise layer's name (3x3_s2), without a suffix.
    *((rf"{_EXTRACTOR}/layer_19_2_Conv2d_{i + 2}_3x3_s2_\d+_depthwise", rf"backbone.extras.{i}.1") for i in range(4)),
    *((rf"{_EXTRACTOR}/layer_19_2_Conv2d_{i + 2}_3x3_s2_\d+", rf"backbone.extras.{i}.2") for i in range(4)),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor_depthwise", r"head.bbox_regression.\1.0"),
    (r"BoxPredictor_(\d)/ClassPredictor_depthwise", r"head.cls_logits.\1.0"),
]
_MOBILENET_V2_PLAIN = [
    *_MOBILENET_V2,
    *((rf"{_EXTRACTOR}/layer_19_2_Conv2d_{i + 2}_3x3_s2_\d+", rf"backbone.extras.{i}.1") for i in range(4)),
]
_SSDLITE_MOBILENET_V2 = [
    *((f"{module}/{leaf}", f"{ours}.{name}") for module, ours in _MOBILENET_V2_LITE for leaf, name in _LEAVES.items()),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/weights", r"head.bbox_regression.\1.1.weight"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/biases", r"head.bbox_regression.\1.1.bias"),
    (r"BoxPredictor_(\d)/ClassPredictor/weights", r"head.cls_logits.\1.1.weight"),
    (r"BoxPredictor_(\d)/ClassPredictor/biases", r"head.cls_logits.\1.1.bias"),
]

_HEAD_1X1 = [
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/weights", r"head.bbox_regression.\1.weight"),
    (r"BoxPredictor_(\d)/BoxEncodingPredictor/biases", r"head.bbox_regression.\1.bias"),
    (r"BoxPredictor_(\d)/ClassPredictor/weights", r"head.cls_logits.\1.weight"),
    (r"BoxPredictor_(\d)/ClassPredictor/biases", r"head.cls_logits.\1.bias"),
]
_SSD_MOBILENET_V2 = [
    *((f"{module}/{leaf}", f"{ours}.{name}") for module, ours in _MOBILENET_V2_PLAIN for leaf, name in _LEAVES.items()),
    *_HEAD_1X1,
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
    *_HEAD_1X1,
]

# A graph's other constants: shapes, thresholds, default boxes.
_NO_VARIABLE = (rf"(?!.*/({'|'.join(_LEAVES)})$).*", "")
_TABLES: Tables = [
    (f"{_EXTRACTOR_V1}/Conv2d_0/weights", [*_SSD_MOBILENET_V1, _NO_VARIABLE]),
    (levels_differ, FPNLITE_OWN_TOWERS),
    (FPNLITE_MARK, FPNLITE),
    ("BoxPredictor_0/ClassPredictor_depthwise/depthwise_weights", [*_SSDLITE_MOBILENET_V2, _NO_VARIABLE]),
    (None, [*_SSD_MOBILENET_V2, _NO_VARIABLE]),
]
# Head, input size and network of the tables' models, in the same order.
_MODELS = (
    ("ssd", 300, "mobilenet_v1"),
    ("ssdlite", 320, "mobilenet_v2_fpn"),
    ("ssdlite", 320, "mobilenet_v2_fpn"),
    ("ssdlite", 300, "mobilenet_v2"),
    ("ssd", 300, "mobilenet_v2"),
)

_KERNEL = r".*(weights|/merged_input|/(Conv2D|separable_conv2d(_\d)?)/ReadVariableOp(_1)?)"
_DEPTHWISE = r".*(/depthwise_weights|/separable_conv2d(_\d)?/ReadVariableOp)"
# Last layers of the box predictors; their rows are boxes × coordinates.
_BOX_ROWS = r"head\.bbox_regression\.\d(\.1|\.conv\.pointwise)?\.(weight|bias)"


def _describe(checkpoint: Checkpoint) -> Recipe:
    """Return the builder of a graph's model, with settings from its constants.

    Raises:
        ValueError: If the graph decodes offsets in another way than SSD.
    """
    constants = Constants(checkpoint.state)
    check_box_coder(constants)
    arguments: dict[str, object] = {}
    for argument, pattern in _SETTINGS.items():
        value = constants.number(pattern)
        if value is not None:
            arguments[argument] = value if argument != "detections_per_img" else int(value)
    scale, offset = constants.number(r"(.*/)?Preprocessor/mul/x"), constants.number(r"(.*/)?Preprocessor/sub/y")
    if scale and offset is not None:
        # TensorFlow computes pixel * scale - offset, with pixels of 0 to 255.
        arguments["image_mean"], arguments["image_std"] = [(v / scale / 255,) * 3 for v in (offset, 1)]
    size = constants.vector(r"(.*/)?Preprocessor/.*ResizeImage/(stack|resize/size|size)")
    size = size or (constants.vector("normalized_input_image_tensor/shape") or [])[1:3]
    if size is not None and len(size) == 2:
        arguments["size"] = tuple(int(side) for side in size)
    if shapes := read_box_shapes(constants):
        arguments["default_boxes"] = DefaultBoxGenerator(shapes=shapes, clip="none")
    tables = [table for _, table in _TABLES]
    head, side, network = next(model for model, of in zip(_MODELS, tables, strict=True) if of is checkpoint.table)
    if checkpoint.table is FPNLITE_OWN_TOWERS:
        arguments["own_towers"] = True
    if side == 320 and arguments.get("size") == (640, 640):
        side = 640
    builder = f"{head}{side}_{network}"
    return Recipe(builder, arguments, {len(COCO_CATEGORIES): COCO_CATEGORIES}, read_default_boxes(constants))


_SETTINGS = {
    "score_thresh": r"(.*/)?Postprocessor/.*non_max_suppression(_1|_with_scores)?/score_threshold",
    "nms_thresh": r"(.*/)?Postprocessor/.*non_max_suppression(_1|_with_scores)?/iou_threshold",
    "detections_per_img": r"(.*/)?Postprocessor/.*PadOrClipBoxList/Select/t",
}


def _adapt(name: str, tensor: Tensor) -> Tensor:
    """Permute a kernel from TensorFlow's axes to PyTorch's; other tensors stay.

    TensorFlow's are (height, width, in, out), and (height, width, in, 1) for depthwise kernels.

    Raises:
        ValueError: If the kernel does not have four dimensions.
    """
    if not re.fullmatch(_KERNEL, name) or tensor.ndim < 2:
        return tensor
    if tensor.ndim != 4:
        raise ValueError(f"Variable {name!r} has shape {tuple(tensor.shape)}; kernels have four dimensions.")
    return tensor.permute((2, 3, 0, 1) if re.fullmatch(_DEPTHWISE, name) else (3, 2, 0, 1)).contiguous()


def _finish(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split FPNLite's shared layers, reorder box offsets, and fill folded norms.

    TensorFlow's offsets are y, x, height, width; ours are x, y, width, height.

    Raises:
        ValueError: If a level or a head's tensor is missing, or they do not fit each other.
    """
    tensors = split_levels(tensors)
    for name, tensor in tensors.items():
        if re.fullmatch(_BOX_ROWS, name):
            rows = 4 * boxes_per_cell(tensors, name)
            tensors[name] = tensor.view(rows // 4, 4, *tensor.shape[1:])[:, [1, 0, 3, 2]].flatten(0, 1)
    return fill_folded_norms(tensors, eps=0.001)


ORIGIN = Origin(_TABLES, describe=_describe, adapt=_adapt, finish=_finish)

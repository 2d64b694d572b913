"""Weights of the TensorFlow Object Detection API."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssd_zoo.converters._folded import fill_folded_norms
from ssd_zoo.converters._recipe import Checkpoint, Recipe, boxes_per_cell
from ssd_zoo.converters._tables import Tables, choose, rename
from ssd_zoo.converters._tensorflow_fpn import FPNLITE, FPNLITE_MARK, rename_fpnlite
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.models._weights import COCO_CATEGORIES

__all__ = ["TABLES", "convert", "describe"]

_LEAVES = {
    "weights": "conv.weight",
    "depthwise_weights": "conv.weight",
    "BatchNorm/gamma": "norm.weight",
    "BatchNorm/beta": "norm.bias",
    "BatchNorm/moving_mean": "norm.running_mean",
    "BatchNorm/moving_variance": "norm.running_var",
    # What TensorFlow.js leaves of a norm: a kernel with the gain in it or a gain, and an offset.
    "Conv2D/merged_input": "conv.weight",
    "BatchNorm/batchnorm/mul": "norm.weight",
    "BatchNorm/batchnorm/sub": "norm.bias",
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

# A graph's other constants: shapes, thresholds, default boxes.
_NO_VARIABLE = (rf"(?!.*/({'|'.join([*_LEAVES, 'biases'])})$).*", "")
TABLES: Tables = [
    (f"{_EXTRACTOR_V1}/Conv2d_0/weights", [*_SSD_MOBILENET_V1, _NO_VARIABLE]),
    (FPNLITE_MARK, FPNLITE),
    (None, [*_SSDLITE_MOBILENET_V2, _NO_VARIABLE]),
]

# The last layers of the box predictors: their rows are boxes × coordinates.
_BOX_ROWS = r"head\.bbox_regression\.\d(\.1|\.conv\.pointwise)?\.(weight|bias)"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames and reorders the variables of an SSD on MobileNetV1 or an SSDLite on MobileNetV2.

    TensorFlow's kernels are (height, width, in, out), depthwise ones (height, width, in, 1); its offsets are
    y, x, height, width.

    Args:
        state: The graph's variables by name.

    Raises:
        ValueError: If a variable is of another model.
    """
    table = choose(state, TABLES)
    if table is FPNLITE:
        renamed = rename_fpnlite(state)
    else:
        renamed = rename({name: _as_torch(name, tensor) for name, tensor in state.items()}, table)
    for name, tensor in renamed.items():
        if re.fullmatch(_BOX_ROWS, name):
            rows = 4 * boxes_per_cell(renamed, name)
            renamed[name] = tensor.view(rows // 4, 4, *tensor.shape[1:])[:, [1, 0, 3, 2]].flatten(0, 1)
    return fill_folded_norms(renamed, eps=0.001)


def describe(checkpoint: Checkpoint) -> Recipe:
    """Tells which builder makes the model of a converted graph, and how; settings are read from its constants.

    Raises:
        ValueError: If none does.
    """
    constants = _Constants(checkpoint.state)
    arguments: dict[str, Any] = {}
    for argument, pattern in _SETTINGS.items():
        value = constants.number(pattern)
        if value is not None:
            arguments[argument] = value if argument != "detections_per_img" else int(value)
    scale, offset = constants.number(r"(.*/)?Preprocessor/mul/x"), constants.number(r"(.*/)?Preprocessor/sub/y")
    if scale and offset is not None:
        # pixel · scale - offset, of pixels from 0 to 255.
        arguments["image_mean"], arguments["image_std"] = [(v / scale / 255,) * 3 for v in (offset, 1)]
    size = constants.vector(r"(.*/)?Preprocessor/.*ResizeImage/(stack|resize/size|size)")
    if size is not None and len(size) == 2 and checkpoint.size is None:
        arguments["size"] = tuple(int(side) for side in size)
    shapes = _box_shapes(constants)
    if shapes:
        arguments["default_boxes"] = DefaultBoxGenerator(shapes=shapes, clip="none")
    builder = "ssd300_mobilenet_v1" if checkpoint.table is TABLES[0][1] else "ssdlite300_mobilenet_v2"
    if checkpoint.table is FPNLITE:
        side = 640 if arguments.get("size") == (640, 640) else 320
        builder = f"ssdlite{side}_mobilenet_v2_fpn"
    return Recipe(builder, arguments, {len(COCO_CATEGORIES): COCO_CATEGORIES})


_SETTINGS = {
    "score_thresh": r"(.*/)?Postprocessor/.*non_max_suppression(_1|_with_scores)?/score_threshold",
    "nms_thresh": r"(.*/)?Postprocessor/.*non_max_suppression(_1|_with_scores)?/iou_threshold",
    "detections_per_img": r"(.*/)?Postprocessor/.*PadOrClipBoxList/Select/t",
}


class _Constants:
    """Numbers among a graph's constants, found by patterns of their names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def all(self, pattern: str) -> list[Tensor]:
        """Gives the constants whose names match, in the order of the numbers in them."""
        names = [name for name in self._state if re.fullmatch(pattern, name)]
        return [self._state[name] for name in sorted(names, key=lambda name: (len(name), name))]

    def number(self, pattern: str) -> float | None:
        """Gives the first of those that are single numbers."""
        return next((tensor.item() for tensor in self.all(pattern) if tensor.numel() == 1), None)

    def vector(self, pattern: str) -> list[float] | None:
        """Gives the first of those that are lists."""
        return next((tensor.tolist() for tensor in self.all(pattern) if tensor.ndim == 1), None)


def _box_shapes(constants: _Constants) -> list[list[tuple[float, float]]]:
    """Gives the shapes of the default boxes, per feature map, where the graph tells scales and aspect ratios."""
    generator = r"MultipleGridAnchorGenerator"
    scales, ratios = (
        [tensor.double() for tensor in constants.all(rf"{generator}/{operation}(_\d+)?/x") if tensor.ndim == 1]
        for operation in ("truediv", "Sqrt")
    )
    if not scales or [len(of_map) for of_map in scales] != [len(of_map) for of_map in ratios]:
        return []
    return [
        list(zip((scale * ratio.sqrt()).tolist(), (scale / ratio.sqrt()).tolist(), strict=True))
        for scale, ratio in zip(scales, ratios, strict=True)
    ]


def _as_torch(name: str, tensor: Tensor) -> Tensor:
    if not name.endswith(("weights", "/merged_input")):
        return tensor
    if tensor.ndim != 4:
        raise ValueError(f"Variable {name!r} has shape {tuple(tensor.shape)}; kernels have four dimensions.")
    return tensor.permute((2, 3, 0, 1) if name.endswith("/depthwise_weights") else (3, 2, 0, 1)).contiguous()

"""Key table of TensorFlow's FPNLite in TensorFlow.js files, whose norms are folded."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssd_zoo.weights.key_tables import Table

__all__ = ["FPNLITE", "FPNLITE_MARK", "FPNLITE_OWN_TOWERS", "levels_differ", "split_levels"]

_EXTRACTOR = "StatefulPartitionedCall/ssd_mobile_net_v2fpn_keras_feature_extractor"
_PREDICTOR = "StatefulPartitionedCall/WeightSharedConvolutionalBoxPredictor"
_PYRAMID = f"{_EXTRACTOR}/FeatureMaps/top_down"
_LEVELS = 5
_CONVS = 4
# Largest difference of kernels from their split, as a share of the largest weight, where levels share a tower. In the
# hands' float file it is 2.5e-8, the rounding of single precision, and in their file of 8 bits 5.1e-3; the float file
# in half precision has 2.4e-4.
_MOST_RESIDUAL = 1e-6

# A shared layer is called once for each level. For each call the file has a copy of the layer's weights.
_CALLS = [(level, f"_{level}" if level else "") for level in range(_LEVELS)]
_LATER_CALL = r"(_\d)"


def _norm_convs(theirs: str, ours: str) -> Table:
    """Return the rows of a convolution with a norm that is folded into it."""
    return [(f"{theirs}_weights", f"{ours}.conv.weight"), (f"{theirs}_bn_offset", f"{ours}.norm.bias")]


def _separable(theirs: str, ours: str) -> Table:
    """Return the rows of a separable convolution with a norm that is folded into it."""
    return [
        (f"{theirs}_depthwise_conv/separable_conv2d/ReadVariableOp", f"{ours}.conv.depthwise.weight"),
        (f"{theirs}_depthwise_conv/separable_conv2d_weights", f"{ours}.conv.pointwise.weight"),
        (f"{theirs}_depthwise_conv/separable_conv2d_bn_offset", f"{ours}.norm.bias"),
    ]


def _predictor(theirs: str, ours: str) -> Table:
    """Return the rows of a shared predictor; its copies for later levels are dropped."""
    return [
        (f"{_PREDICTOR}/{theirs}/separable_conv2d/ReadVariableOp", f"head.{ours}.0.conv.depthwise.weight"),
        (f"{_PREDICTOR}/{theirs}/separable_conv2d/ReadVariableOp_1", f"head.{ours}.0.conv.pointwise.weight"),
        (f"{_PREDICTOR}/{theirs}/BiasAdd/ReadVariableOp", f"head.{ours}.0.conv.pointwise.bias"),
        (rf"{_PREDICTOR}/{theirs}/(separable_conv2d|BiasAdd){_LATER_CALL}/ReadVariableOp(_1)?", ""),
    ]


_CONV = rf"{_PREDICTOR}/PredictionTower/conv2d_(\d)/separable_conv2d"
FPNLITE_MARK = f"{_EXTRACTOR}/model/Conv1/Conv2D_weights"
FPNLITE: Table = [
    *_norm_convs(f"{_EXTRACTOR}/model/Conv1/Conv2D", "backbone.stem"),
    *_norm_convs(rf"{_EXTRACTOR}/model/expanded_conv_(depthwise|project)/\w+?", r"backbone.blocks.0.\1"),
    *_norm_convs(rf"{_EXTRACTOR}/model/block_(\d+)_(expand|depthwise|project)/\w+?", r"backbone.blocks.\1.\2"),
    *_norm_convs(f"{_EXTRACTOR}/model/Conv_1/Conv2D", "backbone.last"),
    *(
        (f"{_PYRAMID}/projection_{i + 1}/{operation}/ReadVariableOp", f"backbone.pyramid.projections.{i}.{leaf}")
        for i in range(3)
        for operation, leaf in (("Conv2D", "weight"), ("BiasAdd", "bias"))
    ),
    *(
        row
        for i in range(2)
        for row in (
            *_separable(f"{_PYRAMID}/smoothing_{i + 1}", f"backbone.pyramid.smoothings.{i}"),
            *_separable(f"{_EXTRACTOR}/bottom_up_Conv2d_{i + 20}", f"backbone.pyramid.coarser.{i}"),
        )
    ),
    (f"{_CONV}/ReadVariableOp", r"head.tower.convs.\1.depthwise.weight"),
    (f"{_CONV}{_LATER_CALL}/ReadVariableOp", ""),
    *((f"{_CONV}{call}_weights", rf"head.tower.convs.\1.pointwise.weight/{level}") for level, call in _CALLS),
    *((f"{_CONV}{call}_bn_offset", rf"head.tower.norms.{level}.\1.bias") for level, call in _CALLS),
    *_predictor("WeightSharedConvolutionalClassHead/ClassPredictor", "cls_logits"),
    *_predictor("WeightSharedConvolutionalBoxHead/BoxPredictor", "bbox_regression"),
    # The graph's other constants: shapes, thresholds, default boxes.
    (rf"(?!{_EXTRACTOR}/|{_PREDICTOR}/).*|.*/shape", ""),
]
# Where levels differ by more than gains, each has a tower of its own.
FPNLITE_OWN_TOWERS: Table = [
    *(
        row
        for level, call in _CALLS
        for row in (
            (f"{_CONV}{call}/ReadVariableOp", rf"head.tower.{level}.convs.\1.depthwise.weight"),
            (f"{_CONV}{call}_weights", rf"head.tower.{level}.convs.\1.pointwise.weight"),
            (f"{_CONV}{call}_bn_offset", rf"head.tower.{level}.norms.0.\1.bias"),
        )
    ),
    *FPNLITE,
]


def levels_differ(state: Mapping[str, Tensor]) -> bool:
    """Return whether FPNLite's levels can't share their kernels.

    A level is a feature map of the pyramid. Its kernels are the shared ones times the gains of its folded norm, unless
    each level was rounded to 8 bits alone.

    False if levels are missing, of different shapes, or not finite; `split_levels` reports that.

    Args:
        state: Tensors by the names in the file.
    """
    for conv in range(_CONVS):
        layer = f"{_PREDICTOR}/PredictionTower/conv2d_{conv}/separable_conv2d"
        kernels = [state[name] for _, call in _CALLS if (name := f"{layer}{call}_weights") in state]
        if len(kernels) < _LEVELS or len({kernel.shape for kernel in kernels}) > 1 or kernels[0].ndim != 4:
            return False
        levels = torch.stack(kernels).permute(0, 4, 3, 1, 2).double()
        if not levels.numel() or not levels.isfinite().all():
            return False
        shared, gains = _split_kernels(levels)
        residual = (levels - shared * gains[:, :, None, None, None]).abs().max()
        if residual > _MOST_RESIDUAL * levels.abs().max():
            return True
    return False


def split_levels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the kernels of FPNLite's levels into shared kernels and norms' gains.

    Args:
        tensors: Tensors by the names of `FPNLITE`. Those of other models are returned unchanged.

    Raises:
        ValueError: If a level is missing, or has a kernel of another shape.
    """
    shared = dict.fromkeys(name.partition("/")[0] for name in tensors if "/" in name)
    for name in shared:
        levels = [f"{name}/{level}" for level in range(_LEVELS)]
        kernels = [tensors.pop(level) for level in levels if level in tensors]
        if len(kernels) < _LEVELS or len({kernel.shape for kernel in kernels}) > 1:
            raise ValueError(f"The file must have {name!r} for each of {_LEVELS} levels, all of the same shape.")
        tensors[name], gains = _split_kernels(torch.stack(kernels))
        conv = name.split(".")[3]
        tensors.update({f"head.tower.norms.{level}.{conv}.weight": gains[level] for level in range(_LEVELS)})
    return tensors


def _split_kernels(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Split the kernels of all levels into a shared kernel and gains.

    In each output channel a level's kernel is the shared kernel times the gain of the level's norm. So the kernels of
    all levels form a matrix of rank 1, and a singular value decomposition finds its factors.

    Args:
        kernels: `(levels, channels out, channels in, height, width)`.

    Returns:
        The shared kernel `(channels out, channels in, height, width)`, and gains `(levels, channels out)`. Gains of a
        channel have a mean square of 1, and their sum is not negative.
    """
    of_channels = kernels.transpose(0, 1).flatten(2).double()
    left, singular, right = torch.linalg.svd(of_channels, full_matrices=False)
    scale = len(kernels) ** 0.5 * torch.where(left[..., 0].sum(1) < 0, -1.0, 1.0)
    gains = left[..., 0].T * scale
    shared = right[:, 0] * (singular[:, 0] / scale).unsqueeze(1)
    return shared.to(kernels.dtype).reshape(kernels.shape[1:]), gains.to(kernels.dtype)

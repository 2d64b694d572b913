"""Parts of key tables that several origins' MobileNets share."""

from collections.abc import Mapping

from torch import Tensor

from ssd_zoo.weights.key_tables import Table

__all__ = ["conv_norm", "fold_biases", "mobilenet_v2"]


def conv_norm(conv: str, norm: str, ours: str) -> Table:
    """Return the rows of a key table for a convolution and its norm.

    Args:
        conv: Pattern of the convolution's name.
        norm: Pattern of the norm's name.
        ours: Name of our `ConvNormAct`; it may refer to groups of both patterns.
    """
    return [
        (rf"{conv}\.(?P<leaf>weight|bias)", rf"{ours}.conv.\g<leaf>"),
        (rf"{norm}\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)", rf"{ours}.norm.\g<leaf>"),
    ]


def mobilenet_v2(theirs: str = "", ours: str = "") -> Table:
    """Return the rows of a key table for torchvision's MobileNetV2.

    lufficc/SSD copied this network.

    Args:
        theirs: Pattern of the prefix of their names.
        ours: Prefix of our names.
    """
    layers = [
        (r"features\.0", r"\.0", r"\.1", "stem"),
        (r"features\.1\.conv", r"\.0\.0", r"\.0\.1", "blocks.0.depthwise"),
        (r"features\.1\.conv", r"\.1", r"\.2", "blocks.0.project"),
        (r"features\.18", r"\.0", r"\.1", "last"),
    ]
    for i in range(2, 18):
        layers += [
            (rf"features\.{i}\.conv", r"\.0\.0", r"\.0\.1", f"blocks.{i - 1}.expand"),
            (rf"features\.{i}\.conv", r"\.1\.0", r"\.1\.1", f"blocks.{i - 1}.depthwise"),
            (rf"features\.{i}\.conv", r"\.2", r"\.3", f"blocks.{i - 1}.project"),
        ]
    return [
        row
        for layer, conv, norm, name in layers
        for row in conv_norm(theirs + layer + conv, theirs + layer + norm, ours + name)
    ]


def fold_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold biases of convolutions into the running means of their norms.

    The output stays the same. Our convolutions before norms have no bias, since a norm subtracts it again.

    Args:
        state: Tensors by our names.
    """
    folded = dict(state)
    for name in state:
        mean = name.removesuffix("conv.bias") + "norm.running_mean"
        if name.endswith("conv.bias") and mean in state and state[mean].shape == state[name].shape:
            folded[mean] = state[mean] - folded.pop(name)
    return folded

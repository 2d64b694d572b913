"""VGG-16, configuration D, as in SSD.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1.
https://arxiv.org/abs/1409.1556
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ssd_zoo.layers.basic import NormLayer, init_conv
from ssd_zoo.layers.convolution import FastConv2d

__all__ = ["VGG16D", "Extra"]

_init_relu = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
Extra = tuple[int, int, int, int, int]


class VGG16D(nn.Module):
    """VGG-16 with SSD's extra layers (figure 2 of SSD's paper).

    Its 13 convolutions are followed by fc6 and fc7 as convolutions. fc6 is 3 × 3 with dilation 6, fc7 is 1 × 1, and the
    pool before them is 3 × 3 with stride 1. The feature maps are the normalised conv4_3, fc7, then one of each extra
    layer.

    Args:
        extras: Per extra layer (intermediate channels, channels out, kernel, stride, padding). It is a 1 × 1
            convolution to the intermediate channels, then a convolution of that kernel, stride and padding.
        norm_layer: Norm of conv4_3, called with the number of channels.
        in_chans: Channels of the input.
    """

    num_stages = 5
    # Layers that a classifier's weights lack.
    new_layers = ("features.31", "features.33", "conv4_3_norm", "extras")

    def __init__(self, extras: Sequence[Extra], *, norm_layer: NormLayer, in_chans: int = 3) -> None:
        super().__init__()
        # A list, because the first map is taken between two layers.
        self.features = nn.ModuleList(
            [
                *_pooled(_convs(in_chans, 64, 64), nn.MaxPool2d(2, 2)),
                *_pooled(_convs(64, 128, 128), nn.MaxPool2d(2, 2)),
                *_pooled(_convs(128, 256, 256, 256), nn.MaxPool2d(2, 2, ceil_mode=True)),
                *_convs(256, 512, 512, 512),
                nn.MaxPool2d(2, 2),
                *_convs(512, 512, 512, 512),
                nn.MaxPool2d(3, 1, padding=1),
                FastConv2d(512, 1024, 3, padding=6, dilation=6),
                nn.ReLU(inplace=True),
                nn.Conv2d(1024, 1024, 1),
                nn.ReLU(inplace=True),
            ]
        )
        pools = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self._stages = [0, *pools]
        self._conv4_3_end = pools[3]
        self.conv4_3_norm = norm_layer(512)
        self.extras = nn.ModuleList()
        channels = 1024
        for between, out, kernel, stride, padding in extras:
            self.extras.append(
                nn.Sequential(
                    nn.Conv2d(channels, between, 1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(between, out, kernel, stride, padding),
                    nn.ReLU(inplace=True),
                )
            )
            channels = out
        self._initialise()

    def _initialise(self) -> None:
        vgg = {id(module) for module in self.features[: self._stages[-1]]}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, _init_relu if id(module) in vgg else nn.init.xavier_uniform_)

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 5) of the 5 stages.

        The stages are conv1 to conv5. fc6, fc7, the norm of conv4_3 and the extras always train. Nothing is unfrozen.
        """
        first_trainable = self._stages[self.num_stages - trainable_layers]
        self.features[:first_trainable].requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        maps = []
        for i, layer in enumerate(self.features):
            if i == self._conv4_3_end:
                maps.append(self.conv4_3_norm(batch))
            batch = layer(batch)
        maps.append(batch)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _convs(in_channels: int, *out_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in out_channels:
        layers += [FastConv2d(in_channels, out, 3, padding=1), nn.ReLU(inplace=True)]
        in_channels = out
    return layers


def _pooled(convs: list[nn.Module], pool: nn.MaxPool2d) -> list[nn.Module]:
    """Insert a pool before the last ReLU of convolutions.

    The result is the same as in the usual order, and the ReLU has a quarter of the numbers to compute.
    """
    *layers, relu = convs
    return [*layers, pool, relu]

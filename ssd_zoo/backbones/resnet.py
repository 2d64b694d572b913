"""ResNet up to conv4, as in NVIDIA's SSD.

He et al., "Deep Residual Learning for Image Recognition", table 1. https://arxiv.org/abs/1512.03385
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssd_zoo.layers.basic import BatchNorm2d, NormLayer, init_conv

__all__ = ["Extra", "ResNetConv4"]

Extra = tuple[int, int, int, int]

# Per depth: the block, and the numbers of blocks in conv2, conv3 and conv4.
_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2)),
    34: (BasicBlock, (3, 4, 6)),
    50: (Bottleneck, (3, 4, 6)),
    101: (Bottleneck, (3, 4, 23)),
}


class ResNetConv4(nn.Module):
    """ResNet up to conv4 with SSD's extra layers.

    conv4 keeps the stride 8 of conv3. The feature maps are conv4, then one of each extra layer. Stages have
    torchvision's names.

    Args:
        depth: Number of layers of a ResNet, such as 50.
        extras: Per extra layer (intermediate channels, channels out, stride, padding). It is a 1 × 1 convolution to the
            intermediate channels, then a 3 × 3 convolution of that stride and padding.
        norm_extras: Whether extra layers have norms. If not, their convolutions have biases.
        in_chans: Channels of the input.
        norm_layer: Called with the number of channels.

    Raises:
        ValueError: If there is no ResNet of that depth.
    """

    num_stages = 4
    # Layers that a classifier's weights lack, and a classifier's layer that this network lacks.
    new_layers = ("extras", "layer4")

    def __init__(
        self,
        depth: int,
        extras: Sequence[Extra],
        *,
        norm_extras: bool = True,
        in_chans: int = 3,
        norm_layer: NormLayer = BatchNorm2d,
    ) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _BLOCKS))}, got {depth}.")
        block, (conv2, conv3, conv4) = _BLOCKS[depth]
        self.conv1 = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wider = block.expansion
        self.layer1 = _stage(block, 64, 64, conv2, stride=1, norm_layer=norm_layer)
        self.layer2 = _stage(block, 64 * wider, 128, conv3, stride=2, norm_layer=norm_layer)
        self.layer3 = _stage(block, 128 * wider, 256, conv4, stride=1, norm_layer=norm_layer)
        self.extras = nn.ModuleList()
        channels = 256 * wider
        for between, out, stride, padding in extras:
            convs = (
                nn.Conv2d(channels, between, 1, bias=not norm_extras),
                nn.Conv2d(between, out, 3, stride, padding, bias=not norm_extras),
            )
            layers: list[nn.Module] = []
            for conv in convs:
                layers += [conv, *([norm_layer(conv.out_channels)] if norm_extras else []), nn.ReLU(inplace=True)]
            self.extras.append(nn.Sequential(*layers))
            channels = out
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith("extras."):
                init_conv(module, nn.init.xavier_uniform_)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` (0 to 4) of the 4 stages.

        The stages are conv1 to conv4. The extras always train. Nothing is unfrozen.
        """
        stages = (nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3)
        for stage in stages[: self.num_stages - trainable_layers]:
            stage.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(batch))))
        maps = [self.layer3(self.layer2(self.layer1(features)))]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    width: int,
    blocks: int,
    *,
    stride: int,
    norm_layer: NormLayer,
) -> nn.Sequential:
    out_channels = width * block.expansion
    shortcut = None
    if stride > 1 or in_channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            norm_layer(out_channels),
        )
    first = block(in_channels, width, stride, shortcut, norm_layer=norm_layer)
    return nn.Sequential(first, *(block(out_channels, width, norm_layer=norm_layer) for _ in range(blocks - 1)))

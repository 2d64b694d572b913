"""Any timm model as a backbone, with SSD's extra layers after it."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ssd_zoo.backbones.timm import TimmMaps, create_timm
from ssd_zoo.layers.basic import RELU, BatchNorm2d, ConvNormAct, NormLayer, init_conv

__all__ = ["TimmBackbone"]


class TimmBackbone(nn.Module):
    """A timm model with norms on its feature maps and extra layers.

    The feature maps are those of the model, then one of each extra layer. In models without norms at the ends of their
    stages (ConvNeXt, Swin, ViT), scales of the maps differ by orders of magnitude. The norms equalise them.

    Args:
        maps: From `find_timm_maps`.
        extras: Per extra layer (intermediate channels, channels out). It is a 1 × 1 convolution to the intermediate
            channels, then a 3 × 3 convolution of stride 2.
        lite: Whether the 3 × 3 convolutions are depthwise, each followed by a 1 × 1 one.
        norm_layer: Norm of timm's maps and of the extra layers, called with the number of channels.
        pretrained: Whether timm loads its pretrained weights and adapts the first convolution to `in_chans`.

    Raises:
        ConnectionError: If pretrained weights can't be downloaded.
        ValueError: If timm has no pretrained weights of the model.
    """

    # Layers that a classifier's weights lack.
    new_layers = ("norms", "extras")

    def __init__(
        self,
        maps: TimmMaps,
        extras: Sequence[tuple[int, int]],
        *,
        lite: bool = False,
        norm_layer: NormLayer = BatchNorm2d,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.net = create_timm(maps.name, maps.size, maps.in_chans, pretrained=pretrained, out_indices=maps.out_indices)
        for module in self.net.modules():
            # Some models pool to one cell before a norm, which fails in training on one image.
            if type(module) is nn.BatchNorm2d:
                module.__class__ = BatchNorm2d
        self.num_stages = len(maps.stages)
        self._stages = maps.stages
        self._channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        self.norms = nn.ModuleList(norm_layer(channels) for channels in maps.channels)
        self.extras = nn.ModuleList()
        channels = maps.channels[-1]
        for between, out in extras:
            self.extras.append((_lite_extra if lite else _extra)(channels, between, out, norm_layer))
            channels = out
        for module in self.extras.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))

    def freeze(self, trainable_layers: int) -> None:
        """Freeze the parameters of all but the last `trainable_layers` of timm's stages.

        Norms of maps and extras always train. Nothing is unfrozen.

        Raises:
            ValueError: If the model's stages cannot be told apart.
        """
        if trainable_layers == self.num_stages:
            return
        if trainable_layers == 0:
            self.net.requires_grad_(False)
            return
        last = self._stages[-trainable_layers - 1]
        # timm flattens "stages.3" to "stages_3" in some models, and wraps others as "model".
        modules = [(name.removeprefix("model.").replace(".", "_"), module) for name, module in self.net.named_modules()]
        wanted = last.replace(".", "_")
        ends = [i for i, (name, _) in enumerate(modules) if f"{name}_".startswith(f"{wanted}_")]
        if not ends:
            raise ValueError(
                f"The stages of this timm model cannot be told apart (no module {last!r}): trainable_backbone_layers "
                f"must be 0 or {self.num_stages}, got {trainable_layers}."
            )
        for _, module in modules[: ends[-1] + 1]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Return the feature maps of a batch `(N, in_chans, H, W)`."""
        maps = self.net(batch)
        if self._channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        maps = [norm(features) for norm, features in zip(self.norms, maps, strict=True)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


def _extra(channels: int, between: int, out: int, norm_layer: NormLayer) -> nn.Module:
    layer = partial(ConvNormAct, norm_layer=norm_layer, act_layer=RELU)
    return nn.Sequential(layer(channels, between), layer(between, out, 3, stride=2))


def _lite_extra(channels: int, between: int, out: int, norm_layer: NormLayer) -> nn.Module:
    layer = partial(ConvNormAct, norm_layer=norm_layer)
    depthwise = layer(between, between, 3, stride=2, depthwise=True)
    return nn.Sequential(layer(channels, between), depthwise, layer(between, out))

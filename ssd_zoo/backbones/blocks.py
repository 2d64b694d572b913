"""Functions of backbones that consist of a stem and a sequence of blocks."""

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

__all__ = ["freeze_blocks", "tapped_maps"]


def freeze_blocks(stem: nn.Module, blocks: nn.ModuleList, firsts: Sequence[int], trainable_layers: int) -> None:
    """Freeze the parameters of all stages but the last `trainable_layers`.

    The first stage begins at the stem.

    Args:
        stem: The first layer.
        blocks: The blocks after it.
        firsts: Index of the first block of each later stage.
        trainable_layers: Number of stages that train; above the number of `firsts` nothing is frozen.
    """
    if trainable_layers > len(firsts):
        return
    stem.requires_grad_(False)
    first_trainable = [*firsts, len(blocks)][len(firsts) - trainable_layers]
    blocks[:first_trainable].requires_grad_(False)


def tapped_maps(
    features: Tensor,
    blocks: Iterable[nn.Module],
    tapped: Collection[int],
    tap: str,
    last: nn.Module,
    extras: Iterable[nn.Module],
) -> list[Tensor]:
    """Return a MobileNet's feature maps, the first ones from inside blocks.

    Args:
        features: Output of the stem `(N, C, H, W)`.
        blocks: Blocks that return their output and their expanded features, as a pair.
        tapped: Indices of the blocks at which the first maps are taken.
        tap: `"expansion"` takes the expanded features within these blocks, `"output"` the output of the blocks before
            them.
        last: Layer after the blocks, which returns the next map.
        extras: Layers that return the other maps, each from the map before.

    Returns:
        The maps from fine to coarse, `(N, channels, height, width)` each.
    """
    maps = []
    for i, block in enumerate(blocks):
        before = features
        features, expanded = block(features)
        if i in tapped:
            maps.append(expanded if tap == "expansion" else before)
    maps.append(last(features))
    for extra in extras:
        maps.append(extra(maps[-1]))
    return maps

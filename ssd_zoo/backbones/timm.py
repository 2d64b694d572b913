"""Feature maps of timm models at an input size.

timm is imported only in functions that need it, so that ssd_zoo imports quickly.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["TimmMaps", "create_timm", "find_timm_maps"]

Size = tuple[int, int]


@dataclass(frozen=True)
class TimmMaps:
    """The feature maps that a detector takes from a timm model.

    Attributes:
        name: The model's name.
        size: (height, width) of the input in pixels.
        in_chans: Channels of the input.
        out_indices: timm's indices of the maps.
        channels: Channels of each map.
        strides: Input pixels between neighbouring cells of each map.
        map_sizes: (height, width) of each map, in cells.
        stages: timm's names of the modules that end the stages, up to the last map.
        image_mean: The pretrained model's mean of pixels between 0 and 1, per channel.
        image_std: The standard deviation likewise.
    """

    name: str
    size: Size
    in_chans: int
    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    map_sizes: tuple[Size, ...]
    stages: tuple[str, ...]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


def find_timm_maps(name: str, size: Size, *, first_stride: int, in_chans: int = 3) -> TimmMaps:
    """Find a timm model's feature maps of at least a given stride.

    Of maps of one stride, the last is taken. If all strides are less, the model's last map is taken. The model is
    built and run on the meta device, so nothing is computed.

    Args:
        name: A timm model, with or without a tag of pretrained weights, or `hf-hub:…`.
        size: (height, width) of the input.
        first_stride: Least stride of a map.
        in_chans: Channels of the input.

    Raises:
        TypeError: If `name` is not a string.
        ValueError: If timm has no such model, or the model gives no feature maps. If it gives none at this size, the
            message names a size that works.
    """
    _check_name(name)
    try:
        return _probe(name, size, first_stride, in_chans)
    except Exception as error:  # timm's models raise errors of many types
        default = _default_size(name)
        try:
            unit = max(_probe(name, default, first_stride, in_chans).strides)
        except Exception as why:
            raise ValueError(f"timm's {name!r} gives no feature maps: {_one_line(why)}") from why
        way_out = _next_size(name, size, unit, first_stride, in_chans) or default
        raise ValueError(
            f"size is {size[0]} × {size[1]} pixels, but timm's {name!r} needs another; one that works is "
            f"{way_out[0]} × {way_out[1]} ({_one_line(error)})."
        ) from error


def _check_name(name: str) -> None:
    import timm

    if not isinstance(name, str):
        raise TypeError(f"backbone must be the name of a timm model, got {name!r}.")
    architecture, _, tag = name.partition(".")
    # timm resolves addresses such as hf-hub:… itself.
    if ":" in name:
        return
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        way_out = f"Did you mean {' or '.join(close)}?" if close else "timm.list_models() lists all."
        raise ValueError(f"timm has no model {architecture!r}. {way_out}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"timm has no weights {tag!r} of {architecture}; it has {', '.join(map(repr, tags)) or 'none'}."
        )


def _pretrained_config(name: str) -> Any:
    import timm

    return None if ":" in name else timm.get_pretrained_cfg(name)


def create_timm(name: str, size: Size, in_chans: int, *, device: torch.device | None = None, **kwargs: Any) -> Any:
    """Create a timm model that returns its feature maps.

    Args:
        name: The model's name.
        size: (height, width) of the input in pixels, for models that are built for one size.
        in_chans: Channels of the input.
        device: Device of the model; by default torch's default device.
        **kwargs: Passed to `timm.create_model`.

    Raises:
        ConnectionError: If pretrained weights can't be downloaded.
        ValueError: If timm does not have the requested pretrained weights.
    """
    import timm

    config = _pretrained_config(name)
    if kwargs.get("pretrained") and config is not None and not config.has_weights:
        raise ValueError(f"timm has no pretrained weights of {name!r}; pass weights_backbone=None.")
    if config is not None and config.fixed_input_size:
        kwargs["img_size"] = size
    device = device or torch.empty(0).device
    try:
        with device:
            return timm.create_model(name, features_only=True, in_chans=in_chans, **kwargs)
    except OSError as error:
        raise ConnectionError(
            f"timm can't load the weights of {name!r}: {error} Without a network pass weights_backbone=None."
        ) from error
    except RuntimeError:
        # Older timm reads values of tensors while it builds; tensors on the meta device have none.
        if device.type != "meta":
            raise
        with torch.device("cpu"):
            return timm.create_model(name, features_only=True, in_chans=in_chans, **kwargs).to("meta")


def _probe(name: str, size: Size, first_stride: int, in_chans: int) -> TimmMaps:
    """Return a model's feature maps at a size, found by a run on the meta device; any error if that fails."""
    net = create_timm(name, size, in_chans, device=torch.device("meta")).eval()
    with torch.no_grad():
        maps = net(torch.empty(1, in_chans, *size, device="meta"))
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        maps = [features.permute(0, 3, 1, 2) for features in maps]
    info = net.feature_info
    by_stride = {stride: i for i, stride in enumerate(info.reduction())}
    taken = [i for stride, i in by_stride.items() if stride >= first_stride] or list(by_stride.values())[-1:]
    strides = [info.reduction()[i] for i in taken]
    if min(size) < strides[-1]:
        raise ValueError(f"its last map has stride {strides[-1]}")
    out_indices = [range(len(info.info))[index] for index in info.out_indices]
    stages = [stage["module"] for stage in info.info[: out_indices[taken[-1]] + 1]]
    return TimmMaps(
        name=name,
        size=size,
        in_chans=in_chans,
        out_indices=tuple(out_indices[i] for i in taken),
        channels=tuple(maps[i].shape[1] for i in taken),
        strides=tuple(strides),
        map_sizes=tuple((maps[i].shape[2], maps[i].shape[3]) for i in taken),
        stages=tuple(stages),
        image_mean=tuple(net.pretrained_cfg["mean"]),
        image_std=tuple(net.pretrained_cfg["std"]),
    )


def _default_size(name: str) -> Size:
    """Return the (height, width) that a model was trained at, or (224, 224) if it is not known."""
    config = _pretrained_config(name)
    return (224, 224) if config is None else tuple(config.input_size[1:])


def _next_size(name: str, size: Size, unit: int, first_stride: int, in_chans: int) -> Size | None:
    """Return the next larger size, of multiples of `unit`, at which the model works; None if none is near."""
    for more in range(16):
        height, width = ((-(-side // unit) + more) * unit for side in size)
        try:
            _probe(name, (height, width), first_stride, in_chans)
        except Exception:  # as in find_timm_maps
            continue
        return height, width
    return None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")

"""SSDLite on MobileNetV3-Large for clips.

A clip's frames go through the layers of the 2-D model one by one, but for the stages that look back in time.
"""

from collections.abc import Sequence
from typing import Any

from ssd_zoo.backbones.temporal import Inflate, Temporal
from ssd_zoo.backbones.video import Frames, VideoMobileNet
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.layers import NormLayer
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import load, note_inflated, split_clip_weights
from ssd_zoo.models._registry import register_model
from ssd_zoo.models.mobilenet_v3 import (
    MobileNetV3_Large_Weights,
    SSDLite320_MobileNet_V3_Large_Weights,
    ssdlite320_mobilenet_v3_large,
)

__all__ = ["ssdlite320_mobilenet_v3_large_3d"]


@register_model
def ssdlite320_mobilenet_v3_large_3d(
    *,
    temporal: Temporal = "3d",
    temporal_stages: Sequence[int] = (4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSDLite320_MobileNet_V3_Large_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = MobileNetV3_Large_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    reduced_tail: bool = True,
    in_chans: int = 3,
    size: int | tuple[int, int] = 320,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds `ssdlite320_mobilenet_v3_large` for clips.

    It is experimental: no weights of it are published. What 2-D weights it is given are inflated, and then it detects
    in each frame what the 2-D model does, until it is trained on clips. With `temporal_stages=(4, 5)` a
    frame sees the 18 before it.

    Args:
        temporal: How layers look back in time. `"3d"` gives their kernels three taps; `"2plus1d"` puts a convolution
            in time behind them, `"depthwise"` one of each channel alone; `"shift"` takes an eighth of the channels
            from the frame before, which is not what 2-D weights were trained with.
        temporal_stages: The stages in which they do, of 5 between strides. In a block the depthwise convolution looks
            back, for `"2plus1d"` the last one.
        inflate: What kernels in time start from: `"identity"` keeps each frame's output; `"average"` spreads the 2-D
            kernel over three frames, which brings features about a frame late a layer.
        frames: Whether `"all"` frames of a clip get detections, or the `"last"` alone.
        weights: Weights of ssdlite320_mobilenet_v3_large, inflated.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the 2-D backbone alone, inflated; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV3's 6 stages train, counted from the last; by default all.
        reduced_tail: Whether the layers at stride 32 have half their channels; see `ssdlite320_mobilenet_v3_large`.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input.
        norm_layer: Called with the number of channels; by default batch norm with eps 0.001 and momentum 0.03.
        default_boxes: Other default boxes than those of `ssdlite320_mobilenet_v3_large`; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssdlite320_mobilenet_v3_large_3d(weights_backbone=None, num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([3234, 4])
    """
    of_images, of_clips = split_clip_weights(weights)
    model = ssdlite320_mobilenet_v3_large(
        weights=of_images,
        progress=progress,
        num_classes=num_classes,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
        reduced_tail=reduced_tail,
        in_chans=in_chans,
        size=size,
        norm_layer=norm_layer,
        default_boxes=default_boxes,
        **kwargs,
    )
    model.backbone = VideoMobileNet(
        model.backbone, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    note_inflated(model)
    return load(model, of_clips, progress=progress)

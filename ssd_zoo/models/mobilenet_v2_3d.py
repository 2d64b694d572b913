"""SSDLite on MobileNetV2 for clips.

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
from ssd_zoo.models.mobilenet_v2 import MobileNetV2_Weights, SSDLite300_MobileNet_V2_Weights, ssdlite300_mobilenet_v2

__all__ = ["ssdlite300_mobilenet_v2_3d"]


@register_model
def ssdlite300_mobilenet_v2_3d(
    *,
    temporal: Temporal = "3d",
    temporal_stages: Sequence[int] = (4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSDLite300_MobileNet_V2_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    trainable_backbone_layers: int | None = None,
    in_chans: int = 3,
    size: int | tuple[int, int] | None = None,
    norm_layer: NormLayer | None = None,
    default_boxes: DefaultBoxGenerator | None = None,
    **kwargs: Any,
) -> SSD:
    """Builds `ssdlite300_mobilenet_v2` for clips.

    It is experimental: no weights of it are published. What 2-D weights it is given are inflated, and then it detects
    in each frame what the 2-D model does, until it is trained on clips. With `temporal_stages=(4, 5)` a
    frame sees the 22 before it.

    Args:
        temporal: How layers look back in time. `"3d"` gives their kernels three taps; `"2plus1d"` puts a convolution
            in time behind them, `"depthwise"` one of each channel alone; `"shift"` takes an eighth of the channels
            from the frame before, which is not what 2-D weights were trained with.
        temporal_stages: The stages in which they do, of 5 between strides. In a block the depthwise convolution looks
            back, for `"2plus1d"` the last one.
        inflate: What kernels in time start from: `"identity"` keeps each frame's output; `"average"` spreads the 2-D
            kernel over three frames, which brings features about a frame late a layer.
        frames: Whether `"all"` frames of a clip get detections, or the `"last"` alone.
        weights: Weights of ssdlite300_mobilenet_v2, inflated.
        progress: Whether to show a progress bar while weights are downloaded.
        num_classes: Number of classes, background counted; by default the weights', or COCO's 91.
        categories: Their names instead, the background's first.
        weights_backbone: Weights of the 2-D backbone alone, inflated; not used where `weights` is given.
        trainable_backbone_layers: How many of MobileNetV2's 5 stages train, counted from the last; by default all.
        in_chans: Channels of an image; pretrained first convolutions are adapted.
        size: Side, or (height, width), of the input; by default the weights', or 300.
        norm_layer: Called with the number of channels; by default batch norm with TensorFlow's settings.
        default_boxes: Other default boxes than those of `ssdlite300_mobilenet_v2`; for six feature maps.
        **kwargs: Passed to `SSD`, which rejects what it does not know.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If arguments contradict each other.

    Example:
        >>> model = ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1").eval()
        >>> clip = ssd_zoo.data.read_image("examples/astronaut.jpg").repeat(3, 1, 1, 1)
        >>> [detections] = model([clip])
        >>> detections["frame_index"][detections["scores"] > 0.8].tolist()
        [0, 1, 2]
    """
    of_images, of_clips = split_clip_weights(weights)
    model = ssdlite300_mobilenet_v2(
        weights=of_images,
        progress=progress,
        num_classes=num_classes,
        categories=categories,
        weights_backbone=weights_backbone,
        trainable_backbone_layers=trainable_backbone_layers,
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

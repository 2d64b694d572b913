"""Detectors of images made into detectors of clips.

A clip's frames go through the layers of the 2-D model one by one, but for the stages that look back in time.
"""

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from ssd_zoo.backbones.temporal import Inflate, Temporal
from ssd_zoo.backbones.video import Frames, VideoMobileNet, VideoVGG16D
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.load import load, note_inflated, split_clip_weights
from ssd_zoo.models.mobilenet_v2 import MobileNetV2_Weights, SSDLite300_MobileNet_V2_Weights, ssdlite300_mobilenet_v2
from ssd_zoo.models.mobilenet_v3 import (
    MobileNetV3_Large_Weights,
    SSDLite320_MobileNet_V3_Large_Weights,
    ssdlite320_mobilenet_v3_large,
)
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.vgg import SSD300_VGG16D_Weights, VGG16D_Weights, ssd300_vgg16d

__all__ = ["ssd300_vgg16d_3d", "ssdlite300_mobilenet_v2_3d", "ssdlite320_mobilenet_v3_large_3d"]


@register_model
def ssd300_vgg16d_3d(
    *,
    temporal: Temporal = "3d",
    temporal_stages: Sequence[int] = (4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSD300_VGG16D_Weights | str | None = None,
    weights_backbone: VGG16D_Weights | str | None = VGG16D_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build `ssd300_vgg16d` for clips. With `temporal_stages=(4, 5)` a frame sees the 12 before it.

    It is experimental: no weights of it are published. The 2-D weights that it is given are inflated: it detects in
    each frame what the 2-D model does, until it is trained on clips.

    Args:
        temporal: How layers look back in time. `"3d"` gives their kernels three taps; `"2plus1d"` puts a convolution
            in time behind them, `"depthwise"` one of each channel alone; `"shift"` takes an eighth of the channels
            from the frame before, which is not what 2-D weights were trained with.
        temporal_stages: The stages in which they do, of 5. VGG's are conv1 to conv5; MobileNets' lie between strides,
            and in a block the depthwise convolution looks back, for `"2plus1d"` the last one.
        inflate: What kernels in time start from: `"identity"` keeps each frame's output; `"average"` spreads the 2-D
            kernel over three frames, which brings features about a frame late a layer.
        frames: Whether `"all"` frames of a clip get detections, or the `"last"` alone.
        weights: Weights of the 2-D detector, or of a saved detector of clips.
        weights_backbone: Weights of the 2-D backbone alone; not used where `weights` is given.
        trainable_backbone_layers: See `ssd300_vgg16d`.
        norm_layer: See `ssd300_vgg16d`.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssd300_vgg16d_3d(temporal="depthwise", weights_backbone=None, num_classes=21)
        >>> model.backbone.features[17].temporal.weight.shape
        torch.Size([1536, 1, 1, 1])
    """
    of_images, of_clips = split_clip_weights(weights)
    model = ssd300_vgg16d(weights=of_images, weights_backbone=weights_backbone, **options)
    model.backbone = VideoVGG16D(
        model.backbone, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    return _load(model, of_clips, options)


@register_model
def ssdlite300_mobilenet_v2_3d(
    *,
    temporal: Temporal = "3d",
    temporal_stages: Sequence[int] = (4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSDLite300_MobileNet_V2_Weights | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build `ssdlite300_mobilenet_v2` for clips. With `temporal_stages=(4, 5)` a frame sees the 22 before it.

    It is experimental, as `ssd300_vgg16d_3d` is.

    Args:
        temporal: See `ssd300_vgg16d_3d`.
        temporal_stages: See `ssd300_vgg16d_3d`.
        inflate: See `ssd300_vgg16d_3d`.
        frames: See `ssd300_vgg16d_3d`.

    Example:
        >>> model = ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1").eval()
        >>> clip = ssd_zoo.data.read_image("examples/astronaut.jpg").repeat(3, 1, 1, 1)
        >>> [detections] = model([clip])
        >>> detections["frame_index"][detections["scores"] > 0.8].tolist()
        [0, 1, 2]
    """
    of_images, of_clips = split_clip_weights(weights)
    model = ssdlite300_mobilenet_v2(weights=of_images, weights_backbone=weights_backbone, **options)
    model.backbone = VideoMobileNet(
        model.backbone, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    return _load(model, of_clips, options)


@register_model
def ssdlite320_mobilenet_v3_large_3d(
    *,
    temporal: Temporal = "3d",
    temporal_stages: Sequence[int] = (4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSDLite320_MobileNet_V3_Large_Weights | str | None = None,
    weights_backbone: MobileNetV3_Large_Weights | str | None = MobileNetV3_Large_Weights.DEFAULT,
    reduced_tail: bool = True,
    **options: Unpack[Options],
) -> SSD:
    """Build `ssdlite320_mobilenet_v3_large` for clips. With `temporal_stages=(4, 5)` a frame sees the 18 before it.

    It is experimental, as `ssd300_vgg16d_3d` is.

    Args:
        temporal: See `ssd300_vgg16d_3d`.
        temporal_stages: See `ssd300_vgg16d_3d`.
        inflate: See `ssd300_vgg16d_3d`.
        frames: See `ssd300_vgg16d_3d`.
        reduced_tail: See `ssdlite320_mobilenet_v3_large`.

    Example:
        >>> with torch.device("meta"):
        ...     model = ssdlite320_mobilenet_v3_large_3d(weights_backbone=None, num_classes=21)
        >>> model.default_boxes.shape
        torch.Size([3234, 4])
    """
    of_images, of_clips = split_clip_weights(weights)
    model = ssdlite320_mobilenet_v3_large(
        weights=of_images, weights_backbone=weights_backbone, reduced_tail=reduced_tail, **options
    )
    model.backbone = VideoMobileNet(
        model.backbone, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    return _load(model, of_clips, options)


def _load(model: SSD, weights: Any, options: Options) -> SSD:
    note_inflated(model)
    return load(model, weights, progress=options.get("progress", True))

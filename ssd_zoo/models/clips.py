"""Detectors for clips of video, inflated from detectors for images.

Most layers of the 2-D model process the frames of a clip one by one; some stages also look back in time. Inflated from
2-D weights by default arguments, they detect in each frame what the 2-D model detects, until they are trained on clips.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from torch import nn
from typing_extensions import Unpack

from ssd_zoo.backbones.inflated import Frames, VideoMobileNet, VideoVGG16D
from ssd_zoo.backbones.temporal import Inflate, Temporal
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import load_weights, note_inflated, split_clip_weights
from ssd_zoo.models.mobilenet_v2 import MobileNetV2_Weights, SSDLite300_MobileNet_V2_Weights
from ssd_zoo.models.mobilenet_v3 import MobileNetV3_Large_Weights, SSDLite320_MobileNet_V3_Large_Weights
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import get_model, get_model_weights, register_model
from ssd_zoo.models.vgg import SSD300_VGG16D_Weights, VGG16D_Weights
from ssd_zoo.weights.categories import COCO_CATEGORIES
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms

__all__ = [
    "SSDLite300_MobileNet_V2_3D_Weights",
    "ssd300_vgg16d_3d",
    "ssdlite300_mobilenet_v2_3d",
    "ssdlite320_mobilenet_v3_large_3d",
]


class SSDLite300_MobileNet_V2_3D_Weights(WeightsEnum):
    """Weights of SSDLite300 on MobileNetV2 for clips, and for images.

    Those for images are TensorFlow's, and BCCD's. The model for clips detects with them in each frame alone.
    """

    COCO_CLIPS_V1 = Weights(
        url="package:ssdlite300_mobilenet_v2_3d_coco_clips_v1.safetensors",
        transforms=detection_transforms,
        meta={
            "num_params": 4527999,
            "macs": 0.751e9,
            "file_size": 1.201e6,
            "categories": COCO_CATEGORIES,
            "licence": "Apache-2.0",
            "origin": "ssd_zoo, from COCO_TF_V1 by examples/video/free_labels.py, without labels",
            "recipe": "examples/video/free_labels.py",
            "metrics": {"COCO128": {"AP": 32.7, "AP50": 49.4, "source": "measured"}},
        },
        sha256="9fe8b1f4e40ec55821a023fe7239b26ab1f2a425a4e52d5d14b3420c0dfe05ee",
        base=SSDLite300_MobileNet_V2_Weights.COCO_TF_V1,
    )
    COCO_TF_V1 = SSDLite300_MobileNet_V2_Weights.COCO_TF_V1.value
    BCCD_V1 = SSDLite300_MobileNet_V2_Weights.BCCD_V1.value
    DEFAULT = COCO_CLIPS_V1


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
    """Build SSD300 on VGG-16 for clips.

    With `temporal_stages=(4, 5)` a frame sees the 12 frames before it.

    Args:
        temporal: How layers look back in time. `"3d"` gives their kernels three taps in time. `"2plus1d"` adds a
            convolution in time after them, and `"depthwise"` one for each channel alone. `"shift"` takes an eighth of
            the channels from the frame before; 2-D weights were not trained with that.
        temporal_stages: Stages that look back in time, of 1 to 5: VGG's conv1 to conv5.
        inflate: Start of the kernels in time. `"identity"` keeps the output of each frame. `"average"` spreads the 2-D
            kernel over three frames, which delays features by about a frame a layer.
        frames: Frames of a clip that get detections: `"all"`, or the `"last"` alone.
        weights: Weights of the 2-D detector, or of a saved clip detector.
        weights_backbone: Weights of the 2-D backbone alone; not used where `weights` is given.
        trainable_backbone_layers: Number of VGG's 5 stages that train, counted from the last; by default 4.
        norm_layer: Norm of conv4_3, called with the number of channels; by default the paper's.
    """
    inflated = partial(VideoVGG16D, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames)
    return _of_clips(ssd300_vgg16d_3d, inflated, weights, weights_backbone=weights_backbone, **options)


@register_model
def ssdlite300_mobilenet_v2_3d(
    *,
    temporal: Temporal = "depthwise",
    temporal_stages: Sequence[int] = (3, 4, 5),
    inflate: Inflate = "identity",
    frames: Frames = "all",
    weights: SSDLite300_MobileNet_V2_3D_Weights | SSDLite300_MobileNet_V2_Weights | str | None = None,
    weights_backbone: MobileNetV2_Weights | str | None = MobileNetV2_Weights.DEFAULT,
    finest_stride: int = 16,
    **options: Unpack[Options],
) -> SSD:
    """Build TensorFlow's SSDLite on MobileNetV2 for clips.

    With `temporal_stages=(3, 4, 5)` a frame sees the 28 frames before it.

    Args:
        temporal: How layers look back in time: `"3d"`, `"2plus1d"`, `"depthwise"` or `"shift"`, as for SSD300.
        temporal_stages: Stages that look back in time, of 1 to 5, each with the layers of one stride. In a
            block its depthwise convolution looks back, or for `"2plus1d"` its last convolution.
        inflate: Start of the kernels in time, `"identity"` or `"average"`, as for SSD300.
        frames: Frames of a clip that get detections: `"all"`, or the `"last"` alone.
        finest_stride: Stride of the finest feature map, 16 or 8, as for the model of images.
    """
    inflated = partial(
        VideoMobileNet, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    return _of_clips(
        ssdlite300_mobilenet_v2_3d,
        inflated,
        weights,
        weights_backbone=weights_backbone,
        finest_stride=finest_stride,
        **options,
    )


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
    """Build torchvision's SSDLite on MobileNetV3-Large for clips.

    With `temporal_stages=(4, 5)` a frame sees the 18 frames before it.

    Args:
        temporal: How layers look back in time: `"3d"`, `"2plus1d"`, `"depthwise"` or `"shift"`, as for SSD300.
        temporal_stages: Stages that look back in time, of 1 to 5, each with the layers of one stride. In a
            block its depthwise convolution looks back, or for `"2plus1d"` its last convolution.
        inflate: Start of the kernels in time, `"identity"` or `"average"`, as for SSD300.
        frames: Frames of a clip that get detections: `"all"`, or the `"last"` alone.
        reduced_tail: Whether the layers at stride 32 have half their channels, as in the paper's detectors.
    """
    inflated = partial(
        VideoMobileNet, temporal=temporal, temporal_stages=temporal_stages, inflate=inflate, frames=frames
    )
    return _of_clips(
        ssdlite320_mobilenet_v3_large_3d,
        inflated,
        weights,
        weights_backbone=weights_backbone,
        reduced_tail=reduced_tail,
        **options,
    )


def _of_clips(
    builder: Callable[..., SSD],
    inflated: Callable[[nn.Module], nn.Module],
    weights: WeightsEnum | str | None,
    **arguments: object,
) -> SSD:
    """Build a clip model: its image model, with the backbone inflated.

    Args:
        builder: The clip model's builder. The image model's has the same name without `_3d`.
        inflated: Returns the backbone for clips of a backbone for images.
        weights: The builder's argument of that name.
        **arguments: Arguments of the image model's builder.

    Raises:
        ValueError: If the weights belong to another model; see also `VideoBackbone`.
    """
    of_images, of_clips = split_clip_weights(get_model_weights(builder).verify(weights))
    model = get_model(builder.__name__.removesuffix("_3d"), weights=of_images, **arguments)
    model.backbone = inflated(model.backbone)
    note_inflated(model)
    return load_weights(model, of_clips, cast(Options, arguments))

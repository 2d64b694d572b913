"""SSD300 on ResNet, after NVIDIA's DeepLearningExamples and MLPerf.

conv4 keeps the stride 8 of conv3 and is the first feature map; conv5 is left out. Tests compare the detector on
ResNet-50 with NVIDIA's output, and the others with the names and shapes of NVIDIA's and MLPerf's checkpoints.

https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Detection/SSD
"""

import torchvision
from typing_extensions import Unpack

from ssd_zoo.backbones.resnet import ResNetConv4
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.basic import BatchNorm2d
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import register_model
from ssd_zoo.models.settle import Settled, finish, settle
from ssd_zoo.weights.categories import COCO80_CATEGORIES
from ssd_zoo.weights.entries import Weights, WeightsEnum, detection_transforms
from ssd_zoo.weights.published import timm_weights, torchvision_weights

__all__ = [
    "ResNet101_Weights",
    "ResNet18_Weights",
    "ResNet34_Weights",
    "ResNet50_Weights",
    "SSD300_ResNet50_Weights",
    "ssd300_resnet101",
    "ssd300_resnet18",
    "ssd300_resnet34",
    "ssd300_resnet34_mlperf",
    "ssd300_resnet50",
]

# The detector leaves out conv5 and the linear layer of the classifier.
_UP_TO_CONV4 = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")


class ResNet18_Weights(WeightsEnum):
    """Weights of ResNet-18, for the backbone."""

    TV_IN1K = timm_weights("resnet18.tv_in1k", *_UP_TO_CONV4, num_params=2782784)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, num_params=2782784)
    DEFAULT = TV_IN1K


class ResNet34_Weights(WeightsEnum):
    """Weights of ResNet-34, for the backbone."""

    TV_IN1K = timm_weights("resnet34.tv_in1k", *_UP_TO_CONV4, num_params=8170304)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet34_Weights.IMAGENET1K_V1, num_params=8170304)
    DEFAULT = TV_IN1K


class ResNet50_Weights(WeightsEnum):
    """Weights of ResNet-50, for the backbone."""

    TV_IN1K = timm_weights("resnet50.tv_in1k", *_UP_TO_CONV4, num_params=8543296)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V1, num_params=8543296)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.ResNet50_Weights.IMAGENET1K_V2, num_params=8543296)
    DEFAULT = TV_IN1K


class ResNet101_Weights(WeightsEnum):
    """Weights of ResNet-101, for the backbone."""

    TV_IN1K = timm_weights("resnet101.tv_in1k", *_UP_TO_CONV4, num_params=27535424)
    IMAGENET1K_V1 = torchvision_weights(torchvision.models.ResNet101_Weights.IMAGENET1K_V1, num_params=27535424)
    IMAGENET1K_V2 = torchvision_weights(torchvision.models.ResNet101_Weights.IMAGENET1K_V2, num_params=27535424)
    DEFAULT = TV_IN1K


class SSD300_ResNet50_Weights(WeightsEnum):
    """Weights of NVIDIA's SSD300 on ResNet-50."""

    COCO_NVIDIA_V1 = Weights(
        url="https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt",
        transforms=detection_transforms,
        layout="nvidia",
        meta={
            "num_params": 22894902,
            "macs": 20.151e9,
            "file_size": 91.7e6,
            "categories": COCO80_CATEGORIES,
            "licence": "Apache-2.0",
            "origin": "https://github.com/NVIDIA/DeepLearningExamples",
            "recipe": "https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/Detection/SSD",
            # The recipe's AP is 26.8, the mean of 15 runs; the AP of this file is not published.
            "metrics": {},
        },
    )
    DEFAULT = COCO_NVIDIA_V1


@register_model
def ssd300_resnet50(
    *,
    weights: SSD300_ResNet50_Weights | str | None = None,
    weights_backbone: ResNet50_Weights | str | None = ResNet50_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build NVIDIA's SSD300 on ResNet-50.

    Feature maps have 38 19 10 5 3 1 cells a side, with 8732 default boxes. conv4 has stride 8 and is the first of them.
    Thresholds, NMS and resizing are those of NVIDIA's evaluation. The stages that can train are conv1 to conv4.
    """
    asked = settle(SSD300_ResNet50_Weights, weights, ResNet50_Weights, weights_backbone, options, size=300)
    return _ssd300(50, asked)


@register_model
def ssd300_resnet34(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: ResNet34_Weights | str | None = ResNet34_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD300 on ResNet-34, after NVIDIA's on ResNet-50."""
    return _ssd300(34, settle(WeightsEnum, weights, ResNet34_Weights, weights_backbone, options, size=300))


@register_model
def ssd300_resnet18(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: ResNet18_Weights | str | None = ResNet18_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD300 on ResNet-18, after NVIDIA's on ResNet-50."""
    return _ssd300(18, settle(WeightsEnum, weights, ResNet18_Weights, weights_backbone, options, size=300))


@register_model
def ssd300_resnet34_mlperf(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: ResNet34_Weights | str | None = ResNet34_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD300 after MLPerf's: ResNet-34, extra layers without norms."""
    asked = settle(WeightsEnum, weights, ResNet34_Weights, weights_backbone, options, size=300)
    return _ssd300(34, asked, norm_extras=False)


@register_model
def ssd300_resnet101(
    *,
    weights: WeightsEnum | str | None = None,
    weights_backbone: ResNet101_Weights | str | None = ResNet101_Weights.DEFAULT,
    **options: Unpack[Options],
) -> SSD:
    """Build an SSD300 on ResNet-101, after NVIDIA's on ResNet-50."""
    return _ssd300(101, settle(WeightsEnum, weights, ResNet101_Weights, weights_backbone, options, size=300))


def _ssd300(depth: int, asked: Settled, *, norm_extras: bool = True) -> SSD:
    """Build NVIDIA's SSD300 on a ResNet of a depth, with or without norms in the extra layers."""
    backbone = ResNetConv4(
        depth,
        extras=[
            (256, 512, 2, 1),
            (256, 512, 2, 1),
            (128, 256, 2, 1),
            (128, 256, 1, 0),
            (128, 128 if depth == 18 else 256, 1, 0),
        ],
        norm_extras=norm_extras,
        in_chans=asked.in_chans,
        norm_layer=asked.norm_layer or BatchNorm2d,
    )
    backbone.freeze(asked.trainable(backbone.num_stages))
    default_boxes = asked.default_boxes(
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300] if asked.size == (300, 300) else None,
        clip="all",
    )
    return finish(
        asked,
        backbone,
        default_boxes,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        antialias=True,
        score_thresh=0.05,
        nms_thresh=0.5,
        topk_candidates=200,
        clip_before_nms=False,
    )

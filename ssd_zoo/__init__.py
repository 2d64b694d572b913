"""The SSD family for torchvision."""

from ssd_zoo import data
from ssd_zoo._version import __version__ as __version__
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.calibration import restore_norms
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import LoadReport, load_report
from ssd_zoo.models._registry import (
    get_model,
    get_model_builder,
    get_model_weights,
    get_weight,
    list_models,
    register_model,
)
from ssd_zoo.models._weights import Weights, WeightsEnum
from ssd_zoo.models.any_timm import SSD_Timm_Weights, SSDLite_Timm_Weights, ssd_timm, ssdlite_timm
from ssd_zoo.models.efficientnet import (
    EfficientNetB3_Weights,
    SSD300_EfficientNet_B3_Weights,
    ssd300_efficientnet_b3,
)
from ssd_zoo.models.fpn import (
    MobileNetV2FPN_Weights,
    ResNet50FPN_Weights,
    SSD640_ResNet50_FPN_Weights,
    SSDLite320_MobileNet_V2_FPN_Weights,
    SSDLite640_MobileNet_V2_FPN_Weights,
    ssd640_resnet50_fpn,
    ssdlite320_mobilenet_v2_fpn,
    ssdlite640_mobilenet_v2_fpn,
)
from ssd_zoo.models.mobilenet_v1 import (
    MobileNetV1_Weights,
    SSD300_MobileNet_V1_QFGaohao_Weights,
    SSD300_MobileNet_V1_Weights,
    SSDLite300_MobileNet_V1_QFGaohao_Weights,
    ssd300_mobilenet_v1,
    ssd300_mobilenet_v1_qfgaohao,
    ssdlite300_mobilenet_v1_qfgaohao,
)
from ssd_zoo.models.mobilenet_v2 import (
    MobileNetV2_Weights,
    SSDLite300_MobileNet_V2_QFGaohao_Weights,
    SSDLite300_MobileNet_V2_Weights,
    SSDLite320_MobileNet_V2_Lufficc_Weights,
    SSDLite320_MobileNet_V2_Weights,
    ssdlite300_mobilenet_v2,
    ssdlite300_mobilenet_v2_qfgaohao,
    ssdlite320_mobilenet_v2,
    ssdlite320_mobilenet_v2_lufficc,
)
from ssd_zoo.models.mobilenet_v2_3d import ssdlite300_mobilenet_v2_3d
from ssd_zoo.models.mobilenet_v3 import (
    MobileNetV3_Large_Weights,
    SSDLite320_MobileNet_V3_Large_Lufficc_Weights,
    SSDLite320_MobileNet_V3_Large_Weights,
    ssdlite320_mobilenet_v3_large,
    ssdlite320_mobilenet_v3_large_lufficc,
)
from ssd_zoo.models.mobilenet_v3_3d import ssdlite320_mobilenet_v3_large_3d
from ssd_zoo.models.resnet import (
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    SSD300_ResNet18_Weights,
    SSD300_ResNet34_MLPerf_Weights,
    SSD300_ResNet34_Weights,
    SSD300_ResNet50_Weights,
    SSD300_ResNet101_Weights,
    ssd300_resnet18,
    ssd300_resnet34,
    ssd300_resnet34_mlperf,
    ssd300_resnet50,
    ssd300_resnet101,
)
from ssd_zoo.models.ultraface import (
    SSDLite320_UltraFace_RFB_Weights,
    SSDLite320_UltraFace_Slim_Weights,
    UltraFace_Weights,
    ssdlite320_ultraface_rfb,
    ssdlite320_ultraface_slim,
)
from ssd_zoo.models.vgg import (
    SSD256_VGG16D_Weights,
    SSD300_VGG16D_Weights,
    SSD512_VGG16D_Weights,
    VGG16D_Weights,
    ssd256_vgg16d,
    ssd300_vgg16d,
    ssd512_vgg16d,
)
from ssd_zoo.models.vgg_3d import ssd300_vgg16d_3d
from ssd_zoo.zoo.checkpoints import load_checkpoint
from ssd_zoo.zoo.saving import from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "SSD",
    "DefaultBoxFit",
    "DefaultBoxGenerator",
    "EfficientNetB3_Weights",
    "LoadReport",
    "MobileNetV1_Weights",
    "MobileNetV2FPN_Weights",
    "MobileNetV2_Weights",
    "MobileNetV3_Large_Weights",
    "ResNet101_Weights",
    "ResNet18_Weights",
    "ResNet34_Weights",
    "ResNet50FPN_Weights",
    "ResNet50_Weights",
    "SSD256_VGG16D_Weights",
    "SSD300_EfficientNet_B3_Weights",
    "SSD300_MobileNet_V1_QFGaohao_Weights",
    "SSD300_MobileNet_V1_Weights",
    "SSD300_ResNet101_Weights",
    "SSD300_ResNet18_Weights",
    "SSD300_ResNet34_MLPerf_Weights",
    "SSD300_ResNet34_Weights",
    "SSD300_ResNet50_Weights",
    "SSD300_VGG16D_Weights",
    "SSD512_VGG16D_Weights",
    "SSD640_ResNet50_FPN_Weights",
    "SSDLite300_MobileNet_V1_QFGaohao_Weights",
    "SSDLite300_MobileNet_V2_QFGaohao_Weights",
    "SSDLite300_MobileNet_V2_Weights",
    "SSDLite320_MobileNet_V2_FPN_Weights",
    "SSDLite320_MobileNet_V2_Lufficc_Weights",
    "SSDLite320_MobileNet_V2_Weights",
    "SSDLite320_MobileNet_V3_Large_Lufficc_Weights",
    "SSDLite320_MobileNet_V3_Large_Weights",
    "SSDLite320_UltraFace_RFB_Weights",
    "SSDLite320_UltraFace_Slim_Weights",
    "SSDLite640_MobileNet_V2_FPN_Weights",
    "SSDLite_Timm_Weights",
    "SSD_Timm_Weights",
    "UltraFace_Weights",
    "VGG16D_Weights",
    "Weights",
    "WeightsEnum",
    "data",
    "fit_default_boxes",
    "from_pretrained",
    "get_model",
    "get_model_builder",
    "get_model_weights",
    "get_weight",
    "list_models",
    "load_checkpoint",
    "load_report",
    "push_to_hub",
    "register_model",
    "restore_norms",
    "save_pretrained",
    "ssd256_vgg16d",
    "ssd300_efficientnet_b3",
    "ssd300_mobilenet_v1",
    "ssd300_mobilenet_v1_qfgaohao",
    "ssd300_resnet101",
    "ssd300_resnet18",
    "ssd300_resnet34",
    "ssd300_resnet34_mlperf",
    "ssd300_resnet50",
    "ssd300_vgg16d",
    "ssd300_vgg16d_3d",
    "ssd512_vgg16d",
    "ssd640_resnet50_fpn",
    "ssd_timm",
    "ssdlite300_mobilenet_v1_qfgaohao",
    "ssdlite300_mobilenet_v2",
    "ssdlite300_mobilenet_v2_3d",
    "ssdlite300_mobilenet_v2_qfgaohao",
    "ssdlite320_mobilenet_v2",
    "ssdlite320_mobilenet_v2_fpn",
    "ssdlite320_mobilenet_v2_lufficc",
    "ssdlite320_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large_3d",
    "ssdlite320_mobilenet_v3_large_lufficc",
    "ssdlite320_ultraface_rfb",
    "ssdlite320_ultraface_slim",
    "ssdlite640_mobilenet_v2_fpn",
    "ssdlite_timm",
]

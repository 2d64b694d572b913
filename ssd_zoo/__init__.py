"""The SSD family for torchvision."""

from ssd_zoo import data, models
from ssd_zoo._version import __version__ as __version__
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.calibration import restore_norms
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._load import LoadReport, load_report
from ssd_zoo.models._registry import *
from ssd_zoo.models._weights import Weights, WeightsEnum
from ssd_zoo.models.any_timm import *
from ssd_zoo.models.clips import *
from ssd_zoo.models.efficientnet import *
from ssd_zoo.models.fpn import *
from ssd_zoo.models.mobilenet_v1 import *
from ssd_zoo.models.mobilenet_v2 import *
from ssd_zoo.models.mobilenet_v3 import *
from ssd_zoo.models.resnet import *
from ssd_zoo.models.ultraface import *
from ssd_zoo.models.vgg import *
from ssd_zoo.zoo.checkpoints import load_checkpoint
from ssd_zoo.zoo.saving import from_pretrained, push_to_hub, save_pretrained

__all__ = [
    "SSD",
    "DefaultBoxFit",
    "DefaultBoxGenerator",
    "LoadReport",
    "Weights",
    "WeightsEnum",
    "data",
    "fit_default_boxes",
    "from_pretrained",
    "load_checkpoint",
    "load_report",
    "push_to_hub",
    "restore_norms",
    "save_pretrained",
]
for _file in (
    models._registry,
    models.any_timm,
    models.clips,
    models.efficientnet,
    models.fpn,
    models.mobilenet_v1,
    models.mobilenet_v2,
    models.mobilenet_v3,
    models.resnet,
    models.ultraface,
    models.vgg,
):
    __all__ += _file.__all__

"""The SSD family for torchvision."""

from ssd_zoo import data, models
from ssd_zoo._version import __version__ as __version__
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.any_timm import *
from ssd_zoo.models.clips import *
from ssd_zoo.models.efficientnet import *
from ssd_zoo.models.fpn import *
from ssd_zoo.models.load import LoadReport, load_report
from ssd_zoo.models.mobilenet_v1 import *
from ssd_zoo.models.mobilenet_v2 import *
from ssd_zoo.models.mobilenet_v3 import *
from ssd_zoo.models.registry import *
from ssd_zoo.models.resnet import *
from ssd_zoo.models.ultraface import *
from ssd_zoo.models.vgg import *
from ssd_zoo.saved.checkpoints import load_checkpoint
from ssd_zoo.saved.pretrained import from_pretrained, push_to_hub, save_pretrained
from ssd_zoo.weights.entries import Weights, WeightsEnum
from ssd_zoo.weights.folded_norms import restore_norms

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
    models.registry,
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
models.registry.register_plugins()

"""The SSD family for torchvision."""

import importlib
from typing import TYPE_CHECKING

from ssd_zoo import _torchvision as _torchvision
from ssd_zoo import data, models
from ssd_zoo.data.fit_boxes import DefaultBoxFit, fit_default_boxes
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.any_timm import *
from ssd_zoo.models.clips import *
from ssd_zoo.models.efficientnet import *
from ssd_zoo.models.fpn import *
from ssd_zoo.models.loading import LoadReport, load_report
from ssd_zoo.models.mobilenet_v1 import *
from ssd_zoo.models.mobilenet_v2 import *
from ssd_zoo.models.mobilenet_v3 import *
from ssd_zoo.models.options import Options
from ssd_zoo.models.registry import *
from ssd_zoo.models.resnet import *
from ssd_zoo.models.settle import Settled, finish, settle
from ssd_zoo.models.ultraface import *
from ssd_zoo.models.vgg import *
from ssd_zoo.saved.checkpoints import load_checkpoint
from ssd_zoo.saved.pretrained import from_pretrained, push_to_hub, save_pretrained
from ssd_zoo.version import __version__ as __version__
from ssd_zoo.weights.entries import Weights, WeightsEnum
from ssd_zoo.weights.folded_norms import restore_norms

__all__ = ["SSD", "DefaultBoxFit", "DefaultBoxGenerator", "LoadReport", "Options", "Settled", "Weights", "WeightsEnum"]
__all__ += ["data", "finish", "fit_default_boxes", "from_pretrained", "load_checkpoint", "load_report", "push_to_hub"]
__all__ += ["Detections", "predict", "restore_norms", "save_pretrained", "settle"]
# The names of the files that are imported by `*`.
for _file in vars(models).copy().values():
    __all__ += [name for name in getattr(_file, "__all__", ()) if name in globals() and name not in __all__]
models.registry.register_plugins()

# Rooms, and names in rooms, that are imported when they are first used.
_LATER = {"deploy": "", "prediction": "", "training": "", "video": ""}
_LATER |= {"Detections": "prediction", "predict": "prediction"}
if TYPE_CHECKING:
    from ssd_zoo import deploy as deploy
    from ssd_zoo import prediction as prediction
    from ssd_zoo import training as training
    from ssd_zoo import video as video
    from ssd_zoo.prediction import Detections, predict
else:

    def __getattr__(name):
        if name in _LATER:
            room = importlib.import_module(f"ssd_zoo.{_LATER[name] or name}")
            return getattr(room, name) if _LATER[name] else room
        missing = f"module 'ssd_zoo' has no attribute {name!r}"
        if name.startswith("ssd"):
            missing += f". {models.registry.propose(name, models.registry.list_models())}"
        raise AttributeError(missing)

    def __dir__():
        return sorted({*globals(), *_LATER})

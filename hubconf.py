"""Entry points for torch.hub: every registered builder."""

from ssd_zoo import get_model_builder as _get_model_builder
from ssd_zoo import list_models as _list_models

dependencies = ["torch", "torchvision", "timm", "safetensors", "huggingface_hub", "typing_extensions"]

globals().update({_name: _get_model_builder(_name) for _name in _list_models()})

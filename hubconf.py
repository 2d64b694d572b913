"""Entry points for torch.hub: every builder of this package."""

import ssd_zoo as _ssd_zoo

dependencies = ["torch", "torchvision", "timm", "safetensors", "huggingface_hub", "filelock", "typing_extensions"]

globals().update({_name: getattr(_ssd_zoo, _name) for _name in _ssd_zoo.list_models() if _name in _ssd_zoo.__all__})

"""Saved models in folders and on the Hub; checkpoints of other projects."""

from ssd_zoo.saved.checkpoints import load_checkpoint
from ssd_zoo.saved.pretrained import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "load_checkpoint", "push_to_hub", "save_pretrained"]

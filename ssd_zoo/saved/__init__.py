"""Models as folders, on the disk and on the Hub, and checkpoints of other projects as models."""

from ssd_zoo.saved.checkpoints import load_checkpoint
from ssd_zoo.saved.pretrained import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "load_checkpoint", "push_to_hub", "save_pretrained"]

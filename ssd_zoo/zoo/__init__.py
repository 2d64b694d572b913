"""Weights: where they come from and how they are kept."""

from ssd_zoo.zoo.checkpoints import load_checkpoint
from ssd_zoo.zoo.loading import read_weights
from ssd_zoo.zoo.saving import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "load_checkpoint", "push_to_hub", "read_weights", "save_pretrained"]

"""Weights: where they come from and how they are kept."""

from ssd_zoo.zoo.loading import read_weights

__all__ = ["read_weights"]

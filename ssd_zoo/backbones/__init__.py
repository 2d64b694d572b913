"""Backbones, which return a list of feature maps; one file per family."""

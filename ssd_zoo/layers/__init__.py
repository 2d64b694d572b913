"""Convolutions and norms, independent of detectors."""

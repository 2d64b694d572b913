"""Convolutions and norms that know nothing of detectors."""

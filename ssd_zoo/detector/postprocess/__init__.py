"""Post-processing: scores, thresholds and NMS."""

"""From raw output to detections: scores, thresholds, NMS."""

"""What detections are scored by: COCO's AP, Pascal VOC's, confusion."""

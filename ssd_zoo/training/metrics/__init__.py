"""Metrics of detections: COCO's AP, Pascal VOC's AP, AP of videos, confusion."""

"""One gate for others' text: decoding, parsing and checks of values.

Every error is a ValueError that names the source and quotes a short part of it.
"""

from ssd_zoo.weights.outside.json_text import parse_json
from ssd_zoo.weights.outside.texts import decode, near_paths, read_bytes, read_start, read_text
from ssd_zoo.weights.outside.values import JSON, listing, mapping, number, parse_number, quote, text, whole
from ssd_zoo.weights.outside.xml_text import parse_xml
from ssd_zoo.weights.outside.yaml_text import parse_yaml

__all__ = [
    "JSON",
    "decode",
    "listing",
    "mapping",
    "near_paths",
    "number",
    "parse_json",
    "parse_number",
    "parse_xml",
    "parse_yaml",
    "quote",
    "read_bytes",
    "read_start",
    "read_text",
    "text",
    "whole",
]

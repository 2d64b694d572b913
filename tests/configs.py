"""Other configs for saved models, as anyone can write them."""

import io
import json

from ssd_zoo.weights.formats.safetensors_file import encode_header, parse_header


def write_config(folder, text, in_both=True):
    """Write a folder's config.json, and its copy in the header of the tensors if there is one."""
    (folder / "config.json").write_text(text)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    header = parse_header(io.BytesIO(whole), len(whole), file)
    if in_both and "ssd_zoo" in header.metadata:
        texts = {**header.metadata, "ssd_zoo": text}
        file.write_bytes(encode_header(header.entries, texts) + whole[header.start :])


def change_config(folder, in_both=True, **changes):
    """Change parts of a folder's config, and of its copy in the header of the tensors."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        partly = key in ("settings", "default_boxes") and isinstance(value, dict)
        config[key] = {**config[key], **value} if partly else value
    write_config(folder, json.dumps(config), in_both)

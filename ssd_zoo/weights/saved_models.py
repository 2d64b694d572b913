"""Opening of saved models; a builder reads the tensors later."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from ssd_zoo.weights.config import SavedModel, open_config
from ssd_zoo.weights.files import read_header
from ssd_zoo.weights.hub import fetch_model

__all__ = ["CONFIG", "HUB", "MODEL", "open_saved"]

CONFIG, MODEL = "config.json", "model.safetensors"
HUB = "hf-hub:"
_LARGEST_CONFIG = 10 * 2**20
_log = logging.getLogger("ssd_zoo")


def open_saved(address: str | os.PathLike[str]) -> SavedModel:
    """Open a saved model without reading its tensors.

    Args:
        address: A folder, a `.safetensors` file, or `hf-hub:owner/name@revision`.

    Raises:
        FileNotFoundError: If nothing lies at the address.
        ConnectionError: If the Hub can't be reached and the model is not in its cache.
        ValueError: If the files were not saved by ssd_zoo, or can't be used.
    """
    if isinstance(address, str) and address.startswith(HUB):
        folder = fetch_model(address.removeprefix(HUB), (CONFIG, MODEL))
        return _open_folder(folder, address)
    path = Path(address).expanduser()
    if path.is_dir():
        return _open_folder(path, str(path))
    if path.suffix.lower() != ".safetensors":
        raise FileNotFoundError(
            f"There is no folder {path}. A saved model is a folder, a .safetensors file, or 'hf-hub:owner/name'; "
            "ssd_zoo.load_checkpoint reads files of other origins."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    text = read_header(path).get("ssd_zoo")
    if text is not None:
        return open_config(text, path, str(path))
    if (path.parent / CONFIG).is_file():
        return open_config(_read_config(path.parent / CONFIG), path, str(path))
    raise ValueError(
        f"{path} does not say what model its tensors are: it was not written by ssd_zoo.save_pretrained, and no "
        f"{CONFIG} lies beside it. Read checkpoints of other origins by ssd_zoo.load_checkpoint, and a bare state dict "
        "of ours by the model's load_state_dict."
    )


def _open_folder(folder: Path, source: str) -> SavedModel:
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{source} has no {name}; a folder of ssd_zoo.save_pretrained holds {CONFIG} and {MODEL}."
            )
    text = _read_config(folder / CONFIG)
    of_file = read_header(folder / MODEL).get("ssd_zoo")
    if of_file is not None and _weights_id(of_file) != _weights_id(text):
        _log.warning("%s: a save was cut off after %s; its own config is used, %s is older.", source, MODEL, CONFIG)
        text = of_file
    return open_config(text, folder / MODEL, source)


def _read_config(path: Path) -> str:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; no config has more than {_LARGEST_CONFIG}.")
    return path.read_text(encoding="utf-8", errors="replace")


def _weights_id(text: str) -> Any:
    try:
        return json.loads(text).get("weights_id")
    except (ValueError, AttributeError):
        return None

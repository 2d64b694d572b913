"""Opening of saved models.

Their config is read. Tensors are read later, when a model is built.
"""

import logging
import os
from pathlib import Path

from ssd_zoo.weights.config import SavedModel, open_config
from ssd_zoo.weights.config_id import are_of_two_saves
from ssd_zoo.weights.files import naming_download, read_header
from ssd_zoo.weights.formats.safetensors_file import DIGEST
from ssd_zoo.weights.hub import fetch_model
from ssd_zoo.weights.outside import JSON, mapping, near_paths, parse_json, quote, read_text

__all__ = ["CONFIG", "HUB", "MODEL", "open_saved"]

CONFIG, MODEL = "config.json", "model.safetensors"
HUB = "hf-hub:"
_LARGEST_CONFIG = 2**22
_log = logging.getLogger("ssd_zoo")


def open_saved(address: str | os.PathLike[str]) -> SavedModel:
    """Open a saved model without reading its tensors.

    If config.json is of another save than the tensors, their header's own config is used, with a warning in the log.

    Args:
        address: A folder, a `.safetensors` file, or `hf-hub:owner/name@revision`.

    Raises:
        FileNotFoundError: If nothing lies at the address.
        ConnectionError: If the Hub can't be reached and the model is not in its cache.
        PermissionError: If the Hub asks for a token.
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
        raise FileNotFoundError(f"There is no file {path}.{near_paths(path)}")
    text, digest = _header(path, str(path))
    if text is not None:
        return open_config(text, path, str(path), digest=digest)
    if (path.parent / CONFIG).is_file():
        return open_config(_read_config(path.parent / CONFIG), path, str(path), digest=digest)
    raise ValueError(
        f"{path} does not say what model its tensors are: it was not written by ssd_zoo.save_pretrained, and no "
        f"{CONFIG} lies beside it. Read checkpoints of other origins by ssd_zoo.load_checkpoint, and a bare state dict "
        "of ours by the model's load_state_dict."
    )


def _open_folder(folder: Path, source: str) -> SavedModel:
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            # A run of `ssd-zoo train` keeps its models in folders.
            near = f" Did you mean {folder / 'best'}?" if (folder / "best" / CONFIG).is_file() else ""
            raise FileNotFoundError(
                f"{source} has no {name}; a folder of ssd_zoo.save_pretrained holds {CONFIG} and {MODEL}.{near}"
            )
    with naming_download(folder / CONFIG):
        text = _read_config(folder / CONFIG)
        ours = mapping(parse_json(text, folder / CONFIG), str(folder / CONFIG))
    of_file, digest = _header(folder / MODEL, source)
    theirs = ours if of_file is None else mapping(parse_json(of_file, folder / MODEL), str(folder / MODEL))
    if of_file is not None and are_of_two_saves(ours, theirs):
        _log.warning("%s: %s is of another save than %s, whose own config is used.", source, CONFIG, MODEL)
        return open_config(of_file, folder / MODEL, source, digest=digest)
    for what, (here, there) in _differences(ours, theirs).items():
        raise ValueError(
            f"The config of {source} can't be used: {CONFIG} and the header of {MODEL} disagree on {what:.200}, "
            f"{quote(here)} and {quote(there)}. One is damaged or was edited. To change a model, give the other values "
            f"to from_pretrained, and save it again; {folder / MODEL} opens by its header alone."
        )
    return open_config(text, folder / MODEL, source, digest=digest)


def _differences(left: dict[str, JSON], right: dict[str, JSON]) -> dict[str, tuple[JSON, JSON]]:
    """Return pairs of values that differ in two configs, by name."""
    found: dict[str, tuple[JSON, JSON]] = {}
    for name in {**left, **right}:
        here, there = left.get(name), right.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            found |= {f"{name} {part}": pair for part, pair in _differences(here, there).items()}
        elif here != there or (name in left) != (name in right):
            found[name] = here, there
    return found


def _read_config(path: Path) -> str:
    return read_text(path, limit=_LARGEST_CONFIG)


def _header(path: Path, source: str) -> tuple[str | None, str | None]:
    """Return the config and the digest in a file's header, each None if it is not there."""
    metadata = read_header(path).metadata
    if DIGEST not in metadata:
        _log.warning("%s has no digest, so damage can't be seen. Save it again by save_pretrained.", source)
    return metadata.get("ssd_zoo"), metadata.get(DIGEST)

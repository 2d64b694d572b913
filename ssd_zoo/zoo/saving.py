"""A model as a folder: `config.json`, `model.safetensors` and `README.md`, the model card.

The config also stands in the header of the safetensors file, so that this file alone is the whole model, and so that a
save that was cut off between two files leaves the old model or the new one.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_zoo.converters._files import check_finite
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._registry import get_model_builder
from ssd_zoo.models._weights import SavedModel
from ssd_zoo.zoo.card import make_card
from ssd_zoo.zoo.config import describe, open_config
from ssd_zoo.zoo.files import read_header, write_file, write_safetensors
from ssd_zoo.zoo.hub import fetch_model, upload_folder

__all__ = ["CONFIG", "MODEL", "from_pretrained", "open_saved", "push_to_hub", "save_pretrained"]

CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
_HUB = "hf-hub:"
_REPO = re.compile(r"(hf-hub:)?[\w.-]+/[\w.-]+(@\S+)?")
_LARGEST_CONFIG = 10 * 2**20
_log = logging.getLogger("ssd_zoo")


def save_pretrained(
    model: SSD,
    folder: str | os.PathLike[str],
    *,
    licence: str | None = None,
    trained_on: str | None = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    notes: str | None = None,
) -> Path:
    """Saves a model as a folder that `from_pretrained`, any builder's `weights` and the Hub take.

    Each file is written whole or not at all. A model card that is there already is kept, unless there is something new
    to say in it.

    Args:
        model: The model, made by a registered builder.
        folder: Where to; made if it is not there.
        licence: The weights' licence, by its SPDX name.
        trained_on: Name of the training data, for the card.
        metrics: Per data set its figures, and under `"source"` who measured them: `"published"` or `"measured"`.
        notes: What else the card should say, in Markdown.

    Returns:
        The folder.

    Raises:
        ValueError: If no registered builder made the model, or it holds numbers that are not finite.
        OSError: If the folder can't be written.
    """
    card = {"licence": licence, "trained_on": trained_on, "metrics": metrics, "notes": notes}
    return _save(model, Path(folder), address=str(folder), **card)


def _save(model: SSD, folder: Path, *, address: str, metrics: Any, notes: Any, **meta: Any) -> Path:
    meta["metrics"] = {data: dict(figures) for data, figures in (metrics or {}).items()}
    state = _state(model)
    check_finite(state)
    config = {**describe(model), "meta": meta, "weights_id": _digest(state)}
    # One line a key: default boxes are many numbers.
    text = "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in config.items()) + "\n}\n"
    write_safetensors(folder / MODEL, state, {"ssd_zoo": text})
    write_file(folder / CONFIG, text.encode())
    if any(meta.values()) or notes or not (folder / CARD).exists():
        write_file(folder / CARD, make_card(model, address, **meta, notes=notes).encode())
    return folder


def _state(model: SSD) -> dict[str, Tensor]:
    # Modules with two places in a model have their tensors twice; a safetensors file holds no tensor twice.
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return state


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in state.values():
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def open_saved(address: str | os.PathLike[str]) -> SavedModel:
    """Opens a saved model; its tensors are read when a builder loads them.

    Args:
        address: A folder, a `.safetensors` file, or `hf-hub:owner/name@revision`.

    Raises:
        FileNotFoundError: If there is none.
        ConnectionError: If the Hub can't be reached and the model is not in its cache.
        ValueError: If what lies there was not saved by ssd_zoo, or can't be used.
    """
    if isinstance(address, str) and address.startswith(_HUB):
        folder = fetch_model(address.removeprefix(_HUB), (CONFIG, MODEL))
        return _open_folder(folder, address)
    path = Path(address).expanduser()
    if path.is_dir():
        return _open_folder(path, str(path))
    if path.suffix != ".safetensors":
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


def from_pretrained(
    folder_or_repo: str | os.PathLike[str],
    *,
    revision: str | None = None,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    **overrides: Any,
) -> SSD:
    """Builds a saved model again: same outputs, bit for bit, unless something is overridden.

    Args:
        folder_or_repo: A folder or `.safetensors` file, or a repository on the Hub, `"owner/name"`.
        revision: Branch, tag or commit of the repository; by default its main branch.
        num_classes: Another number of classes, background counted; the class head starts fresh.
        categories: Other categories, background first; the class head keeps those that it knows by name.
        **overrides: Passed to the builder: other `size`, `in_chans`, `score_thresh`, …

    Raises:
        FileNotFoundError: If there is no such folder, repository or revision.
        ConnectionError: If the Hub can't be reached and the model is not in its cache.
        PermissionError: If the repository asks for a token, or for another one.
        TypeError: If a keyword is unknown.
        ValueError: If what lies there was not saved by ssd_zoo, or can't be used.
    """
    address = os.fspath(folder_or_repo)
    local = os.path.exists(address) or address.endswith(".safetensors") or not _REPO.fullmatch(address)
    if not local and not address.startswith(_HUB):
        address = _HUB + address
    if revision is not None:
        if not address.startswith(_HUB):
            raise ValueError(f"revision={revision!r}, but {address} is a folder; only the Hub has revisions.")
        address = f"{address}@{revision}"
    saved = open_saved(address)
    build = get_model_builder(saved.builder)
    return build(weights=saved, num_classes=num_classes, categories=categories, **overrides)


def push_to_hub(
    model: SSD,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Add a detector",
    create_pr: bool = False,
    licence: str | None = None,
    trained_on: str | None = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    notes: str | None = None,
) -> str:
    """Saves a model to a repository on the Hugging Face Hub, which is made if it is not there.

    A model card that the repository has is kept, unless there is something new to say in it.

    Args:
        model: The model, made by a registered builder.
        repo_id: `"owner/name"`.
        revision: The branch; by default the main one.
        private: Whether a new repository is private.
        token: The Hub's token; by default the one that is logged in, or `HF_TOKEN`.
        commit_message: The commit's message.
        create_pr: Whether to open a pull request instead.
        licence: See `save_pretrained`.
        trained_on: See `save_pretrained`.
        metrics: See `save_pretrained`.
        notes: See `save_pretrained`.

    Returns:
        Address of the commit.

    Raises:
        ConnectionError: If the Hub can't be reached.
        PermissionError: If the token does not allow it.
        ValueError: If the model can't be saved, or `repo_id` is no name of a repository.
    """
    card = {"licence": licence, "trained_on": trained_on, "metrics": metrics, "notes": notes}
    with tempfile.TemporaryDirectory() as temporary:
        return upload_folder(
            _save(model, Path(temporary), address=repo_id, **card),
            repo_id,
            revision=revision,
            private=private,
            token=token,
            commit_message=commit_message,
            create_pr=create_pr,
            keep=() if any(card.values()) else (CARD,),
        )

"""Saved models: folders of `config.json`, `model.safetensors` and `README.md`, the model card.

The header of the safetensors file repeats the config. So this file alone is a whole model, and a save that is cut off
between two files leaves the old model or the new one.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import find_report
from ssd_zoo.models.registry import builder_of, with_near_keywords
from ssd_zoo.saved.card import Card, Metrics, make_card
from ssd_zoo.saved.proof import check_rebuild, package_of_model
from ssd_zoo.weights.config import describe
from ssd_zoo.weights.config_id import sign
from ssd_zoo.weights.files import write_file, write_safetensors
from ssd_zoo.weights.formats.checkpoint import check_finite
from ssd_zoo.weights.formats.safetensors_file import pack
from ssd_zoo.weights.hub import upload_folder
from ssd_zoo.weights.saved_models import CONFIG, HUB, MODEL, open_saved

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

CARD = "README.md"
_REPO = re.compile(r"(hf-hub:)?[\w.-]+/[\w.-]+(@\S+)?")
_log = logging.getLogger("ssd_zoo")


@with_near_keywords
def save_pretrained(
    model: SSD,
    folder: str | os.PathLike[str],
    *,
    licence: str | None = None,
    trained_on: str | None = None,
    metrics: Metrics | None = None,
    notes: str | None = None,
) -> Path:
    """Save a model as a folder for `from_pretrained`, builders and the Hub.

    Each file is written atomically, and a digest of the tensors is stored. If several processes save into one folder,
    the last one wins. An existing model card is kept, unless `licence`, `trained_on`, `metrics` or `notes` are given.

    Args:
        model: The model, made by a registered builder.
        folder: The folder; created if needed.
        licence: The weights' licence, by its SPDX name.
        trained_on: Name of the training data, for the card.
        metrics: Per data set its figures, and under `"source"` who measured them: `"published"` or `"measured"`.
        notes: Further text of the card, in Markdown.

    Returns:
        The folder.

    Raises:
        TypeError: If the model is not an SSD, such as a wrapper of one.
        ValueError: If no registered builder made the model, its builder does not build it again from what is saved, an
            argument can't be saved, or a number is not finite.
        OSError: If the folder can't be written; what was not replaced before stays.
    """
    card: Card = {"licence": licence, "trained_on": trained_on, "metrics": metrics or {}, "notes": notes}
    return _save(model, Path(folder), str(folder), card)


def _save(model: SSD, folder: Path, address: str, card: Card) -> Path:
    if not isinstance(model, SSD):
        raise TypeError(
            f"A detector of ssd_zoo can be saved, got {type(model).__name__}. A wrapper holds it as model.module, or "
            "as model._orig_mod where torch.compile made it."
        )
    check_finite(model.state_dict())
    tensors = pack(model.state_dict())
    if any(entry.dtype == "F64" for entry in tensors.entries.values()):
        _log.warning("The model is in float64, and will be loaded in float32.")
    metrics = {data: dict(figures) for data, figures in card["metrics"].items()}
    facts = {"licence": card["licence"], "trained_on": card["trained_on"], "metrics": metrics}
    if (report := find_report(model)) is not None and report.origin:
        facts["origin"] = report.origin
    config: dict[str, object] = {
        **describe(model),
        "meta": facts | package_of_model(model),
        "weights_id": tensors.digest,
    }
    config["config_id"] = sign(config)
    # One line per key, because the default boxes have many numbers.
    text = "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in config.items()) + "\n}\n"
    check_rebuild(model, text)
    write_safetensors(folder / MODEL, tensors, {"ssd_zoo": text})
    write_file(folder / CONFIG, text.encode())
    if any(card.values()) or not (folder / CARD).exists():
        write_file(folder / CARD, make_card(model, address, **card).encode())
    return folder


def from_pretrained(
    folder_or_repo: str | os.PathLike[str],
    *,
    revision: str | None = None,
    num_classes: int | None = None,
    categories: Sequence[str] | None = None,
    **overrides: Any,
) -> SSD:
    """Load a saved model; without overrides its outputs are bit-identical.

    Args:
        folder_or_repo: A folder or `.safetensors` file, or a repository on the Hub, `"owner/name"`. A `Path` is never a
            repository.
        revision: Branch, tag or commit of the repository; by default its main branch.
        num_classes: Another number of classes, with the background; none has a known name, unless `categories` gives as
            many.
        categories: Other categories, background first; the class head keeps rows of names that it knows.
        **overrides: Passed to the builder: other `size`, `in_chans`, `score_thresh`, …

    Returns:
        The model in training mode, as from a builder. Call `model.eval()` to detect.

    Raises:
        FileNotFoundError: If there is no such folder, repository or revision.
        ConnectionError: If the Hub can't be reached and the model is not in its cache.
        PermissionError: If the repository asks for a token, or for another one.
        TypeError: If a keyword is unknown.
        ValueError: If the files were not saved by ssd_zoo, or can't be used, or arguments contradict each other.
    """
    address = folder_or_repo
    if isinstance(address, str):
        local = os.path.exists(address) or address.lower().endswith(".safetensors") or not _REPO.fullmatch(address)
        address = address if local or address.startswith(HUB) else HUB + address
    if revision is not None:
        if not isinstance(address, str) or not address.startswith(HUB):
            raise ValueError(f"revision={revision!r}, but {address} is a folder; only the Hub has revisions.")
        address = f"{address}@{revision}"
    saved = open_saved(address)
    try:
        build = builder_of(saved)
    except ValueError as error:
        raise ValueError(f"The config of {address} can't be used: {error}") from error
    return build(weights=saved, num_classes=num_classes, categories=categories, **overrides)


@with_near_keywords
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
    metrics: Metrics | None = None,
    notes: str | None = None,
) -> str:
    """Save a model to a repository on the Hub, created if needed.

    An existing model card is kept, unless `licence`, `trained_on`, `metrics` or `notes` are given.

    Args:
        model: The model, made by a registered builder.
        repo_id: `"owner/name"`.
        revision: The branch; by default the main one.
        private: Whether a new repository is private.
        token: The Hub's token; by default the one that is logged in, or `HF_TOKEN`.
        commit_message: The commit's message.
        create_pr: Whether to open a pull request instead of a commit to the branch.
        licence: See `save_pretrained`.
        trained_on: See `save_pretrained`.
        metrics: See `save_pretrained`.
        notes: See `save_pretrained`.

    Returns:
        Address of the commit.

    Raises:
        ConnectionError: If the Hub can't be reached.
        FileNotFoundError: If there is no such repository or revision, and it can't be made.
        PermissionError: If the token does not allow it.
        TypeError: If the model is not an SSD.
        ValueError: If the model can't be saved, or `repo_id` is not "owner/name".
    """
    card: Card = {"licence": licence, "trained_on": trained_on, "metrics": metrics or {}, "notes": notes}
    with tempfile.TemporaryDirectory() as temporary:
        return upload_folder(
            _save(model, Path(temporary), repo_id, card),
            repo_id,
            revision=revision,
            private=private,
            token=token,
            commit_message=commit_message,
            create_pr=create_pr,
            keep=() if any(card.values()) else (CARD,),
        )

"""Open registered, saved, exported, Hub's and torchvision's detectors by name."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.deploy.load import ExportedDetector, load
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import (
    get_model,
    get_model_weights,
    list_models,
    propose,
    usable_models,
    with_near_keywords,
)
from ssd_zoo.models.table import list_weights
from ssd_zoo.saved.pretrained import from_pretrained
from ssd_zoo.weights.formats.checkpoint import read_pickle
from ssd_zoo.weights.saved_models import CONFIG, HUB, MODEL

__all__ = ["FOREIGN", "check_model", "is_saved", "load_model", "open_detector", "pick_device", "pick_thresh"]

FOREIGN = (".pb", ".pt", ".pth", ".safetensors", ".tflite")
"""Ends of other projects' files, which `ssd-zoo convert` reads."""
_OF_HUB = re.compile(r"[\w.-]+/[\w.-]+(@\S+)?")


def is_saved(name: str) -> bool:
    """Return whether a name is a saved model's path or Hub repository.

    `owner/name` is a repository if there is no folder `owner`, and no saved model of a similar path.
    """
    if name.startswith(HUB) or Path(name).exists():
        return True
    return _OF_HUB.fullmatch(name) is not None and not Path(name).parent.exists() and not _near_saved(name)


def _check_folder(path: Path) -> None:
    if not path.is_dir() or any((path / file).is_file() for file in (CONFIG, MODEL)):
        return
    inner = sorted(file.parent for file in path.glob(f"*/{CONFIG}"))
    # What `ssd-zoo train` has found best comes first.
    inner.sort(key=lambda path: path.name != "best")
    foreign = sorted(file for file in path.iterdir() if file.suffix in FOREIGN or file.name == "model.json")
    if inner:
        way = f"Did you mean {inner[0]}?"
    elif unfinished := _unfinished_run(path):
        way = unfinished
    elif foreign:
        way = f"Convert a checkpoint of another project first: ssd-zoo convert {foreign[0]} --output DIR."
    else:
        way = "ssd-zoo train writes one into its folder's best."
    raise ValueError(f"{path} has no {CONFIG}, so it is not a saved model. {way}")


def check_model(name: str, weights: str | None) -> None:
    """Check the names of a model and its weights, without reading them.

    Raises:
        ValueError: If there is no such model, it has no such weights, or the path is not a saved model. The message
            tells the way out, and proposes similar names and folders.
    """
    path = Path(name)
    if path.is_file() and path.name != MODEL:
        raise ValueError(
            f"The model {name} is a file, but a saved model is a folder. Convert a checkpoint of another project "
            f"first: ssd-zoo convert {name} --output DIR; then take DIR."
        )
    if is_saved(name) and weights is not None:
        raise ValueError(f"{name} is a saved model and has its weights; leave out the weights {weights}.")
    for folder in (name, weights or name):
        _check_folder(Path(folder))
    if is_saved(name):
        return
    if name.lower() not in list_models():
        raise ValueError(f"There is no model or folder {name!r}. {_proposal(name)}")
    published = get_model_weights(name).__members__
    elsewhere = weights is None or weights == "scratch" or weights.startswith(HUB) or Path(weights).exists()
    if weights is not None and not elsewhere and weights not in published:
        few = ", ".join(map(repr, published)) or "none"
        near = propose(weights.upper(), [*published]) if published else ""
        near = near if near.startswith("Did") else "A folder of a saved model will do, too."
        raise ValueError(f"{name} has no weights {weights!r}; it has {few}. {near}")


def _proposal(name: str) -> str:
    """Return a sentence that proposes models, weights or files similar to an unknown name."""
    path = Path(name)
    if len(path.parts) > 1 and (unfinished := _unfinished_run(path.parent)):
        return unfinished
    near = " or ".join([*_near_saved(name), *_near_files(path)])
    if len(path.parts) > 1:
        return f"Did you mean {near}?" if near else f"No saved model is near {path.parent}."
    if name in _theirs():
        return f"It is torchvision's, which only predict and evaluate take. {propose(name, list_models())}"
    of_weights = {entry.name.lower(): f"{entry.name} of {model}" for model, entry in list_weights()}
    found = propose(name.lower(), [*dict.fromkeys([*list_models(), *_theirs()]), *of_weights])
    if not found.startswith("Did"):
        return f"Did you mean {near}?" if near else propose(name.lower(), list_models())
    found = re.sub(r"[\w.]+", lambda word: of_weights.get(word[0], word[0]), found)
    return found.replace("mean", f"mean {near} or", 1) if near else found


def _unfinished_run(folder: Path) -> str | None:
    """Return a sentence about the run in a folder if it has saved no model yet; otherwise None."""
    if (folder / "best").exists() or not (folder / "checkpoint.pt").is_file():
        return None
    try:
        state = read_pickle(folder / "checkpoint.pt")
    except (ValueError, OSError):
        return None
    # Other projects have files of that name, too.
    if not isinstance(state, dict) or not {"settings", "progress"} <= state.keys():
        return None
    return f"The run in {folder} has saved no model yet; its ssd-zoo train command goes on with --resume."


def _near_files(path: Path) -> list[str]:
    """List model files in a missing file's folder whose names are similar to its own.

    Names are compared with and without their extensions.
    """
    files = sorted(file for file in path.parent.glob("*.*") if is_exported(file.name) or file.suffix in FOREIGN)
    names = {file.stem: str(file) for file in files} | {file.name: str(file) for file in files}
    return list(dict.fromkeys(names[close] for close in get_close_matches(path.name, names, n=3)))


def _near_saved(name: str) -> list[str]:
    """List saved models whose paths, or the paths of their runs, are similar to a name."""
    folder = Path(name).parent
    files = [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}"), *folder.parent.glob(f"*/*/{CONFIG}")]
    if not folder.exists():
        files += folder.parent.glob(f"*/*/*/{CONFIG}")
    saved = {str(file.parent): str(file.parent) for file in sorted(files)}
    # Of a run, what `ssd-zoo train` has found best.
    paths = {str(Path(path).parent): path for path in saved if Path(path).name == "best"} | saved
    return list(dict.fromkeys(paths[close] for close in get_close_matches(name, paths, n=3)))


def _theirs() -> list[str]:
    """List the names of torchvision's detectors."""
    return torchvision.models.list_models(module=torchvision.models.detection)


def _by_weights(name: str) -> tuple[str, str] | None:
    """Return the names of the builder and the weights for a name of weights, in any letter case.

    None if no weights have the name.

    Raises:
        ValueError: If several builders have weights of the name.
    """
    if "." in name:
        members = (
            (model, entry) for model in usable_models() for entry in get_model_weights(model).__members__.values()
        )
        found = [(model, entry) for model, entry in members if str(entry).lower() == name.lower()][:1]
    else:
        found = [(model, entry) for model, entry in list_weights() if entry.name == name.upper()]
    if len(found) > 1:
        full = ", ".join(str(entry) for _, entry in found)
        raise ValueError(f"Several models have weights {name}; take one of {full}.")
    return (found[0][0], found[0][1].name) if found else None


@with_near_keywords
def open_detector(
    name: str | os.PathLike[str],
    weights: str | None = None,
    *,
    score_thresh: float | None = None,
    threads: int | None = None,
    callers: int = 1,
    progress: bool = True,
) -> SSD | ExportedDetector:
    """Open a model for detecting, in evaluation mode.

    Args:
        name: Name of a registered model, or of weights (`"BCCD_V1"`, `"SSD300_VGG16D_Weights.COCO_V1"`); path of a
            saved model or an exported file; or a repository of the Hub, `"owner/name"`. A `Path` is never one.
        weights: Name of a registered model's weights, or the path of a saved model; None selects `DEFAULT`.
        score_thresh: Scores of detections must be greater; by default the model's.
        threads: Threads of an exported file; by default torch's. Other models always take torch's.
        callers: Threads that may call an exported file at once; see `load`.
        progress: Whether to show the progress of downloads.

    Raises:
        ConnectionError: If weights have to be downloaded and can't be.
        FileNotFoundError: If there is no such exported file, repository or revision.
        ImportError: If an exported file's runtime is not installed.
        PermissionError: If the Hub asks for a token.
        ValueError: If there is no such model, or it has no such weights. The message proposes similar names.
    """
    given, name = name, os.fspath(name)
    if is_exported(name):
        if weights is not None:
            raise ValueError(f"{name} is an exported file and has its weights; leave out the weights {weights}.")
        return load(name, score_thresh=score_thresh, threads=threads, callers=callers)
    if weights is None and not is_saved(name) and name.lower() not in list_models():
        name, weights = _by_weights(name) or (name, None)
    check_model(name, weights)
    asked: dict[str, Any] = {} if score_thresh is None else {"score_thresh": score_thresh}
    if is_saved(name):
        return from_pretrained(given, **asked).eval()
    published = get_model_weights(name).__members__
    if not published and weights is None:
        raise ValueError(f"There are no weights for {name}; ssd-zoo list shows the models that have some.")
    return get_model(name, weights=weights or published["DEFAULT"], progress=progress, **asked).eval()


def load_model(
    name: str | os.PathLike[str], weights: str | None = None, *, progress: bool = True
) -> tuple[nn.Module, list[str]]:
    """Open a model, ours or torchvision's, with its class names.

    Args:
        name: See `open_detector`; or the name of a detector of torchvision.
        weights: Name of the weights; None selects `DEFAULT`.
        progress: Whether to show the progress of downloads.

    Returns:
        The model in evaluation mode, and its class names, background first.

    Raises:
        ValueError: If there is no such model, or it has no such weights. Other errors are those of `open_detector`.
    """
    ours = not isinstance(name, str) or Path(name).exists() or is_exported(name) or name in list_models()
    if ours or name not in _theirs():
        model = open_detector(name, weights, progress=progress)
        return model, model.categories
    published = torchvision.models.get_model_weights(name).__members__
    if weights is not None and weights not in published:
        raise ValueError(f"{name} has no weights {weights!r}; it has {', '.join(published)}.")
    entry = published[weights or "DEFAULT"]
    model = torchvision.models.get_model(name, weights=entry, progress=progress)
    return model.eval(), entry.meta["categories"]


def pick_thresh(model: nn.Module, asked: float | None) -> float:
    """Return the score above which detections are shown.

    Args:
        model: A detector.
        asked: The score that the caller asks for; None for 0.5, or the model's own threshold if that is higher.
    """
    return max(0.5, getattr(model, "score_thresh", 0.0)) if asked is None else asked


def pick_device(name: str | None) -> torch.device:
    """Return a device by name, by default a GPU if available.

    Raises:
        ValueError: If the device can't be used.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Device {name!r} can't be used: {str(error).splitlines()[0]}") from error
    return device

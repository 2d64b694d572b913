"""Build models from command-line arguments."""

import argparse
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

import ssd_zoo
from ssd_zoo.cli._values import fraction, tile
from ssd_zoo.deploy import ExportedDetector, load
from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.tiles import check_tiles
from ssd_zoo.models.registry import get_model, get_model_weights, list_models, propose
from ssd_zoo.weights.saved_models import CONFIG, HUB, MODEL

__all__ = [
    "DEFAULT_MODEL",
    "add_tiles",
    "build_model",
    "check_model",
    "load_model",
    "open_detector",
    "pick_device",
    "set_tiles",
]

DEFAULT_MODEL = "ssdlite300_mobilenet_v2"


def add_tiles(parser: argparse._ActionsContainer, default: str = "the model's") -> None:
    """Declare the options of tiles."""
    what = f"cut larger images into tiles of this size; 0: take them whole (default: {default})"
    parser.add_argument("--tile", type=tile, metavar="S|HxW", help=what)
    what = "least overlap of tiles, as a share of their side (default: the model's)"
    parser.add_argument("--overlap", dest="tile_overlap", type=fraction, metavar="R", help=what)


def set_tiles(model: nn.Module, args: argparse.Namespace) -> None:
    """Set a model's tiles as the options ask.

    Raises:
        ValueError: If the model can't have tiles, they are too small, or an overlap is given without tiles.
    """
    if args.tile is None and args.tile_overlap is None:
        return
    if not isinstance(model, SSD | ExportedDetector):
        raise ValueError("--tile is for models of ssd_zoo; leave it out.")
    wanted = model.tile if args.tile is None else args.tile or None
    if wanted is None and args.tile_overlap is not None:
        raise ValueError("--overlap is of tiles: give --tile too.")
    model.tile_overlap = model.tile_overlap if args.tile_overlap is None else args.tile_overlap
    model.tile = check_tiles(wanted, model.tile_overlap)


def check_model(name: str, weights: str | None) -> None:
    """Check the names of a model and its weights, without reading them.

    Raises:
        ValueError: If there is no such model, it has no such weights, or the path is not a saved model. The message
            tells the way out, and proposes similar names and folders.
    """
    path = Path(name)
    if path.is_file() and path.name != MODEL:
        raise ValueError(
            f"--model {name} is a file, but a saved model is a folder. Convert a checkpoint of another project first: "
            f"ssd-zoo convert {name} --output DIR; then take --model DIR."
        )
    if path.exists() and weights is not None:
        raise ValueError(f"--model {name} is a saved model and has its weights; leave out --weights.")
    if path.is_dir() and not any((path / file).is_file() for file in (CONFIG, MODEL)):
        inner = sorted(file.parent for file in path.glob(f"*/{CONFIG}"))
        # What `ssd-zoo train` has found best comes first.
        inner.sort(key=lambda path: path.name != "best")
        way = f"Did you mean {inner[0]}?" if inner else "ssd-zoo train writes one into its folder's best."
        raise ValueError(f"{name} has no {CONFIG}, so it is not a saved model. {way}")
    if path.exists():
        return
    if name.lower() not in list_models():
        raise ValueError(f"There is no model or folder {name!r}. {_near(name)}")
    published = get_model_weights(name).__members__
    elsewhere = weights is None or weights == "scratch" or weights.startswith(HUB) or Path(weights).exists()
    if not elsewhere and weights not in published:
        few = ", ".join(map(repr, published)) or "none"
        raise ValueError(f"{name} has no weights {weights!r}; it has {few}. --weights may be scratch or a folder, too.")


def _near(name: str) -> str:
    of_weights = [model for model in list_models() if name.upper() in get_model_weights(model).__members__]
    if of_weights:
        return f"{name.upper()} are weights: --model {of_weights[0]} --weights {name.upper()}."
    path = Path(name)
    if len(path.parts) > 1:
        saved = [str(file.parent) for file in path.parent.glob(f"*/{CONFIG}")]
        saved += [str(file.parent) for file in path.parent.parent.glob(f"*/*/{CONFIG}")]
        return propose(name, sorted(set(saved))) if saved else f"No saved model is near {path.parent}."
    return propose(name.lower(), [*list_models(), *_theirs()])


def _theirs() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models.detection)


def build_model(name: str, weights: str | None, **config: Any) -> SSD:
    """Build a model by name, or load a saved one.

    Args:
        name: Name of a registered model, or path of a saved model.
        weights: Name of weights, path of a saved model, or `"scratch"`. None selects the model's `DEFAULT`, or the
            backbone's if the model has no weights.
        **config: Arguments of the builder.

    Raises:
        ValueError: As for `check_model`, or if the name is that of an exported file.
    """
    if is_exported(name):
        raise ValueError(f"{name} is an exported file, which only detects; give the model that it was exported from.")
    check_model(name, weights)
    if Path(name).exists():
        config.pop("progress", None)
        return ssd_zoo.from_pretrained(name, **config)
    if weights == "scratch":
        return get_model(name, weights=None, weights_backbone=None, **config)
    published = get_model_weights(name).__members__
    return get_model(name, weights=weights or published.get("DEFAULT"), **config)


def open_detector(
    name: str, weights: str | None, *, score_thresh: float | None = None, progress: bool = True
) -> SSD | ExportedDetector:
    """Open a model for detecting: a registered, saved or exported one.

    Args:
        name: Name of a registered model, or path of a saved or exported model.
        weights: Name of weights; None selects `DEFAULT`.
        score_thresh: Least score of a detection; by default the model's.
        progress: Whether to show the progress of downloads.

    Raises:
        ValueError: If there is no such model, or it has no such weights.
    """
    if is_exported(name):
        if weights is not None:
            raise ValueError(f"--model {name} is an exported file and has its weights; leave out --weights.")
        return load(name, score_thresh=score_thresh)
    check_model(name, weights)
    if not Path(name).exists() and not get_model_weights(name).__members__:
        raise ValueError(f"There are no weights for {name}; ssd-zoo list shows the models that have some.")
    asked = {} if score_thresh is None else {"score_thresh": score_thresh}
    return build_model(name, weights, progress=progress, **asked).eval()


def load_model(name: str, weights: str | None, *, progress: bool) -> tuple[nn.Module, list[str]]:
    """Load a trained model and its class names.

    Args:
        name: Name of a registered model, path of a saved or exported one, or name of one of torchvision's detectors.
        weights: Name of the weights; None selects `DEFAULT`.
        progress: Whether to show the progress of downloads.

    Raises:
        ValueError: If there is no such model, or it has no such weights.
    """
    if Path(name).exists() or is_exported(name) or name in list_models() or name not in _theirs():
        model = open_detector(name, weights, progress=progress)
        return model, model.categories
    published = torchvision.models.get_model_weights(name).__members__
    if weights is not None and weights not in published:
        raise ValueError(f"{name} has no weights {weights!r}; --weights may be {', '.join(published)}.")
    entry = published[weights or "DEFAULT"]
    return torchvision.models.get_model(name, weights=entry, progress=progress), entry.meta["categories"]


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

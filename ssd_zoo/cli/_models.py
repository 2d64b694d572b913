"""Build models from command-line arguments."""

import argparse

from torch import nn

from ssd_zoo.cli._values import fraction, tile
from ssd_zoo.deploy import ExportedDetector
from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.tiles import check_tiles
from ssd_zoo.models.registry import get_model, get_model_weights
from ssd_zoo.prediction.opening import check_model, is_saved
from ssd_zoo.saved.pretrained import from_pretrained

__all__ = ["DEFAULT_MODEL", "add_tiles", "build_model", "set_tiles"]

DEFAULT_MODEL = "ssdlite300_mobilenet_v2"


def add_tiles(parser: argparse._ActionsContainer, default: str = "the model's") -> None:
    """Declare the options of tiles."""
    what = f"cut larger images into tiles of this size; 0: take them whole (default: {default})"
    parser.add_argument("--tile", type=tile, metavar="S|HxW", help=what)
    what = "least overlap of tiles, as a share of their side (default: the model's)"
    parser.add_argument("--overlap", dest="tile_overlap", type=fraction, metavar="R", help=what)


def set_tiles(model: nn.Module, args: argparse.Namespace) -> None:
    """Set a model's tiles as the options ask.

    Without both options nothing changes; `--tile 0` takes images whole.

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


def build_model(name: str, weights: str | None, **config: object) -> SSD:
    """Build a model by name, or load a saved one.

    Args:
        name: Name of a registered model, or path of a saved model.
        weights: Name of weights, path of a saved model, or `"scratch"`; None for a saved model. None selects the
            model's `DEFAULT`, or the backbone's if the model has no weights.
        **config: Arguments of the builder.

    Raises:
        ValueError: As for `check_model`, or if the name is that of an exported file.
    """
    if is_exported(name):
        raise ValueError(f"{name} is an exported file, which only detects; give the model that it was exported from.")
    check_model(name, weights)
    if is_saved(name):
        config.pop("progress", None)
        return from_pretrained(name, **config)  # type: ignore[arg-type]
    if weights == "scratch":
        return get_model(name, weights=None, weights_backbone=None, **config)
    published = get_model_weights(name).__members__
    return get_model(name, weights=weights or published.get("DEFAULT"), **config)

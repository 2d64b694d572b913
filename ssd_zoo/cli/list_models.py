"""List models and weights, the most useful first.

Weights that ship in the package come first, then other weights by AP on COCO, then models that are to be trained.
"""

import argparse
import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch

from ssd_zoo.cli._colours import painted
from ssd_zoo.cli._models import DEFAULT_MODEL
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.models.registry import get_model, get_model_weights, list_models, usable_models
from ssd_zoo.models.table import latencies, list_weights, weights_list
from ssd_zoo.weights.categories import object_classes
from ssd_zoo.weights.entries import WeightsEnum

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "which"
"""Page of the documentation."""
EXAMPLES = (
    "ssd-zoo list",
    'ssd-zoo list "ssdlite*" --sort size',
    "ssd-zoo list --weights",
    f"ssd-zoo list --weights {DEFAULT_MODEL}",
)
"""Commands for the help."""

# Order of data sets in the list. Results on minival14 are not comparable with the others, so they come later.
_DATA = {"COCO-val2017": 0, "COCO-minival2014": 0, "COCO-minival14": 1}


class _Row(NamedTuple):
    """A line of the list: a model and one of its weights.

    `classes` are without the background, `parameters` in millions, `milliseconds` those of one image, None if unknown;
    `weights` is empty without any.
    """

    model: str
    weights: str
    classes: int
    size: tuple[int, int]
    parameters: float
    milliseconds: float | None
    ships: bool
    metrics: Mapping[str, Mapping[str, float | str]]

    def use(self) -> tuple[float, ...]:
        """Return a key for sorting: what ships, then what has weights, by AP."""
        known = [(_DATA[data], data) for data in self.metrics if data in _DATA]
        rank, data = min(known, default=(len(_DATA), ""))
        return not self.ships, not self.weights, rank, -float(self.metrics.get(data, {}).get("AP", 0))

    def __str__(self) -> str:
        plural = "" if self.classes == 1 else "es"
        classes = f"{self.classes} class{plural}" if self.weights else "to be trained"
        results = [_describe(data, metrics) for data, metrics in self.metrics.items()][:1]
        ships = [painted("ships", "green", sys.stdout)] if self.ships else []
        notes = ", ".join([classes, *ships, *results])
        size = f"{self.size[0]} × {self.size[1]}"
        time = "" if self.milliseconds is None else f"{self.milliseconds:.0f} ms"
        model = painted(f"{self.model:38}", "bold", sys.stdout)
        return f"{model}{self.weights or 'none':19}{size:9} {self.parameters:5.2f} M {time:>7}  {notes}"


_SORTS: dict[str, Callable[[_Row], tuple[float | str, ...]]] = {
    "use": _Row.use,
    "size": lambda row: (row.parameters,),
    "speed": lambda row: (math.inf if row.milliseconds is None else row.milliseconds, row.parameters),
    "name": lambda row: (row.model,),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("pattern", nargs="*", help="shell-style patterns of model names (default: all models)")
    parser.add_argument("--sort", choices=_SORTS, default="use",
                        help="use: what ships, then by AP on COCO; size: parameters; speed: ms of one image, see the "
                             "page (default: use)")  # fmt: skip
    parser.add_argument(
        "--weights",
        action="store_true",
        help="list only the weights, with licences and origins; for a pattern, with names of classes",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line per model and weights.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: If no model matches.
    """
    names = usable_models(args.pattern or None)
    if not names:
        raise ValueError(f"No model matches {' '.join(args.pattern)}. Known are: {', '.join(list_models())}.")
    if args.weights:
        print(weights_list(args.pattern or None))
        return 0
    times = latencies()[1]
    own = {(name, entry) for name, entry in list_weights(names)}
    print(*sorted((row for name in names for row in _rows(name, own, times)), key=_SORTS[args.sort]), sep="\n")
    return 0


def _rows(
    name: str, own: Collection[tuple[str, WeightsEnum]], times: Mapping[tuple[str, str], tuple[float, float]]
) -> list[_Row]:
    """Return a row for each of a model's weights, or one for the model if it has none.

    Args:
        name: Name of the model.
        own: Models and weights whose figures are shown; a clip model's weights may be those of an image model.
        times: From `latencies`.
    """
    with torch.device("meta"):
        model = get_model(name, weights=None, weights_backbone=None)
    rows = [
        _Row(
            name,
            entry.name,
            len(object_classes(entry.meta["categories"])),
            parse_size(entry.settings.get("size", model.size)),
            entry.meta["num_params"] / 1e6,
            times.get((name, entry.name), (None,))[0],
            entry.url.startswith("package:"),
            entry.meta["metrics"] if (name, entry) in own else {},
        )
        for entry in dict.fromkeys(get_model_weights(name).__members__.values())
    ]
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return rows or [_Row(name, "", 0, model.size, parameters, None, False, {})]


def _describe(data: str, metrics: Mapping[str, float | str]) -> str:
    """Return the first figure on a data set, as in `AP 33.6 on COCO128 (measured)`."""
    name, value = next((name, value) for name, value in metrics.items() if name != "source")
    return f"{name} {value} on {data} ({metrics['source']})"

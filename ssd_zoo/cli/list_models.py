"""List the models with parameters, input size and weights."""

import argparse

import torch

from ssd_zoo.models.registry import get_model, get_model_weights, list_models
from ssd_zoo.models.table import list_weights, weights_list

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("pattern", nargs="*", help="shell-style patterns of model names (default: all models)")
    parser.add_argument("--weights", action="store_true", help="list only the weights, with their origins")


def run(args: argparse.Namespace) -> int:
    """Print one line per model and one per weights entry.

    Returns:
        The exit code, 0.
    """
    names = list_models(args.pattern or None)
    if not names:
        raise ValueError(f"No model matches {' '.join(args.pattern)}. Known are: {', '.join(list_models())}.")
    if args.weights:
        print(weights_list(args.pattern or None))
        return 0
    measured_with = {entry: name for name, entry in list_weights(names)}
    for name in names:
        with torch.device("meta"):
            model = get_model(name, weights=None, weights_backbone=None)
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        height, width = model.size
        print(f"{name:32} {parameters:6.2f} M parameters   {height} × {width}   {len(model.categories)} classes")
        for entry in dict.fromkeys(get_model_weights(name).__members__.values()):
            figures = ", ".join(_describe(data, metrics) for data, metrics in entry.meta["metrics"].items())
            of = f", of {measured_with[entry]}" if figures and measured_with[entry] != name else ""
            print(
                f"  {entry.name:30} {len(entry.meta['categories']):3} classes   {figures}{of}   {entry.meta['licence']}"
            )
    return 0


def _describe(data: str, metrics: dict[str, float | str]) -> str:
    figures = " ".join(f"{name} {value}" for name, value in metrics.items() if name != "source")
    return f"{figures} on {data} ({metrics['source']})"

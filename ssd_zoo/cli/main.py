"""Run the command `ssd-zoo`."""

import argparse
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

import ssd_zoo

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "benchmark": ("benchmark", "Measure the speed, and with --data the AP, of models in every format that runs here."),
    "convert": ("convert", "Convert another project's checkpoint to a saved model of ssd_zoo."),
    "data": ("data", "Report what a data set holds and what is wrong with it, and draw some of its images."),
    "detect": ("detect", "Detect objects in images, videos or a camera's pictures."),
    "evaluate": ("evaluate", "Evaluate a model, or a file of results, on annotated images or videos."),
    "export": ("export", "Export a model to a file for another runtime, such as ONNX Runtime or OpenVINO."),
    "list": ("list_models", "List the models with parameters, input size and weights."),
    "train": ("train", "Fine-tune a model on annotated images or videos."),
}
"""Modules of the commands, which are imported when they are used, and the first lines of their docstrings."""


class _Command(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Command-line arguments; by default those of the process.

    Returns:
        The exit code: 0 for success; 1 if a part failed, such as one of many images; 2 for invalid arguments or input,
        or results that can't be written; 130 for an interrupt, 141 for a closed pipe. The last two are the shells'
        convention, 128 plus the signal.
    """
    argv = sys.argv[1:] if argv is None else argv
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="ssd-zoo", description=(ssd_zoo.__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=f"ssd_zoo {ssd_zoo.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == asked:
            command = cast(_Command, import_module(f"ssd_zoo.cli.{module}"))
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    args.command = shlex.join(["ssd-zoo", *argv])
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may contain characters that the terminal can't encode.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout again at exit, which would raise the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        print(f"ssd-zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ssd-zoo: interrupted", file=sys.stderr)
        return 130

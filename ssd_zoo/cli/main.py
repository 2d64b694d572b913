"""Run the command `ssd-zoo`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ssd_zoo
from ssd_zoo.cli import convert, detect, evaluate, export, list_models, train

__all__ = ["main"]

_COMMANDS: dict[str, Any] = {
    "convert": convert,
    "detect": detect,
    "evaluate": evaluate,
    "export": export,
    "list": list_models,
    "train": train,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Command-line arguments; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for invalid arguments or input, 130 for an interrupt, 141 for a
        closed pipe. The last two are the shells' convention, 128 plus the signal.
    """
    parser = argparse.ArgumentParser(prog="ssd-zoo", description=_summary(ssd_zoo))
    parser.add_argument("--version", action="version", version=f"ssd_zoo {ssd_zoo.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        summary = _summary(command)
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
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


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").splitlines()[0]

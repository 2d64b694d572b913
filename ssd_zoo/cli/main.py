"""`ssd-zoo`: picks the subcommand."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ssd_zoo
from ssd_zoo.cli import convert, detect, evaluate, list_models, train

__all__ = ["main"]

_COMMANDS: dict[str, Any] = {
    "convert": convert,
    "detect": detect,
    "evaluate": evaluate,
    "list": list_models,
    "train": train,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        argv: Arguments; by default the process's.

    Returns:
        The exit code: 0; 1 if something could not be done; 2 if the arguments make no sense; 130 and 141 if it was
        interrupted or its reader closed the pipe, as a shell says it.
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
        # File names may hold what the terminal can't show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes once more on its way out; that must not fail again.
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

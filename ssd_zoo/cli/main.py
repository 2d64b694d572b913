"""Run the command `ssd-zoo`."""

import argparse
import io
import os
import shlex
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn, Protocol, cast

import ssd_zoo
from ssd_zoo.cli._colours import complain, painted
from ssd_zoo.models.registry import propose

__all__ = ["COMMANDS", "Command", "declare", "main"]

COMMANDS = {
    "benchmark": ("benchmark", "Measure the speed, and with --data the AP, of models in every format that runs here."),
    "completion": ("completion", "Print a script that completes the command in a shell."),
    "convert": ("convert", "Convert another project's checkpoint to a saved model of ssd_zoo."),
    "data": ("data", "Report what a data set holds and what is wrong with it, and draw some of its images."),
    "detect": ("detect", "Detect objects in images, videos or a camera's pictures."),
    "evaluate": ("evaluate", "Evaluate a model, or a file of results, on annotated images or videos."),
    "export": ("export", "Export a model to a file for another runtime, such as ONNX Runtime or OpenVINO."),
    "info": ("info", "Show versions, devices and optional packages."),
    "list": ("list_models", "List models and weights, the most useful first."),
    "train": ("train", "Fine-tune a model on annotated images or videos."),
}
"""Modules of the commands, which are imported when they are used, and the first lines of their docstrings."""


# What others call our options, such as Ultralytics and torchvision's references.
_NAMES_ELSEWHERE = {
    "--learning-rate": "lr lr0",
    "--size": "img imgsz img-size image-size input-size",
    "--score-thresh": "conf conf-thres confidence threshold",
    "--nms-thresh": "iou iou-thres",
    "--batch-size": "batch b",
    "--workers": "num-workers j",
    "--output": "project name save-dir output-dir",
    "--mixed-precision": "amp half fp16 bf16",
    "--categories": "names classes",
    "--minutes": "time",
    "--weight-decay": "wd",
    "--freeze-backbone": "freeze",
    "--augmentation": "data-augmentation",
    "DATA": "data data-path dataset",
    "SOURCE": "source input images",
}


class Command(Protocol):
    """Module of a subcommand.

    Attributes:
        PAGE: Page of the documentation, such as `detect` for `docs/detect.md`.
        EXAMPLES: Commands that the help shows.
    """

    PAGE: str
    EXAMPLES: Sequence[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are short, without a list of all options."""

    def error(self, message: str) -> NoReturn:
        """End the program with a message and the way to the help."""
        self.exit(
            2, f"{painted(f'{self.prog}:', 'red', sys.stderr)} {message}\n{self.prog} --help shows the options.\n"
        )

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            near = propose(str(value), [*map(str, action.choices)])
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}. {near}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Errors of the types ValueError, OSError and ImportError are printed, not raised. `argparse` ends the program by
    SystemExit.

    Args:
        argv: Command-line arguments; by default those of the process.

    Returns:
        The exit code: 0 for success; 1 if a part failed, such as one of many images, or a fault was found, such as a
        loss that is not finite; 2 for invalid arguments or input, a missing package, or results that can't be written;
        130 for an interrupt, 141 for a closed pipe. The last two are the shells' convention, 128 plus the signal.
    """
    try:
        with _warnings_as_lines():
            code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout again at exit, which would raise the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt as interrupt:
        complain("; ".join(["interrupted", *map(str, interrupt.args)]))
        return 130


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Within a with-statement, print warnings like the command's other lines, without their place in the code."""
    own = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"ssd-zoo: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = own


def _run(argv: Sequence[str]) -> int:
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    parser, subparsers = declare([] if asked is None else [asked])
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    if asked is not None and asked not in COMMANDS:
        parser.error(f"There is no command {asked!r}. {propose(asked, [*COMMANDS])}")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        subparsers[args.command].error(
            f"There is no argument {unknown[0]}.{_near(unknown[0], subparsers[args.command])}"
        )
    args.command = shlex.join(["ssd-zoo", *argv])
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may contain characters that the terminal can't encode.
        sys.stdout.reconfigure(errors="backslashreplace")
    code: int = args.run(args)
    return code


def _near(argument: str, parser: argparse.ArgumentParser) -> str:
    """Return a sentence that proposes options similar to an unknown one; empty if there are none."""
    asked = argument.partition("=")[0]
    known = [name for action in parser._actions for name in action.option_strings or [str(action.metavar)]]
    for name, others in _NAMES_ELSEWHERE.items():
        if asked.startswith("-") and asked.lstrip("-").replace("_", "-") in others.split():
            return f" Did you mean {name}?" if name in known else ""
    return f" {propose(asked, [name for name in known if name.startswith('--')])}" if asked.startswith("--") else ""


def declare(asked: Collection[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Declare all subcommands, and the arguments of some.

    Args:
        asked: Names of the subcommands that get arguments, for which their modules are imported.

    Returns:
        The parser, and those of the subcommands by name.
    """
    parser = _Parser(
        prog="ssd-zoo",
        allow_abbrev=False,
        description=(ssd_zoo.__doc__ or "").splitlines()[0],
        epilog="ssd-zoo COMMAND --help shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"ssd_zoo {ssd_zoo.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, (module, summary) in COMMANDS.items():
        parsers[name] = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name in asked:
            command = cast(Command, import_module(f"ssd_zoo.cli.{module}"))
            command.add_arguments(parsers[name])
            parsers[name].set_defaults(run=command.run)
            examples = "\n".join(f"  {example}" for example in command.EXAMPLES)
            parsers[name].epilog = f"examples:\n{examples}\n\nmore: page {command.PAGE!r} of the documentation"
    return parser, parsers

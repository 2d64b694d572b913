"""Print a script that completes the command in a shell.

The script is static, so completing starts no Python. It is made by the package shtab.
"""

import argparse

from ssd_zoo.cli.main import COMMANDS, declare

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "detect"
"""Page of the documentation."""
EXAMPLES = ("ssd-zoo completion bash > ~/.local/share/bash-completion/completions/ssd-zoo",)
"""Commands for the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the completion script of a shell: bash, zsh or tcsh.

    Returns:
        The exit code, 0.

    Raises:
        ImportError: If shtab is missing.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError('Completion needs the package shtab: pip install "ssd_zoo[completion]".') from error
    parser, parsers = declare(COMMANDS)
    for subparser in parsers.values():
        for action in subparser._actions:
            # Paths, and what may be one.
            if action.metavar in ("DATA", "DIR", "FILE", "MODEL", "NAME", "RUN", "SOURCE") and not action.choices:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0

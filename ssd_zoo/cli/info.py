"""Show versions, devices and optional packages.

It also tells whether torchvision's operators load, which detectors need, and how to mend it.
"""

import argparse
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import torch
import torchvision

import ssd_zoo
from ssd_zoo.cli._colours import painted
from ssd_zoo.weights.files import home

__all__ = ["EXAMPLES", "PAGE", "add_arguments", "run"]

PAGE = "detect"
"""Page of the documentation."""
EXAMPLES = ("ssd-zoo info",)
"""Commands for the help."""

_NEEDED = ("torch", "torchvision", "timm", "safetensors", "huggingface-hub")
_OF_DEVELOPERS = ("clients", "dev", "docs", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments: none."""


def run(_: argparse.Namespace) -> int:
    """Print the facts.

    Returns:
        The exit code: 0, or 1 if torchvision's operators fail on a device.
    """
    print(painted(f"ssd_zoo {ssd_zoo.__version__}", "bold", sys.stdout), end=", ")
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name) or 'missing'}" for name in _NEEDED))
    print(f"cache of weights: {home()}")
    failures = 0
    for name, what in _devices():
        failure = operators_fail(torch.device(name))
        failures += bool(failure)
        told = painted(failure or "work", "red" if failure else "green", sys.stdout)
        print(f"device {name}: {what}; torchvision's operators {told}")
    print(painted("optional packages:", "bold", sys.stdout))
    for extra, packages in _extras().items():
        have = [f"{package} {found}" for package in packages if (found := _version(package))]
        lack = [package for package in packages if not _version(package)]
        way_out = f'{", ".join(lack)} missing: pip install "ssd_zoo[{extra}]"' if lack else ""
        print(f"  {extra:10} {'; '.join(filter(None, [', '.join(have), way_out]))}")
    return 1 if failures else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[tuple[str, str]]:
    yield "cpu", f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        yield f"cuda:{i}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "mps", "Apple"


def operators_fail(device: torch.device) -> str:
    """Return why torchvision's operators fail on a device; empty if they work.

    The text says how to mend it, too.
    """
    try:
        boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]], device=device)
        if torchvision.ops.nms(boxes, boxes[:, 2], 0.5).tolist() == [0]:
            return ""
        reason = "give wrong results"
    except (RuntimeError, NotImplementedError) as error:
        reason = f"fail ({str(error).splitlines()[0]})"
    return (
        f"{reason}. torch and torchvision must be a pair of the same build: "
        "pip install --force-reinstall torch torchvision"
    )


def _extras() -> dict[str, list[str]]:
    """Return the packages that each of ssd_zoo's extras installs, without those for developers."""
    try:
        needed = requires("ssd_zoo") or []
    except PackageNotFoundError:
        return {}
    extras: dict[str, list[str]] = {}
    for line in needed:
        package, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"](\w+)", line)
        if package and extra and extra[1] not in _OF_DEVELOPERS and package[0].replace("-", "_") != "ssd_zoo":
            extras.setdefault(extra[1], []).append(package[0])
    return extras

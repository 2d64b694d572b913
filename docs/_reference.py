"""Makes the reference when the docs are built: a page a room, with the names in each file's `__all__`."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import ssd_zoo

ROOMS = {
    "models": "Builders and registry",
    "saved": "Saving, sharing and checkpoints",
    "weights": "Weights",
    "data": "Data",
    "training": "Fine-tuning and evaluation",
    "video": "Video",
    "deploy": "Deployment",
    "prediction": "Detecting in one line",
    "detector": "The detector's arithmetic",
    "layers": "Layers",
    "backbones": "Backbones",
}
INTRODUCTIONS = {
    "models": "The keywords that builders share are described once, at [`Options`][ssd_zoo.models.options.Options] and "
    "[`SSD`][ssd_zoo.detector.ssd.SSD]. Weights and builders set their own defaults.",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    pages = [f"reference/{room}.md" for room in ROOMS]
    config.nav.insert(-1, {"Reference": pages})  # The changes come last.
    return config


def on_files(files: Files, config: MkDocsConfig, **kwargs: Any) -> Files:
    for room in ROOMS:
        files.append(File.generated(config, f"reference/{room}.md", content=page(room)))
    return files


def page(room: str) -> str:
    """Gives a page that asks mkdocstrings for the public names of a room, or for its files where it names none."""
    package = importlib.import_module(f"ssd_zoo.{room}")
    if room in ("models", "weights"):  # They also hold what only builders need.
        files = [importlib.import_module(info.name) for info in _files(package)]
        entries = [_entry(file, name) for file in files for name in file.__all__ if name in ssd_zoo.__all__]
    elif hasattr(package, "__all__"):
        entries = [_entry(package, name) for name in sorted(package.__all__, key=str.casefold)]
    else:
        entries = [f"::: {info.name}" for info in _files(package)]
    return "\n".join([f"# {ROOMS[room]}", "", INTRODUCTIONS.get(room, ""), "", *entries]) + "\n"


def _files(package: ModuleType) -> list[pkgutil.ModuleInfo]:
    every = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    return [info for info in every if getattr(importlib.import_module(info.name), "__all__", None)]


def _entry(package: ModuleType, name: str) -> str:
    """Asks for a name where it is defined: a room may hold a file of the same name, as `fit` is."""
    home = getattr(getattr(package, name), "__module__", package.__name__)
    shown = f"ssd_zoo.{name}" if name in ssd_zoo.__all__ else f"{package.__name__}.{name}"
    return f"::: {home}.{name}\n    options:\n      heading: {shown}\n      toc_label: {name}\n"

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


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    pages = [f"reference/{room}.md" for room in ROOMS]
    config.nav.insert(-1, {"Reference": pages})  # The changes come last.
    return config


def on_files(files: Files, config: MkDocsConfig, **kwargs: Any) -> Files:
    for room in ROOMS:
        files.append(File.generated(config, f"reference/{room}.md", content=page(room)))
    return files


def page(room: str) -> str:
    """Gives a page that asks mkdocstrings for the public names of a room."""
    package = importlib.import_module(f"ssd_zoo.{room}")
    names = [package.__name__] if hasattr(package, "__all__") else _names_of_files(package)
    return "\n".join([f"# {ROOMS[room]}", "", *(f"::: {name}" for name in names)]) + "\n"


def _names_of_files(package: ModuleType) -> list[str]:
    names = []
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        public = getattr(importlib.import_module(info.name), "__all__", [])
        if package in (ssd_zoo.models, ssd_zoo.weights):
            # These also hold what only builders need.
            names += [f"{info.name}.{name}" for name in public if name in ssd_zoo.__all__]
        elif public:
            names.append(info.name)
    return names

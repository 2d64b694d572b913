"""torch.hub's door."""

import importlib.metadata
import re
import runpy
from pathlib import Path

import pytest
import torch

import ssd_zoo

REPOSITORY = str(Path(__file__).parents[1])


@pytest.fixture
def downloaded(monkeypatch):
    # `list` and `help` know no local source, so the repository stands where torch.hub would have put its download.
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *args, **kwargs: REPOSITORY)


def test_entry_points_are_the_registered_models(downloaded):
    assert torch.hub.list("owner/ssd_zoo") == ssd_zoo.list_models()


def test_help_shows_the_docstring(downloaded):
    assert torch.hub.help("owner/ssd_zoo", "ssd300_vgg16d") == ssd_zoo.ssd300_vgg16d.__doc__


def test_load_builds_a_model():
    model = torch.hub.load(REPOSITORY, "ssd300_vgg16d", source="local", weights=None, weights_backbone=None)
    assert len(model.default_boxes) == 8732


def test_dependencies_are_those_of_the_package():
    requirements = [text for text in importlib.metadata.requires("ssd_zoo") if "extra ==" not in text]
    names = [re.match(r"[\w-]+", text)[0].replace("-", "_") for text in requirements]
    assert sorted(runpy.run_path(f"{REPOSITORY}/hubconf.py")["dependencies"]) == sorted(names)

"""The examples in docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import ssd_zoo

MODULES = [info.name for info in pkgutil.walk_packages(ssd_zoo.__path__, "ssd_zoo.") if "__main__" not in info.name]


@pytest.mark.parametrize("name", ["ssd_zoo", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    namespace = {"torch": torch, "ssd_zoo": ssd_zoo, **vars(module)}
    results = doctest.testmod(module, globs=namespace, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    counts = [len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(counts) > 0

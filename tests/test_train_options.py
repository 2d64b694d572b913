"""The options of `ssd-zoo train` are `fit`'s keywords, and what a run keeps are those that decide its result."""

import argparse
import inspect

import pytest

from ssd_zoo.cli import train
from ssd_zoo.training import fit
from ssd_zoo.training.fit import _OF_THE_CALL

# What the command makes of its own options, and the steps of a schedule, which it does not offer.
_NOT_OFFERED = {"model", "dataset", "validation", "milestones", "choices", "command"}


@pytest.fixture(scope="module")
def options():
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return {action.dest: action for action in parser._actions}


def test_every_keyword_of_fit_is_an_option_with_the_same_default(options):
    for name, parameter in inspect.signature(fit).parameters.items():
        if name not in _NOT_OFFERED | {"output"}:
            assert options[name].default in (parameter.default, argparse.SUPPRESS), name
    assert not _NOT_OFFERED & (options.keys() - {"model"})


def test_what_a_run_does_not_keep_are_keywords_of_fit():
    assert inspect.signature(fit).parameters.keys() >= _OF_THE_CALL


@pytest.mark.parametrize(("option", "value"), [("--ema-decay", 0.0), ("--clip-norm", None), ("--weight-decay", 0.0)])
def test_zero_disables_what_none_disables(option, value):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(["data", "--output", "run", option, "0"])
    assert getattr(args, option.removeprefix("--").replace("-", "_")) == value

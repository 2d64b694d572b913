"""Mutated files are read or refused: a short run of examples/fuzz.py."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "examples" / "fuzz.py"
CHEAP = [
    "json",
    "yaml",
    "xml",
    "header",
    "tfjs",
    "tflite",
    "pb",
    "pth",
    "pickle",
    "clips",
    "mot",
    "cvat-video",
    "vid",
    "run",
    "masks",
    "lists",
    "codes",
    "journal",
]
DEAR = [
    "config",
    "tensors",
    "images",
    "folder",
    "coco",
    "csv",
    "kitti",
    "widerface",
    "cvat",
    "labelme",
    "results",
    "voc",
    "yolo",
    "description",
    "exported",
]


def fuzz(*args):
    return subprocess.run([sys.executable, FUZZ, *map(str, args)], capture_output=True, text=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize(
    ("readers", "cases"),
    [(CHEAP, 60), pytest.param([*CHEAP, *DEAR], 500, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_no_mutated_file_is_more_than_refused(readers, cases):
    done = fuzz("--readers", *readers, "--cases", cases)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 faults") == len(readers)

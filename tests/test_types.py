"""What type checkers say of users' code."""

import inspect
import subprocess
import sys
from typing import get_type_hints

import pytest
from conftest import ROOT

import ssd_zoo
from ssd_zoo.models.options import Settings

USER = """\
import ssd_zoo

model = ssd_zoo.ssd300_vgg16d(weights="COCO_V1", num_classes=3, size=(300, 500), score_thresh=0.5, progress=False)
ssd_zoo.ssd_timm("resnet18", weights_backbone=None, in_chans=1)
ssd_zoo.ssd300_vgg16d(score_tresh=0.5)  # refused
ssd_zoo.ssd300_vgg16d(score_thresh="a")  # refused
ssd_zoo.ssd300_resnet18("COCO_V1")  # refused
model.size.append(3)  # refused
"""


@pytest.mark.slow
def test_misspelt_options_are_type_errors(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    # With the repository's settings, so that what its own check keeps of torch and ssd_zoo is used.
    command = [sys.executable, "-m", "mypy", str(tmp_path / "user.py")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    refused = [int(line.split(":")[1]) for line in found.splitlines() if "user.py:" in line and "error" in line]
    assert refused == [n for n, line in enumerate(USER.splitlines(), 1) if "# refused" in line], found


def test_settings_are_the_keywords_of_ssd():
    keywords = {
        name: parameter.annotation
        for name, parameter in inspect.signature(ssd_zoo.SSD).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "in_chans"
    }
    assert get_type_hints(Settings) == keywords

"""Where the tests find pictures."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIABLE = "SSD_ZOO_TEST_DATA"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images, weights and oracles, which is not part of the repository."""
    folder = Path(os.environ.get(VARIABLE, ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"NO TEST DATA: {folder} is no folder; set {VARIABLE} to where the test data lies")
    return folder


@pytest.fixture(scope="session")
def photo() -> Path:
    """The photograph that ships with the repository: one astronaut, 512 × 512."""
    return ROOT / "examples" / "astronaut.jpg"

"""Where the tests find pictures and pages, and what they run on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# What tests expect is what a CPU computes; GPUs are for those that are named.
if "PYTEST_XDIST_WORKER" not in os.environ and not any("test_gpu" in argument for argument in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Each of pytest's processes computes on one core, and so do the commands that it runs.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
# Where the package that is tested lies: in CI where pip has put the wheel. Processes of tests import it from there.
INSTALLED = str(Path(find_spec("ssd_zoo").origin).parents[1])
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VARIABLE = "SSD_ZOO_TEST_DATA"


def run_code(code, *arguments, **options):
    """Runs code in a process of its own, which would import the clone's package if it began in the clone."""
    environment = {**os.environ, "PYTHONPATH": INSTALLED}
    settings = {"cwd": Path(__file__).parent, "env": environment, "capture_output": True, "text": True, "check": True}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], **{**settings, **options})


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, for some tests wait for others' work."""
    return (os.cpu_count() or 1) + 1


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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the documentation, as mkdocs builds it: `SSD_ZOO_SITE`, where CI has it, or built here."""
    for package in ("mkdocs", "material", "mkdocstrings", "playwright", "onnxscript"):
        pytest.importorskip(package, reason="PAGES ARE NOT LOOKED AT: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("PAGES ARE NOT LOOKED AT: there is no chromium")
    if "SSD_ZOO_SITE" in os.environ:
        return Path(os.environ["SSD_ZOO_SITE"])
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.fixture(autouse=True)
def own_accelerate() -> Iterator[None]:
    """Forgets accelerate's settings after a test; a training would go on with them, for they are the process's."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps many small computations from waiting for each other's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def cases(test_data: Path) -> Path:
    """The folder of small odd inputs, beside the real data."""
    folder = test_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"NO CASES: {folder} is no folder")
    return folder

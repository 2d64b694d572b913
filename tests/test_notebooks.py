"""The notebooks run from top to bottom without a network, and are kept without outputs."""

import json
import re
import shutil

import pytest
from conftest import INSTALLED, ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_no_outputs_are_kept(notebook):
    assert not [cell for cell in cells(notebook) if cell.get("outputs") or cell.get("execution_count")]


def test_the_page_links_all():
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(notebooks/(\w+\.ipynb)\)", page)) == [notebook.name for notebook in NOTEBOOKS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run notebooks in, beside the photos."""
    for photo in ("astronaut.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / photo, tmp_path)
    # Kernels import what the tests import.
    monkeypatch.setenv("PYTHONPATH", INSTALLED)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def run(name, folder, replaced=("", "")):
    """Runs a notebook; gives what it printed, and the number of its pictures."""
    nbformat, nbclient, _ = (
        pytest.importorskip(package, reason="NO NOTEBOOKS RUN: pip install '.[dev]'")
        for package in ("nbformat", "nbclient", "ipykernel")
    )
    notebook = nbformat.read(ROOT / "examples" / "notebooks" / f"{name}.ipynb", as_version=4)
    old, new = replaced
    assert any(old in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new) if old else cell.source
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in outputs)


def executed(test):
    # Jupyter's packages warn of each other.
    return pytest.mark.slow(pytest.mark.filterwarnings("default")(test))


@executed
def test_quickstart(folder):
    told, pictures = run("quickstart", folder)
    assert "['cup', 'dining table']" in told
    assert "bbox_regression" in told
    assert pictures == 1


@executed
def test_finetune(folder, test_data):
    (folder / "bccd").symlink_to(test_data / "bccd")
    told, pictures = run("finetune", folder, ("minutes=5", "minutes=0.1"))
    assert "AP on the validation photos: 0." in told
    assert "Platelets" in told
    assert (folder / "runs/cells/best/model.safetensors").is_file()
    assert pictures == 1


@executed
def test_video(folder):
    pytest.importorskip("av", reason="pip install 'ssd_zoo[video]'")
    told, pictures = run("video", folder)
    first, last = map(int, re.search(r"cup: (\d+) pixels at first, (\d+) at the end", told).groups())
    assert first - last == pytest.approx(96, abs=15)
    assert "tensor([25])" in told
    assert pictures == 1


@executed
def test_checkpoint_to_onnx(folder, test_data):
    pytest.importorskip("onnxscript", reason="pip install 'ssd_zoo[deploy]'")
    shutil.copy(test_data / "weights/ultraface/version-RFB-320.pth", folder)
    told, pictures = run("checkpoint_to_onnx", folder)
    assert "MIT ['background', 'face']" in told.replace("BACKGROUND", "background")
    assert "0 lost, 0 gained" in told
    assert "1 face:" in told
    assert pictures == 1

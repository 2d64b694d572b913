"""The examples run, on pictures that take a second."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from labelled import colourful, make_coco, make_yolo

import ssd_zoo
from ssd_zoo.deploy.export import OLDEST_TORCH

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    make_yolo(tmp_path / "data", "train", colourful(20)[:16])
    make_yolo(tmp_path / "data", "test", colourful(20)[16:])
    return tmp_path


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), ("--torchvision", "--model", "ssdlite320_mobilenet_v3_large", "--augmentation", "none")]
)
def test_finetune(monkeypatch, capsys, folder, options):
    # A schedule of one step warms up to nothing, so two epochs.
    run(monkeypatch, "finetune.py", folder / "data", "--epochs", 2, *options)
    told = capsys.readouterr().out
    assert "epoch 2/2  loss" in told
    assert "dog  AP" in told


@pytest.mark.slow
def test_ten_images(monkeypatch, folder):
    arguments = [folder / "data", "--output", folder / "ten", "--numbers", 4, "--steps", 1, "--batch-size", 4]
    run(monkeypatch, "ten_images.py", *arguments)
    results = json.loads((folder / "ten/ten_images.json").read_text())
    assert list(results) == ["pretrained 4", "pretrained 16", "scratch 4", "scratch 16"]
    assert (folder / "ten/ten_images.png").stat().st_size > 1000


def test_fit_default_boxes(monkeypatch, capsys, folder):
    run(monkeypatch, "fit_default_boxes.py", folder / "data", "--split", "train", "--output", folder / "boxes.json")
    assert capsys.readouterr().out.startswith("16 objects; no default box reaches IoU 0.5 for ")
    boxes = ssd_zoo.DefaultBoxGenerator(**json.loads((folder / "boxes.json").read_text()))
    assert boxes.boxes_per_location == [3, 6, 6, 6, 6, 6]


def test_tiles(monkeypatch, capsys, tmp_path):
    make_coco(tmp_path, pictures=colourful(16))
    run(monkeypatch, "tiles.py", tmp_path / "instances_train.json", "--cell", 64, "--tiles", 128)
    lines = capsys.readouterr().out.splitlines()
    # The pictures are pasted at their own size: 256 × 256, in which 1 % are 655 square pixels.
    assert lines[0].startswith("1 pictures of 256 × 256 pixels, ")
    assert [line.split(" AP")[0].strip() for line in lines[1:]] == ["whole pictures", "tiles of 128 × 128"]


# What compilers and old versions warn of is not the benchmark's.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_benchmarks(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    monkeypatch.setattr("speed.POSTPROCESSING", [(2, 1917, 20), (91, 3234, 300)])
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text("<!-- results: written by examples/benchmarks/run.py -->\n<!-- end of results -->\n")
    small = ["--seconds", 0, "--threads", 1, "--no-compile", "--models", "ssdlite320_mobilenet_v3_large"]
    small += ["--parts", "training", "postprocessing", "fixed"]
    run(monkeypatch, "benchmarks/run.py", *small, "--json", results, "--docs", page)
    assert len(json.loads(results.read_text())["postprocessing"]) == 4
    assert "loss and matching" in page.read_text()
    assert "NMS by the operator, ms" in page.read_text()


def formats_of(page):
    """Rows of the table that formats.py writes: a builder and its figures each. Cells without a figure are left out."""
    _, _, table = page.read_text(encoding="utf-8").partition("<!-- builders: ")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `ssd")]
    return {name.strip("`"): [float(figure) for figure in figures if figure[:1].isdigit()] for name, *figures in rows}


@pytest.mark.text
def test_table_of_formats_has_every_builder():
    rows = formats_of(EXAMPLES.parent / "docs/deploy.md")
    assert list(rows) == sorted(ssd_zoo.list_models())
    assert all(len(figures) >= 3 for figures in rows.values())
    assert all(0 <= figure < 1e-4 for figures in rows.values() for figure in figures)


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=f"exporting needs torch {OLDEST_TORCH}")
@pytest.mark.filterwarnings("ignore")
def test_table_of_formats(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    page = shutil.copy(EXAMPLES.parent / "docs/deploy.md", tmp_path)
    names = ["ssdlite320_mobilenet_v3_large_3d", "ssdlite320_ultraface_slim"]
    asked = ["--formats", "pt2", "--models", ",".join(names), "--json", tmp_path / "results.json", "--docs", page]
    run(monkeypatch, "benchmarks/formats.py", *asked)
    rows = formats_of(Path(page))
    assert list(rows) == names
    assert all(0 <= figure < 1e-4 for [figure] in rows.values())

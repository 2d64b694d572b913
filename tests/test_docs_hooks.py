"""What is made when the docs are built: figures, tables, the plot of models."""

import logging
import re
import runpy
from pathlib import Path

import pytest

import ssd_zoo
from ssd_zoo.models.table import latencies

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def tables():
    return runpy.run_path(str(DOCS / "_tables.py"))


def table(*columns):
    heads, cells = ("".join(f"<{kind}>{text}</{kind}>" for text in columns) for kind in ("th", "td"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"


def test_wide_tables_become_cards_whose_cells_know_their_columns(tables):
    html = tables["on_page_content"](table("<b>A</b>", "B", "C", ""))
    assert html.startswith('<table class="cards">')
    assert re.findall(r"<td[^>]*>", html) == [
        '<td data-label="A">',
        '<td data-label="B">',
        '<td data-label="C">',
        "<td>",
    ]
    assert 'class="cards"' not in tables["on_page_content"](table("A", "B", "C"))


def test_long_names_may_break_but_markup_and_units_may_not(tables):
    html = tables["on_page_content"](table("<code>ssd_zoo</code>", '<a href="a_b.md">x</a>', "300 × 300, 9.4 MB"))
    assert "<code>ssd_<wbr>zoo</code>" in html
    assert 'href="a_b.md"' in html
    assert "300\u00a0×\u00a0300, 9.4\u00a0MB" in html
    assert tables["on_page_content"]("<p><code>--model NAME</code></p>").count('class="option">--model</span>') == 1


def test_times_are_of_weights_that_exist(tables):
    machine, times = latencies()
    assert machine.startswith("one thread of ")
    shown = tables["on_page_markdown"]("<!-- table of latency -->")
    for builder, weights in times:
        assert weights in ssd_zoo.get_model_weights(builder).__members__
        assert f"| `{builder}` | `{weights}` |" in shown


@pytest.mark.slow
def test_figures_show_what_the_page_says():
    for package in ("matplotlib", "mkdocs", "trackers"):
        pytest.importorskip(package)
    figures = runpy.run_path(str(DOCS / "_figures.py"))
    page = (DOCS / "how.md").read_text(encoding="utf-8")
    facts = figures["lesson"]()
    matched, negatives = int((facts["matched"] >= 0).sum()), len(facts["negatives"])
    assert f"the {matched} matched" in page
    assert f"the {negatives} hard negatives" in page
    assert f"over these {matched + negatives} boxes" in page
    drawn = {f"figures/{name}.webp" for name, draw in figures["FIGURES"].items() if draw()}
    pages = "".join(file.read_text(encoding="utf-8") for file in DOCS.glob("*.md"))
    assert drawn == set(re.findall(r"\((figures/\w+\.webp)\)", pages))
    assert figures["latency"]().axes[0].collections
    assert figures["speed"]().axes[0].patches


def test_the_docs_are_built_from_any_folder(tmp_path, monkeypatch):
    config = pytest.importorskip("mkdocs.config")
    monkeypatch.chdir(tmp_path)
    loaded = config.load_config(str(DOCS.parent / "mkdocs.yml"))
    # The page of changes includes a file of this folder.
    assert Path(loaded.mdx_configs["pymdownx.snippets"]["base_path"]) == DOCS.parent
    # With `strict`, links to headings that are not there fail the build.
    assert loaded.strict
    assert set(loaded.validation.links.values()) == {logging.WARNING}

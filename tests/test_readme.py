"""What README and docs show is true: code runs, commands work, the table of models is the registry's."""

import json
import re
import runpy
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import ssd_zoo
from ssd_zoo.cli.main import COMMANDS, main
from ssd_zoo.models.table import result_columns

ROOT = Path(__file__).parents[1]
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
README = PAGES["README.md"]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """Gives a page's blocks of code in a language, but for those that say they need something, and whole files."""
    skipped = re.compile(r'needs a (camera|clone|data set|download)|\.py"')
    return [code for kind, title, code in BLOCK.findall(text) if kind == language and not skipped.search(title)]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The reader's folder: not the clone, but a folder that is empty up to the two photos of the page Start."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo in (ROOT / "examples").glob("*.jpg"):
        shutil.copy(photo, photos)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks(text, "python")])
def test_code_runs_and_prints_what_it_says(page, folder, capsys):
    if page == "README.md":  # whose reader has a clone
        (folder / "photos").rename("examples")
        shutil.copy(ROOT / "hubconf.py", folder)
    code = "\n".join(blocks(PAGES[page], "python"))
    exec(compile(code, page, "exec"), {})
    expected = re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == expected


def commands(page: str) -> list[list[str]]:
    """Gives the arguments of all `ssd-zoo` commands that a page shows, in blocks, in tables and in the text."""
    inline = re.findall(r"`(ssd-zoo [^`]+)`", PAGES[page])
    shown = [line.split("  # ")[0] for block in blocks(PAGES[page], "sh") for line in block.splitlines()]
    shown = [line for line in shown + inline if line.startswith("ssd-zoo ") and "…" not in line]
    return [shlex.split(re.sub(r" [<>] .*", "", line))[1:] for line in shown]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_are_right(page, monkeypatch, capsys):
    called = []
    for command, (module, *_) in COMMANDS.items():
        monkeypatch.setattr(
            import_module(f"ssd_zoo.cli.{module}"), "run", lambda args, command=command: called.append(command) or 0
        )
    # A single name stands for the command in the text.
    whole = [arguments for arguments in commands(page) if arguments[1:] or arguments[0] in ("list", "info")]
    for arguments in whole:
        main(arguments)
    assert called == [arguments[0] for arguments in whole]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/index.md", "docs/data.md", "docs/finetune.md"])
def test_commands_run_in_the_readers_folder(page, folder):
    """Trainings are cut short; that the command runs as a process is tested in test_cli.py."""
    pytest.importorskip("accelerate")
    for split in ("train", "val", "test"):
        for name in ("images", "labels"):
            (folder / "cells" / name / split).mkdir(parents=True)
        shutil.copy("photos/astronaut.jpg", f"cells/images/{split}")
        Path(f"cells/labels/{split}/astronaut.txt").write_text("0 0.373 0.527 0.734 0.926\n")
    Path("cells/data.yaml").write_text("names: [person]\n")
    first = [line.split() for line in blocks(PAGES[page], "sh")[0].splitlines()]
    shown = commands(page) if page == "docs/index.md" else [line[1:] for line in first if line[0] == "ssd-zoo"]
    assert shown
    for arguments in shown:
        short = ["--epochs", "1", "--size", "96"] if arguments[0] == "train" else []
        assert main([*arguments, *short]) == 0, arguments


@pytest.mark.parametrize("page", PAGES)
def test_tables_hold_no_pipe_in_code(page):
    # MkDocs shows the backslash that GitHub needs before it.
    assert not re.findall(r"`[^`\n]*\\\|[^`\n]*`", PAGES[page])


def test_readme_commands_are_those_that_ci_runs():
    detect, test = (line for block in blocks(README, "sh") for line in block.splitlines())
    assert detect.startswith("python3 -m venv .venv && ")
    assert test.startswith("python3 -m venv .venv && ")
    assert test.endswith(".venv/bin/pytest")
    # Taken from README, not repeated.
    assert r"sed -n '/^```sh$/,/^```$/{/^```/!p}' README.md" in (ROOT / ".ci/run").read_text()


def test_readme_shows_what_detect_prints(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    [command] = re.findall(r"ssd-zoo (detect .*) --output", README)
    assert main([*shlex.split(command), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out in blocks(README, "text")


def test_detect_page_shows_what_detect_writes(folder, capsys):
    [shown] = blocks(PAGES["docs/detect.md"], "json")
    main(["detect", "photos/astronaut.jpg", "--json", "found.json"])
    assert capsys.readouterr().out in blocks(PAGES["docs/detect.md"], "text")
    [expected], [row] = json.loads(shown), json.loads((folder / "found.json").read_text())
    assert set(re.findall(r'"score": ([\d.]+)', PAGES["docs/detect.md"])) == {str(row["score"])}
    for key in ("bbox", "score"):
        assert row.pop(key) == pytest.approx(expected.pop(key), abs=0.02)
    assert row == expected


def test_description_on_pypi_needs_no_clone():
    """Such as PyPI shows README: `twine check --strict` in CI renders it."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = README
    for one in settings["fancy-pypi-readme"]["substitutions"]:
        assert re.search(one["pattern"], text), one
        text = re.sub(one["pattern"], one["replacement"], text)
    assert not re.findall(r"\]\((?!https:)", text)
    assert "examples/" not in text
    assert blocks(text, "sh") == ["pip install ssd_zoo\nssd-zoo detect photos --output out\n"]
    assert text.index("person  0.62") < text.index("## In Python") < text.index("## Models") < text.index("## Licence")


def test_start_shows_what_detect_prints(folder, capsys):
    assert main(["detect", "photos", "--output", "found"]) == 0
    assert capsys.readouterr().out in blocks(PAGES["docs/index.md"], "text")


def test_detect_page_knows_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["detect", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGES["docs/detect.md"])) == options


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("train", "docs/finetune.md"),
        ("evaluate", "docs/evaluate.md"),
        ("data", "docs/data.md"),
        ("export", "docs/deploy.md"),
        ("benchmark", "docs/benchmarks.md"),
    ],
)
def test_tables_know_every_option(command, page, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| `--")]
    assert set(re.findall(r"`(--[a-z][a-z-]+)", "\n".join(rows))) == options


def test_reference_lists_every_public_name():
    """Each where it is defined, under the name that is imported: a whole package would hide its function `fit`."""
    pytest.importorskip("mkdocs")
    reference = runpy.run_path(str(ROOT / "docs" / "_reference.py"))
    text = "".join(reference["page"](room) for room in reference["ROOMS"])
    names = dict(re.findall(r"^::: ([\w.]+)\n    options:\n      heading: ([\w.]+)$", text, re.MULTILINE))
    files = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)) - set(names)
    for room in reference["ROOMS"]:
        for name in getattr(import_module(f"ssd_zoo.{room}"), "__all__", []):
            assert {f"ssd_zoo.{name}", f"ssd_zoo.{room}.{name}"} & set(names.values()), f"{room}.{name}"
    for name in set(ssd_zoo.__all__) - {"data"}:
        assert f"ssd_zoo.{name}" in names.values() or getattr(ssd_zoo, name).__module__ in files, name
    assert not [file for file in files if hasattr(import_module(file), "__path__")]


def test_table_of_models_is_the_registry():
    rows = "\n".join(row for name in ssd_zoo.list_models() for row in model_rows(name))
    assert rows in README, f"README's table of models should read\n{rows}"


def test_page_on_video_lists_the_models_for_clips():
    rows = re.findall(r"^\| `(\w+_3d)` \|", PAGES["docs/temporal.md"], re.MULTILINE)
    assert rows == [name for name in ssd_zoo.list_models() if name.endswith("_3d")]


def model_rows(name: str) -> list[str]:
    if name.endswith("_3d"):
        return []  # They stand on the page about video.
    rows = []
    for entry in ssd_zoo.get_model_weights(name):
        start = _start(name, **{key: value for key, value in entry.settings.items() if key == "size"})[0]
        shipped = ", ships" if entry.url.startswith("package:") else ""
        results = " | ".join(result_columns(entry.meta["metrics"]))
        row = f"{start} `{entry.name}`{shipped} | {entry.meta['num_params'] / 1e6:.1f} M | {results} |"
        rows.append(re.sub(r"\| +(?=\|)", "| ", row))
    start, num_params = _start(name)
    return rows or [f"{start} none | {num_params / 1e6:.1f} M | | | |"]


def _start(name: str, **size: Any) -> tuple[str, int]:
    with torch.device("meta"):
        model = ssd_zoo.get_model(name, weights=None, weights_backbone=None, **size)
    height, width = model.size
    num_params = sum(parameter.numel() for parameter in model.parameters())
    return f"| `{name}` | {height} × {width} | {len(model.default_boxes)} |", num_params

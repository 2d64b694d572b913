"""What README and docs show is true: code runs, commands work, the table of models is the registry's."""

import argparse
import functools
import io
import json
import re
import runpy
import shlex
import shutil
import sys
import warnings
import zipfile
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from labelled import colourful, make_coco, make_yolo
from oracles import load_oracle
from test_train_clips import write_clips

import ssd_zoo
import ssd_zoo.training
from ssd_zoo.cli.main import COMMANDS, main
from ssd_zoo.data import VideoWriter, read_image
from ssd_zoo.models.table import result_columns

ROOT = Path(__file__).parents[1]
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
README = PAGES["README.md"]
BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What marks say that a sample needs, and how the sample shows it.
NEEDED = {
    "download": "COCO_V1|owner/",
    "S3": "s3://",
    "hours": "examples/(benchmarks|video)/",
    "Docker": "docker run",
    "TensorRT": "trtexec",
    "Jupyter": "jupyter lab",
    "Android": "Module.load",
    "Xcode": "MLMultiArray",
}


def blocks(text: str, language: str) -> list[str]:
    """Gives a page's blocks of code in a language, but for those that are marked as not run, and whole files."""
    found = BLOCK.findall(text)
    return [code for needed, kind, title, code in found if kind == language and not needed and ".py" not in title]


@pytest.mark.text
@pytest.mark.parametrize("page", PAGES)
def test_marks_are_true_and_not_shown(page):
    found = BLOCK.findall(PAGES[page])
    assert all(re.search(NEEDED[needed], code) for needed, _, _, code in found if needed)
    assert len([needed for needed, *_ in found if needed]) == PAGES[page].count("<!-- not run")
    assert not [title for _, _, title, _ in found if "needs" in title]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The reader's folder: not the clone, but a folder that is empty up to the two photos of the page Start."""
    lay_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_photos(folder):
    (folder / "photos").mkdir()
    for photo in (ROOT / "examples").glob("*.jpg"):
        shutil.copy(photo, folder / "photos")


def lay_cells(folder):
    """The data set that the pages call `cells`, of a photo a split."""
    for split in ("train", "val", "test"):
        for name in ("images", "labels"):
            (folder / "cells" / name / split).mkdir(parents=True)
        shutil.copy(folder / "photos/astronaut.jpg", folder / f"cells/images/{split}")
        (folder / f"cells/labels/{split}/astronaut.txt").write_text("0 0.373 0.527 0.734 0.926\n")
    (folder / "cells/data.yaml").write_text("names: [person]\n")


def without_weights(builder):
    """Builds without pretrained weights, which would be downloaded, after a look whether there are such."""

    def build(backbone, **options):
        if options.get("weights_backbone", "") is None:
            return builder(backbone, **options)
        assert timm.list_pretrained(f"{backbone}.{options.get('weights_backbone', '')}*")
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no layers are pretrained
            return builder(backbone, **{**options, "weights_backbone": None})

    return build


@pytest.fixture
def laid_out(folder, request, monkeypatch):
    """Lays out what the reader of a page has beside the photos; trainings are cut short, and nothing is downloaded."""

    def lay_out(page):
        if page == "README.md":  # whose reader has a clone
            (folder / "photos").rename("examples")
            shutil.copy(ROOT / "hubconf.py", folder)
        elif page == "docs/python.md":
            (folder / "path/of/ssd_zoo").mkdir(parents=True)
            shutil.copy(ROOT / "hubconf.py", folder / "path/of/ssd_zoo")
        elif page == "docs/timm.md":
            for name in ("ssd_timm", "ssdlite_timm"):
                monkeypatch.setattr(ssd_zoo, name, without_weights(getattr(ssd_zoo, name)))
        elif page == "docs/finetune.md":
            pytest.importorskip("accelerate")
            lay_cells(folder)
            monkeypatch.setattr(ssd_zoo.training, "fit", functools.partial(ssd_zoo.training.fit, epochs=1))
        elif page == "docs/checkpoints.md":
            data = request.getfixturevalue("test_data")
            state = load_oracle(data, "lufficc_vgg_ssd300_voc").state
            torch.save({"model": state, "iteration": 120000}, "vgg_ssd300_voc0712.pth")
            torch.save({"state_dict": {"weight": torch.zeros(1)}, "trainer": Path()}, "whole.pth")
            (folder / "tfjs_ssdlite_mobilenet_v2_coco").symlink_to(data / "weights/tfjs_ssdlite_mobilenet_v2_coco")

    return lay_out


SLOW = ("docs/checkpoints.md", "docs/finetune.md", "docs/timm.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW))
        for page, text in PAGES.items()
        if blocks(text, "python")
    ],
)
def test_code_runs_and_prints_what_it_says(page, laid_out, capsys):
    laid_out(page)
    code = "\n".join(blocks(PAGES[page], "python"))
    exec(compile(code, page, "exec"), {})
    expected = re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == expected


def shell_lines(page: str, run: bool = True) -> list[str]:
    """Gives the commands in the blocks of a page: those that are not marked, or all."""
    found = [code for needed, kind, _, code in BLOCK.findall(PAGES[page]) if kind == "sh" and not (run and needed)]
    return [line.split("  # ")[0] for line in "".join(found).replace("\\\n", "").splitlines()]


def commands(page: str) -> list[list[str]]:
    """Gives the arguments of all `ssd-zoo` commands that a page shows, in blocks, in tables and in the text."""
    shown = shell_lines(page) + re.findall(r"`(ssd-zoo [^`]+)`", PAGES[page])
    shown = [line for line in shown if line.startswith("ssd-zoo ") and "…" not in line]
    return [shlex.split(re.sub(r" [<>] .*", "", line))[1:] for line in shown]


TESTS = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py")}
# Samples that are not `python`, and who takes them from the page.
TAKEN = {
    ("docs/browser.md", "js"): "test_browser.py",
    ("docs/cluster.md", "py"): "test_cluster.py",
    ("docs/deploy.md", "js"): "test_browser.py",
    ("docs/deploy.md", "py"): "test_export.py",
    ("docs/finetune.md", "py"): "test_clients.py",
    ("docs/phone.md", "kotlin"): "test_phone.py",
    ("docs/phone.md", "py"): "test_phone.py",
    ("docs/plugins.md", "toml"): "test_plugins.py",
    ("docs/python.md", "py"): "test_clients.py",
    ("docs/raw_output.md", "cpp"): "test_phone.py",
    ("docs/raw_output.md", "py"): "test_export.py",
    ("docs/video.md", "py"): "test_videos.py",
}


@pytest.mark.text
def test_every_sample_is_run_by_a_test_or_says_why_not():
    """Python is by the test above."""
    samples = {(page, kind) for page in PAGES for needed, kind, *_ in BLOCK.findall(PAGES[page]) if not needed}
    assert {sample for sample in samples if sample[1] not in ("sh", "python", "text", "json")} == TAKEN.keys()
    for (page, _), test in TAKEN.items():
        assert re.search(rf'\b{Path(page).stem}(\.md)?"', TESTS[test]), f"{test} reads no {page}"


@pytest.mark.text
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(PAGES[page], "sh") and page != "README.md"])
def test_every_command_is_run_by_a_test_or_says_why_not(page):
    """`ssd-zoo` is by the test below, and README's commands are by CI."""
    for line in shell_lines(page):
        program, script, *_ = shlex.split(line)
        assert program in ("ssd-zoo", "pip", "python", "curl"), line
        if program == "python":
            assert [test for test, code in TESTS.items() if f'{Path(script).name}"' in code], line


def test_extras_exist():
    named = ",".join(re.findall(r"ssd_zoo\[([\w,]+)", "".join(PAGES.values())))
    assert set(named.split(",")) <= set(metadata("ssd_zoo").get_all("Provides-Extra"))


EXAMPLES = sorted({line for page in PAGES for line in shell_lines(page, run=False) if line.startswith("python ")})


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_take_the_arguments_that_pages_give_them(line, monkeypatch):
    class ParsedError(Exception):
        pass

    def parse(parser, *arguments):
        parsed(parser, *arguments)
        raise ParsedError

    _, script, *arguments = shlex.split(line)
    parsed = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend((ROOT / script).parent)
    try:
        with pytest.raises(ParsedError):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except ModuleNotFoundError as error:
        pytest.skip(f"{script} NEEDS MORE: {error}")


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


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The files that commands of the pages name, which tests copy."""
    pytest.importorskip("av", reason='pip install "ssd_zoo[video]"')
    folder = tmp_path_factory.mktemp("everything")
    lay_photos(folder)
    lay_cells(folder)
    best = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", categories=["background", "person"])
    ssd_zoo.save_pretrained(best, folder / "trained")
    ssd_zoo.save_pretrained(ssd_zoo.ssdlite320_ultraface_slim(num_classes=3, size=64), folder / "small")
    for name, split, number in (
        ("boards", "train", 4),
        ("boards", "test", 2),
        ("coco128", "train", 4),
        ("labelled", "", 60),
    ):
        make_yolo(folder / name, split, colourful(number))
    (folder / "labelled/data.yaml").unlink()  # as labelImg leaves it
    (folder / "labelled/classes.txt").write_text("cat\ndog\n")
    make_coco(folder, "").rename(folder / "instances.json")
    (folder / "results.json").write_text('[{"image_id": 7, "category_id": 3, "bbox": [8, 6, 32, 24], "score": 0.9}]')
    write_clips(folder / "birds")
    shutil.copytree(folder / "cells", folder / "faces")
    (folder / "faces/data.yaml").write_text("names: [face]\n")
    for copy in ("holiday/a.jpg", "frames/1.jpg", "frames/2.jpg"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "photos/astronaut.jpg", folder / copy)
    with VideoWriter(folder / "street.mp4", fps=5) as writer:
        for _ in range(3):
            writer.write(read_image(folder / "photos/astronaut.jpg"))
    return folder


# What commands need that tests do not have: a camera, a download.
ELSEWHERE = re.compile(r"rtsp:|detect 0|--model (ssd300_vgg16d|fasterrcnn_|ssdlite320_mobilenet_v3_large)")
FURTHER = {
    "docs/browser.md": ["onnxscript"],
    "docs/cluster.md": ["onnxscript"],
    "docs/deploy.md": ["nncf", "onnxscript", "openvino"],
    "docs/phone.md": ["coremltools", "executorch", "litert_torch"],
}
# Cuts commands short.
SHORT = {"train": ["--epochs", "1", "--size", "96"], "benchmark": ["--seconds", "0", "--formats", "onnx"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # converters warn of themselves
@pytest.mark.parametrize(
    "page",
    # The page on plugins is run beside its own package, see test_plugins.py.
    [
        page
        for page in PAGES
        if "ssd-zoo" in "".join(shell_lines(page)) and Path(page).stem not in ("README", "plugins")
    ],
)
def test_commands_run_in_the_readers_folder(page, everything, folder, request):
    """Those of the page's blocks; that commands run as processes is tested in test_cli.py."""
    for package in ("accelerate", "av", "trackers", "shtab", *FURTHER.get(page, ())):
        pytest.importorskip(package)
    shutil.copytree(everything, folder, dirs_exist_ok=True)
    if page == "docs/checkpoints.md":
        for file in ("ultraface/*RFB-320.pth", "tfjs_ssdlite_mobilenet_v2_coco", "tflite_ssd_mobilenet_v2_oid/*"):
            for there in request.getfixturevalue("test_data").glob(f"weights/{file}"):
                (folder / there.name).symlink_to(there)
    lines = [line for line in shell_lines(page) if line.startswith("ssd-zoo ") and not ELSEWHERE.search(line)]
    assert lines
    if not any("train cells" in line for line in lines):
        (folder / "runs/cells").mkdir(parents=True)
        (folder / "trained").rename(folder / "runs/cells/best")
    for line in lines:
        arguments = shlex.split(re.sub(r" [<>] .*", "", line))[1:]
        offline = ["--weights", "scratch"] if "--backbone" in arguments else []
        # Exporting takes a minute by model and format; test_export.py does it with the model of the pages.
        arguments = ["small" if arguments[0] == "export" and "_" in name else name for name in arguments]
        assert main([*arguments, *offline, *SHORT.get(arguments[0], [])]) == 0, line


@pytest.mark.text
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "examples/" in text and page != "README.md"])
def test_examples_that_pages_name_are_in_the_zip_that_they_link(page):
    assert "](examples.zip)" in PAGES[page]
    pytest.importorskip("mkdocs", reason='pip install "ssd_zoo[dev]"')
    with zipfile.ZipFile(io.BytesIO(runpy.run_path(str(ROOT / "docs/_files.py"))["zipped"]())) as archive:
        there = set(archive.namelist())
    named = set(re.findall(r"examples/[\w/]+\.(?:py|sh|jpg)", PAGES[page]))
    assert named <= there
    # What they import lies beside them.
    assert {
        f"{ROOT.joinpath(name).parent.relative_to(ROOT)}/{file.name}"
        for name in named
        for file in ROOT.joinpath(name).parent.glob("*.py")
        if file.name != "fuzz.py"
    } <= there


@pytest.mark.text
@pytest.mark.parametrize("page", PAGES)
def test_pages_begin_with_a_sentence(page):
    assert re.search(r"^# .+\n\n[A-Z]", PAGES[page], re.MULTILINE)


@pytest.mark.text
@pytest.mark.parametrize("page", PAGES)
def test_tables_hold_no_pipe_in_code(page):
    # MkDocs shows the backslash that GitHub needs before it.
    assert not re.findall(r"`[^`\n]*\\\|[^`\n]*`", PAGES[page])


@pytest.mark.text
@pytest.mark.parametrize("page", PAGES)
def test_text_is_not_taken_for_markup(page):
    """Of Markdown `__name__` is bold, and a line that begins with a year and a full stop is a list."""
    text = re.sub(r"`[^`]+`", "", BLOCK.sub("", PAGES[page]))
    assert not re.findall(r"__\w+__|^ *\d{2,}\. ", text, re.MULTILINE)


@pytest.mark.text
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
    shown, *_ = blocks(PAGES["docs/detect.md"], "json")
    main(["detect", "photos/astronaut.jpg", "--json", "found.json"])
    assert capsys.readouterr().out in blocks(PAGES["docs/detect.md"], "text")
    [expected], [row] = json.loads(shown), json.loads((folder / "found.json").read_text())
    assert set(re.findall(r'"score": ([\d.]+)', PAGES["docs/detect.md"])) == {str(row["score"])}
    for key in ("bbox", "score"):
        assert row.pop(key) == pytest.approx(expected.pop(key), abs=0.02)
    assert row == expected


def test_detect_page_shows_the_keys_of_json_lines(folder):
    (folder / "photos/broken.jpg").touch()
    assert main(["detect", "photos", "--json", "found.jsonl", "--quiet"]) == 1
    _, page, _ = blocks(PAGES["docs/detect.md"], "json")
    header, *shown = re.split(r"\n(?=\{)", page.strip())
    first, *written = map(json.loads, (folder / "found.jsonl").read_text().splitlines())
    named = re.findall(r'"(\w+)":', header)
    assert [key for key in first if key in named] == named

    def keys(row):
        return tuple(row), *map(tuple, row.get("detections", [])[:1])

    assert {keys(json.loads(row)) for row in shown} == {keys(row) for row in written}


@pytest.mark.text
def test_description_on_pypi_needs_no_clone():
    """Such as PyPI shows README: `twine check --strict` in CI renders it."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = README
    for one in settings["fancy-pypi-readme"]["substitutions"]:
        assert re.search(one["pattern"], text), one
        text = re.sub(one["pattern"], one["replacement"], text)
    assert not re.findall(r"\]\((?!https:)", text)
    assert not re.findall("examples/|clone|venv|Development|^## More", text, re.MULTILINE)
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
    pytest.importorskip("mkdocs", reason='pip install "ssd_zoo[dev]"')
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


@pytest.mark.text
def test_table_of_models_is_the_registry():
    rows = "\n".join(row for name in ssd_zoo.list_models() for row in model_rows(name))
    assert rows in README, f"README's table of models should read\n{rows}"


@pytest.mark.text
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

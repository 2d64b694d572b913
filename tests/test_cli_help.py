"""How `ssd-zoo` helps: examples, near names, facts about the machine, completion, colours."""

import io
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import run_code
from labelled import colourful, make_yolo
from PIL import Image

import ssd_zoo
from ssd_zoo.cli import benchmark, info
from ssd_zoo.cli._colours import painted
from ssd_zoo.cli.main import COMMANDS, declare, main
from ssd_zoo.deploy.export import OLDEST_TORCH

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_are_right(command, monkeypatch, capsys):
    module = import_module(f"ssd_zoo.cli.{COMMANDS[command][0]}")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert (DOCS / f"{module.PAGE}.md").is_file()
    assert f"page '{module.PAGE}' of the documentation" in text, "not a path, which a reader may not have"
    monkeypatch.setattr(module, "run", lambda args: 7)
    for example in module.EXAMPLES:
        assert f"  {example}\n" in text
        program, *arguments = shlex.split(re.sub(r" [<>] .*", "", example))
        assert (program, main(arguments)) == ("ssd-zoo", 7)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("detct photos", "There is no command 'detct'. Did you mean detect?"),
        ("photos", "There is no command 'photos'. "),
        ("detect photos --score-tresh .3", "There is no argument --score-tresh. Did you mean --score-thresh"),
        ("train cells --output x --epoch-s=3", "There is no argument --epoch-s=3. Did you mean --epochs"),
        ("train cells --output x --epoch 3", "There is no argument --epoch. Did you mean --epochs"),
        ("train cells --output x --lr .1", "There is no argument --lr. Did you mean --learning-rate?"),
        ("train --data=cells --output x", "required: DATA"),
        ("train cells --output x --data cells", "There is no argument --data. Did you mean DATA?"),
        ("train cells --output x --img_size 640", "There is no argument --img_size. Did you mean --size?"),
        ("detect photos --conf .3", "There is no argument --conf. Did you mean --score-thresh?"),
        ("evaluate cells --score .3", "There is no argument --score. Did you mean --score-thresh"),
        ("benchmark m --iou .3", "There is no argument --iou.\n"),
        ("list --sorted ap", "There is no argument --sorted. Did you mean --sort?"),
        ("list --sort sise", "argument --sort: invalid choice: 'sise'. Did you mean size?"),
        ("export a --format zip --output x", "invalid choice: 'zip'. Known are: "),
        (
            "export model more --format onnx --output x.onnx",
            "There is no argument more.\nssd-zoo export --help shows the options.",
        ),
    ],
)
def test_near_names_of_commands_and_options(command, answer, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert answer in told
    assert len(told.splitlines()) == 2


def test_info(capsys):
    assert main(["info"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"ssd_zoo {ssd_zoo.__version__}, Python {sys.version.split()[0]}, ")
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    assert re.search(r"^device cpu: \d+ threads?; torchvision's operators work$", out, re.MULTILINE)


def test_info_names_the_extra_that_brings_a_package(monkeypatch, capsys):
    needed = ["torch>=2.6", "av>=16.0; extra == 'video'", 'no-such-package>=1; extra == "track"']
    needed += ["ruff; extra == 'docs'", "ssd_zoo[evaluate]; extra == 'train'"]
    monkeypatch.setattr(info, "requires", lambda name: needed)
    main(["info"])
    rows = capsys.readouterr().out.partition("optional packages:\n")[2].splitlines()
    assert [row.split()[0] for row in rows] == ["video", "track"]
    assert rows[1].split(maxsplit=1)[1] == 'no-such-package missing: pip install "ssd_zoo[track]"'


def test_info_tells_how_to_mend_operators(monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("torchvision.ops.nms", broken)
    assert main(["info"]) == 1
    out = capsys.readouterr().out
    assert "operators fail (operator torchvision::nms does not exist). " in out
    assert "pip install --force-reinstall torch torchvision" in out
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    main(["info"])
    assert "\033[31mfail (operator" in sys.stdout.getvalue()


def test_import_tells_how_to_mend_operators(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    done = run_code("import ssd_zoo", cwd=tmp_path, check=False)
    assert re.search(r"ImportError: torchvision \S+ does not fit torch \S+: operator torchvision::nms", done.stderr)
    assert "pip install --force-reinstall torch torchvision" in done.stderr


@pytest.mark.parametrize("before", [True, False])
def test_no_garbage_is_searched_while_torchvision_is_imported(tmp_path, before):
    (tmp_path / "torchvision.py").write_text("import gc\nprint(gc.isenabled())\nraise ValueError")
    start = "import gc" if before else "import gc; gc.disable()"
    code = f"{start}\ntry:\n    import ssd_zoo\nexcept ValueError:\n    print(gc.isenabled())"
    assert run_code(code, cwd=tmp_path).stdout.split() == ["False", str(before)]


def test_completion(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for text in (*COMMANDS, "--score-thresh", "--no-fit-default-boxes", "onnx"):
        assert text in script
    # Of files and folders.
    assert "_shtab_ssd_zoo_detect_pos_0_COMPGEN=_shtab_compgen_files" in script


@pytest.fixture
def cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_yolo(tmp_path / "cells", pictures=colourful(4))
    frame = Image.new("L", (64, 64))
    frame.save(tmp_path / "street.gif", save_all=True, append_images=[Image.new("L", (64, 64), 200)])


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("accelerate", "train", "train cells --output run"),
        ("tensorboard", "train", "train cells --output run"),
        ("faster_coco_eval", "evaluate", "evaluate cells"),
        ("matplotlib", "evaluate", "evaluate cells --output plots"),
        ("onnx", "deploy", "export ssdlite300_mobilenet_v2 --format onnx --output a.onnx"),
        ("pyarrow", "parquet", "detect cells --parquet found.parquet"),
        ("av", "video", "detect street.gif"),
        ("trackers", "track", "detect street.gif --track"),
        ("shtab", "completion", "completion bash"),
    ],
)
def test_exit_code_of_a_missing_package(package, extra, command, cells, monkeypatch, capsys):
    # Its parts, too: those that were imported before are imported without it.
    for name in (package, "torchcodec", *(name for name in sys.modules if name.startswith(f"{package}."))):
        monkeypatch.setitem(sys.modules, name, None)
    if package == "onnx" and torch.__version__ < OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {OLDEST_TORCH}")
    assert main(command.split()) == 2
    assert f'pip install "ssd_zoo[{extra}]"' in capsys.readouterr().err


@pytest.mark.slow
def test_exit_code_of_a_loss_that_is_not_finite(cells, capsys):
    options = ["--size", "64", "--epochs", "3", "--learning-rate", "1e20", "--warmup-steps", "0", "--clip-norm", "0"]
    assert main(["train", "cells", "--output", "run", "--weights", "scratch", "--quiet", *options]) == 1
    assert "ssd-zoo: The loss is not finite" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert painted("no", "red", Terminal()) == "\033[31mno\033[0m"
    assert painted("no", "red", io.StringIO()) == "no"
    monkeypatch.setenv("TERM", "dumb")
    assert painted("no", "red", Terminal()) == "no"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("no", "red", Terminal()) == "no"


def test_terminals_show_what_ships_what_is_a_heading_and_what_is_fastest(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    rows = [
        {"model": "m", "format": name, "ms": ms, "ratio": ms and 20 / ms, "megabytes": None, "AP": None, "note": ""}
        for name, ms in (("eager", 20.0), ("onnx", 8.0), ("litert", None))
    ]

    def printed():
        monkeypatch.setattr(sys, "stdout", Terminal())
        main(["list", "ssdlite300_mobilenet_v2"])
        main(["info"])
        return f"{sys.stdout.getvalue()}{benchmark._table(rows, sys.stdout)}"

    coloured = printed()
    assert coloured.count("\033[32mships\033[0m") == 2
    assert f"\033[1mssd_zoo {ssd_zoo.__version__}\033[0m, Python" in coloured
    assert "\033[1moptional packages:\033[0m" in coloured
    assert re.findall(r"\033\[32m(m .*?)\033", coloured) == ["m      onnx            8.0  2.50×      –      –"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed() == re.sub(r"\033\[\d+m", "", coloured)


def test_evaluate_takes_the_model_that_detect_takes():
    _, parsers = declare(["detect", "evaluate", "train"])
    models = {name: parsers[name].get_default("model") for name in ("detect", "evaluate", "train")}
    assert len(set(models.values())) == 1


def test_timm_backbones(tmp_path, monkeypatch, capsys):
    from ssd_zoo.cli import _prepare, train

    seen = {}
    monkeypatch.setattr(train, "_choose_splits", lambda args: ({Path("cells"): "train"}, {}))
    monkeypatch.setattr(train, "obstacles", lambda *args, **options: [])
    monkeypatch.setattr(train, "open_sets", lambda args, *splits: (None, None, None, None))

    class ReachedError(ValueError):
        pass

    def build_for(args, *rest):
        with torch.device("meta"):
            seen["model"] = _prepare._build(args, ["background", "cell"], {})
        raise ReachedError

    monkeypatch.setattr(train, "build_for", build_for)
    options = ["train", "cells", "--output", str(tmp_path / "run"), "--weights", "scratch"]
    assert main([*options, "--backbone", "resnet10t"]) == 2
    assert seen["model"].recipe[0] == "ssdlite_timm"
    assert seen["model"].recipe[1]["backbone"] == "resnet10t"
    assert main([*options, "--backbone", "resnet10t", "--model", "ssd_timm"]) == 2
    assert seen["model"].recipe[0] == "ssd_timm"
    capsys.readouterr()
    assert main([*options, "--backbone", "resnet10t", "--model", "ssd300_vgg16d"]) == 2
    assert "--backbone is for --model ssdlite_timm and ssd_timm; ssd300_vgg16d has its own" in capsys.readouterr().err
    assert main([*options, "--backbone", "resnet_18"]) == 2
    assert "timm has no model 'resnet_18'. Did you mean resnet18" in capsys.readouterr().err

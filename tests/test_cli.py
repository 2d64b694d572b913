"""The command `ssd-zoo`, as its users call it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import ssd_zoo
from ssd_zoo.cli._output import picture_files
from ssd_zoo.cli.detect import _class_indices, _only
from ssd_zoo.cli.main import main
from ssd_zoo.data import read_image
from ssd_zoo.models.table import latencies
from ssd_zoo.prediction.results import category_ids
from ssd_zoo.weights.categories import COCO_CATEGORIES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def ssd_zoo_command(capsys):
    """Runs the command in this process; gives exit code, output and errors."""

    def run(*args) -> tuple[int, str, str]:
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def detect(ssd_zoo_command):
    return lambda *args: ssd_zoo_command("detect", *args)


@pytest.fixture
def folder(tmp_path, photo, monkeypatch) -> Path:
    """Three images in a folder: the photograph, its mirror image, and nothing but grey."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    shutil.copy(photo, images / "a.jpg")
    with Image.open(photo) as image:
        ImageOps.mirror(image).save(images / "sub" / "b c.png")
    Image.new("L", (40, 30), 128).save(images / "sub" / "grün.gif")
    monkeypatch.chdir(tmp_path)
    return images


def headlines(out: str) -> list[str]:
    return [line for line in out.splitlines() if not line.startswith(" ")]


def test_image(detect, photo):
    code, out, err = detect(photo)
    assert code == 0
    assert err == ""
    headline, row = out.splitlines()
    assert headline == f"{photo}: 1 object"
    name, score, width, times, height, at, x, y = row.split()
    assert (name, times, at) == ("person", "×", "at")
    # By eye she goes from x 10 to 400 and from y 5 to the bottom, 512.
    x, y = float(x.strip("(,")), float(y.strip(")"))
    assert (x, y) == pytest.approx((10, 5), abs=35)
    assert (x + float(width), y + float(height)) == pytest.approx((400, 512), abs=35)
    assert 0.5 < float(score) < 1


def test_photograph_without_persons(detect, folder):
    way = "note: nothing was found at scores above 0.5; a lower --score-thresh shows more\n"
    assert detect("images/sub/grün.gif") == (0, "images/sub/grün.gif: no objects\n", way)
    assert detect("images/sub/grün.gif", "images/a.jpg")[2] == ""
    assert detect("images/sub/grün.gif", "--quiet")[1:] == ("", "")


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        (["images"], ["images/a.jpg: 1", "images/sub/b c.png: 1", "images/sub/grün.gif: no"]),
        (["images/**/*.[jp]*"], ["images/a.jpg: 1", "images/sub/b c.png: 1"]),
        (["images/a.jpg", "./images/a.jpg", "images/*.jpg"], ["images/a.jpg: 1"]),
    ],
)
def test_sources(detect, folder, sources, found):
    code, out, err = detect(*sources)
    assert (code, err) == (0, "")
    assert [line.rsplit(" ", 1)[0] for line in headlines(out)] == found


def test_pictures(detect, folder):
    assert detect("images", "--output", "out/new")[0] == 0
    pictures = {file.relative_to("out/new").as_posix() for file in Path("out/new").rglob("*") if file.is_file()}
    assert pictures == {"a.jpg", "sub/b c.png", "sub/grün.gif.png"}
    for file in ("a.jpg", "sub/b c.png"):
        old, new = read_image(Path("images", file)).int(), read_image(Path("out/new", file)).int()
        assert new.shape == old.shape
        assert 0.002 < ((new - old).abs() > 60).any(0).float().mean() < 0.1, "an outline and a label"
    assert torch.equal(read_image("out/new/sub/grün.gif.png"), read_image("images/sub/grün.gif"))


def test_pictures_of_one_folder_lie_in_the_output_itself(detect, folder):
    assert detect("images/sub/b c.png", "images/sub/grün.gif", "--output", "out")[0] == 0
    assert sorted(os.listdir("out")) == ["b c.png", "grün.gif.png"]


def test_pictures_never_leave_the_output(detect, folder, monkeypatch):
    monkeypatch.chdir("images/sub")
    assert detect("../a.jpg", "b c.png", "--output", "out")[0] == 0
    assert sorted(file.as_posix() for file in Path("out").rglob("*.*g")) == ["out/a.jpg", "out/sub/b c.png"]


@pytest.mark.parametrize("output", ["images", "images/../images", "link"])
def test_images_are_not_overwritten(detect, folder, output):
    Path("link").symlink_to("images")
    before = (folder / "a.jpg").read_bytes()
    code, out, err = detect("images", "--output", output)
    assert (code, out) == (2, "")
    assert "would overwrite" in err
    assert "choose another name or folder" in err
    assert (folder / "a.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--json", "victim.onnx", "--model", "victim.onnx"], "victim.onnx would overwrite victim.onnx, an input"),
        (["--json", "link.json", "--model", "victim.onnx"], "--json link.json would overwrite victim.onnx, an input"),
        (["--json", "saved/config.json", "--model", "saved"], "would overwrite saved/config.json, an input"),
        (["--json", "no_name"], "--json no_name would overwrite no_name, an input"),
        (["--parquet", "keep.jsonl"], "--parquet keep.jsonl must be a file whose name ends with .parquet"),
        (["--parquet", "-"], "--parquet - must be a file"),
        (["--csv", "keep.jsonl"], "--csv keep.jsonl must be a file whose name ends with .csv"),
        (["--csv", "-"], "--csv - must be a file"),
        (["--json", "r.csv"], "name ends with .json or .jsonl. ssd-zoo detect --csv FILE writes .csv.\n"),
        (["--json", "r.parquet"], "name ends with .json or .jsonl. ssd-zoo detect --parquet FILE writes .parquet.\n"),
        (["--json", "r"], "--json r must be a file whose name ends with .json or .jsonl.\n"),
        (["--json", "r.txt"], "--json r.txt must be a file whose name ends with .json or .jsonl.\n"),
        (["--json", "r.parquet", "--parquet", "./r.parquet"], "--json and --parquet both name r.parquet"),
    ],
)
def test_results_replace_nothing_else(detect, folder, photo, args, message):
    Path("saved").mkdir()
    for name in ("victim.onnx", "saved/config.json", "keep.jsonl"):
        Path(name).write_text("precious")
    Path("link.json").symlink_to("victim.onnx")
    shutil.copy(photo, "no_name")
    code, out, err = detect("no_name", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert {Path(name).read_text() for name in ("victim.onnx", "saved/config.json", "keep.jsonl")} == {"precious"}
    assert Path("no_name").read_bytes() == photo.read_bytes()


@pytest.mark.parametrize(
    "command",
    ["evaluate --annotations a.json --results r.json --json r.json", "benchmark m.onnx --json m.onnx",
     "export saved --format openvino --output saved/m.xml --int8 saved/m.bin"],
)  # fmt: skip
def test_no_command_overwrites_its_inputs(ssd_zoo_command, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("saved").mkdir()
    for name in ("a.json", "r.json", "m.onnx", "saved/m.bin"):
        Path(name).write_text("precious")
    code, out, err = ssd_zoo_command(*command.split())
    assert (code, out) == (2, "")
    assert "would overwrite" in err


def test_each_image_has_a_picture_of_its_own(tmp_path):
    files = [tmp_path / name for name in ("a.bmp", "a.bmp.png", "a.jpg", "a.jpg.png", "a.jpg.gif")]
    pictures = picture_files([*files, "https://example.org/a.png"], tmp_path / "out")
    names = [pictures[file].name for file in files]
    assert names == ["a.bmp_1.png", "a.bmp.png", "a.jpg", "a.jpg.png", "a.jpg.gif.png"]
    assert len({*pictures.values()}) == len(files) + 1


def test_results_for_coco(detect, folder, photo):
    assert detect("images", "--json", "new/r.json", "--score-thresh", 0.3)[0] == 0
    assert os.listdir("new") == ["r.json"], "no unfinished file is left"
    rows = json.loads(Path("new/r.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2}
    assert next(row["file_name"] for row in rows if row["image_id"] == 2) == str(Path("images/sub/b c.png"))

    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.3).eval()
    with torch.inference_mode():
        [expected] = model([read_image(photo)])
    first = [row for row in rows if row["image_id"] == 1]
    assert len(first) == len(expected["scores"]) >= 1
    for row, box, score in zip(first, expected["boxes"].tolist(), expected["scores"].tolist(), strict=True):
        assert set(row) == {"image_id", "file_name", "category_id", "category", "bbox", "score"}
        assert (row["category_id"], row["category"]) == (1, "person")
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box, abs=0.02)
        assert row["score"] == pytest.approx(score, abs=1e-5)


def test_results_are_read_by_others(detect, test_data, tmp_path, capsys):
    coco = pytest.importorskip("faster_coco_eval")
    images = test_data / "coco128/images"
    files = [images / f"000000000{number}.jpg" for number in ("257", "488", "009")]
    options = ("--classes", "person", "--json", tmp_path / "r.json", "--quiet")
    assert detect(*files, *options) == (0, "", "")
    results = coco.COCO(test_data / "coco128/instances.json").loadRes(str(tmp_path / "r.json"))
    assert set(results.getImgIds()) >= {257, 488, 9}, "files named by numbers have these as ids"
    assert {row["image_id"] for row in results.anns.values()} == {257, 488}
    assert {results.cats[row["category_id"]]["name"] for row in results.anns.values()} == {"person"}


@pytest.mark.parametrize("absent", [[], ["N/A"]])
def test_coco_classes_have_coco_ids(absent):
    # COCO's ids leave gaps: 11 is a fire hydrant, 12 nothing, 13 a stop sign, 90 a toothbrush.
    names = [name for name in COCO_CATEGORIES if name not in absent]
    ids = dict(zip(names, category_ids(names), strict=True))
    assert (ids["person"], ids["fire hydrant"], ids["stop sign"], ids["toothbrush"]) == (1, 11, 13, 90)


def test_other_classes_have_their_labels_as_ids():
    assert category_ids(["background", "stop sign", "person"]) == [0, 1, 2]


def test_the_same_number_in_two_folders_gives_running_ids(detect, photo, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        shutil.copy(photo, tmp_path / name / "0007.jpg")
    assert detect(tmp_path, "--json", tmp_path / "r.json")[0] == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [(Path(row["file_name"]).parent.name, row["image_id"]) for row in rows] == [("x", 1), ("y", 2)]


def test_no_results_are_a_list_too(detect, folder):
    assert detect("images", "--score-thresh", 1, "--json", "r.json")[0] == 0
    assert json.loads(Path("r.json").read_text()) == []


def test_results_replace_older_ones(detect, folder):
    Path("r.json").write_text("old")
    assert detect("images/sub/grün.gif", "--json", "r.json")[0] == 0
    assert json.loads(Path("r.json").read_text()) == []


def test_score_threshold(detect, photo, tmp_path):
    scores = {}
    for threshold in ("0", "0.3", "0.95"):
        assert detect(photo, "--score-thresh", threshold, "--json", tmp_path / "r.json")[0] == 0
        scores[threshold] = [row["score"] for row in json.loads((tmp_path / "r.json").read_text())]
    assert len(scores["0"]) == 100, "all that the model gives"
    assert scores["0.3"] == [score for score in scores["0"] if score > 0.3]
    assert scores["0.95"] == []


def test_batches_change_nothing(detect, folder):
    for size in (1, 2, 5):
        code, out, _ = detect("images", "--batch-size", size, "--json", f"{size}.json", "--score-thresh", 0.2)
        assert code == 0
        assert [line.split(":")[0] for line in headlines(out)] == [
            "images/a.jpg",
            "images/sub/b c.png",
            "images/sub/grün.gif",
        ]
    one, *others = (json.loads(Path(f"{size}.json").read_text()) for size in (1, 2, 5))
    for other in others:
        assert len(one) == len(other) >= 2
        for row, same in zip(one, other, strict=True):
            assert row.pop("bbox") == pytest.approx(same.pop("bbox"), abs=0.05)
            assert row.pop("score") == pytest.approx(same.pop("score"), abs=1e-4)
            assert row == same
        one = json.loads(Path("1.json").read_text())


def test_classes(detect, photo):
    assert detect(photo, "--classes", " person,person ") == detect(photo)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("persn", "Did you mean person?"),
        ("dragon", "Known are: person, bicycle, "),
        ("", "Known are: person, bicycle, "),
    ],
)
def test_unknown_class(detect, photo, name, answer):
    code, out, err = detect(photo, "--classes", name)
    assert (code, out) == (2, "")
    assert f"no class {name!r}" in err
    assert answer in err


def test_other_classes_are_left_out():
    # Here with made-up detections, since the shipped detector knows persons only.
    detections = {"boxes": torch.arange(16.0).view(4, 4), "labels": torch.tensor([3, 1, 2, 3]), "scores": torch.rand(4)}
    chosen = _only(_class_indices("cat, dog", ["background", "dog", "person", "cat"]), detections)
    assert chosen["labels"].tolist() == [3, 1, 3]
    assert chosen["boxes"][:, 0].tolist() == [0, 4, 12]
    assert _only(_class_indices(None, ["background", "dog"]), detections) is detections


def test_quiet(detect, folder):
    assert detect("images", "--quiet", "--json", "r.json", "--output", "out") == (0, "", "")
    assert len(json.loads(Path("r.json").read_text())) == 2
    assert Path("out/a.jpg").exists()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_rest_goes_on_after_a_broken_file(detect, folder, batch_size):
    (folder / "a2.jpg").write_text("Dear diary")
    (folder / "a3.jpg").write_bytes((folder / "a.jpg").read_bytes()[:5000])
    code, out, err = detect("images", "--json", "r.json", "--output", "out", "--batch-size", batch_size)
    assert code == 1
    assert headlines(out) == [
        "images/a.jpg: 1 object",
        "images/sub/b c.png: 1 object",
        "images/sub/grün.gif: no objects",
    ]
    lines = err.splitlines()
    assert lines[0].startswith("ssd-zoo: images/a2.jpg is not an image")
    assert lines[1].startswith("ssd-zoo: images/a3.jpg can't be read")
    assert lines[2:] == ["ssd-zoo: 2 of 5 images failed"]
    assert len(json.loads(Path("r.json").read_text())) == 2
    assert Path("out/sub/b c.png").exists()


def test_errors_are_named_even_if_quiet(detect, folder):
    (folder / "a2.jpg").touch()
    code, out, err = detect("images", "--quiet")
    assert (code, out) == (1, "")
    assert "a2.jpg" in err


def test_picture_that_cannot_be_written(detect, folder):
    Path("out/a.jpg").mkdir(parents=True)
    code, out, err = detect("images", "--output", "out", "--json", "r.json")
    assert code == 1
    assert f"{Path('out/a.jpg')} can't be written" in err
    assert len(headlines(out)) == 3
    assert Path("out/sub/b c.png").exists()
    assert len(json.loads(Path("r.json").read_text())) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.jpg"], "gone.jpg is not a file or folder"),
        (["images/*.bmp"], "images/*.bmp is not a file or folder, nor a pattern"),
        (["empty"], "empty holds no image"),
        (["images/a.jpg", "gone.jpg"], "gone.jpg is not a file or folder"),
        (["images", "--device", "nonsense"], "Device 'nonsense' can't be used"),
        (["images", "--device", "cuda:99"], "Device 'cuda:99' can't be used"),
        (["images", "--device", "meta"], "Device 'meta' can't be used"),
        (["images", "--weights", "COCO_TF_V9"], "it has 'COCO_TF_V1'"),
        (["images", "--model", "yolo"], "Known are: ssd256_vgg16d, "),
        (["images", "--model", "empty"], "empty has no config.json"),
        (["images", "--score-thresh", "1.5"], "must be a number from 0 to 1, got '1.5'"),
        (["images", "--score-thresh", "nan"], "must be a number from 0 to 1, got 'nan'"),
        (["images", "--score-thresh", "high"], "must be a number from 0 to 1, got 'high'"),
        (["images", "--batch-size", "0"], "must be a whole number from 1, got '0'"),
        (["images", "--batch-size", "1.5"], "must be a whole number from 1, got '1.5'"),
        (["images", "--output", "file"], "file is a file, not a folder"),
        (["images", "--output", "file/out"], "file/out"),
        (["images", "--output", "out.mp4"], "--output out.mp4 is named like a file; it takes a folder, such as found"),
        (["images", "--output", "found/out.jpg"], "out.jpg is named like a file; it takes a folder"),
        (["images", "--json", "file/r.json"], "file is a file, not a folder"),
        (["images", "--json", "images"], "images is a folder; name a file in it"),
        (["images", "--json", "images/a.jpg"], "a.jpg is named like a picture"),
        ([], "or --camera 0"),
        (["images", "--thresh", "0.5"], "--thresh"),
    ],
)
def test_arguments_without_sense(detect, folder, args, message):
    Path("empty").mkdir()
    Path("file").touch()
    before = (folder / "a.jpg").read_bytes()
    code, out, err = detect(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert (folder / "a.jpg").read_bytes() == before


def test_saved_model(detect, photo, tmp_path):
    saved = ssd_zoo.save_pretrained(ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1"), tmp_path / "best")
    assert detect(photo, "--model", saved) == detect(photo)
    code, _, err = detect(photo, "--model", saved, "--weights", "COCO_TF_V1")
    assert code == 2
    assert f"{saved} is a saved model and has its weights" in err


def test_model_without_weights(detect, photo):
    without = [name for name in ssd_zoo.list_models() if not ssd_zoo.get_model_weights(name).__members__]
    if not without:
        pytest.skip("every model has weights")
    code, _, err = detect(photo, "--model", without[0])
    assert code == 2
    assert f"no weights for {without[0]}" in err
    assert "ssd-zoo list" in err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("args", [["--output", "locked"], ["--json", "locked/r.json"]])
def test_locked_folder(detect, folder, args):
    Path("locked").mkdir(mode=0o500)
    code, out, err = detect("images", *args)
    assert (code, out) == (2, "")
    assert "locked" in err


def test_list(ssd_zoo_command):
    code, out, err = ssd_zoo_command("list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    models = [line.split()[0] for line in lines]
    assert {*models} == {*ssd_zoo.list_models()}
    # What ships, then the highest AP on val2017, then what is to be trained.
    assert models[0] == "ssdlite300_mobilenet_v2"
    assert "80 classes, ships, AP 22.0 on COCO-minival14 (published)" in lines[0]
    first = next(line for line in lines if "ships" not in line)
    assert first.startswith("ssd512_vgg16d ")
    assert "AP 29.5" in first
    assert ["to be trained" in line for line in lines] == sorted("to be trained" in line for line in lines)
    # Parameters: 35,641,826 are torchvision's for the same model.
    vgg = next(line for line in lines if line.split()[:2] == ["ssd300_vgg16d", "COCO_V1"])
    assert re.search(r"300 × 300 35.64 M +\d+ ms  80 classes, AP 25.1 on COCO-val2017 \(published\)", vgg)
    # Each measured time is that of weights which exist.
    measured = {(line.split()[0], line.split()[1]) for line in lines if re.search(r" \d+ ms  ", line)}
    assert measured == set(latencies()[1])


def test_list_sorted(ssd_zoo_command):
    by_name = ssd_zoo_command("list", "ssd*t50*", "ssdlite_timm", "--sort", "name")[1].splitlines()
    assert by_name == sorted(by_name)
    small = ssd_zoo_command("list", "*ultraface*", "ssd512*", "--sort", "size")[1].splitlines()
    assert [line.split()[0] for line in small[:2]] == ["ssdlite320_ultraface_slim", "ssdlite320_ultraface_rfb"]
    fast = ssd_zoo_command("list", "ssdlite300*v2", "ssd512*", "ssd256*", "--sort", "speed")[1].splitlines()
    # What was not measured comes last.
    assert [line.split()[0] for line in (fast[0], fast[-1])] == ["ssdlite300_mobilenet_v2", "ssd256_vgg16d"]


def test_list_by_patterns(ssd_zoo_command):
    assert [line.split()[0] for line in headlines(ssd_zoo_command("list", "ssd512_vgg*")[1])] == ["ssd512_vgg16d"] * 3
    both = headlines(ssd_zoo_command("list", "ssdlite300_mobilenet_v2", "*300_vgg16d")[1])
    assert {line.split()[0] for line in both} == {"ssd300_vgg16d", "ssdlite300_mobilenet_v2"}


def test_list_nothing(ssd_zoo_command):
    code, out, err = ssd_zoo_command("list", "yolo*")
    assert (code, out) == (2, "")
    assert "No model matches yolo*" in err
    assert "ssd300_vgg16d" in err


def test_help(ssd_zoo_command):
    code, out, _ = ssd_zoo_command("--help")
    assert code == 0
    for text in ("ssd-zoo", "detect", "Detect objects", "list", "List models", "--version"):
        assert text in out
    code, out, _ = ssd_zoo_command("detect", "--help")
    assert code == 0
    options = ["--model", "--weights", "--score-thresh", "--classes", "--device", "--batch-size", "--output", "--json"]
    for text in ("ssd-zoo detect", "SOURCE", "ssdlite300_mobilenet_v2", *options):
        assert text in out


def test_version(ssd_zoo_command):
    assert ssd_zoo_command("--version") == (0, f"ssd_zoo {ssd_zoo.__version__}\n", "")


def test_interrupt_while_a_command_is_imported(ssd_zoo_command, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssd_zoo.cli.main.import_module", interrupted)
    assert ssd_zoo_command("list") == (130, "", "ssd-zoo: interrupted\n")


def test_no_command(ssd_zoo_command):
    code, out, err = ssd_zoo_command()
    assert (code, out) == (2, "")
    assert "detect" in err
    assert "Detect objects in images" in err


def shell(command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Runs a command line in which `ssd-zoo` is this Python's."""
    command = command.replace("ssd-zoo ", f"'{sys.executable}' -m ssd_zoo ")
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        capture_output=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_process(folder):
    (folder / "a2.jpg").touch()
    done = shell("ssd-zoo detect images --json /dev/stdout --quiet | cat; exit ${PIPESTATUS[0]}", folder.parent)
    assert done.returncode == 1
    assert [row["category"] for row in json.loads(done.stdout)] == ["person", "person"]
    assert "a2.jpg" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_closes_the_pipe(folder, unbuffered):
    done = shell("ssd-zoo list ssd300_vgg16d | true; echo ${PIPESTATUS[0]}", folder.parent, PYTHONUNBUFFERED=unbuffered)
    assert done.stdout == b"141\n"
    assert done.stderr == b""


def test_terminal_that_cannot_show_a_name(folder, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True))
    assert main(["detect", "images/sub/grün.gif", "images/a.jpg"]) == 0
    assert sys.stderr.buffer.getvalue() == b""
    assert rb"images/sub/gr\xfcn.gif: no objects" in sys.stdout.buffer.getvalue()


def test_annotated_picture_is_seen(detect, photo, tmp_path):
    """The outline is where the table says."""
    assert detect(photo, "--output", tmp_path, "--json", tmp_path / "r.json")[0] == 0
    [row] = json.loads((tmp_path / "r.json").read_text())
    x, y, width, height = (round(value) for value in row["bbox"])
    before, after = (np.asarray(read_image(file)).astype(int) for file in (photo, tmp_path / photo.name))
    changed = (np.abs(before - after) > 40).any(0)
    assert changed[y + 30 : y + height - 5, x + width - 3 : x + width + 1].any(1).mean() > 0.8
    assert changed[y + height - 3 : y + height + 1, x + 5 : x + width - 5].any(0).mean() > 0.8
    assert changed[y + 60 : y + height - 20, x + 20 : x + width - 20].mean() < 0.01


def test_warnings_are_lines_of_the_command(monkeypatch, capsys):
    def warn(args):
        print(warnings.formatwarning("The file is odd.", UserWarning, "/somewhere/module.py", 7), end="")
        return 0

    monkeypatch.setattr("ssd_zoo.cli.info.run", warn)
    own = warnings.formatwarning
    assert main(["info"]) == 0
    assert capsys.readouterr().out == "ssd-zoo: The file is odd.\n"
    assert warnings.formatwarning is own

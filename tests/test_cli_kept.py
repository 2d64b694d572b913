"""What a killed `ssd-zoo detect` leaves: results are kept, outputs are whole, and the same command goes on."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from launch import fork, join
from PIL import Image
from small_models import small_model

import ssd_zoo
from ssd_zoo.cli import _images
from ssd_zoo.cli import detect as detect_command
from ssd_zoo.cli._colours import complain
from ssd_zoo.cli._journal import Journal
from ssd_zoo.cli.main import COMMANDS, main
from ssd_zoo.prediction.opening import pick_thresh
from ssd_zoo.training.plots import save_figure
from ssd_zoo.weights.files import replacing, write_file

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 12


class Killed(BaseException):
    """Ends the command where it stands, as a kill would."""


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Twelve images in a folder, the working folder its parent."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for i in range(COUNT):
        Image.effect_noise((40, 30), 20 * i).save(f"images/{i:02d}.png")
    return Path("images")


@pytest.fixture
def detect(capsys, monkeypatch):
    """Runs `ssd-zoo detect images` with a tiny model; counts the images that it sees, and may be killed at one."""
    seen = []

    def run(*args, kill_at=None, seed=0):
        model = small_model()
        with torch.no_grad():
            next(model.parameters()).add_(seed)

        def build(args):
            model.score_thresh = pick_thresh(model, args.score_thresh)
            return model

        monkeypatch.setattr("ssd_zoo.cli.detect._build", build)
        read = _images.read_image.__wrapped__ if hasattr(_images.read_image, "__wrapped__") else _images.read_image

        def watched(file, **options):
            if len(seen) == kill_at:
                raise Killed
            seen.append(Path(file).name)
            return read(file, **options)

        watched.__wrapped__ = read
        monkeypatch.setattr(_images, "read_image", watched)
        seen.clear()
        code = "killed"
        with contextlib.suppress(Killed):
            code = main(["detect", "images", "--json", "r.json", *map(str, args)])
        return code, len(seen), capsys.readouterr()

    return run


def rows(file="r.json"):
    return json.loads(Path(file).read_text())


def test_the_same_command_goes_on(detect, images):
    assert detect()[:2] == (0, COUNT)
    expected = rows()
    assert len({row["image_id"] for row in expected}) == COUNT
    os.unlink("r.json")
    assert detect(kill_at=5)[:2] == ("killed", 5)
    assert not Path("r.json").exists()
    header, *kept = map(json.loads, Path("r.json.jsonl").read_text().splitlines())
    assert header["score_thresh"] == 0.5
    assert [row["file_name"] for row in kept] == [f"images/{i:02d}.png" for i in range(5)]
    assert detect(kill_at=3)[:2] == ("killed", 3)
    code, count, (_, err) = detect()
    assert (code, count) == (0, COUNT - 8)
    assert err == "ssd-zoo: r.json.jsonl has the results of 8 images; going on.\n"
    assert rows() == expected
    assert sorted(os.listdir()) == ["images", "r.json"], "no journal is left"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"seed": 1}, "weights was"),
        ({"args": ("--score-thresh", 0.4)}, {"args": ("--score-thresh", 0.6)}, "score_thresh was 0.4"),
        ({}, {"args": ("--classes", "thing")}, "classes was None"),
        ({}, {"args": ("--output", "out")}, "output was None"),
    ],
)
def test_another_command_starts_anew_and_says_so(detect, images, before, after, told):
    detect(*before.pop("args", ()), kill_at=5, **before)
    code, count, (_, err) = detect(*after.pop("args", ()), **after)
    assert (code, count) == (0, COUNT)
    assert "r.json.jsonl is of another command (" in err
    assert told in err
    assert "starting anew" in err


def test_a_line_that_was_cut_off_does_not_count(detect, images):
    detect()
    expected = rows()
    for cut in (1, 40, 10_000):
        detect(kill_at=5)
        text = Path("r.json.jsonl").read_bytes()
        Path("r.json.jsonl").write_bytes(text[: max(len(text) - cut, 10)])
        assert detect()[0] == 0
        assert rows() == expected


def test_an_image_whose_name_is_not_utf8_is_not_done_again(detect, images):
    try:
        os.rename(b"images/00.png", b"images/\xe9.png")
    except OSError:
        pytest.skip("this system has no such names")
    sys.stderr.reconfigure(errors="backslashreplace")  # Not so in pytest alone.
    assert detect("--json", "r.jsonl")[:2] == (0, COUNT)
    assert detect("--json", "r.jsonl")[:2] == (0, 0)


def test_images_that_changed_or_lost_their_picture_are_done_again(detect, images):
    detect("--output", "out", kill_at=5)
    os.unlink("out/01.png")
    Image.new("RGB", (50, 50)).save("images/03.png")
    code, count, _ = detect("--output", "out")
    assert (code, count) == (0, COUNT - 3)
    assert len(os.listdir("out")) == COUNT


def test_a_bad_file_is_a_row_with_its_reason_and_is_tried_again(detect, images):
    good = (images / "04.png").read_bytes()
    (images / "04.png").write_text("Dear diary")
    code, _, (_, err) = detect("--quiet")
    assert code == 1
    assert "1 of 12 images failed" in err
    assert len({row["image_id"] for row in rows()}) == COUNT - 1
    kept = [json.loads(line) for line in Path("r.json.jsonl").read_text().splitlines()[1:]]
    [bad] = [row for row in kept if "error" in row]
    assert bad["file_name"] == "images/04.png"
    assert "04.png is not an image" in bad["error"]
    (images / "04.png").write_bytes(good)
    assert detect("--quiet")[:2] == (0, 1)
    assert len({row["image_id"] for row in rows()}) == COUNT
    assert not Path("r.json.jsonl").exists()


def test_a_file_of_someone_else_is_not_taken_for_a_journal(detect, images):
    Path("r.json.jsonl").write_text('{"mine": 1}\n')
    code, count, (_, err) = detect()
    assert (code, count) == (2, 0)
    assert "r.json.jsonl is in the way" in err
    assert Path("r.json.jsonl").read_text() == '{"mine": 1}\n'


def detect_slowly():
    read = _images.read_image
    _images.read_image = lambda *args, **options: time.sleep(0.2) or read(*args, **options)
    detect_command._build = lambda args: small_model()
    sys.exit(main(["detect", "images", "--json", "r.json", "--output", "out", "--quiet"]))


def kill_after(lines, file="r.json.jsonl"):
    """Kills a command when its journal has more than some lines; returns the lines then."""
    process = fork(detect_slowly)
    deadline, found = time.monotonic() + 120, []
    while time.monotonic() < deadline and process.is_alive() and len(found) <= lines:
        found = Path(file).read_text().splitlines() if Path(file).exists() else []
        time.sleep(0.01)
    process.kill()
    assert join(process) < 0, "it was killed before its end"
    return found


@pytest.mark.slow
def test_killed_three_times(images):
    for done in (1, 3, 5):
        lines = kill_after(done)
        assert [json.loads(line) for line in lines[:-1]], "whole at any moment"
        for file in Path("out").glob("[!.]*"):
            Image.open(file).load()
    assert join(fork(detect_slowly)) == 0
    assert len({row["image_id"] for row in rows()}) == COUNT
    assert not Path("r.json.jsonl").exists()
    assert len(list(Path("out").glob("[!.]*"))) == COUNT


# One process that is forked at each turn, so that the modules are imported once.
FORKS = """
import os, random, signal, sys, time
sys.path.insert(0, {tests!r})
import torch
from small_models import small_model
from ssd_zoo.cli import _images, detect, main
torch.set_num_threads(1)
read = _images.read_image
_images.read_image = lambda *args, **options: time.sleep(0.01) or read(*args, **options)
detect._build = lambda args: small_model()
pick = random.Random(0)
for turn in range({kills} + 1):
    child = os.fork()
    if child == 0:
        options = ["--json", "r.jsonl", "--output", "out", "--quiet", "--workers", "2", "--batch-size", "2"]
        os._exit(main.main(["detect", "images", *options]))
    if turn < {kills}:
        time.sleep(pick.uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
    code = os.waitpid(child, 0)[1]
    # No line but the last may be cut off.
    text = open("r.jsonl", "rb").read() if os.path.exists("r.jsonl") else b""
    rows = text.split(b"\\n")[1:-1]
    names = [row.split(b'"')[3] for row in rows]
    assert len(names) == len(set(names)), names
    # The bad file is tried again each time.
    print(code, sum(b'"error"' not in row for row in rows), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: kills at random are not tested")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_lose_nothing_and_leave_nothing_twice(images, kills):
    for i in range(COUNT, 10 * kills):
        Image.new("RGB", (40, 30), (i, 90, 30)).save(images / f"{i:03d}.png")
    (images / "04.png").write_text("Dear diary")
    script = FORKS.format(tests=str(Path(__file__).parent), kills=kills)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    codes, counts = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert codes[-1] == 256, "the bad file alone failed"
    assert list(counts) == sorted(counts), "nothing that was done is lost"
    _, *kept = map(json.loads, Path("r.jsonl").read_text().splitlines())
    assert [row["file_name"] for row in kept] == sorted(map(str, images.iterdir()))
    assert ["error" in row for row in kept] == [row["file_name"] == "images/04.png" for row in kept]
    assert len([file for file in os.listdir("out") if not file.startswith(".")]) == len(kept) - 1


@pytest.mark.parametrize("write", ["bytes", "picture", "figure"])
def test_outputs_are_whole_or_old(tmp_path, write, monkeypatch):
    file = tmp_path / "a.png"
    file.write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    if write == "bytes":
        call = partial(write_file, file, b"new")
    elif write == "picture":
        call = partial(_images.save_picture, Image.new("RGB", (8, 8)), file)
    else:
        figures = pytest.importorskip("matplotlib.figure", reason="NO PLOTS without matplotlib")
        call = partial(save_figure, figures.Figure(), file)
    with pytest.raises(OSError, match=r"a\.png") as caught:
        call()
    assert ".part" not in str(caught.value)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


# Each is killed when all of it is written and nothing has taken the old file's place; the first video amid its frames.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from layouts import make
from small_models import small_model
from ssd_zoo.cli.main import main
from ssd_zoo.data import VideoWriter
from ssd_zoo.deploy import export
torch.set_num_threads(1)
make("voc_flat", Path("pets"))

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def write_video(file, frames):
    with VideoWriter(file, fps=10) as writer:
        for i in range(20):
            if i == frames:
                die()
            writer.write(torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8))

for write in (
    lambda: write_video("out/half.mp4", 10),
    lambda: write_video("out/whole.mp4", None),
    lambda: main(["data", "pets", "--split", "train", "--output", "out"]),
    lambda: export(small_model(), "out/m.pt2"),
):
    child = os.fork()
    if child == 0:
        sys.stdout, os.fsync = sys.stderr, die
        write()
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: kills are not tested")
def test_a_kill_leaves_the_old_output(tmp_path, monkeypatch):
    pytest.importorskip("av", reason="NO VIDEOS without PyAV")
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    names = ["half.mp4", "whole.mp4", "train.jpg", "m.pt2"]
    for name in names:
        Path("out", name).write_text("old")
    script = KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9"] * 4, done.stderr
    assert sorted(file.name for file in Path("out").glob("[!.]*")) == sorted(names)
    assert {Path("out", name).read_text() for name in names} == {"old"}


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices")
def test_devices_are_not_replaced(tmp_path):
    with replacing(Path("/dev/null")) as stream:
        stream.write(b"x")
    assert Path("/dev/null").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


@pytest.mark.parametrize("source", ["images", "frames"])
def test_json_on_the_standard_output(images, monkeypatch, capsys, source):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    frames = ["--frames"] if source == "frames" else []
    assert main(["detect", "images", *frames, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) >= COUNT
    assert "images" in err, "the table"
    assert os.listdir() == ["images"]


def test_output_takes_a_folder(images, capsys):
    assert main(["detect", "images", "--output", "-"]) == 2
    assert "--output takes a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("runs/cells", "Did you mean runs/cells/best?"),
        ("runs/cels", "Did you mean runs/cells/best"),
        ("rums/cells", "Did you mean runs/cells/best"),
        ("runs/nothing/like/it", "No saved model is near runs/nothing/like."),
        ("runs/cels/best", "Did you mean runs/cells/best"),
        ("runs/cells/bets", "Did you mean runs/cells/best or runs/cells/last?"),
        ("bccd_v2", "Did you mean BCCD_V1 of ssdlite300_mobilenet_v2?"),
        ("COCO_V1", "Several models have weights COCO_V1; take one of SSD300_VGG16D_Weights.COCO_V1, "),
        ("ssdlite300_mobilenetv2", "Did you mean ssdlite300_mobilenet_v2"),
        ("ssd300_vgg", "Did you mean "),
        ("images", "images has no config.json"),
        ("det.onx", "no model or folder 'det.onx'. Did you mean det.onnx?"),
        ("det", "Did you mean det.onnx?"),
        ("runs/det.tflit", "Did you mean runs/det.tflite?"),
        ("ssd300_vgg16", "It is torchvision's, which only predict and evaluate take. Did you mean ssd300_vgg16d or "),
    ],
)
def test_near_names_of_models(images, capsys, name, answer):
    for folder in ("last", "best"):
        (Path("runs/cells") / folder).mkdir(parents=True)
        (Path("runs/cells") / folder / "config.json").touch()
    for file in ("det.onnx", "runs/det.tflite"):
        Path(file).touch()
    assert main(["detect", "images", "--model", name]) == 2
    assert answer in capsys.readouterr().err


def test_names_are_listed_once(images, capsys):
    assert main(["detect", "images", "--model", "something"]) == 2
    names = re.findall(r"\w+", capsys.readouterr().err.partition("Known are:")[2])
    assert names == ssd_zoo.list_models()


@pytest.mark.parametrize(
    ("file", "answer"),
    [
        ("x.pth", "ssd-zoo: x.pth is a checkpoint, not an image. Convert it: ssd-zoo convert x.pth --output DIR; then "
         "ssd-zoo detect IMAGES --model DIR."),
        ("det.onnx", "ssd-zoo: det.onnx is a model, not an image: ssd-zoo detect IMAGES --model det.onnx."),
    ],
)  # fmt: skip
def test_models_are_no_images(images, capsys, file, answer):
    Path(file).touch()
    assert main(["detect", "images", file]) == 2
    assert answer in capsys.readouterr().err
    with pytest.raises(ValueError, match="not an image"):
        ssd_zoo.predict("BCCD_V1", file)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("choose one by split='a b' (--split a b).", "choose one by --split a b."),
        ("choose one by layout='voc' or 'yolo' (--layout), or", "choose one by --layout, or"),
        ("allow more by max_pixels (--max-pixels).", "allow more by --max-pixels."),
        ("Name them: categories=['background', …] (--categories).", "Name them: --categories."),
        ("Set model.tile = None (--tile 0).", "Set --tile 0."),
        ("with nms='outside' (--nms outside).", "with --nms outside."),
        ('by split="it\'s a" (--split S).', "by --split S."),
        ("the same keyword (--minutes, --epochs)", "the same keyword (--minutes, --epochs)"),
        ("Photo (1).jpg can't be read", "Photo (1).jpg can't be read"),
    ],
)
def test_the_command_names_options_alone(capsys, message, told):
    complain(message)
    assert capsys.readouterr().err == f"ssd-zoo: {told}\n"


@pytest.mark.parametrize("given", ["Sofa", "couch", "COUCH", "tvmonitor", "dining_table"])
def test_classes_by_any_spelling(given):
    from ssd_zoo.cli.detect import _class_indices

    names = ["background", "dining table", "couch", "tv"]
    expected = {"Sofa": 2, "couch": 2, "COUCH": 2, "tvmonitor": 3, "dining_table": 1}[given]
    assert _class_indices(given, names).tolist() == [expected]


@pytest.mark.text
@pytest.mark.parametrize(("module", "summary"), COMMANDS.values())
def test_summary_of_a_command_is_the_first_line_of_its_file(module, summary):
    assert Path(_images.__file__).with_name(f"{module}.py").read_text().startswith(f'"""{summary}')


def test_list_of_weights_fits_a_terminal(capsys):
    assert main(["list", "--weights"]) == 0
    out = io.StringIO(capsys.readouterr().out)
    assert max(len(line.rstrip("\n")) for line in out) <= 100


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"file_name": "a"}',
        '{"file_name": 5, "changed": [1, 2], "detections": []}',
        '{"file_name": "a", "changed": [1, 2], "detections": [{"bbox": [1, 2, 3, "x"]}]}',
        '{"file_name": "a", "changed": [1, 2], "detections": 5}',
        '{"file_name": "a", "changed": [1, 2], "detections": [], "file_name": "b"}',
        '{"file_name": "a", "changed": [1, 1' + "0" * 400 + "]}",
        "{}",
    ],
    ids=range(8),
)
def test_a_damaged_row_of_a_journal_does_not_count(line, tmp_path):
    whole = '{"file_name": "b", "changed": [1, 2], "detections": []}'
    (tmp_path / "r.json.jsonl").write_text(f'{{"ssd_zoo": "1"}}\n{line}\n{whole}\n')
    journal = Journal(tmp_path / "r.json.jsonl", {"ssd_zoo": "1"})
    assert [row["file_name"] for row in journal.rows("b")] == ["b"]
    assert len(journal) == 1


def test_a_journal_that_begins_too_deep_is_in_the_way(tmp_path):
    (tmp_path / "r.json.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="is in the way"):
        Journal(tmp_path / "r.json.jsonl", {"ssd_zoo": "1"})


def results(*args):
    """Runs `ssd-zoo detect images` on twelve images, one of them bad."""
    assert main(["detect", "images", "--quiet", *args]) == 1
    return Path(args[-1])


def test_lines_and_parquet_hold_what_coco_holds(images, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason='NO PARQUET: pip install "ssd_zoo[parquet]"')
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    (images / "04.png").write_text("Dear diary")
    expected = json.loads(results("--json", "r.json").read_text())
    header, *lines = map(json.loads, results("--json", "r.jsonl").read_text().splitlines())
    assert header["score_thresh"] == 0.5
    assert "detections" not in lines[4]
    rows = parquet.read_table(results("--parquet", "r.parquet")).to_pylist()
    assert rows[4]["detections"] is None
    for found in (lines, rows):
        assert [row["file_name"] for row in found] == [f"images/{i:02d}.png" for i in range(COUNT)]
        assert "is not an image" in found[4]["error"]
        flat = [
            {"image_id": i, "file_name": row["file_name"], **one}
            for i, row in enumerate(found)
            for one in row.get("detections") or ()
        ]
        assert flat == expected


def test_csv_holds_what_coco_holds(images, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    (images / "04.png").write_text("Dear diary")
    (images / "05.png").rename(images / "grün.png")
    expected = json.loads(results("--json", "r.json").read_text())
    file = results("--csv", "r.csv")
    assert file.read_bytes().startswith(b"\xef\xbb\xbffile,class,score,x1,y1,x2,y2,error\r\n"), "Excel's mark of UTF-8"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    assert list(dict.fromkeys(row["file"] for row in rows)) == sorted(map(str, images.iterdir()))
    bad = next(row for row in rows if row["error"])
    assert (bad["file"], bad["class"], bad["x1"]) == ("images/04.png", "", "")
    assert "is not an image" in bad["error"]
    found = [row for row in rows if row["class"]]
    for row, one in zip(found, expected, strict=True):
        assert (row["file"], row["class"]) == (one["file_name"], one["category"])
        x, y, width, height = one["bbox"]
        corners = [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
        assert corners == pytest.approx([x, y, x + width, y + height])
        assert float(row["score"]) == one["score"]
    monkeypatch.setattr("ssd_zoo.cli.detect._only", lambda classes, found: {key: found[key][:0] for key in found})
    empty = results("--csv", "empty.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(empty) == 1 + COUNT
    assert empty[1] == "images/00.png,,,,,,,"


def test_csv_of_a_killed_command_goes_on(detect, images):
    no_json = ("--json", "-", "--csv", "r.csv")
    assert detect(*no_json)[:2] == (0, COUNT)
    whole = Path("r.csv").read_text()
    os.unlink("r.csv")
    assert detect(*no_json, kill_at=5)[:2] == ("killed", 5)
    assert os.path.exists("r.csv.jsonl")
    assert not os.path.exists("r.csv")
    assert detect(*no_json)[:2] == (0, COUNT - 5)
    assert Path("r.csv").read_text() == whole
    assert sorted(os.listdir()) == ["images", "r.csv"]


def test_csv_of_a_name_that_is_not_utf8(images, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    try:
        Path(os.fsdecode(b"images/\xe8.png")).write_text("Dear diary")
    except OSError:
        pytest.skip("this system has no such names")
    sys.stderr.reconfigure(errors="backslashreplace")  # Not so in pytest alone.
    text = results("--csv", "r.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines()[-1].startswith(r"images/\udce8.png,,,,,,,")


def test_ctrl_c_says_whether_the_same_command_goes_on(images, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    read = _images.read_image

    def interrupted(file, **options):
        if Path(file).name == "05.png":
            raise KeyboardInterrupt
        return read(file, **options)

    monkeypatch.setattr(_images, "read_image", interrupted)
    for options in (["--json", "r.jsonl"], ["--json", "r.json"], ["--csv", "r.csv"]):
        assert main(["detect", "images", "--quiet", *options]) == 130
        assert capsys.readouterr().err == "ssd-zoo: interrupted; the same command goes on with what is not done\n"
    for options in ([], ["--json", "-"]):
        assert main(["detect", "images", "--quiet", *options]) == 130
        assert capsys.readouterr().err == "ssd-zoo: interrupted\n"


def test_a_command_whose_results_are_all_there_says_so(images, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    for source, told in (("images/00.png", "1 image"), ("images", "12 images")):
        command = ["detect", source, "--quiet", "--json", f"{Path(source).stem}.jsonl"]
        assert main(command) == 0
        assert capsys.readouterr().err == ""
        assert main(command) == 0
        assert capsys.readouterr().err.endswith(f".jsonl has the results of {told}; all is done.\n")


def test_finished_lines_are_added_to(detect, images):
    """The later `--json` counts."""
    assert detect("--json", "r.jsonl")[:2] == (0, COUNT)
    lines = Path("r.jsonl").read_text()
    assert detect("--json", "r.jsonl")[:2] == (0, 0)
    assert Path("r.jsonl").read_text() == lines
    Image.new("RGB", (40, 30)).save("images/005.png")
    assert detect("--json", "r.jsonl")[:2] == (0, 1)
    names = [json.loads(line)["file_name"] for line in Path("r.jsonl").read_text().splitlines()[1:]]
    assert names == sorted(map(str, images.iterdir()))


@pytest.mark.parametrize(
    "args", ["--json r.json", "--json r.jsonl", "--parquet r.parquet", "--csv r.csv", "--output out"]
)
def test_a_second_command_is_refused_while_one_writes(images, monkeypatch, capsys, args):
    pytest.importorskip("pyarrow", reason='NO PARQUET: pip install "ssd_zoo[parquet]"')
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    command, read, codes = ["detect", "images", "--quiet", *args.split()], _images.read_image, []

    def at_once(file, **options):
        if not codes:
            codes.append(0)
            codes[0] = main(command)
        return read(file, **options)

    monkeypatch.setattr(_images, "read_image", at_once)
    assert main([*command, "--workers", "1"]) == 0
    assert codes == [2]
    where = args.split()[1]
    assert f"Another command writes to {where} now. Wait until it ends" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["images", where], "no lock is left"
    assert where != "out" or len(os.listdir("out")) == COUNT
    assert main(command) == 0


def test_a_file_system_without_locks(detect, images, monkeypatch):
    def acquire(self, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    assert detect("--output", "out")[:2] == (0, COUNT)


def test_an_image_that_is_replaced_after_it_was_read_is_done_again(detect, images, monkeypatch):
    read = _images.read_image

    def replaced(file, **options):
        image = read(file, **options)
        if Path(file).name == "03.png":
            Image.new("RGB", (50, 50)).save(file)
        return image

    monkeypatch.setattr(_images, "read_image", replaced)
    assert detect("--json", "r.jsonl")[:2] == (0, COUNT)
    monkeypatch.setattr(_images, "read_image", read)
    assert detect("--json", "r.jsonl")[:2] == (0, 1)
    assert detect("--json", "r.jsonl")[:2] == (0, 0)


def test_parquet_beside_json_on_the_standard_output(images, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason='NO PARQUET: pip install "ssd_zoo[parquet]"')
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    assert main(["detect", "images", "--json", "-", "--parquet", "r.parquet"]) == 0
    names = [found["file_name"] for found in json.loads(capsys.readouterr().out)]
    rows = parquet.read_table("r.parquet").to_pylist()
    assert [row["file_name"] for row in rows] == sorted(map(str, images.iterdir()))
    assert names == [row["file_name"] for row in rows for _ in row["detections"]]
    assert sorted(os.listdir()) == ["images", "r.parquet"]


def test_parquet_of_a_name_that_is_not_utf8(images, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason='NO PARQUET: pip install "ssd_zoo[parquet]"')
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    try:
        os.rename(b"images/00.png", b"images/\xe9.png")
        Path(os.fsdecode(b"images/\xe8.png")).write_text("Dear diary")
    except OSError:
        pytest.skip("this system has no such names")
    sys.stderr.reconfigure(errors="backslashreplace")  # Not so in pytest alone.
    rows = parquet.read_table(results("--parquet", "r.parquet")).to_pylist()
    assert [row["file_name"] for row in rows[-2:]] == [r"images/\udce8.png", r"images/\udce9.png"]
    assert r"images/\udce8.png is not an image" in rows[-2]["error"]
    assert rows[-1]["detections"]


def test_failures_are_named_before_results_that_cannot_be_written(detect, images, monkeypatch):
    (images / "04.png").write_text("Dear diary")
    monkeypatch.setattr(_images, "_finish", lambda *args, **options: (_ for _ in ()).throw(OSError("the disk is full")))
    code, _, (_, err) = detect("--quiet")
    assert code == 2
    assert "04.png is not an image" in err
    assert "the disk is full" in err


def test_a_link_to_an_image_that_is_gone_is_a_row_with_its_reason(detect, images):
    (images / "gone.png").symlink_to("nowhere.png")
    code, _, (_, err) = detect("--quiet")
    assert code == 1
    assert "1 of 13 images failed" in err
    assert "gone.png" in err


def test_results_of_images_are_not_replaced_by_those_of_a_video(detect, images):
    assert detect("--json", "r.jsonl")[0] == 0
    lines = Path("r.jsonl").read_text()
    code, _, (_, err) = detect("--json", "r.jsonl", "--frames")
    assert code == 2
    assert "r.jsonl is in the way: it holds the results of images. Move it elsewhere." in err
    assert Path("r.jsonl").read_text() == lines


def test_a_model_with_other_settings_starts_anew(images, monkeypatch, capsys):
    """Its tensors are the same."""
    model = small_model()
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: model)
    command = ["detect", "images", "--json", "r.jsonl", "--quiet"]
    for name, value in (("nms_thresh", 0.3), ("detections_per_img", 2), ("categories", ["background", "object"])):
        assert main(command) == 0
        setattr(model, name, value)
        assert main(command) == 0
        assert f"{name} was" in capsys.readouterr().err
    model.image_mean += 0.1
    assert main(command) == 0
    assert "weights was" in capsys.readouterr().err


def test_a_journal_of_a_version_that_told_less_starts_anew_and_says_so(tmp_path):
    file = tmp_path / "found.jsonl"
    Journal(file, {"ssd_zoo": "0.1.0"})
    told = Journal(file, {"ssd_zoo": "0.1.0", "reduce": False}).note
    assert told == f"{file} is of another command (reduce is not told); starting anew."

"""The pipeline of `ssd-zoo detect` with models of all kinds: order, equal results, bounded memory, and kills."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_models import small_model

import ssd_zoo
from ssd_zoo.cli import _images, _live, _video
from ssd_zoo.cli import detect as detect_command
from ssd_zoo.cli._video_record import VideoRecord
from ssd_zoo.cli.main import main
from ssd_zoo.data import Video, VideoWriter, open_video, read_clip, read_image
from ssd_zoo.deploy import export, load, optimize
from ssd_zoo.deploy.export import OLDEST_TORCH
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.prediction import pipeline
from ssd_zoo.prediction.pipeline import detect_ahead
from ssd_zoo.prediction.results import result_rows

pytest.importorskip("onnxruntime", reason='NO ONNX RUNTIME: pip install "ssd_zoo[deploy]"')
# What torch and onnx warn of while they export is not the command's.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
COUNT = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a small model, or one with other weights, to ONNX or OpenVINO, once each."""
    folder = tmp_path_factory.mktemp("exported")

    def file(name):
        if torch.__version__ < OLDEST_TORCH:
            pytest.skip(f"exporting needs torch {OLDEST_TORCH}")
        if not (folder / name).exists():
            model = small_model()
            with torch.no_grad():
                next(model.parameters()).add_(name.startswith("other"))
            export(model, folder / name, format="onnx" if name.endswith("onnx") else "openvino")
        return folder / name

    return file


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Images of many sizes in a folder, the working folder its parent."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for i in range(COUNT):
        # The larger ones are read after smaller ones that come later.
        size = (500, 400) if i % 5 == 0 else (20 + 3 * i, 70 - i)
        Image.effect_noise(size, 20 + 5 * i).convert("RGB").save(f"images/{i:02d}.png")
    return sorted(Path("images").iterdir())


def one_by_one(file, images):
    model = load(file, threads=1)
    model.score_thresh = 0.5
    return [result_rows(model([read_image(image)])[0], model.categories, int(image.stem), image) for image in images]


@pytest.mark.parametrize(
    ("name", "workers", "batch_size"), [("small.onnx", 2, 1), pytest.param("small.xml", 3, 3, marks=pytest.mark.slow)]
)
def test_threads_that_call_an_exported_file_keep_order_and_results(
    exported, images, monkeypatch, capsys, name, workers, batch_size
):
    ran, forward = set(), ExportedDetector.forward

    def slow(self, given):
        ran.add(threading.get_ident())
        # Some are overtaken.
        time.sleep(0.03 * (given[0].shape[-1] % 3 == 0))
        return forward(self, given)

    monkeypatch.setattr(ExportedDetector, "forward", slow)
    command = ["detect", "images", "--model", str(exported(name)), "--workers", str(workers), "--json", "r.json"]
    assert main([*command, "--batch-size", str(batch_size), "--quiet"]) == 0
    assert len(ran) == workers, "each thread has had its part"
    monkeypatch.setattr(ExportedDetector, "forward", forward)
    expected = [row for rows in one_by_one(exported(name), images) for row in rows]
    assert len(expected) > COUNT
    assert json.loads(Path("r.json").read_text()) == expected


@pytest.mark.parametrize("kind", ["eager", "optimized", "exported"])
def test_models_of_all_kinds_find_what_they_find_alone(exported, images, kind):
    model = load(exported("small.onnx"), threads=1) if kind == "exported" else small_model()
    if kind == "optimized":
        model = optimize(model, images=[read_image(images[0])], compile=False)
    found = detect_ahead(model, images, read_image, batch_size=3, workers=2)
    for image, seen in zip(images, found, strict=True):
        assert seen.source == image
        [alone] = model([seen.image])
        assert len(alone["scores"]) > 0
        assert alone.keys() == seen.found.keys()
        for key, value in alone.items():
            torch.testing.assert_close(seen.found[key], value)
    several = ssd_zoo.predict(model, images, 0.5)
    assert [len(one["boxes"]) for one in several] == [len(model([read_image(image)])[0]["boxes"]) for image in images]


@pytest.mark.parametrize("most", [2**22, pytest.param(2**30, marks=pytest.mark.slow)])
def test_images_in_memory_are_bounded(exported, tmp_path, monkeypatch, most):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "_MOST_WAITING", most)
    Path("images").mkdir()
    for i in range(60):
        Image.new("RGB", (1000, 700), (4 * i, 0, 0)).save(f"images/{i:02d}.jpg")
    size, alive, seen = 3 * 1000 * 700, weakref.WeakSet(), []

    def watched(file, **options):
        image = read_image(file, **options)
        alive.add(image)
        seen.append(len(alive))
        return image

    save = _images.save_picture
    monkeypatch.setattr(_images, "read_image", watched)
    monkeypatch.setattr(_images, "save_picture", lambda *args: time.sleep(0.02) or save(*args))
    command = ["detect", "images", "--model", str(exported("small.onnx")), "--workers", "4", "--output", "out"]
    assert main([*command, "--json", "r.json", "--quiet"]) == 0
    assert len(seen) == 60
    # Those that are read, those that are detected, those that are drawn; and one in each of the three hands between.
    by_number, drawn = 2 * 4 + 2 * 4, 4 + 1
    assert max(seen) <= min(by_number, 2 * (most // size + 1)) + drawn + 3
    assert max(seen) > 3, "they do overlap"


@pytest.mark.parametrize("name", ["small.onnx", pytest.param("small.xml", marks=pytest.mark.slow)])
def test_an_exported_file_that_is_replaced_starts_anew(exported, images, capsys, name):
    suffixes = [".xml", ".bin"] if name.endswith(".xml") else [".onnx"]
    command = ["detect", "images", "--model", name, "--json", "r.jsonl", "--quiet"]
    for suffix in suffixes:
        shutil.copy(exported(name).with_suffix(suffix), f"small{suffix}")
    assert main(command) == 0
    first = Path("r.jsonl").read_text()
    assert main(command) == 0
    assert f"has the results of {COUNT} images; all is done." in capsys.readouterr().err
    assert Path("r.jsonl").read_text() == first
    for suffix in suffixes:
        shutil.copy(exported(name.replace("small", "other")).with_suffix(suffix), f"small{suffix}")
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "r.jsonl is of another command (weights was " in err
    assert "starting anew" in err
    header, *rows = map(json.loads, Path("r.jsonl").read_text().splitlines())
    assert header["weights"] != json.loads(first.splitlines()[0])["weights"]
    found = [[row["score"] for row in rows] for rows in one_by_one(name, images)]
    assert [[one["score"] for one in row["detections"]] for row in rows] == found


# One process that is forked at each turn, so that the modules are imported once. A child ends itself before or after a
# file is put in its place, or is killed after a time.
KILLS = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import onnxruntime, pyarrow.parquet
from ssd_zoo.cli import main
replace, pick = os.replace, random.Random(0)
places = [(name, after) for name in ("r.json.jsonl", "05.png", "r.json", "r.parquet") for after in (False, True)]
moments = places[:4] + [pick.uniform(0.0, 0.4) for _ in range(6)] + places[4:] + [None]
done = 0
for moment in moments:
    child = os.fork()
    if child == 0:
        if isinstance(moment, tuple):
            def killed(old, new):
                if moment[1]:
                    replace(old, new)
                if os.path.basename(new) == moment[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                if not moment[1]:
                    replace(old, new)
            os.replace = killed
        options = ["--json", "r.json", "--parquet", "r.parquet", "--output", "out", "--quiet", "--workers", "2"]
        os._exit(main.main(["detect", "images", "--model", sys.argv[1], *options]))
    if isinstance(moment, float):
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    code = os.waitpid(child, 0)[1]
    if code == 0:
        done = 0  # It had ended before the signal, and the next one starts anew.
    elif os.path.exists("r.json.jsonl"):
        names = [json.loads(line)["file_name"] for line in open("r.json.jsonl").read().split("\\n")[1:-1]]
        assert len(names) == len(set(names)), names
        assert len(names) >= done, "nothing that was done is lost"
        done = len(names)
    if os.path.exists("r.json"):
        json.load(open("r.json"))
    if os.path.exists("r.parquet"):
        text = open("r.parquet", "rb").read()
        assert text[:4] == text[-4:] == b"PAR1"
    print(moment, code, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: kills are not tested")
def test_kills_lose_nothing_of_an_exported_file(exported, images):
    parquet = pytest.importorskip("pyarrow.parquet", reason='NO PARQUET: pip install "ssd_zoo[parquet]"')
    model = str(exported("small.onnx"))
    done = subprocess.run([sys.executable, "-c", KILLS, model], capture_output=True, text=True, check=True)
    *killed, last = done.stdout.splitlines()
    assert last == "None 0"
    # Those at a place were killed there; those at a time may have ended before.
    assert all(line.endswith(" 9") for line in killed if line.startswith("(")), done.stdout
    expected = one_by_one(model, images)
    assert json.loads(Path("r.json").read_text()) == [row for rows in expected for row in rows]
    rows = parquet.read_table("r.parquet").to_pylist()
    assert [row["file_name"] for row in rows] == list(map(str, images))
    assert [[one["score"] for one in row["detections"]] for row in rows] == [
        [one["score"] for one in found] for found in expected
    ]
    assert sorted(file.name for file in Path("out").glob("[!.]*")) == [image.name for image in images]
    for file in Path("out").glob("[!.]*"):
        Image.open(file).load()
    assert not Path("r.json.jsonl").exists()


@pytest.mark.parametrize("name", [None, "small.onnx"])
def test_two_cameras_of_the_command_are_one_batch(exported, tmp_path, monkeypatch, capsys, name):
    """FFmpeg's test pictures in place of cameras; the next two come once those before have been seen."""
    pytest.importorskip("av", reason='VIDEOS ARE NOT TESTED without PyAV: pip install "ssd_zoo[video]"')
    from ssd_zoo.data.video import timed_video
    from ssd_zoo.data.video_decoding import open_by_av

    monkeypatch.chdir(tmp_path)
    names = ("testsrc=size=64x48:duration=0.4:rate=25", "testsrc2=size=80x60:duration=0.4:rate=25")
    films = [open_by_av(film, f"camera {i}", kind="lavfi") for i, film in enumerate(names)]
    turns, sizes = [threading.Semaphore(), threading.Semaphore()], []

    def camera(index):
        def frames():
            for frame in films[index].with_times():
                assert turns[index].acquire(timeout=60)
                yield frame

        return timed_video(f"camera {index}", 25, None, frames)

    def noted(self, frame, found):
        turns[int(self.video.name[-1])].release()
        return note(self, frame, found)

    model, note = load(exported(name), threads=1) if name else small_model(), VideoRecord.note
    step, rounds = model.step, _live._Streams.__iter__

    def counted(frames, state):
        sizes.append(len(frames))
        return step(frames, state)

    def paired(streams):
        taken = rounds(streams)
        while True:
            with streams._changed:
                streams._changed.wait_for(lambda: len(streams._newest) == 2 or not streams._running, timeout=60)
            if (newest := next(taken, None)) is None:
                return
            yield newest

    object.__setattr__(model, "step", counted)
    monkeypatch.setattr(_live._Streams, "__iter__", paired)
    monkeypatch.setattr(VideoRecord, "note", noted)
    monkeypatch.setattr(detect_command, "_build", lambda args: model)
    monkeypatch.setattr(_video, "open_camera", camera)
    command = ["detect", "0", "1", "--json", "r.jsonl", "--output", "out"]
    assert main([*command, "--model", str(exported(name))] if name else command) == 0
    assert capsys.readouterr().out.count("camera") == 2
    assert sizes == [2] * 10
    header, *rows = map(json.loads, Path("r.jsonl").read_text().splitlines())
    assert header["track"] is None
    for index, film in enumerate(films):
        assert len(read_clip(f"out/camera{index}.mp4")) == 10
        mine = [row for row in rows if row.get("video") == f"camera {index}"]
        assert [row["frame"] for row in mine] == list(range(10))
        for row, frame in zip(mine, film, strict=True):
            expected = result_rows(model([frame])[0], model.categories, 0, "")
            assert [one["score"] for one in row["detections"]] == [one["score"] for one in expected]


def test_large_jpegs_are_decoded_at_a_part_of_their_size(exported, tmp_path, monkeypatch, photo, capsys):
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held upright, so height and width are exchanged.
    with Image.open(photo) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_90).resize((2048, 1536))
        turned.save("large.jpg", quality=90, exif=exif)
    assert read_image("large.jpg").shape == (3, 2048, 1536)
    for least, shape in [((500, 300), (512, 384)), ((300, 500), (1024, 768)), ((2000, 300), (2048, 1536))]:
        assert read_image("large.jpg", least=least).shape == (3, *shape)
    command = ["detect", "large.jpg", "--json", "r.jsonl", "--quiet"]
    found = []
    for options in ([], ["--reduce"]):
        assert main([*command, *options]) == 0
        [row] = map(json.loads, Path("r.jsonl").read_text().splitlines()[1:])
        found.append(row["detections"])
    assert "reduce was False" in capsys.readouterr().err
    [[whole], [part]] = found
    assert (whole["category"], whole["score"]) == (part["category"], pytest.approx(part["score"], abs=0.03))
    assert whole["bbox"] == pytest.approx(part["bbox"], abs=15)
    for options, reason in [
        (["--output", "out"], "leave out --output"),
        (["--tile", "300"], "the model cuts images into tiles"),
        (["--model", str(exported("small.onnx"))], "the model does not average pixels"),
    ]:
        assert main([*command[:2], "--reduce", *options]) == 2
        assert reason in capsys.readouterr().err


@pytest.fixture
def film(tmp_path, monkeypatch):
    """A video of 32 frames in the working folder, of which every second one has noise of its own."""
    pytest.importorskip("av", reason='VIDEOS ARE NOT TESTED without PyAV: pip install "ssd_zoo[video]"')
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with VideoWriter("film.mp4", fps=25) as writer:
        for i in range(COUNT):
            writer.write(torch.randint(0, 8 * i + 8, (3, 48, 64), dtype=torch.uint8))
    return "film.mp4"


@pytest.mark.parametrize("name", ["small.onnx", pytest.param("small.xml", marks=pytest.mark.slow)])
def test_frames_of_videos_go_to_several_threads_and_keep_order_and_results(exported, film, monkeypatch, name):
    inside, at_once, forward = [], [], ExportedDetector._detect

    def slow(self, given, state):
        inside.append(given)
        at_once.append(len(inside))
        # Some are overtaken.
        time.sleep(0.01 + 0.02 * (int(given[0].sum()) % 3 == 0))
        inside.pop()
        return forward(self, given, state)

    monkeypatch.setattr(ExportedDetector, "_detect", slow)
    Path("frames").mkdir()
    for i, frame in enumerate(read_clip(film)):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(f"frames/{i}.png")
    Path("frames/5.png").write_bytes(b"no image")
    command = ["detect", film, "frames", "--frames", "--track", "--model", str(exported(name)), "--quiet"]
    found = {}
    for workers, batch_size in [(1, 1), (2, 1), (2, 3)]:
        at_once.clear()
        output = f"{workers}{batch_size}"
        options = ["--workers", str(workers), "--batch-size", str(batch_size), "--output", output]
        assert main([*command, *options, "--json", f"{output}.json"]) == 1, "a frame is broken"
        assert max(at_once) == workers
        found[output] = json.loads(Path(f"{output}.json").read_text())
        assert [len(read_clip(f"{output}/{name}.mp4")) for name in ("film", "frames")] == [COUNT, COUNT - 1]
    assert found["11"] == found["21"] == found["23"]
    frames = [row["frame"] for row in found["11"] if row["video"] == "frames"]
    assert frames == [i for i in range(COUNT) if i != 5]
    model = load(exported(name), threads=1, score_thresh=0.5)
    for row, frame in zip(found["11"], read_clip(film), strict=False):
        expected = result_rows(model([frame])[0], model.categories, 0, "")
        assert [one["score"] for one in row["detections"]] == [one["score"] for one in expected]
    assert sum(len(row["detections"]) for row in found["11"]) > COUNT


def test_frames_in_memory_are_bounded(exported, film):
    alive, seen = weakref.WeakSet(), []

    def frames():
        for frame in open_video(film):
            alive.add(copy := frame.clone())
            seen.append(len(alive))
            yield copy
        raise ValueError("The film is torn.")

    model = load(exported("small.onnx"), threads=1, callers=2)
    record = VideoRecord(model, Video("film", 25, COUNT, frames))
    write = record.write
    record.write = lambda noted: time.sleep(0.01) or write(noted)
    summary, failure = _video.detect_video(model, record, callers=2, quiet=True)
    assert (summary.split(",")[0], failure) == (f"film: {COUNT} frames", "The film is torn.")
    # Those that are decoded, those that are handed on, those that are detected; and one in each of the hands between.
    assert 3 < max(seen) <= 3 + 2 + 2 * 2 + 3


@pytest.mark.parametrize(
    ("sources", "change", "opened", "callers"),
    [
        (["film.mp4"], {}, [2], 2),
        (["film.mp4"], {"state": {"frames_seen": []}}, [2, 1], 1),
        (["0"], {}, [1], 1),
        (["rtsp://127.0.0.1/door"], {}, [1], 1),
    ],
    ids=["file", "model of clips", "camera", "live"],
)
def test_what_has_to_be_taken_frame_by_frame_is(exported, film, monkeypatch, sources, change, opened, callers):
    asked, seen, build = [], [], detect_command._build

    def counted(args):
        asked.append(args.callers)
        model = build(args)
        model.__dict__["description"] = replace(model.description, **change)
        return model

    monkeypatch.setattr(detect_command, "_build", counted)
    monkeypatch.setattr(detect_command, "run_videos", lambda model, videos, args, chosen: seen.append(args.callers))
    main(["detect", *sources, "--model", str(exported("small.onnx")), "--workers", "2"])
    assert (asked, seen) == (opened, [callers])

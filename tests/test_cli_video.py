"""`ssd-zoo detect` on videos."""

import csv
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from PIL import Image
from small_models import small_model
from torch import nn

import ssd_zoo
from ssd_zoo.cli import _video
from ssd_zoo.cli._frame_file import FrameFile
from ssd_zoo.cli._live import detect_live
from ssd_zoo.cli._video_record import VideoRecord
from ssd_zoo.cli.main import main
from ssd_zoo.data import Video, VideoWriter, open_video, read_clip, read_image
from ssd_zoo.video import detect_stream, split_frames

pytest.importorskip("av", reason='VIDEOS ARE NOT TESTED without PyAV: pip install "ssd_zoo[video]"')
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def film(tmp_path_factory, photo):
    """The astronaut moves by 4 pixels a frame, six frames long, and two frames are grey."""
    image = nn.functional.interpolate(read_image(photo).unsqueeze(0).float(), (160, 160)).byte()[0]
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(file, fps=10) as writer:
        for t in range(6):
            writer.write(torch.roll(image, 4 * t, 2))
        for _ in range(2):
            writer.write(torch.full_like(image, 128))
    return file


@pytest.fixture
def detect(capsys):
    def run(*args):
        try:
            code = main(["detect", *map(str, args)])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_video(detect, film, tmp_path):
    file, output = tmp_path / "found.json", tmp_path / "out"
    code, out, err = detect(film, "--classes", "person", "--json", file, "--output", output, "--track")
    assert (code, err) == (0, "")
    assert out == f"{film}: 8 frames, person in 6, 1 track\n"
    frames = json.loads(file.read_text())
    assert [(frame["frame"], frame["time"]) for frame in frames] == [(t, t / 10) for t in range(8)]
    assert [len(frame["detections"]) for frame in frames] == [1] * 6 + [0] * 2
    person = frames[3]["detections"][0]
    assert person.keys() == {"category_id", "category", "bbox", "score", "track_id"}
    page = (ROOT / "docs/detect.md").read_text()
    shown = json.loads(re.search(r'^{"video".*?}]}$', page, re.MULTILINE | re.DOTALL)[0])
    assert (shown.keys(), shown["detections"][0].keys()) == (frames[3].keys(), person.keys())
    assert {frame["detections"][0].get("track_id") for frame in frames[1:6]} == {1}
    annotated = output / "film.mp4"
    assert open_video(annotated).fps == 10
    before, after = read_clip(film).float(), read_clip(annotated).float()
    assert after.shape == before.shape
    changed = ((after - before).abs().amax(1) > 60).float().mean((1, 2))
    assert (changed[:6] > 0.01).all()
    assert (changed[6:] == 0).all()


def test_json_lines(detect, film, tmp_path):
    for name in ("found.json", "found.jsonl"):
        assert detect(film, "--json", tmp_path / name)[0] == 0
    text = (tmp_path / "found.jsonl").read_text()
    assert text.endswith("}\n")
    header, *rows, end = map(json.loads, text.splitlines())
    assert header["model"] == "ssdlite300_mobilenet_v2"
    assert rows == json.loads((tmp_path / "found.json").read_text())
    assert (end["file_name"], end["frames"]) == (str(film), 8)
    assert detect(tmp_path / "none.mp4", "--json", tmp_path / "none.jsonl")[0] != 0
    with FrameFile(tmp_path / "empty.jsonl"), FrameFile(tmp_path / "empty.json"):
        pass
    assert (tmp_path / "empty.jsonl").read_text() == ""
    assert json.loads((tmp_path / "empty.json").read_text()) == []


def test_csv(detect, film, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    file = tmp_path / "found.csv"
    options = ("--classes", "person", "--track", "--json", tmp_path / "found.json", "--csv", file)
    assert detect(film, broken, *options)[0] == 1
    rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    assert list(rows[0]) == ["file", "frame", "time", "track", "class", "score", "x1", "y1", "x2", "y2", "error"]
    of_film = [row for row in rows if row["file"] == str(film)]
    assert [row["class"] for row in of_film] == [*["person"] * 6, "", ""]
    assert [row["track"] for row in of_film[1:6]] == ["1"] * 5
    frames = json.loads((tmp_path / "found.json").read_text())
    given = [(row["frame"], row["time"]) for row in of_film]
    assert given == [(str(frame["frame"]), str(frame["time"])) for frame in frames if frame["video"] == str(film)]
    assert rows[-1]["file"] == str(broken)
    assert "broken.mp4" in rows[-1]["error"]
    assert sorted(path.name for path in tmp_path.glob("found*")) == ["found.csv", "found.json", "found.json.jsonl"]


def test_tracks_start_from_a_score(detect, film):
    pytest.importorskip("trackers", reason='TRACKS ARE NOT TESTED: pip install "ssd_zoo[track]"')
    model, frames = small_model(), torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    found = {"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.4])}
    for start, track in ((0.3, 1), (0.45, -1)):
        record = VideoRecord(model, Video("film", 10, 4, lambda: iter(frames)), track=start)
        noted = [record.note(frame, dict(found))[1]["track_ids"].item() for frame in record.video.with_times()]
        assert noted[-1] == track
    command = (film, "--classes", "person", "--score-thresh", 0.3, "--track")
    assert detect(*command)[1].endswith(" 1 track\n")
    assert detect(*command, "--track-thresh", 0.99)[1].endswith(" 0 tracks\n")


def test_rate_of_a_folder_of_frames(detect, tmp_path, monkeypatch):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    for t in range(3):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{t}.png")
    for options, step in (((), 0.04), (("--fps", "2.5"), 0.4)):
        assert detect(tmp_path, "--frames", *options, "--json", tmp_path / "found.json")[0] == 0
        times = [frame["time"] for frame in json.loads((tmp_path / "found.json").read_text())]
        assert times == [0, step, 2 * step]
    assert "--fps is for a folder of frames: add --frames" in detect(tmp_path, "--fps", "2")[2]


def test_clip_model_detects_as_it_does_in_the_clip(detect, film, tmp_path):
    options = ("--model", "ssdlite300_mobilenet_v2_3d", "--score-thresh", 0.3, "--quiet")
    for batch_size in (1, 3):
        assert detect(film, *options, "--batch-size", batch_size, "--json", tmp_path / f"{batch_size}.json")[0] == 0
    one, three = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 3))
    model = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="DEFAULT", score_thresh=0.3).eval()
    with torch.inference_mode():
        [whole] = model([read_clip(film)])
    for frame, other, found in zip(one, three, split_frames(whole, 8), strict=True):
        assert [row["score"] for row in frame["detections"]] == pytest.approx(found["scores"].tolist(), abs=1e-3)
        assert [row["score"] for row in other["detections"]] == pytest.approx(found["scores"].tolist(), abs=1e-3)


def test_folder_of_frames_and_several_videos(detect, film, photo, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(2):
        (folder / f"{t}.jpg").write_bytes(photo.read_bytes())
    code, out, err = detect(folder, film, film, "--frames", "--classes", "person", "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{folder}: 2 frames, person in 2", f"{film}: 8 frames, person in 6"]
    assert sorted(os.listdir(tmp_path / "out")) == ["film.mp4", "frames.mp4"]
    assert detect(folder)[1].count("1 object") == 2, "without --frames they are images"


def test_cut_off_video_gives_what_it_has_and_the_reason(detect, test_data, tmp_path):
    whole = test_data / "jhmdb/clips/April_09_brush_hair_u_nm_np1_ba_goo_0.avi"
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[:40000])
    code, out, err = detect(cut, "--json", tmp_path / "cut.json")
    assert code == 1
    frames = json.loads((tmp_path / "cut.json").read_text())
    assert 5 < len(frames) < 30
    assert out.startswith(f"{cut}: {len(frames)} frames, ")
    assert err.startswith(f"ssd-zoo: {cut} is broken or cut off, {len(frames)} frames could be read: ")


def test_interrupted_video_leaves_whole_files(film, tmp_path):
    def frames():
        yield from list(open_video(film))[:3]
        raise KeyboardInterrupt

    for length in (8, None):
        file = tmp_path / f"{length}.json"
        model, video = small_model(), Video("film", 10, length, frames)
        with FrameFile(file) as frame_file:
            record = partial(VideoRecord, model, video, frame_file=frame_file)
            if length is None:
                summary, _ = _video.detect_video(model, record(), quiet=True)
                assert summary.startswith("film: 3 frames"), "a camera's only end"
            else:
                with pytest.raises(KeyboardInterrupt):
                    _video.detect_video(model, record(picture_file=tmp_path / "film.mp4"), quiet=True)
        assert len(json.loads(file.read_text())) == 3
    assert len(read_clip(tmp_path / "film.mp4")) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "or --camera 0"),
        (("a.mp4", "--camera", 0), "or --camera 0"),
        (("nothing.mp4",), "nothing.mp4 is not a file or folder"),
        (("{film}", "{photo}"), "detect in images separately"),
        (("{photo}", "--frames"), "--frames takes folders and videos"),
        (("{photo}", "--track"), "add --frames"),
        (("{film}", "--track-thresh", ".3"), "--track-thresh is for tracks: add --track"),
        (("{film}", "--json", "-", "--csv", "found.csv"), "leave one of them out"),
        (("--camera", "x"), "must be a whole number from 0"),
        (("{film}", "--output", "{folder}"), "would overwrite"),
    ],
)
def test_bad_arguments(detect, film, photo, args, message):
    names = {"film": film, "photo": photo, "folder": film.parent}
    code, out, err = detect(*(str(arg).format(**names) for arg in args))
    assert (code, out) == (2, "")
    assert message in err


def test_no_camera(detect):
    code, out, err = detect("--camera", 77)
    assert (code, out) == (1, "")
    assert "There is no camera 77." in err


WITH_A_DEVICE = """
import signal
import sys
from pathlib import Path
from ssd_zoo.cli import _video, main
from ssd_zoo.data.video_decoding import open_by_av
# Shells let what they start in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
_video.open_camera = lambda index: open_by_av("testsrc=size=64x48", f"camera {index}", kind="lavfi")
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="NO SIGNALS under Windows: how a camera ends is not tested")
def test_a_camera_runs_until_it_is_stopped(tmp_path):
    # In place of a camera, FFmpeg's endless test picture: a device of another kind, opened by the same function.
    output, file = tmp_path / "out", tmp_path / "found.json"
    command = [sys.executable, "-c", WITH_A_DEVICE, "detect", "--camera", "0", "--output", output, "--json", file]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    video = output / "camera0.mp4"
    deadline = time.monotonic() + 300
    # The file's head is written with a frame; until the end the file has a temporary name.
    while process.poll() is None and time.monotonic() < deadline:
        if any(part.stat().st_size for part in output.glob(".camera0.mp4.*")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    found = json.loads(file.read_text())
    assert [frame["frame"] for frame in found] == list(range(len(found)))
    assert len(read_clip(video)) == len(found) > 0
    assert f"camera 0: {len(found)} frame" in out


LONG_VIDEO = """
import ctypes, gc, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_cli_video import _video, FrameFile, Video, VideoRecord, open_video, small_model
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = type("Info", (ctypes.Structure,), {{"_fields_": [(name, ctypes.c_size_t) for name in fields]}})
used, alive = [], []
def watched():
    for t, frame in enumerate(open_video("long.mp4")):
        if t % 200 == 0:
            gc.collect()  # Otherwise memory goes up and down by 100 MB, as Python's own searches for garbage come.
            alive.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
            used.append((info := mallinfo2()).uordblks + info.hblkhd)
        yield frame
with FrameFile(Path("found.json")) as frame_file:
    model = small_model()
    record = VideoRecord(model, Video("long", 25, None, watched), frame_file=frame_file)
    print(*_video.detect_video(model, record, batch_size=8, quiet=True))
# The least of some: a batch may be on its way through the model, with all its feature maps.
for seen in alive, used:
    print(min(seen[-8:]) - min(seen[4:12]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="glibc tells the memory in use, since 2.33")
def test_memory_stays_flat_over_a_long_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ground = torch.randint(0, 255, (3, 96, 128), generator=torch.Generator().manual_seed(0)).byte()
    with VideoWriter("long.mp4", fps=25) as writer:
        for t in range(4_000):
            writer.write(ground.roll(t % 64, 2))
    # In a process of its own, as other tests leave threads behind whose memory changes.
    script = LONG_VIDEO.format(tests=str(Path(__file__).parent))
    # mallinfo2 tells only of the first arena.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    summary, tensors, grown = done.stdout.splitlines()
    assert summary.startswith("long: 4000 frames")
    assert summary.endswith(" None"), "no failure"
    # What kept a tensor of each frame would keep 1,600 of the frames between; a batch comes and goes.
    assert int(tensors) < 200
    # What kept the pixels would grow by 59 MB.
    assert int(grown) < 5e6
    with open("found.json") as stream:
        assert sum(1 for _ in stream) == 4_002


def test_stream_gives_frames_before_an_error(film):
    def frames():
        yield from list(open_video(film))[:5]
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(detect_stream(small_model(), frames(), batch_size=3))
    assert len(seen) == 5


class Turns:
    """A camera whose next frame comes once the one before has been seen, so that none is late."""

    def __init__(self, frames, broken=False):
        self.frames, self.broken, self.turn = frames, broken, threading.Semaphore()
        self.video = Video(f"camera {len(frames)}", 25, None, self.come)

    def come(self):
        for frame in self.frames:
            assert self.turn.acquire(timeout=60)
            yield frame
        if self.broken:
            raise ValueError("the cable is out")

    def seen(self, found):
        self.turn.release()
        return found


@pytest.mark.parametrize("clips", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cameras_at_once_are_detected_as_each_alone(film, tmp_path, clips):
    whole = read_clip(film)
    model = small_model()
    if clips:
        model = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1", score_thresh=0.3).eval()
    cameras = [Turns(whole[:4]), Turns(whole[2:5], broken=True)]
    file = tmp_path / "found.json"
    with FrameFile(file) as frame_file:
        records = [VideoRecord(model, camera.video, camera.seen, frame_file=frame_file) for camera in cameras]
        results = detect_live(model, records)
    assert results[0][0].startswith("camera 4: 4 frames, ")
    assert "late" not in results[0][0]
    assert [failure for _, failure in results] == [None, "the cable is out"]
    found = json.loads(file.read_text())
    for camera in cameras:
        expected = [one["scores"] for _, one in detect_stream(model, camera.frames)]
        rows = [row for row in found if row["video"] == camera.video.name]
        assert [row["frame"] for row in rows] == list(range(len(camera.frames)))
        for row, scores in zip(rows, expected, strict=True):
            assert [one["score"] for one in row["detections"]] == pytest.approx(scores.tolist(), abs=1e-3)


def test_late_frames_are_left_out_and_counted(film):
    whole = read_clip(film)
    model = small_model()
    step, gate = model.step, threading.Event()

    def slow(frames, state):
        gate.wait(10)
        return step(frames, state)

    def come():
        yield from whole[:6]
        gate.set()

    model.step = slow
    [(summary, failure)] = detect_live(model, [VideoRecord(model, Video("camera 0", 25, None, come))])
    assert failure is None
    # Six came while the first batch waited: it holds the first of them, or the newest then.
    seen = int(summary.split()[2])
    assert seen in (1, 2)
    assert f"{6 - seen} late ones left out" in summary


@pytest.fixture
def films(film, tmp_path, monkeypatch):
    """Three films of eight frames in the working folder, the second of them cut off at its middle."""
    monkeypatch.chdir(tmp_path)
    content = film.read_bytes()
    for name in "abc":
        Path(f"{name}.mp4").write_bytes(content[: len(content) // 2] if name == "b" else content)
    return ["a.mp4", "b.mp4", "c.mp4"]


class Killed(BaseException):
    """Ends the command where it stands, as a kill would."""


@pytest.mark.parametrize("file", ["r.json", "r.jsonl"])
def test_the_same_command_goes_on_with_the_next_video(detect, films, monkeypatch, file):
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    command = [*films, "--json", file, "--output", "out"]
    assert detect(*command)[0] == 1, "the second film is broken"
    whole = Path(file).read_text()
    for left in Path().glob("r.*"):
        left.unlink()
    written, write = [], VideoRecord.write

    def killed(self, noted):
        if len(written) == 11:
            raise Killed
        written.append(self.video.name)
        write(self, noted)

    monkeypatch.setattr(VideoRecord, "write", killed)
    with pytest.raises(Killed):
        detect(*command)
    monkeypatch.setattr(VideoRecord, "write", write)
    assert written == 8 * ["a.mp4"] + 3 * ["c.mp4"]
    lines = Path("r.jsonl" if file == "r.jsonl" else "r.json.jsonl").read_text().splitlines()
    header, *rows = map(json.loads, lines)
    assert header["track"] is None
    # Of the first film, its end, the broken one, and what there is of the third.
    assert [row.get("frame", row.get("frames")) for row in rows] == [*range(8), 8, 0, 0, 1, 2]
    assert "b.mp4" in rows[9]["error"]
    opened, real = [], _video.open_video
    monkeypatch.setattr(_video, "open_video", lambda source, **options: opened.append(source) or real(source))
    code, _, err = detect(*command)
    assert code == 1
    assert list(map(str, opened)) == ["b.mp4", "c.mp4"], "what has failed is tried again"
    assert "has the results of 2 videos; going on. A video of which it has 3 frames starts anew.\n" in err
    assert Path(file).read_text() == whole
    assert detect(*command, "--track")[0] == 1
    assert list(map(str, opened[2:])) == films, "of another command"


# One process that is forked at each turn, so that the modules are imported once.
KILLS = """
import json, os, random, signal, sys, time
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from test_cli_video import VideoRecord, main, small_model
from ssd_zoo.cli import detect
write = VideoRecord.write
VideoRecord.write = lambda *args: time.sleep(0.01) or write(*args)
detect._build = lambda args: small_model()
pick, kills = random.Random(0), {kills}
for turn in range(kills + 1):
    child = os.fork()
    if child == 0:
        os._exit(main(["detect", *sys.argv[1:], "--json", "r.jsonl", "--output", "out", "--quiet"]))
    if turn < kills:
        # Half of them at once, half once it writes.
        size, deadline = os.path.getsize("r.jsonl") if os.path.exists("r.jsonl") else 0, time.monotonic() + 3
        while turn % 2 and time.monotonic() < deadline:
            if os.path.exists("r.jsonl") and os.path.getsize("r.jsonl") > size:
                break
            time.sleep(0.005)
        time.sleep(pick.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
    code = os.waitpid(child, 0)[1]
    # No line but the last may be cut off.
    text = open("r.jsonl").read() if os.path.exists("r.jsonl") else ""
    rows = [json.loads(line) for line in text.split("\\n")[1:-1]]
    frames = [(row["video"], row["frame"]) for row in rows if "frame" in row]
    assert len(frames) == len(set(frames)), frames
    print(code, sum("error" not in row for row in rows if "frames" in row), len(frames), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: kills at random are not tested")
def test_kills_at_random_lose_no_video_and_leave_no_frame_twice(detect, films, monkeypatch):
    films += [f"{i}.mp4" for i in range(6)]
    for name in films[3:]:
        Path(name).write_bytes(Path("a.mp4").read_bytes())
    script = KILLS.format(tests=str(Path(__file__).parent), kills=20)
    done = subprocess.run([sys.executable, "-c", script, *films], capture_output=True, text=True, check=True)
    codes, whole, frames = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert codes[-1] == 256, "the broken film alone failed"
    assert list(whole) == sorted(whole), "no film that was done is lost"
    assert any(count > 8 * films_done for films_done, count in zip(whole, frames, strict=True)), (
        "rows are there at once"
    )
    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())
    assert detect(*films, "--json", "s.jsonl", "--output", "out")[0] == 1
    assert Path("r.jsonl").read_text() == Path("s.jsonl").read_text()
    assert sorted(file.name for file in Path("out").glob("[!.]*")) == sorted({*films} - {"b.mp4"})

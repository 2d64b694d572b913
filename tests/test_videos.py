"""Videos as cameras and other programs write them. Files are written by PyAV; times and places are worked by hand."""

import http.server
import json
import os
import re
import shutil
import signal
import struct
import sys
import threading
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from launch import fork, join
from PIL import Image

import ssd_zoo
from ssd_zoo.cli._video import _video_files, find_videos
from ssd_zoo.cli.main import main
from ssd_zoo.data import VideoWriter, open_video, read_clip, read_image
from ssd_zoo.video import Tracker

ROOT = Path(__file__).parents[1]
av = pytest.importorskip("av", reason='VIDEOS ARE NOT TESTED without PyAV: pip install "ssd_zoo[video]"')
from rtsp_server import camera  # noqa: E402  It needs PyAV.

REGULAR = [t / 10 for t in range(10)]
TIMES = {
    "regular": REGULAR,
    "long frame within": [0, 0.1, 0.2, 3.2, 3.3],
    "gap": [0, 0.1, 0.2, 6.0, 6.1],
    "late": [3.0, 3.1, 3.2],
    "two rates": [0, 0.04, 0.08, 0.58, 1.08],
}


def write(file, times=REGULAR, *, last=0.1, codec="mpeg4", sound=0.0, size=(64, 48)):
    """Writes grey frames at these times; the last one is shown `last` seconds."""
    tick = 10 if Path(file).suffix == ".avi" else 1000
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, tick)
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        ends = dict(zip(times, [*times[1:], times[-1] + last], strict=True))
        ticks = {round(tick * time): round(tick * (end - time)) for time, end in ends.items()}
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(tick * time), Fraction(1, tick)
            mux(container, stream.encode(frame), ticks)
        mux(container, stream.encode(), ticks)
        for i in range(round(sound * 8)):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 8000, 1000 * i, Fraction(1, 8000)
            container.mux(audio.encode(samples))
        if audio:
            container.mux(audio.encode())
    return file


def mux(container, packets, ticks):
    for packet in packets:
        packet.duration = ticks[packet.pts]
        container.mux(packet)


def times(file):
    return [round(frame.time, 3) for frame in open_video(file).with_times()]


@pytest.fixture
def detect(capsys, monkeypatch):
    """Runs `ssd-zoo detect` with a model that takes no time."""
    from test_cli_video import small_model

    monkeypatch.setattr("ssd_zoo.cli.detect._build", lambda args: small_model())

    def run(*args):
        code = main(["detect", *map(str, args)])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_frames_bring_their_times(tmp_path, detect, kind, ending):
    file = write(tmp_path / f"a.{ending}", TIMES[kind])
    expected = [round(time - TIMES[kind][0], 3) for time in TIMES[kind]]
    assert times(file) == expected
    assert detect(file, "--json", tmp_path / "r.json", "--output", tmp_path / "out")[0] == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [(row["frame"], row["time"]) for row in rows] == list(enumerate(expected))
    assert times(tmp_path / "out/a.mp4") == expected, "the annotated video runs as the video does"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "gif", "avi", "wmv"])
@pytest.mark.parametrize("last", [0.1, 4.0])
@pytest.mark.parametrize("sound", [0, 3.0])
def test_whole_files_are_whole(tmp_path, ending, last, sound):
    if (ending, last) == ("avi", 4.0):
        last = 0.3  # AVI tells no durations of frames, so that a much longer one is taken for a loss.
    if ending == "gif":
        Image.new("L", (8, 8)).save(
            tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (8, 8), 20 * i) for i in range(1, 10)],
            duration=[100] * 9 + [round(1000 * last)],
        )  # fmt: skip
    else:
        write(tmp_path / f"a.{ending}", last=last, sound=sound, codec="wmv2" if ending == "wmv" else "mpeg4")
    assert len(times(tmp_path / f"a.{ending}")) == 10


def test_last_frame_of_an_annotated_video_lasts_as_long(tmp_path, detect):
    assert detect(write(tmp_path / "a.mp4", last=4.0), "--output", tmp_path / "out")[0] == 0
    *_, last = open_video(tmp_path / "out/a.mp4").with_times()
    assert last.duration == pytest.approx(4.0)


@pytest.mark.parametrize("ending", ["mkv", "avi", "mp4", "mov"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_file_that_was_cut_off(tmp_path, detect, ending, share):
    rng = np.random.default_rng(0)
    # The index of MP4 is put in front, as in films from the web; one without its index tells nothing.
    options = {"movflags": "faststart"} if ending in ("mp4", "mov") else {}
    with av.open(str(tmp_path / f"whole.{ending}"), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(data[: round(share * len(data))])
    assert len(times(tmp_path / f"whole.{ending}")) == 20
    code, out, err = detect(tmp_path / f"cut.{ending}")
    assert code == 1
    assert re.search(r": \d+ frames?, ", out)
    assert re.search(rf"cut\.{ending} is broken or cut off, \d+ frames could be read", err)


RED = [4, 4, 20, 16]
# Places of the rectangle RED of 64 × 48 pixels, as the matrices (a, b; c, d) show it: x' = a x + c y, y' = b x + d y.
SHOWN = {
    (1, 0, 0, 1): (RED, (48, 64)),
    (-1, 0, 0, 1): ([44, 4, 60, 16], (48, 64)),
    (1, 0, 0, -1): ([4, 32, 20, 44], (48, 64)),
    (-1, 0, 0, -1): ([44, 32, 60, 44], (48, 64)),
    (0, 1, 1, 0): ([4, 4, 16, 20], (64, 48)),
    (0, 1, -1, 0): ([32, 4, 44, 20], (64, 48)),
    (0, -1, 1, 0): ([4, 44, 16, 60], (64, 48)),
    (0, -1, -1, 0): ([32, 44, 44, 60], (64, 48)),
}


@pytest.mark.parametrize("matrix", SHOWN)
def test_turned_and_mirrored(tmp_path, matrix):
    picture = torch.zeros(3, 48, 64, dtype=torch.uint8)
    picture[0, 4:16, 4:20] = 255
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        writer.write(picture)
    data = (tmp_path / "a.mp4").read_bytes()
    # The matrix in the track's header: numbers of 16.16 bits, the last one of 2.30.
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in matrix)
    at = data.index(plain, data.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :])
    [frame] = read_clip(tmp_path / "a.mp4")
    box, size = SHOWN[matrix]
    assert frame.shape == (3, *size)
    rows, columns = (frame[0] > 128).nonzero(as_tuple=True)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert torch.tensor(found).tolist() == pytest.approx(box, abs=1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
@pytest.mark.parametrize("name", ["cam:1.mp4", "http:a.mp4", "a%03d.mp4", "é [x]*.mp4", "-a.mp4"])
def test_names_that_look_like_something_else(tmp_path, detect, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "plain.mp4").rename(name)
    source = f"./{name}" if name.startswith("-") else name
    code, out, err = detect(source, "--output", "out")
    assert (code, err) == (0, "")
    assert ": 10 frames" in out
    assert len(read_clip(Path("out", name))) == 10


def test_sound_with_a_cover_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        container.mux(cover.encode(av.VideoFrame.from_image(Image.new("RGB", (16, 16)))))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    with pytest.raises(ValueError, match=r"song\.m4a holds no video"):
        open_video(tmp_path / "song.m4a")


def test_unknown_codec(tmp_path, detect):
    data = write(tmp_path / "a.mp4").read_bytes()
    # The codec's number in the track's description, and FFmpeg's own tag for it.
    data = data.replace(b"mp4v", b"zzzz")
    (tmp_path / "a.mp4").write_bytes(data.replace(b"esds", b"zzzz"))
    code, out, err = detect(tmp_path / "a.mp4")
    assert (code, out) == (1, "")
    assert "a.mp4 is in a video format that FFmpeg does not know; convert it" in err


def test_folder_goes_on_after_a_bad_frame(tmp_path, detect):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in (1, 2, 5, 10):
        Image.new("L", (16, 16), i).save(folder / f"f{i}.png")
    (folder / "f2.png").write_bytes(b"x")
    code, out, err = detect(folder, "--frames", "--json", tmp_path / "r.json")
    assert code == 1
    assert out == f"{folder}: 3 frames, thing in 3\n"
    assert f"1 of 4 frames failed: {folder / 'f2.png'} is not an image" in err
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [(row["frame"], row["time"]) for row in rows] == [(0, 0), (2, 0.08), (3, 0.12)]
    assert read_clip(folder, [3, 2])[:, 0, 0, 0].tolist() == [10, 5], "numbers are those of the files"
    with pytest.raises(ValueError, match=r"f2\.png"):
        read_clip(folder, [1])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_address(tmp_path, detect):
    write(tmp_path / "a.mkv")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        code, out, err = detect(f"{address}/a.mkv?x=1", "--output", tmp_path / "out")
        missing = detect(f"{address}/gone.mkv")
        server.shutdown()
    assert (code, err) == (0, "")
    assert out == f"{address}/a.mkv?x=1: 10 frames, thing in 10\n"
    assert len(read_clip(tmp_path / "out/a.mp4")) == 10
    assert missing[0] == 1
    assert "gone.mkv is not a readable video" in missing[2]


def test_camera_in_the_network(tmp_path, detect):
    grey = [20 * t for t in range(2, 12)]
    with camera([np.full((48, 64, 3), value, np.uint8) for value in grey]) as address:
        frames = list(open_video(address).with_times())
        one = detect(address, "--output", tmp_path / "out", "--json", tmp_path / "r.json")
        two = detect(address, f"{address}2", "--json", tmp_path / "two.json")
    gone = detect(address)
    assert [round(frame.pixels.float().mean().item()) for frame in frames] == pytest.approx(grey, abs=2)
    assert [frame.time for frame in frames] == pytest.approx(REGULAR, abs=0.001)
    assert (one[0], one[2]) == (0, "")
    assert one[1].startswith(f"{address}: ")
    # Frames that come while one is in work are left out.
    rows = json.loads((tmp_path / "r.json").read_text())
    assert 1 <= len(read_clip(tmp_path / "out/door.mp4")) == len(rows) <= 10
    assert (two[0], two[2]) == (0, "")
    assert [line.split(": ")[0] for line in two[1].splitlines()] == [address, f"{address}2"]
    assert gone[0] == 1
    assert f"{address} is not a readable video" in gone[2]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://user:secret@10.0.0.1:554/door?channel=1", "door"),
        ("https://host/a/street.mp4", "street"),
        ("rtsp://10.0.0.1/", "10.0.0"),
        ("0", "camera0"),
    ],
)
def test_sources_that_are_no_files(tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    videos = find_videos([source], frames=False)
    assert videos == [0 if source == "0" else source]
    assert _video_files(videos, tmp_path) == {videos[0]: tmp_path / f"{name}.mp4"}
    Path("0").touch()
    assert find_videos(["0"], frames=False) == [], "a file of this name is a file"


def test_tracks_end_in_a_gap():
    pytest.importorskip("trackers", reason='TRACKS ARE NOT TESTED: pip install "ssd_zoo[track]"')
    found = {"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    for gap, tracks in ((0.5, 1), (9.0, 2)):
        tracker = Tracker(fps=10, score_thresh=0.5)
        for time in (0, 0.1, 0.2, 0.2 + gap, 0.3 + gap, 0.4 + gap):
            tracker.update(found, time)
        assert len(tracker) == tracks


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "avi", "webm", "flv", "mpg", "asf", "ts", "ogv"])
def test_a_video_is_no_image_and_the_error_says_so(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    codec = {"webm": "vp8", "ogv": "vp8", "flv": "flv1", "mpg": "mpeg1video", "asf": "wmv2"}.get(ending, "mpeg4")
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"is not an image.*It is a video: .*detect_stream\(model"):
        read_image(file)


def test_page_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trackers", reason='TRACKS ARE NOT TESTED: pip install "ssd_zoo[track]"')
    (tmp_path / "photos").mkdir()
    shutil.copy(ROOT / "examples/astronaut.jpg", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/video.md").read_text(encoding="utf-8")
    # Not marked as python, so that pages can be tested without the packages of this one.
    code, of_camera = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = []
    window = SimpleNamespace(imshow=lambda name, picture: shown.append(picture), waitKey=lambda wait: 27)
    monkeypatch.setitem(sys.modules, "cv2", window)
    monkeypatch.setattr(ssd_zoo.data, "open_camera", lambda index: open_video("space.mp4"))
    exec(compile(code + of_camera, "docs/video.md", "exec"), {})
    assert [picture.shape for picture in shown] == [(512, 512, 3)]
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)


def write_with_little_space(files):
    import resource  # Windows has none.

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    torch.manual_seed(0)
    noise = torch.randint(256, (3, 128, 128)).byte()
    for file in files:
        try:
            with VideoWriter(file, fps=10) as writer:
                for t in range(60):
                    writer.write(noise.roll(17 * t, 2))
        except OSError as error:
            print(error, flush=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of size there")
def test_a_full_disk_is_an_error_and_keeps_the_old_video(tmp_path):
    files = [tmp_path / f"a.{ending}" for ending in ("mp4", "mkv", "avi")]
    for file in files:
        file.write_text("old")
    log = tmp_path / "told"
    assert join(fork(write_with_little_space, files, log=log)) == 0
    assert log.read_text().splitlines() == [f"{file} can't be written: File too large." for file in files]
    log.unlink()
    assert all(file.read_text() == "old" for file in files)
    assert set(os.listdir(tmp_path)) == {file.name for file in files}, "no part is left"


def test_video_appears_when_it_is_whole(tmp_path):
    file = tmp_path / "a.mp4"
    with closing(VideoWriter(file, fps=10)) as writer:
        writer.write(torch.zeros(3, 16, 16, dtype=torch.uint8))
        assert not file.exists()
    assert len(read_clip(file)) == 1


def test_frames_of_two_sizes_are_refused_by_the_writer_alone(tmp_path, detect):
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        writer.write(torch.zeros(3, 15, 16, dtype=torch.uint8))
        with pytest.raises(ValueError, match=r"a.mp4 has frames of 15 × 16 pixels, and this one has 16 × 16\. Resize"):
            writer.write(torch.zeros(3, 16, 16, dtype=torch.uint8))
    assert read_clip(tmp_path / "a.mp4").shape == (1, 3, 16, 16), "odd sides become even"
    (tmp_path / "frames").mkdir()
    for t, size in enumerate([(64, 48), (80, 48)]):
        Image.new("RGB", size).save(tmp_path / f"frames/{t}.png")
    assert detect(tmp_path / "frames", "--frames", "--output", tmp_path / "out")[0] == 0
    assert read_clip(tmp_path / "out/frames.mp4").shape == (2, 3, 48, 64)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.jpg"])
def test_extension_that_is_no_video(tmp_path, name):
    with pytest.raises(ValueError, match=r"its extension must be \.mp4"):
        VideoWriter(tmp_path / name, fps=10)


def test_without_a_frame_an_older_video_stays(tmp_path, detect):
    """A folder whose pictures can't be read, and a writer that gets nothing."""
    draw = Image.new("RGB", (64, 48))
    for t in range(2):
        (tmp_path / "a").mkdir(exist_ok=True)
        draw.save(tmp_path / f"a/{t}.png")
    options = ("--frames", "--output", tmp_path / "out")
    assert detect(tmp_path / "a", *options)[0] == 0
    [video] = (tmp_path / "out").rglob("*.mp4")
    before = video.read_bytes()
    for t in range(2):
        (tmp_path / f"a/{t}.png").write_bytes(b"no picture")
    code, _, told = detect(tmp_path / "a", *options)
    assert code == 1
    assert "0.png" in told
    assert video.read_bytes() == before
    with VideoWriter(tmp_path / "none.mp4", fps=5):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "out"]


@pytest.mark.parametrize("ending", [".avi", ".mov"])
def test_pictures_with_facts_that_pyav_does_not_know(tmp_path, ending):
    """EXIF of MJPEG, for which PyAV 18 has no name."""
    import av

    exif = Image.Exif()
    exif[271] = "a camera"
    container = av.open(tmp_path / f"a{ending}", "w")
    stream = container.add_stream("mjpeg", rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
    for t in range(3):
        Image.new("RGB", (64, 48), (40 * t, 0, 0)).save(tmp_path / "a.jpg", exif=exif)
        packet = av.Packet((tmp_path / "a.jpg").read_bytes())
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, t, t, Fraction(1, 5)
        container.mux(packet)
    container.close()
    assert [int(frame[0].float().mean()) for frame in open_video(tmp_path / f"a{ending}")] == pytest.approx(
        [0, 40, 80], abs=3
    )


def test_times_never_go_back(tmp_path):
    """AVI keeps the order in which frames are decoded, and H.264 has frames that refer to later ones."""
    x = np.arange(128)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for t in range(50):
            wave = 127 + 60 * np.sin((x + 3 * t) / 9) + 60 * np.sin((x[:, None] - t * t / 20) / 7)
            pixels = np.repeat(wave.astype(np.uint8)[..., None], 3, 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = times(tmp_path / "a.avi")
    assert len(found) == 50
    assert found == sorted(set(found))
    assert found[-1] == pytest.approx(49 / 25, abs=0.1)

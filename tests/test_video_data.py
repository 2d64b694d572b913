"""Reading and writing videos, and data sets of them."""

import io
import json
import random
import runpy

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torchvision import tv_tensors

from ssd_zoo.data import (
    ClipSampler,
    VideoWriter,
    clip_augmentation,
    inspect_dataset,
    open_camera,
    open_dataset,
    open_video,
    open_video_dataset,
    read_clip,
    video_splits,
)

av = pytest.importorskip("av", reason='VIDEOS ARE NOT TESTED without PyAV: pip install "ssd_zoo[video]"')
pytestmark = pytest.mark.usefixtures("one_thread")


def grey(value, size=(48, 64)):
    return torch.full((3, *size), value, dtype=torch.uint8)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Fifty frames that get lighter: frame t has grey 5 t."""
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(file, fps=12.5) as writer:
        for t in range(50):
            writer.write(grey(5 * t))
    return file


def greys(frames):
    return [round(float(frame.float().mean()) / 5) for frame in frames]


def read_until_it_breaks(file):
    frames = []
    with pytest.raises(ValueError, match="broken or cut off") as error:
        frames.extend(open_video(file))
    return frames, str(error.value)


def test_what_is_written_is_read(film):
    video = open_video(film)
    assert (video.fps, video.length) == (12.5, 50)
    frames = list(video)
    assert greys(frames) == list(range(50))
    assert (frames[0].dtype, frames[0].shape) == (torch.uint8, (3, 48, 64))
    assert greys(video) == list(range(50)), "each time it starts anew"


def test_readers_may_leave_early(film):
    for _ in range(200):
        assert next(iter(open_video(film))).shape == (3, 48, 64)


def test_colours_and_odd_sizes(tmp_path):
    red = torch.zeros(3, 33, 51, dtype=torch.uint8)
    red[0] = 220
    with VideoWriter(tmp_path / "red.mp4", fps=30000 / 1001) as writer:
        writer.write(red)
        writer.write(red)
        with pytest.raises(ValueError, match="33 × 71"):
            writer.write(torch.nn.functional.pad(red, (0, 20)))
    clip = read_clip(tmp_path / "red.mp4")
    assert clip.shape == (2, 3, 34, 52)
    assert (clip.float().mean((0, 2, 3))[1:] < 15).all()
    assert open_video(tmp_path / "red.mp4").fps == pytest.approx(29.97, abs=0.01)


def test_some_frames(film):
    assert greys(read_clip(film, [7, 3, 3, 30])) == [7, 3, 3, 30]
    with pytest.raises(ValueError, match="has no frame 50"):
        read_clip(film, [3, 50])


def test_cut_off_file_gives_the_frames_that_it_has(test_data, tmp_path):
    whole = test_data / "jhmdb/clips/April_09_brush_hair_u_nm_np1_ba_goo_0.avi"
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames, reason = read_until_it_breaks(cut)
    assert 10 < len(frames) < 30
    assert f"{cut} is broken or cut off, {len(frames)} frames could be read" in reason
    assert torch.equal(torch.stack(frames[:8]), read_clip(whole)[:8])


def test_damaged_file_gives_what_can_be_read(test_data, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    data = bytearray((test_data / "ucf24/clips/v_Biking_g01_c01.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    damaged.write_bytes(data)
    frames, reason = read_until_it_breaks(damaged)
    assert 140 < len(frames) <= 151
    assert "damaged" in reason or "Invalid data" in reason


def test_telephones_lie_on_their_side(film, tmp_path):
    turned = tmp_path / "turned.mp4"
    with av.open(str(film)) as source, av.open(str(turned), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    data = turned.read_bytes()
    # The track header's matrix: from upright to a quarter turn.
    one, zero = (0x10000).to_bytes(4, "big"), bytes(4)
    upright = one + zero * 3 + one + zero * 3 + (0x40000000).to_bytes(4, "big")
    quarter = zero + one + zero + (0xFFFF0000).to_bytes(4, "big") + zero * 4 + (0x40000000).to_bytes(4, "big")
    start = data.index(upright, data.index(b"tkhd"))
    turned.write_bytes(data[:start] + quarter + data[start + 36 :])
    assert next(iter(open_video(turned))).shape == (3, 64, 48)


def test_folder_of_frames_goes_by_number(tmp_path):
    for t in (2, 10, 1):
        Image.fromarray(grey(5 * t).permute(1, 2, 0).numpy()).save(tmp_path / f"frame{t}.png")
    video = open_video(tmp_path, fps=5)
    assert (video.length, video.fps, greys(video)) == (3, 5, [1, 2, 10])


def test_what_is_no_video(tmp_path, photo):
    with pytest.raises(FileNotFoundError, match="is not a file or folder"):
        open_video(tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text.mp4 is not a readable video"):
        open_video(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="film.xyz can't be written as a video: its extension must be .mp4"):
        VideoWriter(tmp_path / "film.xyz", fps=25)
    with pytest.raises(ValueError, match="camera 77"):
        open_camera(77)


def test_jhmdb(test_data):
    # The example reads them.
    open_jhmdb = runpy.run_path(str(ROOT / "examples/video/jhmdb.py"))["open_jhmdb"]
    dataset = open_jhmdb(test_data / "jhmdb")
    assert (len(dataset), len(dataset.categories), dataset.trimmed) == (268, 22, True)
    assert sum(video.num_frames for video in dataset.videos) == 9126
    clip, target = dataset[0]
    assert isinstance(clip, tv_tensors.Video)
    assert clip.shape == (40, 3, 240, 320)
    assert target["boxes"][0].tolist() == [72, 49, 248, 240]
    assert dataset.categories[target["labels"][0]] == "brush_hair"
    assert target["frame_index"].tolist() == list(range(40))
    assert "labeled_frames" not in target
    assert {video.meta["fold"] for video in dataset.videos} == {0, 1, 2}


VID = """<annotation><size><width>64</width><height>48</height></size>
<object><trackid>{track}</trackid><name>{name}</name>
<bndbox><xmax>30</xmax><xmin>10</xmin><ymax>40</ymax><ymin>{y}</ymin></bndbox></object></annotation>"""


def test_imagenet_vid(tmp_path):
    frames, notes = tmp_path / "Data/VID/val/clip_a", tmp_path / "Annotations/VID/val/clip_a"
    frames.mkdir(parents=True)
    notes.mkdir(parents=True)
    for t in range(3):
        Image.fromarray(grey(5 * t).permute(1, 2, 0).numpy()).save(frames / f"{t:06}.JPEG")
    (notes / "000000.xml").write_text(VID.format(track=4, name="n02084071", y=8))
    (notes / "000002.xml").write_text("<annotation><size><width>64</width><height>48</height></size></annotation>")
    assert video_splits(tmp_path) == ["val"]
    dataset = open_video_dataset(tmp_path, split="val")
    clip, target = dataset[0]
    assert clip.shape == (3, 3, 48, 64)
    assert target["boxes"].tolist() == [[10, 8, 30, 40]]
    assert dataset.categories[target["labels"][0]] == "dog"
    assert (target["track_ids"].tolist(), target["frame_index"].tolist()) == ([4], [0])
    assert target["labeled_frames"].tolist() == [0, 2], "frame 2 is empty, frame 1 is not annotated"
    report = inspect_dataset(dataset)
    assert report.layout == "ImageNet VID: Data/VID and Annotations/VID"
    assert report.notes == ["1 frame (clip_a/000001.JPEG) without an XML file, taken as not annotated"]
    (notes / "000001.xml").write_text(VID.format(track=4, name="n02084071", y="x"))
    [problem] = inspect_dataset(open_video_dataset(tmp_path, split="val")).problems
    assert "000001.xml: a side of a box must be a finite number" in problem
    (notes / "000001.xml").unlink()
    (notes / "000000.xml").write_text(VID.format(track=4, name="n1", y=8))
    with pytest.raises(ValueError, match="object 'n1', which is none of ImageNet VID's 30 classes"):
        open_video_dataset(tmp_path, split="val")


def test_unknown_layouts(tmp_path):
    with pytest.raises(ValueError, match="has no known layout of videos: clips.json, MOTChallenge"):
        open_video_dataset(tmp_path)
    # Who opens a folder for images may have videos.
    with pytest.raises(ValueError, match="a CSV table; of videos clips.json, MOTChallenge"):
        open_dataset(tmp_path)
    assert video_splits(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="There is no .*nothing"):
        open_video_dataset(tmp_path / "nothing")
    (tmp_path / "Data/VID/train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no frames"):
        open_video_dataset(tmp_path)


def test_clips_are_drawn():
    random.seed(0)
    drawn = [ClipSampler(4, strides=(1, 3))(12) for _ in range(200)]
    assert {clip[1] - clip[0] for clip in drawn} == {1, 3}
    assert all(clip == list(range(clip[0], clip[0] + 4 * (clip[1] - clip[0]), clip[1] - clip[0])) for clip in drawn)
    assert min(clip[0] for clip in drawn) == 0
    assert max(clip[-1] for clip in drawn) == 11
    assert {ClipSampler(4, strides=(3,))(9)[1] for _ in range(50)} <= {*range(1, 7)}, "too short for stride 3"
    assert ClipSampler(8)(3) == [0, 1, 2]


def test_augmentation_is_the_same_for_all_frames():
    torch.manual_seed(0)
    random.seed(0)
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 60, 80), dtype=np.uint8))
    boxes = torch.tensor([[5.0, 5, 30, 40], [50, 10, 75, 50]])
    augment, kept = clip_augmentation(), set()
    for _ in range(12):
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes.repeat(3, 1), format="XYXY", canvas_size=(60, 80)),
            "labels": torch.tensor([1, 2]).repeat(3),
            "frame_index": torch.arange(3).repeat_interleave(2),
            "track_ids": torch.tensor([7, 8]).repeat(3),
        }
        clip, target = augment(tv_tensors.Video(frame.repeat(3, 1, 1, 1)), target)
        assert torch.equal(clip[0], clip[2])
        first, last = (target["boxes"][target["frame_index"] == t] for t in (0, 2))
        assert torch.equal(first, last)
        assert target["track_ids"].tolist() == [6 + label for label in target["labels"].tolist()]
        kept.add(len(target["labels"]))
    assert kept == {3, 6}, "objects are cropped away in all frames or in none"


def test_frames_of_files_have_a_limit_of_pixels(film, tmp_path):
    allowed = r"film.mp4 can't be read: its frames have 64 × 48 pixels, and 3071 are allowed; .*--max-pixels"
    with pytest.raises(ValueError, match=allowed):
        open_video(film, max_pixels=3071)
    assert len(list(open_video(film, max_pixels=3072))) == 50
    (tmp_path / "film.mp4").write_bytes(film.read_bytes())
    video = {"file": "film.mp4", "objects": [{"frame": 0, "category": "cat", "box": [1, 2, 30, 40]}]}
    (tmp_path / "clips.json").write_text(json.dumps({"categories": ["cat"], "videos": [video]}))
    with pytest.raises(ValueError, match=allowed):
        open_video_dataset(tmp_path, max_pixels=3071)
    assert open_video_dataset(tmp_path, max_pixels=None)[0][0].shape == (50, 3, 48, 64)


def test_frames_that_grow_within_a_file(tmp_path):
    """Motion JPEG of two sizes: the header tells the first alone."""
    small, large = (io.BytesIO() for _ in range(2))
    for stream, size in ((small, (48, 64)), (large, (480, 640))):
        Image.fromarray(grey(99, size).permute(1, 2, 0).numpy()).save(stream, "JPEG")
    file = tmp_path / "film.mjpeg"
    file.write_bytes(small.getvalue() * 2 + large.getvalue())
    assert [frame.shape for frame in open_video(file)][-1] == (3, 480, 640)
    frames = iter(open_video(file, max_pixels=3072))
    assert next(frames).shape == next(frames).shape == (3, 48, 64)
    with pytest.raises(ValueError, match="its frames have 640 × 480 pixels, and 3072 are allowed"):
        next(frames)


def test_read_without_pyav(film, monkeypatch):
    monkeypatch.setattr("ssd_zoo.data.video.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "ssd_zoo\[video\]"'):
        open_video(film)


def test_torchcodec_reads_the_same(film, test_data, tmp_path, monkeypatch):
    pytest.importorskip("torchcodec", reason="TORCHCODEC IS NOT TESTED: pip install torchcodec, and FFmpeg's libraries")
    clip = min((test_data / "jhmdb/clips").glob("*.avi"))
    expected = [list(open_video(file)) for file in (film, clip)]
    monkeypatch.setattr("ssd_zoo.data.video.find_spec", lambda name: None if name == "av" else name)
    with pytest.raises(ValueError, match="its frames have 64 × 48 pixels, and 3071 are allowed"):
        open_video(film, max_pixels=3071)
    for file, frames in zip((film, clip), expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(open_video(file), frames, strict=True))
    assert (open_video(film).fps, open_video(film).length) == (12.5, 50)
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"film.mp4 is not a readable video"):
        open_video(tmp_path / "film.mp4")

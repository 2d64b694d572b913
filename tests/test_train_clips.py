"""Clips are trained on, measured, inspected and augmented as images are. Expected figures are worked by hand."""

import json
import random
import re

import pytest
import torch
from labelled import colourful, draw
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import ssd_zoo
from ssd_zoo.cli import _prepare
from ssd_zoo.cli.main import main
from ssd_zoo.data import (
    AnnotatedVideo,
    DetectionPresetTrain,
    VideoDataset,
    VideoWriter,
    collate,
    fit_default_boxes,
    inspect_dataset,
    open_dataset,
    open_video_dataset,
    usable,
    video_splits,
)
from ssd_zoo.data.sheet import contact_sheet, labelled_pictures
from ssd_zoo.training import evaluate, fit
from ssd_zoo.training.balance import count_positives, part_weights

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"tensorboard": False, "progress": False, "device": "cpu", "ema_decay": 0}
NAMES = ["background", "cat", "dog"]


def target(*rows, labeled=None, **more):
    """Rows are frame, box, label, and track."""
    made = {
        "boxes": torch.tensor([row[1] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[2] for row in rows], dtype=torch.int64),
        "frame_index": torch.tensor([row[0] for row in rows], dtype=torch.int64),
    }
    if rows and len(rows[0]) > 3:
        made["track_ids"] = torch.tensor([row[3] for row in rows])
    if labeled is not None:
        made["labeled_frames"] = torch.tensor(labeled, dtype=torch.int64)
    return {**made, **more}


class Oracle(nn.Module):
    """Gives what it is told, frame by frame; a model of images, so a clip's frames come as a batch."""

    def __init__(self, frames, categories=NAMES):
        super().__init__()
        self.frames, self.categories, self.at = frames, categories, 0
        self.register_buffer("here", torch.zeros(1))

    def forward(self, images):
        found = self.frames[self.at : self.at + len(images)]
        self.at += len(images)
        return [
            {
                "boxes": torch.tensor([box for box, _, _ in rows]).float().reshape(-1, 4),
                "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
                "scores": torch.tensor([score for _, _, score in rows]),
            }
            for rows in found
        ]


BOX, OTHER = (4, 4, 24, 24), (30, 30, 50, 50)
CLIP = torch.zeros(3, 3, 64, 64)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize(("found_on", "ap"), [(2, 1.0), (0, 0.0)])
def test_an_object_counts_on_its_frame(found_on, ap, batch_size):
    frames = [[(BOX, 1, 0.9)] if t == found_on else [] for t in range(3)]
    data = [(CLIP, target((2, BOX, 1)))]
    evaluation = evaluate(Oracle(frames), data, categories=NAMES, batch_size=batch_size)
    assert evaluation.metrics["AP50"] == evaluation.metrics["VOC_AP50"] == ap
    assert (evaluation.images, evaluation.clips) == (3, 1)
    assert [record.frame for record in evaluation.records] == [0, 1, 2]
    assert "video_map@0.5" not in evaluation.metrics, "there are no tracks"
    assert str(evaluation).startswith("3 frames of 1 clips")


def test_only_labeled_frames_count():
    # A dog on each frame; frame 1 is not annotated, so its second dog is no mistake.
    frames = [[(BOX, 2, 0.9)], [(BOX, 2, 0.9), (OTHER, 2, 0.95)], [(BOX, 2, 0.9)]]
    data = [(CLIP, target((0, BOX, 2), (2, BOX, 2), labeled=[0, 2]))]
    evaluation = evaluate(Oracle(frames), data, categories=NAMES)
    assert (evaluation.metrics["AP"], evaluation.images) == (pytest.approx(1), 2)
    assert evaluation.per_class["dog"]["objects"] == 2
    everything = evaluate(Oracle(frames), [(CLIP, target((0, BOX, 2), (2, BOX, 2)))], categories=NAMES)
    assert everything.metrics["AP"] < 0.7


def test_tubes_are_measured_where_there_are_tracks(tmp_path):
    # The cat is found on all three frames, the dog on one of two: its tube's IoU is .5.
    frames = [[(BOX, 1, 0.9), (OTHER, 2, 0.8)], [(BOX, 1, 0.9)], [(BOX, 1, 0.9)]]
    rows = [(0, BOX, 1, 5), (1, BOX, 1, 5), (2, BOX, 1, 5), (0, OTHER, 2, 6), (1, OTHER, 2, 6)]
    evaluation = evaluate(Oracle(frames), [(CLIP, target(*rows))], categories=NAMES)
    assert evaluation.metrics["video_map@0.5"] == 1
    assert evaluation.metrics["video_map@0.5:0.95"] == pytest.approx((1 + 0.1) / 2)
    assert evaluation.setting == "untrimmed"
    evaluation.write_json(tmp_path / "ap.json")
    written = json.loads((tmp_path / "ap.json").read_text())
    assert (written["clips"], written["setting"], written["video_map@0.2"]) == (1, "untrimmed", 1)
    # Frame 1 is not annotated: the tube of the cat is judged by the other two.
    sparse = [row for row in rows if row[0] != 1]
    evaluation = evaluate(Oracle(frames), [(CLIP, target(*sparse, labeled=[0, 2]))], categories=NAMES)
    assert evaluation.metrics["video_map@0.5:0.95"] == 1
    # A crowd is neither right nor wrong, and not to be found.
    crowd = target(*rows, iscrowd=torch.tensor([0, 0, 0, 1, 1]))
    evaluation = evaluate(Oracle(frames), [(CLIP, crowd)], categories=NAMES)
    assert evaluation.metrics["video_map@0.5:0.95"] == evaluation.metrics["AP"] == 1


def tiny(name="ssdlite300_mobilenet_v2_3d", **options):
    torch.manual_seed(0)
    return ssd_zoo.get_model(name, weights=None, weights_backbone=None, size=64, categories=NAMES, **options)


def moving(number=4, length=5):
    """Videos of one square that moves, in memory; the class is its colour. Frame 1 is not annotated."""
    videos = []
    for i in range(number):
        pixels, rows = torch.full((length, 3, 64, 64), 60, dtype=torch.uint8), []
        for t in range(length):
            x = 4 + 4 * t + i
            pixels[t, 0 if i % 2 else 2, 10:34, x : x + 24] = 240
            if t != 1:
                rows.append((t, (x, 10, x + 24, 34), 2 - i % 2, i))
        labels = target(*rows, labeled=[t for t in range(length) if t != 1])
        videos.append(AnnotatedVideo(f"video{i}", pixels, length, labels, (64, 64)))
    return VideoDataset(videos, NAMES)


@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "light", "none"])
def test_augmentation_keeps_frames_and_tracks_with_their_boxes(kind):
    # Each object's box is the only bright area of its frame, so a box that belongs to another frame shows.
    pixels = torch.zeros(3, 3, 60, 80, dtype=torch.uint8)
    boxes = [(5, 5, 30, 40), (30, 10, 55, 50), (50, 20, 75, 55)]
    for t, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[t, :, y1:y2, x1:x2] = 255
    rows = [(t, box, 1 + t % 2, 10 + t) for t, box in enumerate(boxes)]
    counts, keys = set(), ("labels", "frame_index", "track_ids")
    for seed in range(12):
        torch.manual_seed(seed)
        random.seed(seed)
        preset = DetectionPresetTrain(kind, size=(60, 80), mean=(0, 0, 0))
        clip, made = preset(tv_tensors.Video(pixels), target(*rows, labeled=[0, 1, 2]))
        assert (clip.shape, clip.dtype) == ((3, 3, 60, 80), torch.float32)
        assert made["labeled_frames"].tolist() == [0, 1, 2]
        assert {len(made[key]) for key in keys} == {len(made["boxes"])}
        counts.add(len(made["boxes"]))
        for box, label, frame, track in zip(*(made[key] for key in ("boxes", *keys)), strict=True):
            assert (int(label), int(track)) == (1 + int(frame) % 2, 10 + int(frame))
            x1, y1, x2, y2 = (round(value) for value in (box + torch.tensor([3, 3, -3, -3])).tolist())
            inside = clip[frame, :, y1:y2, x1:x2].amax(0)
            assert inside.numel() == 0 or inside.mean() > 0.5 * clip[frame].max()
    assert kind != "ssd" or len(counts) > 1, "some objects are cropped away"


@pytest.mark.parametrize("size", [(3, 300), (300, 3), (1, 1), (1, 300), (3, 2000)])
@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "light", "none"])
def test_thin_images_are_augmented(kind, size):
    boxes = tv_tensors.BoundingBoxes([[0, 0, size[1], size[0]]], format="XYXY", canvas_size=size)
    for seed in range(5):
        torch.manual_seed(seed)
        given = {"boxes": boxes, "labels": torch.tensor([1])}
        image, made = DetectionPresetTrain(kind, size=(32, 32))(torch.zeros(3, *size, dtype=torch.uint8), given)
        assert image.shape == (3, 32, 32)
        assert len(made["boxes"]) == len(made["labels"])


def test_positives_of_clips_are_those_of_their_labeled_frames():
    model = tiny()
    [clip, labels], [other, others] = (moving(2)[i] for i in range(2))
    plain = [{key: value.as_subclass(torch.Tensor) for key, value in one.items()} for one in (labels, others)]
    of_images = sum(
        count_positives(model, [clip[t]], [{"boxes": plain[0]["boxes"][k : k + 1], "labels": plain[0]["labels"][:1]}])
        for k, t in enumerate([0, 2, 3, 4])
    )
    assert count_positives(model, [clip], plain[:1]) == of_images > 0
    assert count_positives(model, [clip, other], plain) > of_images
    nothing = {key: value[:0] for key, value in plain[0].items()}
    assert count_positives(model, [clip], [nothing]) is None
    assert count_positives(tiny(frames="last"), [clip[:2]], [target((0, BOX, 1), labeled=[0])]) is None
    assert part_weights([3, None, 1], 4) == [0.75, 0, 0.25]


@pytest.mark.parametrize("frames", ["all", "last"])
def test_parts_of_a_batch_have_the_loss_of_the_whole(tmp_path, frames):
    # Clips of different lengths and numbers of objects; one has no labeled frame.
    dataset = list(moving(4))
    dataset[1] = (dataset[1][0][:2], target((0, BOX, 1), labeled=[0]))
    dataset[2] = (dataset[2][0], target(labeled=[]))
    losses = []
    for accumulate in (1, 2):
        result = fit(
            tiny(frames=frames), dataset, output=tmp_path / str(accumulate), epochs=1, batch_size=4,
            accumulate=accumulate, augmentation=None, batch_norm="frozen", **SETTINGS,
        )  # fmt: skip
        losses.append(result.history[-1]["loss"])
    assert losses[0] > 1
    assert losses == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_a_batch_without_a_labeled_frame_changes_nothing(tmp_path):
    clip, _ = moving(1)[0]
    model = tiny()
    before = {name: value.clone() for name, value in model.named_parameters()}
    settings = {"epochs": 1, "batch_size": 2, "augmentation": None, "weight_decay": 0, "batch_norm": "frozen"}
    result = fit(model, [(clip, target(labeled=[]))] * 2, output=tmp_path, **settings, **SETTINGS)
    assert result.history[-1]["loss"] == 0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    """As of accelerate's bfloat16 on a CPU, whose gradients of maps of one cell read memory that was never written."""
    model = tiny()
    before = {name: value.clone() for name, value in model.named_parameters()}
    next(model.head.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(FloatingPointError, match=r"A gradient is not finite at step 0 .* norm of the gradients is nan"):
        fit(model, moving(2).clips(3), output=tmp_path, epochs=1, batch_size=2, augmentation=None, **SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("frames", ["all", "last"])
def test_fit_measures_on_clips(tmp_path, frames):
    data = moving(4)
    result = fit(
        tiny(frames=frames), data.clips(3, (1, 2)), validation=data, output=tmp_path, epochs=1, batch_size=2, **SETTINGS
    )
    row = result.history[-1]
    assert {"AP", "video_map@0.5", "validation_loss"} <= row.keys()
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 8, "of sixteen labeled frames"
    # The figures of the training are those of evaluate, and the loss is the model's own on all clips at once.
    evaluation = evaluate(result.model, data, categories=NAMES, batch_size=2)
    assert evaluation.metrics["AP"] == pytest.approx(row["AP"], abs=1e-6)
    clips, targets = collate([data[i] for i in range(4)])
    targets = [{key: value.as_subclass(torch.Tensor) for key, value in one.items()} for one in targets]
    with torch.inference_mode():
        _, losses = result.model.eval()([clip.float() / 255 for clip in clips], targets, return_losses=True)
    assert row["validation_loss"] == pytest.approx(float(sum(losses.values())), rel=1e-4)


def test_report_of_clips():
    data = moving(4)
    model = tiny()
    report = inspect_dataset(data, model)
    assert (report.videos, report.images, report.empty_images) == (4, 16, 0)
    assert report.objects == {"cat": 8, "dog": 8}
    assert report.sizes == {"small": 16, "medium": 0, "large": 0}
    assert not report.problems
    assert usable(data, report) is data
    assert str(report).startswith("16 annotated frames of 4 videos; 16 objects: cat 8, dog 8")
    assert fit_default_boxes(data, model).objects == 16
    data.videos[0].target["boxes"][1] = torch.tensor([9.0, 9, 9, 20])
    data.videos[1].target["boxes"][0] += 500
    data.videos[2] = AnnotatedVideo("short", data.videos[2].frames[:3], 5, data.videos[2].target)
    data.videos[3] = AnnotatedVideo("odd", data.videos[3].frames, 5, data.videos[3].target, (64, 80))
    report = inspect_dataset(data)
    assert "video0, frame 2: the box (9, 9, 9, 20) has no area" in "\n".join(report.problems)
    assert "video1, frame 0: the box (505, 510, 529, 534) lies outside the image of 64 × 64" in "\n".join(
        report.problems
    )
    assert "odd has 64 × 64 pixels, but was labelled at 80 × 64" in report.problems
    assert any(problem.startswith("short") for problem in report.problems)
    with pytest.raises(ValueError, match="has 4 problems"):
        usable(data, report)
    left = usable(data, report, "drop")
    assert [video.name for video in left.videos] == ["video0", "video1"]
    assert [len(video.target["boxes"]) for video in left.videos] == [3, 3]
    assert left.videos[0].labeled_frames == [0, 2, 3, 4]


def test_clips_and_pieces():
    data = moving(2, length=7)
    assert len(data.clips(3)) == 6, "three clips for seven frames"
    pieces = data.pieces(3)
    assert [(piece.start, piece.num_frames) for piece in pieces.videos] == [(0, 3), (3, 3), (6, 1)] * 2
    for piece, (clip, labels) in zip(pieces.videos, pieces, strict=True):
        whole = next(video for video in data.videos if video.name == piece.name)
        assert torch.equal(clip, whole.frames[piece.start : piece.start + piece.num_frames])
        for box, frame in zip(labels["boxes"], labels["frame_index"].tolist(), strict=True):
            row = whole.target["frame_index"].tolist().index(piece.start + frame)
            assert torch.equal(box.as_subclass(torch.Tensor), whole.target["boxes"][row])
    # Of a sparsely annotated video each clip has an annotated frame.
    sparse = AnnotatedVideo("sparse", torch.zeros(40, 3, 8, 8, dtype=torch.uint8), 40, target(labeled=[5, 39]))
    random.seed(0)
    for stride in (1, 3):
        clips = VideoDataset([sparse], NAMES).clips(4, (stride,))
        assert len(clips) == 10
        assert all(len(labels["labeled_frames"]) for _ in range(10) for _, labels in clips)
    assert [piece.start for piece in sparse.pieces(4)] == [4, 36], "pieces without an annotated frame are left out"
    small = data.in_memory(32).videos[0]
    assert small.frames.shape == (7, 3, 32, 32)
    assert torch.equal(small.target["boxes"], data.videos[0].target["boxes"] / 2)


def write_clips(folder, *, train=3, val=2, length=6):
    """Folders of frames with a bright square that moves, in this project's format."""
    videos = []
    for i, video in enumerate(moving(train + val, length).videos):
        split = "train" if i < train else "val"
        for t, frame in enumerate(video.frames):
            file = folder / "frames" / video.name / f"{t + 1}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame.permute(1, 2, 0).numpy()).save(file)
        keys = ("frame_index", "track_ids", "labels", "boxes")
        rows = zip(*(video.target[key].tolist() for key in keys), strict=True)
        objects = [{"frame": t, "track": k, "category": NAMES[label], "box": box} for t, k, label, box in rows]
        labeled = [t for t in range(length) if t != 1]
        videos.append({"file": f"frames/{video.name}", "split": split, "labeled_frames": labeled, "objects": objects})
    (folder / "clips.json").write_text(json.dumps({"categories": NAMES[1:], "videos": videos}))
    return folder


@pytest.mark.slow
def test_the_command_trains_on_clips_and_measures_tubes(tmp_path, capsys):
    folder = write_clips(tmp_path / "clips")
    options = ["--model", "ssdlite300_mobilenet_v2_3d", "--size", "64", "--epochs", "1", "--batch-size", "2"]
    options += [
        "--clip-length",
        "3",
        "--no-tensorboard",
        "--device",
        "cpu",
        "--fit-default-boxes",
        "--clip-stride",
        "2",
    ]
    assert main(["train", str(folder), "--output", str(tmp_path / "run"), *options]) == 0
    told = capsys.readouterr()
    layout = "clips.json: this project's format\n"
    assert f"training data: {layout}15 annotated frames of 3 videos; 15 objects: cat 5, dog 10" in told.err
    assert f"validation data: {layout}10 annotated frames of 2 videos" in told.err
    assert "--fit-default-boxes" not in told.err, "no advice to do what is done"
    best = tmp_path / "run/best"
    assert "\n# run\n" in (best / "README.md").read_text()
    assert main(["evaluate", str(folder), "--split", "val", "--model", str(best), "--json", str(tmp_path / "ap.json"),
                 "--output", str(tmp_path / "plots"), "--device", "cpu"]) == 0  # fmt: skip
    written = json.loads((tmp_path / "ap.json").read_text())
    assert (written["images"], written["clips"]) == (10, 2)
    assert 0 <= written["video_map@0.5"] <= 1
    assert "10 frames of 2 clips" in capsys.readouterr().out
    with_cache = ["--output", str(tmp_path / "cached"), *options, "--cache-longest", "48", "--quiet"]
    assert main(["train", str(folder), *with_cache]) == 0


def test_own_format(tmp_path):
    folder = write_clips(tmp_path)
    assert video_splits(folder) == video_splits(folder / "clips.json") == ["train", "val"]
    data = open_video_dataset(folder, "val", categories=["background", "dog", "cat", "bird"])
    assert (len(data), data.categories) == (2, ["background", "dog", "cat", "bird"])
    clip, labels = data[0]
    assert clip.shape == (6, 3, 64, 64)
    assert labels["labels"].tolist() == [2] * 5, "cats"
    assert labels["labeled_frames"].tolist() == [0, 2, 3, 4, 5]
    assert labels["track_ids"].tolist() == [3] * 5
    with pytest.raises(ValueError, match="has the splits train, val"):
        open_video_dataset(folder)
    with pytest.raises(ValueError, match="has no split 'test'; it has train, val"):
        open_video_dataset(folder, "test")


def test_own_format_of_a_video_file(tmp_path):
    pytest.importorskip("av", reason='pip install "ssd_zoo[video]"')
    with VideoWriter(tmp_path / "film.mp4", fps=25) as writer:
        for t in range(12):
            writer.write(torch.full((3, 48, 64), 20 * t, dtype=torch.uint8))
    video = {"file": "film.mp4", "objects": [{"frame": 7, "category": "cat", "box": [1, 2, 30, 40]}]}
    (tmp_path / "clips.json").write_text(json.dumps({"categories": ["cat"], "videos": [video]}))
    data = open_video_dataset(tmp_path)
    assert (data.videos[0].num_frames, inspect_dataset(data).problems) == (12, [])
    clip, labels = data.pieces(5)[1]
    assert [round(float(frame.float().mean()) / 20) for frame in clip] == [5, 6, 7, 8, 9]
    assert labels["frame_index"].tolist() == [2]
    # Told to have more frames than it has.
    (tmp_path / "clips.json").write_text(json.dumps({"categories": ["cat"], "videos": [{**video, "frames": 15}]}))
    assert "film.mp4 has 12 frames, not 15" in inspect_dataset(open_video_dataset(tmp_path)).problems[0]
    with pytest.raises(ValueError, match="has no frame 12"):
        open_video_dataset(tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 2**31 - 1}, "a number of frames from 1 to 10000000, got 2147483647"),
        ({"file": "frames/none"}, "there is no .*frames/none"),
        ({"file": 5}, r"videos\[0\]: the file must be a text, got 5"),
        ({"objects": [{"frame": 9, "category": "cat", "box": [0, 0, 5, 5]}]}, "has 6 frames, but a box on frame 9"),
        ({"objects": [{"frame": 1, "category": "cat", "box": [0, 0, 5, 5]}]}, "a box on frame 1, which is not labeled"),
        (
            {"objects": [{"frame": 0, "category": "cow", "box": [0, 0, 5, 5]}]},
            "an object 'cow'; its classes are cat, dog",
        ),
        (
            {"objects": [{"frame": 0, "category": "cat", "box": [0, 0, 5]}]},
            r"objects\[0\] needs a box \[x1, y1, x2, y2\]",
        ),
        (
            {"objects": [{"frame": 0, "category": "cat", "box": [0, 0, 5, 1e999]}]},
            "holds Infinity, which is not a finite number",
        ),
        (
            {"objects": [{"frame": -1, "category": "cat", "box": [0, 0, 5, 5]}]},
            "the frame must be a whole number from 0",
        ),
        ({"objects": {}}, r"videos\[0\]: objects must be a list of objects"),
        ({"labeled_frames": [77]}, "has 6 frames, but frame 77 is labeled"),
        ({"labeled_frames": "all"}, "labeled_frames must be a list of frames"),
        ({"frames": 50}, "should have 50 frames"),
        ({"labelled_frames": [0]}, r"videos\[0\] has 'labelled_frames'; did you mean 'labeled_frames'"),
        ({"width": 64}, "the height must be a whole number from 0"),
        (
            {"objects": [{"frame": 0, "categroy": "cat", "box": [0, 0, 5, 5]}]},
            r"objects\[0\] has 'categroy'; did you mean 'category'",
        ),
    ],
)
def test_own_format_says_what_is_wrong(tmp_path, change, message):
    folder = write_clips(tmp_path, train=1, val=0)
    content = json.loads((folder / "clips.json").read_text())
    content["videos"][0] |= change
    (folder / "clips.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_video_dataset(folder)


def told(tmp_path, capsys, split=None):
    """What the command 'data' says of clips, and what is left of them."""
    options = [] if split is None else ["--split", split]
    code = main(["data", str(tmp_path), *options, "--output", str(tmp_path / "out")])
    said = capsys.readouterr()
    data = open_video_dataset(tmp_path, split)
    report = inspect_dataset(data)
    assert str(report) in said.out
    assert code == int(bool(report.problems))
    with pytest.raises(ValueError, match=f"has {len(report.problems)} problem"):
        usable(data, report, "raise")
    left = usable(data, report, "drop")
    assert inspect_dataset(left).problems == []
    assert all(clip.ndim == 4 for clip, _ in left)
    return report, left


def test_faults_of_own_format_are_told_and_dropped(tmp_path, capsys):
    folder = write_clips(tmp_path, train=4, val=0)
    content = json.loads((folder / "clips.json").read_text())
    one, two, three, four = content["videos"]
    one["objects"] += [
        {**one["objects"][0], "box": [1, 2, 3]},
        {**one["objects"][0], "category": "cow"},
        {**one["objects"][0], "frame": 77},
        {**one["objects"][0], "box": [1, 2, 30, 40]},
    ]
    one["objects"][0] |= {"track": None, "ignored": None}
    two["file"] = "frames/none"
    three["labelled_frames"] = [0]
    four |= {"frames": None, "height": None, "labeled_frames": None, "note": None}
    # A folder that no entry names.
    draw(colourful(1)[0], folder / "frames/new/1.png")
    (folder / "clips.json").write_text(json.dumps(content))
    report, left = told(folder, capsys, "train")
    assert report.layout == "clips.json: this project's format"
    assert report.notes == ["2 videos (frames/new, frames/video1) without an entry in clips.json, left out"]
    problems = "\n".join(report.problems)
    for said in (
        r"videos\[0\]\.objects\[5\] needs a box",
        r"an object 'cow'; its classes are cat, dog",
        r"has 6 frames, but a box on frame 77",
        r"there is no .*frames/none",
        r"videos\[2\] has 'labelled_frames'; did you mean 'labeled_frames'",
    ):
        assert re.search(said, problems), said
    assert len(report.problems) == 5
    assert [video.name for video in left.videos] == ["frames/video0", "frames/video3"]
    assert left.videos[1].labeled_frames == list(range(6)), "null means absent"
    with pytest.raises(ValueError, match="has 5 problems, and 13 of its objects can't be used"):
        usable(open_video_dataset(folder, "train"), report)
    with pytest.raises(ValueError, match="there is no .*frames/none"):
        open_video_dataset(folder, "train")[1]
    one["objects"] = [{"frame": 0, "category": "cat", "track": 4, "box": [0, 0, 5, x]} for x in (5, 6)]
    content["videos"] = [one, {**one, "split": "val"}]
    (folder / "clips.json").write_text(json.dumps(content))
    [problem] = inspect_dataset(data := open_video_dataset(folder, "train")).problems
    assert "two boxes of track 4 on frame 0; the first is taken" in problem
    assert data[0][1]["boxes"].tolist() == [[0, 0, 5, 5]]
    content["videos"] = [one, one]
    (folder / "clips.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has several entries of frames/video0; make them one"):
        open_video_dataset(folder, "train")


def test_mot_counts_from_one(tmp_path):
    for split in ("train", "val"):
        sequence = tmp_path / split / "MOT-01"
        for t in range(3):
            draw(colourful(1)[0], sequence / "img1" / f"{t + 1:06d}.jpg")
        (sequence / "gt").mkdir()
        # Frame, id, left, top, width, height, whether it counts, class, visibility.
        lines = ["1,7,11,21,10,20,1,1,1", "3,7,13,21,10,20,1,1,.5", "2,8,31,31,9,9,0,12,1", "2,9,1,1,9,9,0,3,1"]
        (sequence / "gt/gt.txt").write_text("\n".join(lines) + "\n")
        (sequence / "seqinfo.ini").write_text("[Sequence]\nname=MOT-01\nseqLength=3\nimWidth=64\nimHeight=64\n")
    assert video_splits(tmp_path) == ["train", "val"]
    data = open_video_dataset(tmp_path, "val")
    assert data.categories == ["background", "pedestrian"]
    labels = data[0][1]
    assert labels["boxes"].tolist() == [[10, 20, 20, 40], [12, 20, 22, 40], [30, 30, 39, 39]]
    assert labels["frame_index"].tolist() == [0, 2, 1]
    assert labels["track_ids"].tolist() == [7, 7, 8]
    assert labels["iscrowd"].tolist() == [0, 0, 1], "a reflection is ignored, a car is left out"
    (tmp_path / "val/MOT-02/img1").mkdir(parents=True)
    (tmp_path / "test/MOT-03/img1").mkdir(parents=True)
    report = inspect_dataset(open_video_dataset(tmp_path, "val"))
    assert report.layout == "MOTChallenge: gt/gt.txt and img1"
    assert report.notes == [
        "boxes of MOTChallenge's classes that are no persons, left out: 1 of car",
        "2 sequences (test/MOT-03, val/MOT-02) without gt/gt.txt, left out",
    ]
    # CVAT names the classes; files of MOT15 have none.
    gt = tmp_path / "val/MOT-01/gt"
    (gt / "labels.txt").write_text("cat\ndog\n")
    (gt / "gt.txt").write_text("1,7,11,21,10,20,1,2,1\n")
    data = open_video_dataset(tmp_path, "val")
    assert data.categories[data[0][1]["labels"][0]] == "dog"
    (gt / "labels.txt").unlink()
    (gt / "gt.txt").write_text("1,7,11,21,10,20,1,-1,-1,-1\n2,7,11,21,10,20\n")
    assert open_video_dataset(tmp_path, "val")[0][1]["labels"].tolist() == [1, 1]
    for line, message in (
        ("1,7,11,21", "needs frame, id, left, top, width and height"),
        ("1,7,11,21,5,5,1,99", "has the class 99, and MOTChallenge has 1 to 13. Own classes are named in labels.txt"),
        ("1,7,11,21,5,5,1,0", "has the class 0, and MOTChallenge has 1 to 13"),
        ("1,7,11,21,5,5,1,1.5", "the class must be a whole number"),
        ("1,1.7,11,21,5,5,1,1", "the id must be a whole number"),
    ):
        (gt / "gt.txt").write_text(f"{line}\n")
        with pytest.raises(ValueError, match=re.escape("gt.txt:1") + f".*{re.escape(message)}"):
            open_video_dataset(tmp_path, "val")
    (gt / "gt.txt").write_text("1,7,11,21,10,20\n")
    info = tmp_path / "val/MOT-01/seqinfo.ini"
    info.write_text(info.read_text().replace("imWidth=64", "imWidth=-64"))
    with pytest.raises(ValueError, match="imWidth must be a whole number from 1"):
        open_video_dataset(tmp_path, "val")


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><size>3</size><labels><label><name>cat</name></label>
<label><name>dog</name></label></labels><original_size><width>64</width><height>64</height></original_size></task>
<source>film.mp4</source></meta>
<track id="0" label="dog"><box frame="0" outside="0" occluded="0" keyframe="1" xtl="1.5" ytl="2" xbr="30" ybr="40"/>
<box frame="1" outside="0" occluded="0" keyframe="0" xtl="2.5" ytl="2" xbr="31" ybr="40"/>
<box frame="2" outside="1" occluded="0" keyframe="1" xtl="2.5" ytl="2" xbr="31" ybr="40"/></track>
<track id="1" label="cat"><box frame="2" outside="0" occluded="0" keyframe="1" xtl="5" ytl="5" xbr="9" ybr="9"/></track>
</annotations>"""


def test_cvat(tmp_path):
    (tmp_path / "annotations.xml").write_text(CVAT)
    with pytest.raises(ValueError, match="there is no video beside it; looked for film.mp4, annotations"):
        open_video_dataset(tmp_path)
    for t in range(3):
        draw(colourful(1)[0], tmp_path / "images" / f"frame_{t:06d}.png")
    data = open_video_dataset(tmp_path)
    assert data.categories == ["background", "cat", "dog"]
    clip, labels = data[0]
    assert clip.shape == (3, 3, 64, 64)
    assert labels["boxes"].tolist() == [[1.5, 2, 30, 40], [2.5, 2, 31, 40], [5, 5, 9, 9]]
    assert labels["labels"].tolist() == [2, 2, 1]
    assert labels["frame_index"].tolist() == [0, 1, 2], "outside is not in the picture"
    assert labels["track_ids"].tolist() == [0, 0, 1]
    assert not inspect_dataset(data).problems
    for old, new, reason in (
        ('xtl="5"', 'xtl="x"', r"track 1, frame 2: a side of a box must be a finite number.*, got 'x'"),
        ('frame="1"', 'frame="1.5"', r"track 0, frame 1.5: the frame must be a whole number.*, got 1.5"),
        ('<box frame="2" outside="1"', '<mask frame="2"', "has a shape 'mask'; boxes, polygons"),
    ):
        assert old in CVAT
        (tmp_path / "annotations.xml").write_text(CVAT.replace(old, new))
        data = open_video_dataset(tmp_path)
        [problem] = data.problems
        assert re.search(reason, problem)
        assert len(data[0][1]["boxes"]) == (3 if "mask" in new else 2)
    declared = '<!DOCTYPE a [<!ENTITY b "c">]><annotations><meta></meta>'
    (tmp_path / "annotations.xml").write_text(CVAT.replace("<annotations>", declared))
    with pytest.raises(ValueError, match="declares a document type"):
        open_video_dataset(tmp_path)
    outline = '<polygon frame="2" outside="0" points="5,6;9.5,6;9,12"/></track>'
    (tmp_path / "annotations.xml").write_text(CVAT.replace("</track>", outline, 1))
    assert open_video_dataset(tmp_path)[0][1]["boxes"][2].tolist() == [5, 6, 9.5, 12]
    (tmp_path / "annotations.xml").write_text(CVAT.replace("<track", '<image id="0"/><track', 1))
    with pytest.raises(ValueError, match='is of "CVAT for images"'):
        open_video_dataset(tmp_path)


def test_faults_of_mot_are_told_and_dropped(tmp_path, capsys):
    for name in ("one", "two"):
        draw(colourful(1)[0], tmp_path / name / "img1/1.jpg")
        (tmp_path / name / "gt").mkdir()
        (tmp_path / name / "gt/gt.txt").write_text("1,7,11,21,10,20\n1,8,11,21,10\n1,9,31,21,10,20\n7,7,1,1,9,9\n")
    (tmp_path / "two/seqinfo.ini").write_text("[Sequence]\nimWidth=64\nimHeight=1_0\n")
    report, left = told(tmp_path, capsys)
    problems = "\n".join(report.problems)
    assert "one/gt/gt.txt:2 needs frame, id, left, top, width and height" in problems
    assert "one has 1 frames, but a box on frame 6" in problems
    assert re.search("seqinfo.ini: imHeight must be a finite number, got '1_0'", problems)
    assert [video.name for video in left.videos] == ["one"]
    assert left.videos[0].target["track_ids"].tolist() == [7, 9]


def test_faults_of_cvat_are_told_and_dropped(tmp_path, capsys):
    for t in range(3):
        draw(colourful(1)[0], tmp_path / f"images/{t}.png")
    (tmp_path / "a.xml").write_text("<annotation/>")
    (tmp_path / "b.xml").write_text(CVAT)
    (tmp_path / "c.xml").write_text(CVAT.replace("</annotations>", ""))
    (tmp_path / "d.xml").write_text(CVAT.replace("<track", '<image id="0"/><track', 1))
    report, left = told(tmp_path, capsys)
    assert report.layout == "CVAT for video: XML files with tracks"
    assert report.notes == ["1 XML file (a.xml) not of CVAT, left out"]
    assert [
        re.search("c.xml:.* is not XML|is of .CVAT for images.", problem) is None for problem in report.problems
    ] == [
        False,
        False,
    ]
    assert [video.name for video in left.videos] == ["b"]


def test_clips_are_held_back_by_a_fraction(tmp_path, monkeypatch, capsys):
    """What train holds back of videos without splits is what evaluate measures; by default that is nothing."""
    folder = write_clips(tmp_path / "clips", train=4, val=0)
    file = folder / "clips.json"
    file.write_text(file.read_text().replace('"split": "train", ', ""))
    assert video_splits(folder) == [""]
    common = [str(folder), "--val-fraction", ".25", "--seed", "3"]
    plan = ["--output", str(tmp_path / "run"), "--size", "64", "--weights", "scratch", "--plan"]
    model = ["--model", "ssdlite300_mobilenet_v2_3d"]
    sets = []
    opened = _prepare.open_sets
    monkeypatch.setattr("ssd_zoo.cli.train.open_sets", lambda *args: sets.append(opened(*args)) or sets[-1])
    assert main(["train", *common, *plan, *model, "--no-fit-default-boxes"]) == 0
    assert "1 of 4 videos" in capsys.readouterr().out
    train_part, held_back, *_ = sets[0]
    names = [video.name for video in held_back.videos]
    assert sorted([*names, *(video.name for video in train_part.videos)]) == [f"frames/video{i}" for i in range(4)]
    measured = []
    monkeypatch.setattr("ssd_zoo.training.evaluate", lambda _, data, **__: measured.append(data) or Measured())
    assert main(["evaluate", *common, "--categories", "cat,dog"]) == 0
    assert [video.name for video in measured[0].videos] == names
    assert main(["data", *common, "--output", str(tmp_path / "sheets")]) == 0
    assert "all-held-back: clips.json: this project's format" in capsys.readouterr().out
    assert (tmp_path / "sheets/all.jpg").exists()
    assert main(["train", str(folder), *plan, *model, "--no-fit-default-boxes"]) == 0
    assert "no split for it, so AP is not measured; see --val-fraction" in capsys.readouterr().out
    assert main(["evaluate", str(folder), "--split", "val"]) == 2
    assert "has no split 'val'; it has all videos in one: leave out the split" in capsys.readouterr().err


class Measured:
    confusion = None


def test_sheet_shows_frames(tmp_path):
    data = open_video_dataset(write_clips(tmp_path, train=2, val=0), "train")
    assert labelled_pictures(data) == [(i, t) for i in range(2) for t in (0, 2, 3, 4, 5)]
    sheet = contact_sheet(data, images=4, tile=64)
    assert sheet.size == (2 * 68 + 4, 2 * 84 + 4)
    # At equal steps: frames 0 and 3 of the first video, 0 and 3 of the second. Its square begins at 4 + 4 * 3 + 1.
    x = 4 + 68 + 4 + 4 * 3 + 1 + 12
    assert sheet.getpixel((x, 4 + 84 + 22))[0] > 200, "the square of frame 3 of the second video is bright and red"
    assert sheet.getpixel((4 + 68 + 60, 4 + 84 + 50)) == (60, 60, 60)


@pytest.mark.parametrize("invalid", ["raise", "drop"])
def test_fit_leaves_out_of_clips_what_it_leaves_out_of_images(tmp_path, caplog, invalid):
    data = moving(4)
    data.videos[0].target["boxes"][1] = torch.tensor([9.0, 9, 9, 20])
    settings = {"epochs": 1, "batch_size": 2, "augmentation": None, **SETTINGS}
    model = tiny(on_invalid_boxes=invalid)
    if invalid == "raise":
        said = r"(?s)has 1 problem, and 1 of its objects.*video0, frame 2: the box \(9, 9"
        with pytest.raises(ValueError, match=said):
            fit(model, data.clips(3), output=tmp_path, **settings)
    else:
        fit(model, data.clips(3), output=tmp_path, **settings)
        assert "Left out: 1 object, 0 videos. The first problem: annotations: video0, frame 2" in caplog.text


@pytest.mark.slow
def test_clips_reach_spawned_workers(tmp_path):
    data = open_video_dataset(write_clips(tmp_path), "train").clips(3)
    data.transforms = DetectionPresetTrain("ssd", size=(32, 32))
    loader = DataLoader(data, 2, num_workers=2, collate_fn=collate, multiprocessing_context="spawn")
    assert sum(len(clips) for clips, _ in loader) == len(data)


@pytest.mark.parametrize(
    ("meta", "frames", "labeled"),
    [
        ("<size>3</size><start_frame>0</start_frame><frame_filter/>", (0, 1), [0, 1, 2]),
        ("<size>6</size><start_frame>0</start_frame><frame_filter>step=2</frame_filter>", (0, 4), [0, 2, 4, 6, 8, 10]),
        ("<size>4</size><start_frame>4</start_frame><stop_frame>7</stop_frame>", (4, 6), [4, 5, 6, 7]),
    ],
)
def test_cvat_of_a_part_of_a_video(tmp_path, meta, frames, labeled):
    """CVAT numbers frames as in the whole video; those that were not in the task are not annotated."""
    pytest.importorskip("av", reason='pip install "ssd_zoo[video]"')
    with VideoWriter(tmp_path / "film.mp4", fps=25) as writer:
        for t in range(12):
            writer.write(torch.full((3, 48, 64), 20 * t, dtype=torch.uint8))
    boxes = "".join(f'<box frame="{t}" outside="0" xtl="1" ytl="2" xbr="30" ybr="40"/>' for t in frames)
    file = tmp_path / "film.xml"
    text = f"<annotations><meta><task>{meta}</task></meta><track id='0' label='cat'>{boxes}</track></annotations>"
    file.write_text(text)
    [video] = open_video_dataset(tmp_path).videos
    assert video.target["frame_index"].tolist() == list(frames)
    assert video.labeled_frames == labeled
    file.write_text(text.replace("label='cat'", ""))
    with pytest.raises(ValueError, match=r"film.xml: track 0, frame \d+: the track has no label"):
        open_video_dataset(tmp_path)


def test_opening_clips_as_images_says_what_opens_them(tmp_path):
    with pytest.raises(ValueError, match="holds videos: open_video_dataset opens it"):
        open_dataset(write_clips(tmp_path, train=1, val=0))

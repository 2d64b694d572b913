"""Tiles: the grid, what is joined over seams, what is drawn for training. Expected values are worked out by hand."""

import json

import pytest
import torch
from labelled import Picture, Thing, colourful, draw, make_coco
from torchvision import tv_tensors
from train_tiny import build

import ssd_zoo
from ssd_zoo.cli import train
from ssd_zoo.cli.main import main
from ssd_zoo.data import DetectionPresetTrain, RandomTile, fit_default_boxes, inspect_dataset, open_dataset
from ssd_zoo.detector.tiles import detect_in_tiles, join_tiles, shown_boxes, tile_grid
from ssd_zoo.training import evaluate
from ssd_zoo.training.fit import fit
from ssd_zoo.training.inference import parts_per_item
from ssd_zoo.training.plan import DataFacts, plan_tile

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("picture", "tile", "overlap", "lefts", "tops"),
    [
        ((100, 250), (100, 100), 0.25, [0, 75, 150], [0]),
        ((100, 251), (100, 100), 0.25, [0, 50, 101, 151], [0]),  # 151 / 75 > 2 steps, so 3 of 50.3
        ((120, 100), (100, 100), 0.0, [0], [0, 20]),
        ((80, 60), (100, 100), 0.5, [0], [0]),
        ((100, 100), (100, 100), 0.5, [0], [0]),
        ((50, 300), (100, 100), 0.5, [0, 50, 100, 150, 200], [0]),  # The tiles are 50 high.
        ((90, 90), (30, 60), 0.0, [0, 30], [0, 30, 60]),
    ],
)
def test_grid(picture, tile, overlap, lefts, tops):
    height, width = min(picture[0], tile[0]), min(picture[1], tile[1])
    expected = [[x, y, x + width, y + height] for y in tops for x in lefts]
    assert tile_grid(picture, tile, overlap).tolist() == expected


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 1 / 3, 0.9])
def test_tiles_cover_the_picture_and_overlap(overlap):
    for length in range(64, 300, 7):
        grid = tile_grid((64, length), (64, 64), overlap)
        lefts, rights = grid[:, 0], grid[:, 2]
        assert (int(lefts[0]), int(rights[-1])) == (0, length)
        assert ((rights[:-1] - lefts[1:]) >= 64 * overlap - 1).all()


def seen_in(things, *, score=0.9):
    """Gives a detector that finds, in a picture whose pixels tell where they are, what of each thing it shows."""

    def detect(images):
        found = []
        for image in images:
            left, top = int(image[0, 0, 0]), int(image[1, 0, 0])
            rows = []
            for number, (label, box) in enumerate(things):
                x1, y1, x2, y2 = (v - o for v, o in zip(box, (left, top, left, top), strict=True))
                part = [max(0.0, x1), max(0.0, y1), min(image.shape[2], x2), min(image.shape[1], y2)]
                if part[2] - part[0] > 2 and part[3] - part[1] > 2:
                    share = (part[2] - part[0]) * (part[3] - part[1]) / ((x2 - x1) * (y2 - y1))
                    rows.append((part, label, score * share**0.1 - 0.01 * number))
            rows.sort(key=lambda row: -row[2])
            boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
            labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
            found.append({"boxes": boxes, "labels": labels, "scores": torch.tensor([row[2] for row in rows])})
        return found

    return detect


def places(height, width):
    """A picture whose first channel is x, and whose second is y."""
    x, y = torch.arange(width).expand(height, width), torch.arange(height).unsqueeze(1).expand(height, width)
    return torch.stack([x, y, x]).float()


def found_in(things, size, tile, overlap=0.25):
    [found] = detect_in_tiles(seen_in(things), [places(*size)], tile=tile, overlap=overlap, nms_thresh=0.45)
    rows = zip(found["labels"].tolist(), found["boxes"].tolist(), strict=True)
    return sorted((label, tuple(box)) for label, box in rows), found["scores"].tolist()


@pytest.mark.parametrize(
    "box",
    [
        (70.0, 20, 90, 40),  # Whole in the first tile, 15 of 20 pixels in the second, which begins at 75.
        (80.0, 20, 95, 40),  # Whole in both.
        (90.0, 20, 130, 60),  # Cut in the first, whole in the second.
        (40.0, 20, 120, 60),  # Cut in both: larger than what they share.
        (10.0, 10, 240, 90),  # In three tiles, whole in none.
        (160.0, 0, 170, 100),
    ],
)
def test_an_object_at_a_seam_is_found_once(box):
    things, scores = found_in([(1, box)], (100, 250), 100)
    assert things == [(1, box)]
    assert scores == pytest.approx([0.9], abs=0.2)


def test_an_object_at_the_corner_of_four_tiles():
    assert found_in([(1, (60.0, 60, 110, 110))], (175, 175), 100)[0] == [(1, (60.0, 60, 110, 110))]
    assert found_in([(1, (20.0, 20, 150, 160))], (175, 175), 100)[0] == [(1, (20.0, 20, 150, 160))]


def test_neighbours_and_other_classes_stay_apart():
    things = [(1, (60.0, 20, 88, 40)), (1, (88.0, 20, 118, 40)), (2, (60.0, 20, 118, 40)), (1, (60.0, 45, 118, 65))]
    found, scores = found_in(things, (100, 175), 100)
    assert found == sorted(things)
    assert scores == sorted(scores, reverse=True)


def tile_of(*rows):
    return {
        "boxes": torch.tensor([row[:4] for row in rows]).reshape(-1, 4).float(),
        "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64),
        "scores": torch.tensor([row[5] for row in rows]).float(),
    }


def test_a_doubtful_part_does_not_make_a_box_grow():
    tiles = tile_grid((100, 175), (100, 100), 0.25)
    one, other = tile_of((50, 20, 100, 40, 1, 0.9)), tile_of((0, 20, 80, 40, 1, 0.4))
    joined = join_tiles([one, other], tiles, 0.45)
    assert joined["boxes"].tolist() == [[50, 20, 100, 40]]
    other["scores"][0] = 0.45
    assert join_tiles([one, other], tiles, 0.45)["boxes"].tolist() == [[50, 20, 155, 40]]
    # A whole box stays as it is.
    one["boxes"][0, 2] = 90
    assert join_tiles([one, other], tiles, 0.2)["boxes"].tolist() == [[50, 20, 90, 40]]


def test_tiles_without_detections():
    tiles = tile_grid((100, 250), (100, 100), 0.25)
    joined = join_tiles([tile_of()] * 3, tiles, 0.45)
    assert [len(joined[key]) for key in ("boxes", "labels", "scores")] == [0, 0, 0]
    joined = join_tiles([tile_of(), tile_of(), tile_of((1, 2, 3, 4, 7, 0.5))], tiles, 0.45)
    assert (joined["boxes"].tolist(), joined["labels"].tolist()) == ([[151, 2, 153, 4]], [7])


@pytest.fixture(scope="module")
def model():
    return build().eval()


@pytest.fixture
def tiled(model):
    """The model, whose tiles a test may set."""
    yield model
    model.tile, model.tile_overlap = None, 0.25


@pytest.mark.parametrize("tile", [(90, 120), (200, 300), (90, 500)])
def test_a_picture_no_larger_than_a_tile_is_taken_whole(tiled, tile):
    image = torch.rand(3, 90, 120, generator=torch.Generator().manual_seed(0))
    [whole] = tiled([image])
    tiled.tile = tile
    [found] = tiled([image])
    assert all(torch.equal(found[key], whole[key]) for key in whole)


def test_tiles_are_images_of_their_own(tiled):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in ((64, 128), (40, 40))]
    parts, [small] = [tiled([images[0][:, :, x : x + 64]])[0] for x in (0, 64)], tiled(images[1:])
    tiled.tile, tiled.tile_overlap = 64, 0
    found = tiled(images)
    torch.testing.assert_close(found[1], small, atol=1e-4, rtol=1e-4)
    # Nothing is joined: these tiles share no pixel.
    expected = torch.cat([part["boxes"] + torch.tensor([x, 0, x, 0]) for x, part in zip((0, 64), parts, strict=True)])
    order = torch.cat([part["scores"] for part in parts]).argsort(descending=True, stable=True)
    torch.testing.assert_close(found[0]["boxes"][:20], expected[order][:20], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile": 8}, ValueError, "sides of a tile must be at least 16 pixels, got 8 × 8"),
        ({"tile": (64, 15)}, ValueError, "at least 16"),
        ({"tile": "64"}, ValueError, "tile: size must be a positive int or .height, width., got '64'. None takes"),
        ({"tile": 64, "tile_overlap": 0.95}, ValueError, "tile_overlap must be at most 0.9, got 0.95"),
        ({"tile": 64, "tile_overlap": -0.1}, ValueError, "tile_overlap .* must lie between 0 and 1"),
        ({"tile_overlap": 25}, ValueError, "For 25 percent, pass 0.25"),
        ({"tile_overlap": "much"}, TypeError, "tile_overlap"),
    ],
)
def test_wrong_tiles(options, error, message):
    with pytest.raises(error, match=message):
        ssd_zoo.ssdlite300_mobilenet_v2(weights=None, weights_backbone=None, num_classes=2, size=64, **options)


def test_calls_that_tiles_do_not_serve(tiled):
    tiled.tile = 64
    target = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match=r"Tiles are for images, not for clips and videos.*Set model.tile = None"):
        tiled([torch.rand(2, 3, 64, 64)])
    with pytest.raises(ValueError, match="not for clips"):
        tiled.step([torch.rand(3, 64, 64)])
    with pytest.raises(ValueError, match="no losses of whole images"):
        tiled([torch.rand(3, 64, 64)], [target], return_losses=True)
    with pytest.raises(ValueError, match=r"pass a list of images: model\(\[image\]\)"):
        tiled(torch.rand(3, 64, 64))
    tiled.tile = 16
    with pytest.raises(ValueError, match="2000 × 2000 pixels would be cut into 27889 tiles of 16 × 16; the limit"):
        tiled([torch.rand(3, 2000, 2000)])


def test_a_saved_model_keeps_its_tiles(tiled, tmp_path):
    ssd_zoo.save_pretrained(tiled, tmp_path / "whole")
    settings = json.loads((tmp_path / "whole/config.json").read_text())["settings"]
    assert not {"tile", "tile_overlap"} & settings.keys(), "older versions can read it"
    tiled.tile, tiled.tile_overlap = (64, 96), 0.5
    ssd_zoo.save_pretrained(tiled, tmp_path / "tiles")
    assert "in tiles of 64 × 96 pixels of images" in (tmp_path / "tiles/README.md").read_text()
    again = ssd_zoo.from_pretrained(tmp_path / "tiles")
    assert (again.tile, again.tile_overlap) == ((64, 96), 0.5)
    assert ssd_zoo.from_pretrained(tmp_path / "tiles", tile=None).tile is None
    assert ssd_zoo.from_pretrained(tmp_path / "whole").tile is None
    config = tmp_path / "tiles/config.json"
    for wrong in ('"tile": [64]', '"tile": [4, 64]'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad/model.safetensors").write_bytes((tmp_path / "tiles/model.safetensors").read_bytes())
        (tmp_path / "bad/config.json").write_text(config.read_text().replace('"tile": [64, 96]', wrong))
        with pytest.raises(ValueError, match="tile"):
            ssd_zoo.from_pretrained(tmp_path / "bad")


def target_of(*boxes):
    n = len(boxes)
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "labels": torch.arange(1, n + 1),
        "area": torch.ones(n),
        "iscrowd": torch.zeros(n, dtype=torch.int64),
    }


def test_drawn_tiles_show_what_lies_in_them():
    image, target = places(200, 300), target_of((10, 10, 50, 40), (140, 90, 160, 110), (0, 60, 300, 70))
    tiles, kept = RandomTile((60, 80)), []
    torch.manual_seed(0)
    for _ in range(200):
        part, of_part = tiles(image, target)
        assert part.shape == (3, 60, 80)
        left, top = part[0, 0, 0], part[1, 0, 0]
        boxes = of_part["boxes"].as_subclass(torch.Tensor)
        for box, label in zip(boxes, of_part["labels"].tolist(), strict=True):
            whole = target["boxes"][label - 1] - torch.tensor([left, top, left, top])
            assert torch.equal(box, whole.clamp(min=0).minimum(torch.tensor([80.0, 60, 80, 60])))
            area, all_of_it = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, whole))
            assert area >= 0.5 * all_of_it
            kept.append((label, bool(area == all_of_it)))
        assert len(of_part["area"]) == len(boxes) == len(of_part["iscrowd"])
    assert {label for label, _ in kept} == {1, 2}, "of the third less than half fits into a tile"
    for label in (1, 2):
        assert sum(k == (label, True) for k in kept) >= 40, "a quarter of the tiles is drawn around each object"


def test_a_crop_that_shows_half_of_an_object_keeps_it():
    tiles = RandomTile((40, 40))
    torch.manual_seed(0)
    for _ in range(50):
        _, target = tiles(places(40, 60), target_of((0, 0, 40, 40)))
        # The tile shows at least half of the object wherever it lies, for it begins at 20 at most.
        assert len(target["boxes"]) == 1


def test_small_images_and_clips(tiled):
    image, target = places(30, 40), target_of((1, 2, 3, 4))
    same, of_same = RandomTile((60, 80))(image, target)
    assert same is image
    assert of_same is target
    with pytest.raises(ValueError, match="not for clips"):
        RandomTile((16, 16))(image.expand(2, 3, 30, 40), target)
    assert RandomTile((16, 16))(image, target_of())[0].shape == (3, 16, 16)
    drawn, of_drawn = DetectionPresetTrain("none", tile=(16, 20))(tv_tensors.Image(image.byte()), target)
    assert drawn.shape == (3, 16, 20)
    assert len(of_drawn["boxes"]) <= 1


def test_default_boxes_see_objects_as_tiles_show_them(tmp_path, tiled):
    boxes = torch.tensor([[10.0, 10, 30, 30], [130.0, 70, 150, 90]])
    moved, size = shown_boxes(boxes, (128, 256), (64, 64))
    assert size == (64, 64)
    assert moved.tolist() == [[10, 10, 30, 30], [2, 6, 22, 26]]
    assert shown_boxes(boxes, (128, 256), None) == (boxes, (128, 256))
    things = tuple(Thing(1, (x, x, x + 30.0, x + 30.0)) for x in (10.0, 100.0, 200.0))
    dataset = open_dataset(make_coco(tmp_path, pictures=[Picture("p", (256, 256), things)]))
    tiled.size = (64, 64)
    assert fit_default_boxes(dataset, tiled).unreached_before == inspect_dataset(dataset, tiled).unreached == 3
    tiled.tile = (64, 64)
    # The last lies around (23, 23) in a tile, and overlaps the box of 32 pixels around (16, 16) by 19² of 32² + 30².
    fitted, report = fit_default_boxes(dataset, tiled), inspect_dataset(dataset, tiled)
    assert fitted.unreached_before == report.unreached < 3
    assert max(max(shape) for shape in fitted.default_boxes.shapes[0]) > 20 / 64


@pytest.mark.parametrize(
    ("facts", "tile"),
    [
        (DataFacts((3000, 4000), 0.004, 0.01), (320, 320)),  # 14 pixels as they are; 2 in 480 × 640
        (DataFacts((3000, 4000), 0.014, 0.02), (384, 384)),  # 48 pixels, so 300 · 48 / 40 = 364
        (DataFacts((3000, 4000), 0.015, 0.02), None),  # 8.3 pixels in 480 × 640
        (DataFacts((1000, 1100), 0.004, 0.01), None),  # 1049 pixels, less than 2 · 554
        (DataFacts((1000, 1300), 0.004, 0.01), (320, 320)),
        (DataFacts((3000, 4000), 0.004, 0.05), None),  # 173 pixels, more than half a tile
    ],
)
def test_plan(facts, tile):
    planned = plan_tile(facts)
    assert (None if planned is None else planned[0]) == tile


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """Large pictures of small objects."""
    folder = tmp_path_factory.mktemp("mosaic")
    small = colourful(24)
    for split, first in (("train", 0), ("val", 4)):
        pictures = []
        for i in range(first, first + 2):
            things = [
                Thing(t.label, (t.box[0] + 64 * k, t.box[1], t.box[2] + 64 * k, t.box[3]))
                for k in range(3)
                for t in small[3 * i + k].things
            ]
            pictures.append(Picture(f"{split}{i}", (64, 192), tuple(things)))
        make_coco(folder, split, pictures)
    return folder


@pytest.fixture(scope="module")
def run(mosaic, tmp_path_factory):
    """A run with tiles; its pictures are small, but its tiles are smaller."""
    output = tmp_path_factory.mktemp("run") / "run"
    args = ["--size", "64", "--tile", "64", "--overlap", ".4", "--epochs", "1", "--batch-size", "2", "--device", "cpu"]
    assert main(["train", str(mosaic), "--output", str(output), "--no-tensorboard", "--quiet", *args]) == 0
    return output


def test_a_run_keeps_its_tiles(run, mosaic, tmp_path, capsys):
    saved = ssd_zoo.from_pretrained(run / "best")
    assert (saved.tile, saved.tile_overlap) == ((64, 64), 0.4)
    command = ["detect", str(mosaic / "images"), "--model", str(run / "best"), "--quiet", "--score-thresh", "0"]
    results = {}
    for name, options in (("own", []), ("asked", ["--tile", "64", "--overlap", ".4"]), ("whole", ["--tile", "0"])):
        assert main([*command, "--json", str(tmp_path / f"{name}.json"), *options]) == 0
        results[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert results["own"] == results["asked"] != results["whole"]
    options = ["--tile", "0", "--json", str(tmp_path / "ap.json"), "--quiet", "--device", "cpu"]
    assert main(["evaluate", str(mosaic), "--split", "val", "--model", str(run / "best"), *options]) == 0
    whole = evaluate(ssd_zoo.from_pretrained(run / "best", tile=None), open_dataset(mosaic, "val"))
    assert json.loads((tmp_path / "ap.json").read_text())["AP"] == pytest.approx(whole.metrics["AP"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", ".3"], "--overlap is of tiles: give --tile too"),
        (["--tile", "8"], "at least 16 pixels, got 8 × 8"),
        (["--tile", "64", "--overlap", ".95"], "at most 0.9"),
    ],
)
@pytest.mark.parametrize("command", ["detect", "evaluate"])
def test_commands_refuse_what_makes_no_tiles(mosaic, command, options, message, capsys):
    source = [str(mosaic / "images")] if command == "detect" else [str(mosaic), "--split", "val"]
    assert main([command, *source, "--model", "ssdlite300_mobilenet_v2", *options]) == 2
    assert message in capsys.readouterr().err


def test_torchvisions_detectors_have_no_tiles(mosaic, monkeypatch, capsys):
    monkeypatch.setattr("ssd_zoo.cli.evaluate.load_model", lambda *_, **__: (torch.nn.Identity(), ["background"]))
    assert main(["evaluate", str(mosaic), "--split", "val", "--model", "any", "--tile", "64"]) == 2
    assert "--tile is for models of ssd_zoo" in capsys.readouterr().err


def test_the_plan_proposes_tiles(tmp_path, monkeypatch, capsys):
    things = tuple(Thing(1, (x, 50.0, x + 10, 60.0)) for x in range(10, 1300, 60))
    make_coco(tmp_path, "train", [Picture("large", (1000, 1320), things)])
    monkeypatch.setattr(train, "print_plan", lambda *_: None)
    for options, tiles, size in (
        # 10 of 1149 pixels are 4.8 in the largest input, 480 × 640; 300 of 320 pixels show 9.4.
        ([], "320 × 320 small objects get 9 pixels; 5 in whole pictures; --tile 0 takes pictures whole", "300 × 300"),
        (["--tile", "0"], None, "512 × 640"),
        (["--tile", "500x400"], "500 × 400 given", "640 × 512"),
    ):
        assert main(["train", str(tmp_path), "--output", str(tmp_path / "run"), "--plan", "--quiet", *options]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert [line for line in lines if line.startswith("tiles")] == ([] if tiles is None else [f"tiles {tiles}"])
        assert any(line.startswith(f"input {size}") for line in lines), lines
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "run"), "--tile", "0", "--overlap", ".1"]) == 2
    assert "--overlap is of tiles: give --tile too" in capsys.readouterr().err


def test_videos_are_not_trained_on_in_tiles(tmp_path, capsys):
    (tmp_path / "film").mkdir()
    for frame in range(2):
        draw(Picture("frame", (64, 64), ()), tmp_path / "film" / f"{frame}.png")
    video = {"file": "film", "split": "train", "objects": [{"frame": 0, "category": "cat", "box": [1, 2, 30, 40]}]}
    (tmp_path / "clips.json").write_text(json.dumps({"categories": ["cat"], "videos": [video]}))
    assert main(["train", str(tmp_path), "--output", str(tmp_path / "run"), "--tile", "64"]) == 2
    assert "--tile is for images" in capsys.readouterr().err


def test_the_time_of_an_evaluation_is_that_of_its_tiles(tiled):
    pictures = [(torch.zeros(3, 64, 150), {})]
    assert parts_per_item(tiled, pictures) == 1
    tiled.tile = (64, 64)
    assert parts_per_item(tiled, pictures) == 3


def test_fit_sets_tiles(mosaic, tmp_path):
    model, data = build(), open_dataset(mosaic, "train")
    options = {"epochs": 1, "batch_size": 2, "tensorboard": False, "progress": False, "device": "cpu"}
    result = fit(model, data, output=tmp_path / "a", tile=64, tile_overlap=0, validation=data, **options)
    assert (result.model.tile, result.model.tile_overlap) == ((64, 64), 0)
    assert "validation_loss" not in result.history[0]
    with pytest.raises(ValueError, match=r"began with tile=\(64, 64\), so it can't go on with \(96, 96\)"):
        fit(model, data, output=tmp_path / "a", tile=96, resume=True, **options)
    assert fit(model, data, output=tmp_path / "b", tile=0, **options).model.tile is None


@pytest.mark.slow
def test_an_exported_model_has_the_same_tiles(tiled, tmp_path):
    pytest.importorskip("onnxruntime")
    from ssd_zoo.deploy import export, load

    tiled.tile, tiled.tile_overlap, tiled.score_thresh = (64, 64), 0.3, 0.1
    image = torch.randint(256, (3, 64, 140), dtype=torch.uint8)
    export(tiled, tmp_path / "m.onnx", format="onnx")
    loaded = load(tmp_path / "m.onnx")
    assert (loaded.tile, loaded.tile_overlap) == ((64, 64), 0.3)
    [expected], [found] = tiled([image]), loaded([image])
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=1e-2, rtol=1e-3)
    with pytest.raises(ValueError, match="not for clips"):
        loaded([torch.rand(2, 3, 64, 64)])

"""One line for images of any kind."""

import copy
import io
import json
import os
import pickle
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_model
from torch import nn
from web_server import serving

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import read_image
from ssd_zoo.prediction.facts import model_facts, model_files
from ssd_zoo.prediction.opening import open_detector

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def pixels() -> np.ndarray:
    """RGB of 30 × 40 pixels, in bytes."""
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.fixture
def file(tmp_path, pixels, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.fromarray(pixels).save(Path("photos", name))
    return Path("photos/a.png")


@pytest.fixture
def expected(model, pixels) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        [found] = model([torch.from_numpy(pixels).permute(2, 0, 1)])
    assert len(found["boxes"]) == 3
    return found


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def nearly_equal(found, expected) -> bool:
    """Bytes are divided by 255 after they are resized, so floats differ in the last digits."""
    return found.keys() == expected.keys() and all(
        torch.allclose(found[key], expected[key], rtol=1e-5) for key in found
    )


def test_one_image_of_every_kind(model, file, pixels, expected):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [file, str(file), Image.open(file), pixels, pixels[::-1][::-1], tensor, tensor.float() / 255]
    for image in kinds:
        found = ssd_zoo.predict(model, image)
        assert isinstance(found, ssd_zoo.Detections)
        same = nearly_equal if image is kinds[-1] else equal
        assert same(found, expected)
        picture = found.draw()
        assert picture.size == (40, 30)
        assert picture.tobytes() != pixels.tobytes()


def test_many_images_of_every_kind(model, file, pixels, expected):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [
        "photos",
        Path("photos"),
        "photos/**/*.png",
        [file, pixels],
        (file, "photos/sub"),
        ["photos"],
        (image for image in [file, tensor]),
        np.stack([pixels, pixels]),
        torch.stack([tensor, tensor]),
    ]
    for images in kinds:
        found = ssd_zoo.predict(model, images, batch_size=1)
        assert isinstance(found, list)
        assert len(found) == 2
        assert all(equal(one, expected) for one in found)
    assert ssd_zoo.predict(model, []) == []
    assert [one.title for one in ssd_zoo.predict(model, "photos")] == ["photos/a.png", "photos/sub/b.png"]


def test_addresses(model, file, expected):
    with serving(file.read_bytes()) as address:
        for name in ("photo.png", "photo.png?size=1", "random"):
            found = ssd_zoo.predict(model, f"{address}/{name}")
            assert equal(found, expected)
            assert found.title == f"{address}/{name}"
    # Drawn from what was fetched, which another request might not give again.
    assert found.draw().size == (40, 30)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("gone.jpg", FileNotFoundError, "gone.jpg can't be fetched: the server answers 404 Not Found"),
        ("busy", ConnectionError, "the server answers 503"),
        ("cut", ConnectionError, "broke off after"),
        ("large", ValueError, "large is larger than 134217728 bytes. Download it"),
    ],
)
def test_addresses_that_fail(model, file, path, error, message):
    with serving(file.read_bytes()) as address, pytest.raises(error, match=message):
        ssd_zoo.predict(model, f"{address}/{path}")
    with pytest.raises(ConnectionError, match="can't be fetched"):
        read_image(f"{address}/{path}")


def test_no_image_at_an_address(model):
    with serving(b"Dear diary") as address, pytest.raises(ValueError, match=r"127.0.0.1:\d+/a.png is not an image"):
        ssd_zoo.predict(model, f"{address}/a.png")


def test_grey_and_transparent_images(model, pixels):
    grey = np.repeat(pixels[..., :1], 3, 2)
    expected = ssd_zoo.predict(model, grey)
    for image in (pixels[..., 0], pixels[..., :1], torch.from_numpy(pixels[..., 0]).unsqueeze(0)):
        assert equal(ssd_zoo.predict(model, image), expected)
    # What is transparent is white, as in files.
    alpha = np.zeros((30, 40, 1), np.uint8)
    alpha[:15] = 255
    blended = pixels.copy()
    blended[15:] = 255
    found = ssd_zoo.predict(model, np.concatenate([pixels, alpha], 2))
    assert equal(found, ssd_zoo.predict(model, blended))
    assert np.array_equal(np.asarray(found.draw().crop((0, 29, 1, 30))), [[[255] * 3]]) or len(found.names)


def test_pictures_are_taken_upright(model, pixels):
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned to the right
    stream = io.BytesIO()
    picture.save(stream, "PNG", exif=exif)
    turned = ssd_zoo.predict(model, Image.open(stream))
    assert equal(turned, ssd_zoo.predict(model, np.rot90(pixels, -1)))
    assert turned.draw().size == (30, 40)


def test_detectors_of_one_channel():
    grey = ssd_zoo.ssd_timm("resnet18", num_classes=2, in_chans=1, size=64, weights_backbone=None, score_thresh=0.6)
    image = np.zeros((20, 30), np.uint8)
    found = ssd_zoo.predict(grey, [image, torch.zeros(1, 20, 30)], 0)
    assert equal(*found)
    with pytest.raises(ValueError, match=r"image: Got an array of shape \(20, 30, 3\); expected \(H, W, 1\)"):
        ssd_zoo.predict(grey, np.zeros((20, 30, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (None, TypeError, "Expected a path, an address.*got NoneType"),
        (b"GIF89a", TypeError, r"PIL.Image.open\(io.BytesIO\(data\)\)"),
        ({"boxes": 1}, TypeError, "got dict"),
        (5, TypeError, r"got int. For a camera use .*detect_stream\(model, ssd_zoo.data.open_camera\(5\)\)"),
        (
            "rtsp://10.0.0.7/door",
            ValueError,
            r"the address of a video: .*detect_stream\(model",
        ),
        ("street.mp4", ValueError, r"street.mp4 is not an image .*: ssd-zoo detect takes it, .*detect_stream\(model"),
        ([5], TypeError, r"images\[0\]: Got a int; expected a path"),
        (["photos", [1]], TypeError, r"images\[2\]: Got a list"),
        (np.zeros((5, 5, 3)), TypeError, "image: Got an array of float64; expected uint8.*astype"),
        (np.zeros((3, 50, 60), np.uint8), ValueError, r"expected \(H, W, 3\) in RGB.*image.transpose\(1, 2, 0\)"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "expected"),
        (np.zeros((5, 5, 2), np.uint8), ValueError, "grey .H, W. or RGBA"),
        ([torch.rand(3, 5, 5), torch.rand(5, 5, 3)], ValueError, r"^images\[1\] has shape \(5, 5, 3\)"),
        (torch.zeros(3, 5, 5).long(), TypeError, "^image has dtype torch.int64"),
        ("gone.jpg", FileNotFoundError, "gone.jpg is not a file or folder"),
        (["photos/a.png", "gone/*.jpg"], FileNotFoundError, "gone/"),
        ("notes.txt", ValueError, "notes.txt is not an image"),
    ],
)
def test_what_is_no_image(model, file, images, error, message):
    Path("notes.txt").write_text("Dear diary")
    Path("street.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    with pytest.raises(error, match=message):
        ssd_zoo.predict(model, images, batch_size=1)


@pytest.mark.parametrize(
    ("detector", "error", "message"),
    [
        ("ssdlite300_mobilenetv2", ValueError, "Did you mean ssdlite300_mobilenet_v2"),
        ("bccd_v2", ValueError, "Did you mean BCCD_V1 of ssdlite300_mobilenet_v2"),
        ("runs/cells", ValueError, "Did you mean runs/cells/best?"),
        ("cocoo", ValueError, r"Did you mean coco or COCO_V1\b"),
        ("tabels", ValueError, r"Did you mean tables/best\?"),
        ("ssd300_resnet18", ValueError, "There are no weights for ssd300_resnet18"),
        (None, TypeError, "Expected a detector, or the name or path of one, got None"),
        (ssd_zoo.ssd300_vgg16d, TypeError, "A builder has to be called"),
    ],
)
def test_what_is_no_detector(file, detector, error, message):
    for folder in ("runs/cells/best", "coco", "tables/best"):
        Path(folder).mkdir(parents=True)
        Path(folder, "config.json").touch()
    with pytest.raises(error, match=message):
        ssd_zoo.predict(detector, file)


@pytest.mark.parametrize("score_thresh", [-0.1, 50, float("nan")])
def test_thresholds_are_checked(model, pixels, score_thresh):
    with pytest.raises(ValueError, match="score_thresh is a score and must lie between 0 and 1"):
        ssd_zoo.predict(model, pixels, score_thresh)


def test_model_is_left_as_it_was(pixels):
    model = small_model()
    low = ssd_zoo.predict(model, pixels, 0.1)
    model.score_thresh = 0.999
    model.train()
    model.backbone.eval()
    assert equal(ssd_zoo.predict(model, pixels, 0.1), low)
    with pytest.raises(TypeError):
        ssd_zoo.predict(model, [pixels, 5], 0.1)
    assert (model.score_thresh, model.training, model.backbone.training) == (0.999, True, False)


def test_score_threshold(model, pixels, expected):
    middle = expected["scores"][1].item()
    found = ssd_zoo.predict(model, pixels, middle)
    assert found["scores"].tolist() == expected["scores"][:1].tolist()
    assert ssd_zoo.predict(model, pixels, 1).names == []


@pytest.fixture
def coffee():
    return ssd_zoo.predict("COCO_TF_V1", Path(__file__).parents[1] / "examples" / "coffee.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "ssdlite300_mobilenet_v2",
        "coco_tf_v1",
        "SSDLite300_MobileNet_V2_Weights.COCO_TF_V1",
        ssd_zoo.get_weight("SSDLite300_MobileNet_V2_Weights.COCO_TF_V1"),
    ],
)
def test_names_of_detectors(name, coffee, photo):
    [found] = ssd_zoo.predict(name, [photo.with_name("coffee.jpg")])
    assert equal(found, coffee)
    # As `ssd-zoo detect` shows them in README.
    assert found.names == ["cup", "dining table"]


def test_saved_detectors(pixels, tmp_path):
    model = ssd_zoo.ssdlite320_mobilenet_v2(num_classes=2, size=64, weights_backbone=None).eval()
    saved = ssd_zoo.save_pretrained(model, tmp_path / "model")
    for path in (saved, str(saved), saved / "model.safetensors"):
        assert equal(ssd_zoo.predict(path, pixels, 0.3), ssd_zoo.predict(model, pixels, 0.3))


def test_exported_detectors(pixels, tmp_path):
    pytest.importorskip("onnxruntime")
    from ssd_zoo.deploy import export, load
    from ssd_zoo.deploy.export import OLDEST_TORCH

    if torch.__version__ < OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {OLDEST_TORCH}")
    model = small_model()
    model.score_thresh = 0.3
    expected = ssd_zoo.predict(model, pixels, 0.3)
    exported = export(model, tmp_path / "model.onnx", format="onnx")
    # A threshold above the file's own is lowered for the call, as a model's is.
    raised = load(exported, score_thresh=0.9)
    for one in (exported, str(exported), load(exported), raised):
        found = ssd_zoo.predict(one, pixels, 0.3)
        torch.testing.assert_close(dict(found), dict(expected), atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match=r"score_thresh can't be 0.2\. .*\(--nms outside\)"):
            ssd_zoo.predict(one, pixels, 0.2)
    assert raised.score_thresh == 0.9


def test_default_threshold_is_the_models_own_where_it_is_higher(pixels, file, expected, capsys):
    from ssd_zoo.deploy import export
    from ssd_zoo.deploy.export import OLDEST_TORCH

    high = small_model()
    high.score_thresh = expected["scores"][1].item()
    assert len(ssd_zoo.predict(high, pixels)["boxes"]) == 1
    assert len(ssd_zoo.predict(high, pixels, 0.5)["boxes"]) == 3
    if torch.__version__ < OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {OLDEST_TORCH}")
    export(high, "high.pt2", format="pt2")
    assert len(ssd_zoo.predict("high.pt2", pixels)["boxes"]) == 1
    command = ["detect", str(file), "--model", "high.pt2"]
    assert main(command) == 0
    assert "1 object\n" in capsys.readouterr().out
    assert main([*command, "--score-thresh", "0.5"]) == 2
    assert "score_thresh can't be 0.5" in capsys.readouterr().err


class Theirs(nn.Module):
    """Stands for a detector of others: it takes floats alone, and has no names."""

    def forward(self, images):
        assert all(image.is_floating_point() and image.max() <= 1 for image in images)
        found = {"boxes": torch.tensor([[1.0, 2, 3, 4]] * 2), "scores": torch.tensor([0.9, 0.4])}
        return [{**found, "labels": torch.tensor([1, 7])} for _ in images]


def test_detectors_of_others(pixels):
    found = ssd_zoo.predict(Theirs(), pixels, 0.3)
    assert found.names == ["1", "7"]
    assert str(found) == "image: 2 objects\n  1  0.90  2 × 2 at (1, 2)\n  7  0.40  2 × 2 at (1, 2)"
    found.draw()


@pytest.fixture
def found() -> ssd_zoo.Detections:
    tensors = {"boxes": torch.tensor([[1.0, 2, 4, 8], [0, 0, 5, 5]]), "labels": torch.tensor([18, 1])}
    tensors["scores"] = torch.tensor([0.75, 0.5])
    categories = ssd_zoo.get_weight("SSDLite300_MobileNet_V2_Weights.COCO_TF_V1").meta["categories"]
    return ssd_zoo.Detections(tensors, categories, title="dog.jpg")


def test_text(found):
    assert repr(found) == "dog.jpg: 2 objects\n  dog     0.75  3 × 6 at (1, 2)\n  person  0.50  5 × 5 at (0, 0)"
    none = {key: value[:0] for key, value in found.items()}
    assert str(ssd_zoo.Detections(none)) == "image: no objects"
    many = {key: value[:1].repeat_interleave(25, 0) for key, value in found.items()}
    assert str(ssd_zoo.Detections(many, found.categories)).endswith("(1, 2)\n  … and 5 more")


def test_they_are_torchvisions_dict(found):
    assert isinstance(found, dict)
    assert list(found) == ["boxes", "labels", "scores"]
    for one in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
        assert equal(one, found)
        assert (one.names, one.title) == (["dog", "person"], "dog.jpg")
    # As accelerate and Lightning do.
    assert equal(type(found)({key: value.clone() for key, value in found.items()}), found)


def test_rows_for_coco(found):
    # COCO's own ids: a dog is 18, a person 1.
    assert found.to_coco(7) == [
        {"image_id": 7, "file_name": "dog.jpg", "category_id": 18, "category": "dog", "bbox": [1, 2, 3, 6],
         "score": 0.75},
        {"image_id": 7, "file_name": "dog.jpg", "category_id": 1, "category": "person", "bbox": [0, 0, 5, 5],
         "score": 0.5},
    ]  # fmt: skip


def test_supervision(found):
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert theirs.xyxy.tolist() == found["boxes"].tolist()
    assert (theirs.class_id.tolist(), theirs.confidence.tolist()) == ([18, 1], [0.75, 0.5])
    assert theirs.data["class_name"].tolist() == ["dog", "person"]
    assert len(ssd_zoo.Detections({key: value[:0] for key, value in found.items()}).to_supervision()) == 0


def test_pandas(found):
    pytest.importorskip("pandas")
    rows = found.to_dataframe()
    assert list(rows.columns) == ["file_name", "name", "label", "score", "x1", "y1", "x2", "y2"]
    assert rows.iloc[0].tolist() == ["dog.jpg", "dog", 18, 0.75, 1, 2, 4, 8]
    assert len(ssd_zoo.Detections({key: value[:0] for key, value in found.items()}).to_dataframe()) == 0


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_dataframe"), ("supervision", "to_supervision")])
def test_packages_that_are_missing_are_named(found, monkeypatch, package, method):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"{method} needs the package {package}: pip install {package}"):
        getattr(found, method)()


def test_notebooks_show_the_picture(model, file, found):
    shown = Image.open(io.BytesIO(ssd_zoo.predict(model, file)._repr_png_()))
    assert shown.size == (40, 30)
    assert found._repr_png_() is None, "the image is not known, so a notebook shows the text"
    gone = ssd_zoo.predict(model, file)
    file.unlink()
    assert gone._repr_png_() is None


def test_iterators_take_little_memory(model):
    alive, most = weakref.WeakSet(), 0

    def images():
        nonlocal most
        for _ in range(12):
            image = torch.zeros(3, 16, 16)
            alive.add(image)
            most = max(most, len(alive))
            yield image
            del image

    found = ssd_zoo.predict(model, images(), batch_size=2)
    assert len(found) == 12
    assert most <= 5
    with pytest.raises(ValueError, match=r"came from an iterator: give it to draw\(image\)"):
        found[0].draw()
    assert found[0].draw(torch.zeros(3, 16, 16)).size == (16, 16)


def test_command_on_addresses(file, tmp_path, capsys):
    with serving(file.read_bytes()) as address:
        sources = [f"{address}/a.png", "photos/a.png", f"{address}/b/a.png", f"{address}/random"]
        assert main(["detect", *sources, "--output", "out", "--json", "r.json"]) == 0
        out, _ = capsys.readouterr()
        assert [line.rpartition(":")[0] for line in out.splitlines() if line[0] != " "] == sources
        assert sorted(os.listdir("out")) == ["a.jpg", "a.png", "a_1.jpg", "random.jpg"]
        assert main(["detect", f"{address}/gone.jpg", "photos/a.png"]) == 1
        out, err = capsys.readouterr()
        assert out.startswith("photos/a.png: ")
        assert "gone.jpg can't be fetched: the server answers 404 Not Found" in err


class Piped(io.TextIOWrapper):
    def isatty(self):
        return False


def test_command_on_the_standard_input(file, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(file.read_bytes())))
    assert main(["detect", "-", "--output", "out"]) == 0
    assert capsys.readouterr().out.startswith("-: ")
    assert os.listdir("out") == ["stdin.jpg"]
    monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(b"no image")))
    assert main(["detect", "-"]) == 1
    assert "the standard input is not an image that can be read" in capsys.readouterr().err


def test_what_was_piped_is_not_taken_for_what_is_piped(file, photo, monkeypatch):
    Path("bad.png").write_text("no image")
    blank = io.BytesIO()
    Image.new("RGB", (40, 30)).save(blank, "png")
    found = []
    # The bad file keeps the journal, so the second command goes on from the first.
    for content in (photo.read_bytes(), blank.getvalue()):
        monkeypatch.setattr(sys, "stdin", Piped(io.BytesIO(content)))
        assert main(["detect", "-", "bad.png", "--json", "r.json", "--quiet"]) == 1
        found.append([row["category"] for row in json.loads(Path("r.json").read_text())])
    assert found == [["person"], []]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: model.categories.__setitem__(1, "other"), "categories"),
        (lambda model: setattr(model, "nms_thresh", 0.3), "nms_thresh"),
        (lambda model: setattr(model, "score_thresh", 0.3), "score_thresh"),
        (lambda model: setattr(model, "tile", (64, 64)), "tile"),
        (lambda model: model.image_mean.add_(0.1), "weights"),
        (lambda model: model.default_boxes.add_(1), "weights"),
        (lambda model: next(model.parameters()).data.add_(1), "weights"),
    ],
)
def test_what_results_depend_on(model, change, told):
    """The command's journal and the cluster's folder compare these, so that results of two models are not mixed."""
    before = model_facts(model, "x")
    assert model_facts(model, "x") == before
    change(model)
    after = model_facts(model, "x")
    assert [key for key in before if before[key] != after[key]] == [told]


def test_files_of_a_model(tmp_path):
    """A `.bin` beside a file that is not OpenVINO's belongs to someone else."""
    for name in ("m.onnx", "m.xml", "m.bin", "config.json"):
        (tmp_path / name).touch()
    listed = {name: [file.name for file in model_files(str(tmp_path / name))] for name in ("m.onnx", "m.xml", "", "x")}
    assert listed == {"m.onnx": ["m.onnx"], "m.xml": ["m.xml", "m.bin"], "": ["config.json"], "x": []}


@pytest.mark.parametrize("name", [name for name in ssd_zoo.list_models() if name.endswith("_3d") or "v2" in name])
def test_members_of_weights_open_their_models(name):
    for entry in ssd_zoo.get_model_weights(name).__members__.values():
        if entry.url.startswith("package:"):
            assert open_detector(str(entry)).categories == entry.meta["categories"]

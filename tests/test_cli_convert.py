"""`ssd-zoo convert`, as its users call it."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from test_readme import blocks

import ssd_zoo
from ssd_zoo.cli.main import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def convert(capsys):
    """Runs the command in this process; gives exit code, output and errors."""

    def run(*args) -> tuple[int, str, str]:
        try:
            code = main(["convert", *map(str, args)])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def faces(test_data) -> Path:
    return test_data / "weights/ultraface/version-slim-320.pth"


def test_the_folder_holds_the_model(convert, faces, tmp_path):
    code, out, err = convert(faces, "--output", tmp_path / "slim")
    assert (code, err) == (0, "")
    assert out == (
        f"{faces}: ultraface, ssdlite320_ultraface_slim, 240 × 320, 2 classes (background, face), "
        f"0.3 M parameters, all 159 tensors loaded, in {tmp_path / 'slim'}\n"
    )
    image = torch.rand(3, 100, 90, generator=torch.Generator().manual_seed(0))
    saved, original = ssd_zoo.from_pretrained(tmp_path / "slim").eval(), ssd_zoo.load_checkpoint(faces)
    saved.score_thresh = original.score_thresh = 0.1
    with torch.inference_mode():
        [found], [expected] = saved([image]), original([image])
    assert len(found["boxes"]) > 10
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "`version-slim-320.pth`, a file of ultraface" in (tmp_path / "slim/README.md").read_text()


def test_categories_and_size(convert, faces, tmp_path):
    (tmp_path / "names.txt").write_text("bg\nhelmet\n\n")
    code, out, _ = convert(
        faces, "--output", tmp_path / "a", "--categories", tmp_path / "names.txt", "--size", "480x640"
    )
    assert code == 0
    assert "480 × 640, 2 classes (bg, helmet)" in out
    model = ssd_zoo.from_pretrained(tmp_path / "a")
    assert (model.size, model.categories) == ((480, 640), ["bg", "helmet"])
    _, out, _ = convert(faces, "--output", tmp_path / "b", "--categories", "bg, mask", "--origin", "ultraface")
    assert "(bg, mask)" in out


@pytest.mark.parametrize("names", ["mask", "background,mask"])
def test_background_may_be_left_out(convert, faces, tmp_path, names):
    code, out, _ = convert(faces, "--output", tmp_path / "a", "--categories", names)
    assert code == 0
    assert "2 classes (background, mask)" in out
    assert ssd_zoo.from_pretrained(tmp_path / "a").categories == ["background", "mask"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--origin", "lufficc"], "not of the origin 'lufficc'"),
        (["--origin", "caffe"], "invalid choice: 'caffe'"),
        (["--categories", "bg"], "must name the file's only class, background optional; got 1: bg."),
        (["--categories", "face,mask,hat"], "the file's only class, background optional; got 3: face, mask, hat."),
        (["--categories", "person,dog"], "the file's only class, background optional; got 2: person, dog."),
        (["--categories", "labels.txt"], "--categories labels.txt: there is no such file."),
        (["--size", "wide"], "must be a side or HEIGHTxWIDTH, such as 480x640, got 'wide'"),
    ],
)
def test_arguments_that_make_no_sense(convert, faces, tmp_path, arguments, message):
    code, out, err = convert(faces, "--output", tmp_path / "x", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_files_that_are_none(convert, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    for file, message in ((tmp_path / "none.pth", "There is no file"), (tmp_path / "x.pth", "is damaged")):
        code, _, err = convert(file, "--output", tmp_path / "out")
        assert code == 2
        assert err.startswith("ssd-zoo: ")
        assert message in err
    (tmp_path / "taken").write_text("a file")
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_stay(convert, faces, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"a photo")
    code, out, err = convert(faces, "--output", tmp_path / "photos")
    assert (code, out) == (2, "")
    assert "photos holds other files; name a new or empty folder for the model" in err
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    assert "replaces" not in convert(faces, "--output", tmp_path / "model")[1]
    assert (
        "in " + str(tmp_path / "model") + ", whose model it replaces"
        in convert(faces, "--output", tmp_path / "model")[1]
    )


def test_page_knows_every_option(convert):
    _, out, _ = convert("--help")
    options = set(re.findall(r"--[a-z][a-z-]+", out)) - {"--help"}
    page = (Path(__file__).parents[1] / "docs/checkpoints.md").read_text()
    assert set(re.findall(r"`(--[a-z][a-z-]+)", page)) == options


def test_page_shows_what_is_printed(convert, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(faces.with_name("version-RFB-320.pth"), tmp_path)
    _, out, _ = convert("version-RFB-320.pth", "--output", "ultraface")
    assert [out] == blocks((Path(__file__).parents[1] / "docs/checkpoints.md").read_text(), "text")


def test_page_lists_every_origin():
    page = (Path(__file__).parents[1] / "docs/checkpoints.md").read_text()
    from ssd_zoo.weights.converters import ORIGINS

    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == sorted(ORIGINS)


def test_an_output_that_is_a_file_is_refused_first(convert, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, err = convert(tmp_path / "nothing.pth", "--output", tmp_path / "out")
    assert code != 0
    assert "out is a file; name a folder" in err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_config_of_ours_names_from_pretrained(convert, tmp_path):
    folder = ssd_zoo.save_pretrained(
        ssd_zoo.ssdlite320_ultraface_slim(weights_backbone=None, size=64, num_classes=2), tmp_path / "saved"
    )
    code, _, err = convert(folder / "config.json", "--output", tmp_path / "out")
    assert code != 0
    assert f"ssd_zoo.from_pretrained({str(folder)!r})" in err


def test_convert_writes_no_size_that_is_not_read(convert, faces, tmp_path):
    code, _, err = convert(faces, "--output", tmp_path / "out", "--size", "200x200000")
    assert code != 0
    assert "larger than 16384 pixels" in err
    assert not (tmp_path / "out").exists()


def test_licence_stays(convert, faces, test_data, tmp_path):
    assert convert(faces, "--output", tmp_path / "first", "--licence", "MIT")[0] == 0
    assert ssd_zoo.load_report(ssd_zoo.from_pretrained(tmp_path / "first")).licence == "MIT"
    card = (tmp_path / "first/README.md").read_text()
    assert "MIT. The model began with weights of version-slim-320.pth, a file of ultraface; their licence: MIT." in card
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(next((test_data / "coco128").rglob("*.jpg")), photos)
    assert convert(tmp_path / "first", "--images", photos, "--output", tmp_path / "second")[0] == 0
    assert ssd_zoo.load_report(ssd_zoo.from_pretrained(tmp_path / "second")).licence == "MIT"


def test_tensorflow_js_files_are_told_apart_by_their_folder(convert, test_data, tmp_path):
    folder = test_data / "weights/tfjs_ssdlite_mobilenet_v2_coco"
    assert convert(folder / "model.json", "--output", tmp_path / "coco")[0] == 0
    origin = f"{folder.name}/model.json, a file of tensorflow"
    assert ssd_zoo.load_report(ssd_zoo.from_pretrained(tmp_path / "coco")).origin == origin
    assert f"`{folder.name}/model.json`" in (tmp_path / "coco/README.md").read_text()

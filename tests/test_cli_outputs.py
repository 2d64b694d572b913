"""Every command says before any work that its outputs can't be written, in one line that names the place."""

from pathlib import Path

import pytest
from layouts import PICTURES, SHAPES

from ssd_zoo.cli.main import main
from ssd_zoo.weights.files import replacing


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    SHAPES["voc_flat"](folder / "pets", "train", PICTURES)
    (folder / "file").touch()
    (folder / "film.mp4").touch()
    (folder / "weights.pth").touch()
    return folder


# Not even root may write to /proc.
@pytest.mark.parametrize("target", ["/proc/out", "/proc/self/out/run", "file/out"])
@pytest.mark.parametrize(
    "command",
    [
        "data pets --output {}",
        "detect pets/train/first.png --output {}",
        "detect pets/train/first.png --json {}/x.json",
        "detect film.mp4 --output {}",
        "detect film.mp4 --json {}/x.json",
        "evaluate pets --model ssdlite300_mobilenet_v2 --output {}",
        "evaluate pets --model ssdlite300_mobilenet_v2 --json {}/x.json",
        "train pets --output {}",
        "convert weights.pth --output {}",
        "export ssdlite300_mobilenet_v2 --format onnx --output {}/x.onnx",
    ],
)
def test_outputs_that_cannot_be_written(command, target, place, monkeypatch, capsys):
    if target.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    monkeypatch.chdir(place)
    monkeypatch.setattr("ssd_zoo.models.registry.get_model", lambda *args, **options: pytest.fail("a model was built"))
    before = sorted(place.rglob("*"))
    assert main(command.format(target).split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert target in err
    assert "is a file, not a folder" in err or "nothing may be written to /proc" in err
    assert sorted(place.rglob("*")) == before


def test_the_error_of_a_file_names_it_alone():
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    with pytest.raises(OSError, match="/proc/x.json") as caught, replacing(Path("/proc/x.json")):
        pass
    assert "None" not in str(caught.value)
    assert ".part" not in str(caught.value)

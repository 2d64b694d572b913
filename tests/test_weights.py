"""Reading weights: files that torch.hub has kept, and downloads that fail."""

import pickle
import socket
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.models.table import list_weights
from ssd_zoo.weights.read import read_weights


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Where torch.hub keeps what it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def entry(url, layout=None):
    return ssd_zoo.Weights(url=url, transforms=None, meta={}, layout=layout)


def test_a_failed_download_says_where_to_put_the_file(downloads):
    # Nothing listens on port 9, the discard port, of this machine.
    with pytest.raises(ConnectionError, match="can't be downloaded: .*Connection refused.*put the file at") as error:
        read_weights(entry("http://127.0.0.1:9/ssd-12345678.pth"))
    assert str(downloads / "ssd-12345678.pth") in str(error.value)
    assert not list(downloads.iterdir())


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200])
def test_an_answer_that_is_not_http(downloads, answer):
    def answer_once():
        connection, _ = server.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_once)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/ssd.pth"
        with pytest.raises(ConnectionError, match=rf"{address} can't be downloaded: \w+\(.*put the file at"):
            read_weights(entry(address), progress=False)
        thread.join()


def test_reads_files_and_gives_float32(downloads):
    torch.save({"a": torch.ones(2, dtype=torch.float16), "b": torch.ones(1, dtype=torch.int64)}, downloads / "x.pth")
    state = read_weights(entry("http://127.0.0.1:9/x.pth"))
    assert state["a"].dtype == torch.float32
    assert state["b"].dtype == torch.int64


def test_nothing_is_unpickled(downloads):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    torch.save({"a": Evil()}, downloads / "x.pth")
    with pytest.raises(ValueError, match=r"holds more than tensors and plain values, '(builtins\.)?exec'"):
        read_weights(entry("http://127.0.0.1:9/x.pth"))


def test_a_wrong_hash_is_refused_and_the_file_not_kept(downloads, tmp_path):
    file = tmp_path / "ssd-12345678.pth"
    torch.save({"a": torch.ones(2)}, file)
    with pytest.raises(ValueError, match="SHA-256 .* begins with .*, not 12345678"):
        read_weights(entry(file.as_uri()), progress=False)
    assert not list(tmp_path.rglob("*.safetensors")) + list(downloads.parent.rglob("*.pth"))


def test_a_file_of_another_origin_is_refused(downloads):
    torch.save({"conv.weight": torch.ones(2)}, downloads / "x.pth")
    with pytest.raises(ValueError, match="Unexpected tensor 'conv.weight'"):
        read_weights(entry("http://127.0.0.1:9/x.pth", layout="torchvision"))


@pytest.mark.slow
def test_entries_tell_all_that_is_known_of_them():
    for name, entry in list_weights():
        with torch.device("meta"):
            categories, settings = entry.meta["categories"], entry.settings.get("default_boxes", {})
            size = {"size": entry.settings["size"]} if "size" in entry.settings else {}
            model = ssd_zoo.get_model(name, weights_backbone=None, categories=categories, **size).eval()
            with FlopCounterMode(display=False) as counter:
                model.forward_raw(torch.empty(1, 3, *model.size))
        assert entry.meta["num_params"] == sum(parameter.numel() for parameter in model.parameters()), entry
        # One multiply–add is two floating-point operations.
        assert entry.meta["macs"] == pytest.approx(counter.get_total_flops() / 2, rel=3e-3), entry
        if not entry.url.startswith("package:"):
            size = sum(tensor.nbytes for tensor in model.state_dict().values())
            assert entry.meta["file_size"] == pytest.approx(size, rel=1e-2), entry
        assert set(settings) <= {"scales", "clip", "aspect_ratios", "shapes", "steps"}
        assert entry.meta["licence"]
        assert entry.meta["origin"]
        for figures in entry.meta["metrics"].values():
            assert figures["source"] in ("published", "measured")


@pytest.mark.parametrize("entry", ssd_zoo.SSDLite300_MobileNet_V2_Weights, ids=str)
def test_shipped_files_have_the_sizes_that_their_entries_say(entry):
    file = Path(ssd_zoo.weights.__file__).parent / "packaged" / entry.url.removeprefix("package:")
    assert entry.meta["file_size"] == pytest.approx(file.stat().st_size, rel=1e-2)


def test_entries_are_pickled_by_name():
    for model, entry in list_weights():
        assert pickle.loads(pickle.dumps(entry)) is entry, model


def test_command_lists_them_all(capsys):
    assert main(["list", "--weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    assert lines[0] == "COCO_TF_V1 of ssdlite300_mobilenet_v2"
    assert "9.4 MB, ships" in " ".join(lines[: heads[1]])
    assert lines[heads[1]].startswith("BCCD_V1 of ")
    assert len(heads) == len(list_weights())
    assert max(map(len, lines)) <= 100
    assert "Classes: 80;" in " ".join(" ".join(lines[: heads[1]]).split()), "as `ssd-zoo list` counts them"
    assert main(["list", "--weights", "ssdlite300_mobilenet_v2"]) == 0
    names = " ".join(capsys.readouterr().out.split())
    assert "person, bicycle, " in names
    assert "Platelets, RBC, WBC" in names
    assert "N/A" not in names


def test_figures_are_of_the_model_that_was_measured(capsys):
    assert main(["list", "ssd300_vgg16d*"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "COCO_MMDET_V1" in line]
    assert ["AP 25.5" in line for line in shown] == [True, False]
    assert main(["list", "--weights", "ssd300_vgg16d_3d"]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert {line.split(" of ")[1] for line in heads} == {"ssd300_vgg16d"}


def test_a_checkpoint_is_converted_once(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_ZOO_HOME", str(tmp_path / "home"))
    torch.save({"model": {"x": torch.ones(2, dtype=torch.float16)}}, tmp_path / "ssd.pth")
    kept = entry((tmp_path / "ssd.pth").as_uri())
    assert torch.equal(read_weights(kept, progress=False)["x"], torch.ones(2))
    (tmp_path / "ssd.pth").unlink()
    assert torch.equal(read_weights(kept, progress=False)["x"], torch.ones(2))
    assert [file.suffix for file in (tmp_path / "home").iterdir()] == [".safetensors"]


def test_a_download_that_is_cut_off_is_not_kept(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_ZOO_HOME", str(tmp_path / "home"))
    torch.save({"x": torch.ones(1000)}, tmp_path / "ssd.pth")
    whole = (tmp_path / "ssd.pth").read_bytes()
    (tmp_path / "ssd.pth").write_bytes(whole[:2000])
    kept = entry((tmp_path / "ssd.pth").as_uri())
    with pytest.raises(ValueError, match="is cut off or damaged"):
        read_weights(kept, progress=False)
    assert not list((tmp_path / "home").iterdir())
    (tmp_path / "ssd.pth").write_bytes(whole)
    assert read_weights(kept, progress=False)["x"].numel() == 1000


def test_weights_that_are_no_numbers_are_not_kept(downloads, tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_ZOO_HOME", str(tmp_path / "home"))
    torch.save({"x": torch.tensor([1.0, float("nan")])}, downloads / "ssd.pth")
    with pytest.raises(ValueError, match="'x' holds 1 numbers of 2 that are NaN"):
        read_weights(entry("https://localhost/ssd.pth"))
    assert not list((tmp_path / "home").iterdir())

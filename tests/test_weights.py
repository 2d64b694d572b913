"""Reading weights: files that torch.hub has kept, and downloads that fail."""

import pytest
import torch

import ssd_zoo
from ssd_zoo.zoo import read_weights


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
    with pytest.raises(Exception, match="Weights only load failed"):
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

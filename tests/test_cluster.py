"""Detecting on a cluster: the local command's numbers, each image once, whatever is lost on the way."""

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_models import small_model
from test_readme import PAGES, ROOT, blocks

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.deploy import export
from ssd_zoo.prediction import detect_on_cluster
from ssd_zoo.prediction.cluster_files import ImageFile, ParquetFolder, find_image_files, resolve_address

pa = pytest.importorskip("pyarrow", reason="NO PYARROW: pip install ssd_zoo[ray]")
pq = pytest.importorskip("pyarrow.parquet")
fs = pytest.importorskip("pyarrow.fs")

MODEL = "ssdlite300_mobilenet_v2"


def row(name, error=None, **stamp):
    found = {"boxes": [[1.0, 2.0, 3.0, 4.5]], "scores": [0.5], "labels": [2], "names": ["dog"]}
    found = found if error is None else dict.fromkeys(found)
    return {"file_name": name, **found, "error": error, "size": 5, "modified": 7, **stamp}


def files(*names):
    return [ImageFile(name, f"/{name}", 5, 7) for name in names]


@pytest.fixture
def folder(tmp_path):
    folder = ParquetFolder(fs.LocalFileSystem(), str(tmp_path / "out"))
    folder.start({"score_thresh": 0.5})
    return folder


def names_in(path):
    return sorted(name for name in pq.read_table(path)["file_name"].to_pylist())


def test_rows_are_read_as_they_were_written(folder):
    folder.write_rows("k", [row("a"), row("b", "it is broken")])
    assert sorted(pq.read_table(folder.path).to_pylist(), key=str) == [row("a"), row("b", "it is broken")]


def test_a_part_that_is_written_again_replaces_itself(folder):
    folder.write_rows("k", [row("a"), row("b", "the network was lost")])
    folder.write_rows("k", [row("a"), row("b")])
    assert names_in(folder.path) == ["a", "b"]
    folder.write_rows("k", [row("a", "lost"), row("b", "lost")])
    assert names_in(folder.path) == ["a", "b"]


def test_what_is_done_is_not_done_again(folder):
    folder.write_rows("1", [row("a"), row("b", "broken")])
    folder.write_rows("2", [row("c"), row("d", modified=6)])
    Path(folder.path, ".123-part-3.parquet").write_bytes(b"PAR1 half")
    # b failed; d has changed, and c is in its file.
    assert folder.remove_failed(files("a", "b", "c", "d", "e")) == {"a"}
    assert names_in(folder.path) == ["a"]
    assert sorted(os.listdir(folder.path)) == ["_ssd_zoo.json", "part-1.parquet"]


def test_results_of_other_options_are_refused(folder, tmp_path):
    folder.start({"score_thresh": 0.5})
    with pytest.raises(ValueError, match=r"results of other options \(score_thresh was 0\.5\)"):
        folder.start({"score_thresh": 0.4})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with pytest.raises(ValueError, match="holds files that are not results"):
        ParquetFolder(fs.LocalFileSystem(), str(tmp_path / "photos")).start({})
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def test_damaged_results_are_named(folder):
    Path(folder.path, "part-1.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(ValueError, match=r"part-1\.parquet is damaged, delete it"):
        folder.remove_failed([])


@pytest.fixture
def photos(tmp_path):
    for name in ("photos/b.jpg", "photos/sub/a.PNG", "photos/.hidden.jpg", "photos/@eaDir/c.jpg", "photos/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path / "photos"


@pytest.mark.parametrize("start", ["{}", "file://{}", "local://{}"])
def test_images_are_found_on_any_file_system(photos, start):
    source = start.format(photos)
    place, found = find_image_files([source, f"{source}/b.jpg"], None)
    assert [file.name for file in found] == [f"{source}/b.jpg", f"{source}/sub/a.PNG"]
    assert [file.size for file in found] == [5, 5]
    assert place.open_input_stream(found[0].path).read() == b"12345"


def test_paths_are_on_the_file_system_that_is_given(photos):
    inner = fs.SubTreeFileSystem(str(photos.parent), fs.LocalFileSystem())
    place, found = find_image_files(["photos"], inner)
    assert [(file.name, file.path) for file in found] == [
        ("photos/b.jpg", "photos/b.jpg"),
        ("photos/sub/a.PNG", "photos/sub/a.PNG"),
    ]
    assert place is inner
    assert resolve_address("out/", inner) == (inner, "out")


def test_wrong_sources_are_errors(photos):
    with pytest.raises(FileNotFoundError, match="gone is not a file or folder"):
        find_image_files([f"{photos}/gone"], None)
    (photos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no image"):
        find_image_files([f"{photos}/empty"], None)
    with pytest.raises(ValueError, match="another file system"):
        find_image_files(["photos", f"file://{photos}"], fs.SubTreeFileSystem(str(photos.parent), fs.LocalFileSystem()))
    with pytest.raises(ValueError, match="nowhere://a can't be opened"):
        find_image_files(["nowhere://a"], None)
    with pytest.raises(ValueError, match="name at least one"):
        find_image_files([], None)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head without cores, and two workers."""
    pytest.importorskip("ray", reason="NO RAY: pip install ssd_zoo[ray]")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield made
    ray.shutdown()
    made.shutdown()


def local_rows(folder, file):
    """What the local command finds, by the name of the file."""
    assert main(["detect", str(folder), "--model", MODEL, "--json", str(file), "--quiet"]) == 1
    rows = {}
    for one in json.loads(file.read_text()):
        rows.setdefault(one["file_name"], []).append((one["bbox"], one["score"], one["category_id"], one["category"]))
    return rows


def cluster_rows(folder):
    rows, errors = {}, {}
    for one in pq.read_table(folder).to_pylist():
        assert one["file_name"] not in rows | errors
        if one["error"]:
            errors[one["file_name"]] = one["error"]
            continue
        rows[one["file_name"]] = [
            ([round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)], round(score, 5), label, name)
            for (x1, y1, x2, y2), score, label, name in zip(
                one["boxes"], one["scores"], one["labels"], one["names"], strict=True
            )
        ]
    return rows, errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster", "one_thread")
@pytest.mark.parametrize("name", ["m.xml", "m.pt2"])
def test_exported_models_are_sent_with_the_threshold_that_is_asked_for(name, tmp_path, monkeypatch):
    model = small_model()
    model.detections_per_img = 100
    file = export(model, tmp_path / name)
    photo, start = str(ROOT / "examples/coffee.jpg"), ParquetFolder.start
    local = ssd_zoo.predict(file, photo, 0.6)

    def gone(self, facts):
        start(self, facts)
        for file in tmp_path.glob("m.*"):
            file.unlink()

    # From here on the workers have what was sent to them alone: of OpenVINO two files.
    monkeypatch.setattr(ParquetFolder, "start", gone)
    detect_on_cluster(file, photo, str(tmp_path / "found"), score_thresh=0.6)
    assert not list(tmp_path.glob("m.*"))
    [found] = pq.read_table(tmp_path / "found").to_pylist()
    assert found["names"] == local.names
    # At its own threshold, .5, the file finds 16.
    assert 1 < len(found["names"]) < 16
    for key in ("boxes", "scores", "labels"):
        assert torch.tensor(found[key]).allclose(local[key].to(torch.tensor(found[key]).dtype), atol=1e-3), key


# What Ray warns of is not ours.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
def test_page_shows_what_it_prints(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    (tmp_path / "photos").mkdir()
    for photo in ("astronaut.jpg", "coffee.jpg"):
        shutil.copy(ROOT / "examples" / photo, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    [code] = blocks(PAGES["docs/cluster.md"], "py")
    exec(code, {})
    shown = re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)
    assert [line for line in capsys.readouterr().out.splitlines() if line in shown] == shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_thread")
def test_a_lost_worker_loses_nothing(cluster, tmp_path):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for i in range(20):
        with Image.open(ROOT / "examples" / ("astronaut.jpg", "coffee.jpg")[i % 2]) as photo:
            photo.resize((200 + 9 * i, 240)).save(images / f"{i:02d}.png")
    (images / "bad.jpg").write_bytes(b"no image")
    options = {"images_per_file": 2, "batch_size": 1, "workers": 2}

    def lose_a_worker():
        while len(list(output.glob("part-*"))) < 3:
            time.sleep(0.02)
        cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)

    loss = threading.Thread(target=lose_a_worker, daemon=True)
    loss.start()
    counts = detect_on_cluster(MODEL, str(images), str(output), **options)
    loss.join(60)
    assert not loss.is_alive()
    assert counts == (20, 1, 0)
    expected = local_rows(images, tmp_path / "found.json")
    rows, errors = cluster_rows(output)
    assert {name: found for name, found in rows.items() if found} == expected
    assert len(rows) == 20
    [(bad, reason)] = errors.items()
    assert (bad, reason) == (f"{images}/bad.jpg", reason)
    assert reason.startswith(f"{bad} is not an image that can be read.")

    # With one worker left it goes on: one image is mended, one new, one changed together with its file's other.
    cluster_before = {file.name for file in output.glob("part-*")}
    shutil.copy(images / "00.png", images / "bad.jpg")
    shutil.copy(images / "01.png", images / "new.png")
    shutil.copy(images / "02.png", images / "03.png")
    assert detect_on_cluster(MODEL, str(images), str(output), **options | {"workers": (1, None)}) == (4, 0, 18)
    assert len(cluster_before - {file.name for file in output.glob("part-*")}) == 1
    rows, errors = cluster_rows(output)
    assert (len(rows), errors) == (22, {})
    assert rows[f"{images}/bad.jpg"] == rows[f"{images}/00.png"]
    assert rows[f"{images}/03.png"] == rows[f"{images}/02.png"]
    with pytest.raises(ValueError, match=r"score_thresh was 0\.5"):
        detect_on_cluster(MODEL, str(images), str(output), score_thresh=0.4)

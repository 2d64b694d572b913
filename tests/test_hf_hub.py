"""The Hugging Face Hub: its real client against a server on the loopback interface, in processes of their own."""

import multiprocessing
from pathlib import Path

import pytest
import timm
import torch
from hub_server import Repo, child, running_hub
from launch import start_server
from safetensors.torch import load_file, save

import ssd_zoo

LOAD = "model = ssd_zoo.from_pretrained('owner/cats'); print(model.categories[1])"
FILE = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a saved model."""
    model = ssd_zoo.ssdlite320_mobilenet_v3_large(weights_backbone=None, categories=["background", "cat"], size=64)
    folder = ssd_zoo.save_pretrained(model, tmp_path_factory.mktemp("cats"))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def hub(files):
    with running_hub() as hub:
        hub.repos["owner/cats"] = Repo()
        hub.repos["owner/cats"].commit(files)
        yield hub


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have imported ssd_zoo already; what the client reads at its import is still open."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssd_zoo"])
    start_server()
    return context


@pytest.fixture
def start(hub, processes, tmp_path):
    def start(code, **environment):
        settings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            # The server speaks no Xet, the Hub's own transport.
            "HF_HUB_DISABLE_XET": "1",
            "SSD_ZOO_HOME": str(tmp_path / "home"),
        }
        receiver, sender = processes.Pipe(duplex=False)
        processes.Process(target=child, args=(code, {**settings, **environment}, sender), daemon=True).start()
        sender.close()
        return receiver

    return start


@pytest.fixture
def run(hub, start):
    """Runs code to its end and gives what it printed, or its error."""

    def run(code, **environment):
        hub.requests.clear()
        hub.sent = 0
        return start(code, **environment).recv()

    return run


def asked(hub):
    """What the server was asked for of repositories; the client greets some servers otherwise too."""
    return [request for request in hub.requests if "agent" not in request]


@pytest.mark.slow
def test_downloads_once_and_asks_only_for_news(hub, run, files):
    assert run(LOAD) == "cat"
    assert next(request for request in asked(hub) if request.startswith("GET")).endswith("resolve/main/config.json")
    assert hub.sent > len(files[FILE])
    # Again: the branch may have moved, but nothing is sent.
    assert run(LOAD) == "cat"
    assert asked(hub) == ["HEAD /owner/cats/resolve/main/config.json"]
    assert run(LOAD, HF_HUB_OFFLINE="1") == "cat"
    assert hub.requests == []
    # A commit can't move.
    [commit] = hub.repos["owner/cats"].commits
    assert run(f"print(ssd_zoo.from_pretrained('owner/cats', revision='{commit}').categories[1])") == "cat"
    assert asked(hub) == []
    hub.repos["owner/cats"].commit({"config.json": files["config.json"].replace(b'"format": 1', b'"format": 9')})
    assert "disagree on format, 9 and 1" in run(LOAD)
    assert hub.sent < len(files[FILE])


def test_revisions_and_builders_and_torch_hub(hub, run, files):
    config = files["config.json"].replace(b'"cat"', b'"dog"')
    tensors = files[FILE].replace(rb"\"cat\"", rb"\"dog\"")
    hub.repos["owner/cats"].commit({**files, "config.json": config, FILE: tensors}, branch="v2")
    builder = "ssd_zoo.ssdlite320_mobilenet_v3_large(weights='hf-hub:owner/cats@v2')"
    assert run(f"print({builder}.categories[1])") == "dog"
    root = Path(__file__).parents[1]
    entry = "'ssdlite320_mobilenet_v3_large', source='local', weights='hf-hub:owner/cats@v2', num_classes=5"
    code = f"import torch; model = torch.hub.load({str(root)!r}, {entry}); print(len(model.categories), model.size)"
    assert run(code) == "5 (64, 64)"
    assert "FileNotFoundError: owner/cats has no revision 'v3'" in run(LOAD.replace("cats'", "cats@v3'"))


def test_what_is_not_there_says_so(hub, run, files):
    assert "FileNotFoundError: The Hub has no repository owner/dogs, or it is private" in run(
        LOAD.replace("cats", "dogs")
    )
    hub.repos["owner/empty"] = Repo()
    hub.repos["owner/empty"].commit({"README.md": b""})
    assert "FileNotFoundError: owner/empty was not saved by ssd_zoo" in run(LOAD.replace("cats", "empty"))
    assert "ConnectionError: owner/cats is not in the Hub's cache, and the Hub can't be reached" in run(
        LOAD, HF_HUB_OFFLINE="1"
    )
    assert "ValueError" in run("ssd_zoo.ssd300_vgg16d(weights='hf-hub:../../etc')")


def test_private_repositories_need_their_token(hub, run):
    hub.repos["owner/cats"].private = True
    refused = run(LOAD)
    assert "FileNotFoundError: The Hub has no repository owner/cats, or it is private" in refused
    assert "hf auth login" in refused
    assert "private" in run(LOAD, HF_TOKEN="hf_wrong")
    assert run(LOAD, HF_TOKEN=hub.token) == "cat"
    hub.repos["owner/cats"].gated = True
    assert "PermissionError: owner/cats is gated" in run(LOAD, HF_HOME="/nonexistent", HF_TOKEN=hub.token)


def test_a_download_that_breaks_off_goes_on(hub, run, tmp_path):
    categories = ["background", *map(str, range(300))]
    model = ssd_zoo.ssdlite320_mobilenet_v3_large(weights_backbone=None, categories=categories, size=64)
    folder = ssd_zoo.save_pretrained(model, tmp_path / "many")
    hub.repos["owner/many"] = Repo()
    hub.repos["owner/many"].commit({file.name: file.read_bytes() for file in folder.iterdir()})
    size = (folder / FILE).stat().st_size
    # The client keeps what comes in steps of 10 MB.
    hub.break_after = [15 * 10**6]
    assert size > hub.break_after[0]
    assert run(LOAD.replace("cats", "many")) == "0"
    assert size + 3 * 10**6 < hub.sent < size + 7 * 10**6


@pytest.mark.slow
def test_a_download_that_keeps_breaking_leaves_nothing_half(hub, run, tmp_path):
    hub.break_after = [1000] * 100
    assert "ConnectionError" in run(LOAD)
    assert not list((tmp_path / "hf").rglob(FILE))
    hub.break_after = []
    assert run(LOAD) == "cat"


def test_two_processes_at_once(hub, start, tmp_path):
    both = [start(LOAD) for _ in range(2)]
    assert [process.recv() for process in both] == ["cat", "cat"]
    assert len(list((tmp_path / "hf").rglob(FILE))) == 1


@pytest.mark.slow
def test_push_and_load_again(hub, run, files):
    push = (
        "model = ssd_zoo.ssdlite300_mobilenet_v2(weights='COCO_TF_V1')\n"
        "print(ssd_zoo.push_to_hub(model, 'owner/person', token='{token}'{more}))"
    )
    url = run(push.format(token=hub.token, more=", licence='MIT', private=True"))
    kept = hub.repos["owner/person"]
    assert url == f"{hub.endpoint}/owner/person/commit/{kept.branches['main']}"
    assert kept.private
    assert {"README.md", "config.json", FILE} <= kept.files("main").keys()
    assert b'from_pretrained("owner/person"' in kept.files("main")["README.md"]
    check = (
        "import torch\n"
        "expected = ssd_zoo.ssdlite300_mobilenet_v2(weights='COCO_TF_V1').state_dict()\n"
        "found = ssd_zoo.from_pretrained('owner/person').state_dict()\n"
        "print(all(torch.equal(expected[name], found[name]) for name in expected))"
    )
    assert run(check, HF_TOKEN=hub.token) == "True"
    # A card that somebody has written stays.
    kept.commit({"README.md": b"---\nlicense: mit\n---\nMine."})
    run(push.format(token=hub.token, more=", revision='next'"))
    assert kept.files("next")["README.md"].endswith(b"Mine.")
    assert "PermissionError: The Hub refuses the token" in run(push.format(token="hf_wrong", more=""))


def test_only_the_needed_part_of_a_file_is_downloaded(hub, run, tmp_path):
    torch.manual_seed(0)
    features = {f"features.{i}.weight": torch.rand(64, 64, 3, 3) for i in range(4)}
    classifier = {f"{name}.weight": torch.rand(2000, 1000) for name in ("a_first", "head", "pre_logits")}
    hub.repos["timm/vgg"] = Repo()
    hub.repos["timm/vgg"].commit({FILE: save({**features, **classifier})})
    fetch = "from ssd_zoo.weights.hub import fetch_tensors; print(fetch_tensors('timm/vgg', ('{}',), progress=False))"
    kept = load_file(run(fetch.format("features.")))
    assert kept.keys() == features.keys()
    assert all(torch.equal(kept[name], features[name]) for name in features)
    needed = sum(tensor.numel() * 4 for tensor in features.values())
    assert needed < hub.sent < needed + 2**20
    run(fetch.format("features."))
    assert asked(hub) == []
    assert "ValueError: timm/vgg has no tensors nothing." in run(fetch.format("nothing."))
    hub.repos["timm/vgg"].commit({FILE: save(classifier)[:-100]})
    assert "cut off" in run(fetch.format("pre_logits."))
    assert len(list((tmp_path / "home").iterdir())) == 1


def test_a_part_is_of_one_commit(hub, run, tmp_path):
    old, new = ({f"features.{i}.weight": torch.full((64, 64, 3, 3), value) for i in range(4)} for value in (1.0, 2.0))
    hub.repos["timm/vgg"] = Repo()
    hub.repos["timm/vgg"].commit({FILE: save(old)})
    # Old content must be found by its hash after the branch has moved.
    hub.heeds_ranges = lambda: hub.repos["timm/vgg"].commit({FILE: save(new)}) != ""
    fetch = "from ssd_zoo.weights.hub import fetch_tensors; print(fetch_tensors('timm/vgg{}', ('f',), progress=False))"
    kept = load_file(run(fetch.format("")))
    assert all(torch.equal(kept[name], old[name]) for name in old)
    answers = iter([True])
    hub.heeds_ranges = lambda: next(answers, False)
    assert "ConnectionError: The Hub was asked for" in run(fetch.format("@main"))
    assert len(list((tmp_path / "home").iterdir())) == 1


@pytest.mark.slow
def test_backbones_come_from_timm_in_part(hub, run):
    torch.manual_seed(0)
    with torch.device("meta"):
        names = {name: t.shape for name, t in timm.create_model("vgg16").state_dict().items()}
    # The classifier's 500 MB are never asked for; two of its tensors stand for them.
    state = {name: torch.rand(shape) for name, shape in names.items() if name.startswith("features.")}
    state |= {"head.fc.weight": torch.rand(1000, 4096), "pre_logits.fc1.bias": torch.rand(4096)}
    hub.repos["timm/vgg16.tv_in1k"] = Repo()
    hub.repos["timm/vgg16.tv_in1k"].commit({FILE: save(state)})
    code = (
        "model = ssd_zoo.ssd300_vgg16d(num_classes=2, progress=False)\n"
        "report = ssd_zoo.load_report(model)\n"
        "print(model.backbone.features[0].weight.sum().item(), model.image_std.flatten().tolist()[0], report.source)"
    )
    total, std, source = run(code).split()
    assert float(total) == pytest.approx(state["features.0.weight"].sum().item(), rel=1e-6)
    # These weights are for ImageNet's normalisation, not for Caffe's.
    assert float(std) == pytest.approx(0.229)
    assert source == "VGG16D_Weights.TV_IN1K"
    assert 58e6 < hub.sent < 60e6


def test_a_pinned_hash_is_checked_and_the_wrong_file_not_kept(hub, run, tmp_path):
    code = (
        "from ssd_zoo.weights.read import read_weights\n"
        "entry = ssd_zoo.Weights('hf-hub:owner/cats', None, {}, sha256='12345678')\n"
        "read_weights(entry)"
    )
    assert "ValueError: hf-hub:owner/cats is not the file that it should be" in run(code)
    assert not [file for file in (tmp_path / "hf").rglob("*") if file.is_file() and file.stat().st_size > 10**6]


def test_predict_takes_a_repository(run):
    code = "import torch; print(ssd_zoo.predict('owner/cats', torch.zeros(3, 8, 8), 0)['labels'].unique().tolist())"
    assert run(code).strip() == "[1]"

"""Builders of other packages: the one that docs/plugins.md shows, installed by pip, and those that do not work."""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from conftest import INSTALLED, ROOT
from labelled import colourful, make_coco
from torch import nn
from typing_extensions import Unpack

import ssd_zoo
from ssd_zoo.models import plugins, registry

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
[CODE], [PROJECT] = (
    re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.M | re.S) for kind in ('python title="acme_ssd.py"', "toml")
)
# Builds a wheel of one file without hatchling, which may not be installed here.
BACKEND = '''\
import tomllib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]
    name, info = "acme_ssd-1.0-py3-none-any.whl", "acme_ssd-1.0.dist-info/"
    points = ["[ssd_zoo.models]", *map(" = ".join, project["entry-points"]["ssd_zoo.models"].items())]
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("acme_ssd.py")
        metadata = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
        wheel.writestr(info + "METADATA", "\\n".join(metadata))
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any")
        wheel.writestr(info + "entry_points.txt", "\\n".join(points))
        wheel.writestr(info + "RECORD", "")
    return name
'''  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that pip has installed the page's package into."""
    pytest.importorskip("pip")
    if sys.version_info < (3, 11):
        pytest.skip("the test's build backend needs tomllib")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "acme_ssd.py").write_text(CODE)
    (source / "backend.py").write_text(BACKEND)
    own = 'build-backend = "backend"\nbackend-path = ["."]'
    (source / "pyproject.toml").write_text(
        PROJECT.replace('"hatchling"', "").replace('build-backend = "hatchling.build"', own)
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", f"--target={site}", str(source)], check=True)
    return site


def run(code, *path, cwd):
    """Runs code in a process of its own that finds further packages; returns its output."""
    paths = os.pathsep.join(map(str, [INSTALLED, *path]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    result = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    return result.stdout + result.stderr


USER = """
import sys
import torch, torchvision
import ssd_zoo
from ssd_zoo.cli.main import main

assert "acme_ssd128" in ssd_zoo.list_models("acme*")
assert "acme_ssd128" in torchvision.models.list_models()
assert "acme_ssd" not in sys.modules, "imported before it was asked for"
assert torchvision.models.get_model_weights("acme_ssd128") is ssd_zoo.WeightsEnum
theirs = torchvision.models.get_model("acme_ssd128", num_classes=3)
model = ssd_zoo.get_model("acme_ssd128", categories=["background", "cat", "dog"], nms_thresh=0.3, size=96).eval()
assert type(model.backbone).__module__ == "acme_ssd" and theirs.score_thresh == 0.1
ssd_zoo.save_pretrained(model, "saved")
again = ssd_zoo.from_pretrained("saved").eval()
image = torch.rand(3, 50, 70)
for one, other in zip(model([image])[0].values(), again([image])[0].values()):
    assert torch.equal(one, other)
assert (again.nms_thresh, again.categories, again.size) == (0.3, ["background", "cat", "dog"], (96, 96))
assert ssd_zoo.from_pretrained("saved", categories=["background", "dog"]).categories == ["background", "dog"]
assert main(["detect", "photo.jpg", "--model", "saved"]) == 0
for command in COMMANDS:
    short = ["--epochs", "1", "--batch-size", "4", "--no-tensorboard", "--device", "cpu"]
    assert main([*command, *(short if command[0] == "train" else [])]) == 0, command
assert type(ssd_zoo.from_pretrained("runs/acme/best").backbone).__module__ == "acme_ssd"
print("all is well")
"""


@pytest.mark.slow
def test_an_installed_package(site, tmp_path):
    from PIL import Image

    Image.new("RGB", (70, 50)).save(tmp_path / "photo.jpg")
    make_coco(tmp_path / "my_data", "train", colourful(4))
    commands = [shlex.split(line)[1:] for line in re.findall(r"^ssd-zoo .*", PAGE, re.M)]
    assert len(commands) == 3
    found = run(f"COMMANDS = {commands}\n{USER}", site, cwd=tmp_path)
    assert "acme_ssd128" in found
    assert "all is well\n" in found, found
    # Where the package is not installed, the error names it; the command's error does, too.
    command = "from ssd_zoo.cli.main import main; assert main(['detect', 'photo.jpg', '--model', 'saved']) == 2"
    told, _, found = run(f"{command}\nimport ssd_zoo; ssd_zoo.from_pretrained('saved')", cwd=tmp_path).partition(
        "Traceback"
    )
    assert "package acme-ssd 1.0" in told
    assert "Unknown model 'acme_ssd128'" in found
    assert "the builder is of the package acme-ssd 1.0: install that, if you trust it." in found


def write_package(folder, code, points, name="broken"):
    info = folder / f"{name}-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[ssd_zoo.models]", *points]))
    (folder / f"{name}.py").write_text(code)


@pytest.mark.slow
def test_packages_that_do_not_work(tmp_path):
    write_package(
        tmp_path, "import nothing_of_that_name", ["broken_ssd = broken:build", "ssd300_vgg16d = broken:build"]
    )
    points = ["bare_ssd = bare:bare_ssd", "broken_ssd = bare:x", "Bare_upper = bare:bare_ssd"]
    write_package(tmp_path, "def bare_ssd(): pass", points, name="bare")
    code = """
import logging, ssd_zoo
from ssd_zoo.models.table import weights_table
assert ssd_zoo.get_model_builder("ssd300_vgg16d") is ssd_zoo.ssd300_vgg16d
assert "COCO_V1" in weights_table("ssd300_vgg16d") and ssd_zoo.get_weight("SSD300_VGG16D_Weights.COCO_V1")
from ssd_zoo.cli.main import main
assert main(["list", "*ssd*"]) == 0
for name in ("broken_ssd", "bare_ssd"):
    try:
        ssd_zoo.get_model(name)
    except ImportError as error:
        print(error)
"""
    found = run(code, tmp_path, cwd=tmp_path)
    assert "broken 2.0 lists a model 'ssd300_vgg16d', a name that is taken; it is left out" in found
    assert (
        "bare 2.0 lists a model 'broken_ssd', a name that is taken" in found
        or "broken 2.0 lists a model 'broken_ssd'" in found
    )
    assert "package bare 2.0 lists a model 'bare_ssd' and registers none of that name" in found
    assert "Traceback" not in found


@pytest.fixture
def register():
    """Registers builders for one test, as if in a package of the name `acme`."""
    before = dict(registry._BUILDERS)

    def register(builder):
        builder.__module__ = "acme.models"
        return ssd_zoo.register_model(builder)

    yield register
    for name in registry._BUILDERS.keys() - before.keys():
        del registry._BUILDERS[name]
    registry._BUILDERS.update(before)


def make(options, weights=None, channels=4, **settings):
    asked = ssd_zoo.settle(ssd_zoo.WeightsEnum, weights, ssd_zoo.WeightsEnum, None, options, size=32)
    backbone = nn.ModuleList([nn.Conv2d(asked.in_chans, channels, 3, 8, 1)])
    backbone.gain = 2.0
    backbone.forward = lambda images: [backbone.gain * backbone[0](images)]
    return ssd_zoo.finish(asked, backbone, asked.default_boxes(aspect_ratios=[[2]], scales=[0.2, 0.5]), **settings)


def test_a_model_that_would_not_come_back_is_refused(register, tmp_path):
    def plain(
        *, weights: str | None = None, weights_backbone: None = None, **options: Unpack[ssd_zoo.Options]
    ) -> ssd_zoo.SSD:
        return make(options, weights)

    def without_weights(*, num_classes: int = 3) -> ssd_zoo.SSD:
        return make({"num_classes": num_classes})

    def deaf(*, weights: str | None = None, size: int = 32, categories: list[str] | None = None) -> ssd_zoo.SSD:
        return make({"categories": categories or ["background", "a", "b"]})

    def moody(*, weights: str | None = None, **options: Unpack[ssd_zoo.Options]) -> ssd_zoo.SSD:
        return make(options, weights, channels=mood["channels"])

    mood = {"channels": 4}
    plain, without_weights, deaf, moody = map(register, (plain, without_weights, deaf, moody))
    ssd_zoo.save_pretrained(plain(num_classes=3), tmp_path / "plain")
    with pytest.raises(ValueError, match="without_weights would not build it again.*TypeError: .*unexpected keyword"):
        ssd_zoo.save_pretrained(without_weights(), tmp_path / "a")
    model = deaf()
    model.score_thresh = 0.3
    with pytest.raises(ValueError, match="deaf would not.*score_thresh is 0.3 in the model and 0.01 there"):
        ssd_zoo.save_pretrained(model, tmp_path / "a")
    model = moody(num_classes=3)
    mood["channels"] = 8
    with pytest.raises(ValueError, match=r"tensor backbone.0.weight is \(4, 3, 3, 3\) in the model and \(8, "):
        ssd_zoo.save_pretrained(model, tmp_path / "a")
    model = plain(num_classes=3)
    model.head.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"tensor head.extra.weight is \(2, 2\) in the model and missing there"):
        ssd_zoo.save_pretrained(model, tmp_path / "a")
    model.head.extra = None
    model.backbone.gain = 5.0
    with pytest.raises(ValueError, match="backbone.gain is 5.0 in the model and 2.0 there"):
        ssd_zoo.save_pretrained(model, tmp_path / "a")
    model.backbone.gain = 2.0
    del model.categories[2:]
    with pytest.raises(ValueError, match=r"cls_logits.0.weight is \(12, .* and \(8, "):
        ssd_zoo.save_pretrained(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    # In a process that has not imported the module, the error names it.
    del registry._BUILDERS["plain"]
    with pytest.raises(ValueError, match="the builder is of the module acme.models.*import acme.models before"):
        ssd_zoo.from_pretrained(tmp_path / "plain")


def test_arguments_of_plugins(register, tmp_path, caplog):
    """Texts that are not plain names are told when they are saved; arguments may lack a description."""

    def worded(
        *, weights: str | None = None, acts: tuple[str, ...] = ("a b",), **options: Unpack[ssd_zoo.Options]
    ) -> ssd_zoo.SSD:
        """Build a model.

        Args:
            weights: Weights.
        """
        return make(options, weights)

    worded = register(worded)
    assert "acts:" not in worded.__doc__
    assert "num_classes: Number of classes" in worded.__doc__
    ssd_zoo.save_pretrained(worded(num_classes=3), tmp_path)
    assert "acts=['a b'] is not a plain name; from_pretrained will need it as an argument again" in caplog.text
    with pytest.raises(ValueError, match="is not a plain name"):
        ssd_zoo.from_pretrained(tmp_path)
    ssd_zoo.from_pretrained(tmp_path, acts=("a b",))


HALF = """
import ssd_zoo

@ssd_zoo.register_model
def half_ssd(*, weights: str | None = None) -> ssd_zoo.SSD: ...

{end}
"""


@pytest.mark.parametrize(
    ("name", "end", "told"),
    [
        ("half_ssd", "raise SystemExit(3)", "half:half_ssd can't be imported: SystemExit: 3"),
        ("half_ssd", "import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("wrong_ssd", "", "lists a model 'wrong_ssd' and registers none of that name"),
    ],
)
def test_a_plugin_that_fails(register, tmp_path, monkeypatch, name, end, told):
    (tmp_path / "half.py").write_text(HALF.format(end=end))
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(name, "half:half_ssd", plugins.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    found = plugins.find_plugins(registry._BUILDERS)
    monkeypatch.setattr(registry, "_PLUGINS", found)
    # torchvision calls what was found.
    for opens in (ssd_zoo.get_model, ssd_zoo.get_model, lambda name: found[name]()):
        with pytest.raises(ImportError, match=told):
            opens(name)
    assert name not in registry._BUILDERS
    sys.modules.pop("half", None)


def test_names_and_annotations(register):
    def Acme(*, weights: str | None = None) -> ssd_zoo.SSD:  # noqa: N802
        raise AssertionError

    def late(*, weights: "str | None" = None) -> ssd_zoo.SSD:
        raise AssertionError

    with pytest.raises(ValueError, match="lower case, got 'Acme'"):
        register(Acme)
    with pytest.raises(TypeError, match="from __future__ import annotations"):
        register(late)

"""Imports point down, packages stay in their rooms, and what is public exists."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import run_code

import ssd_zoo
from ssd_zoo.cli.main import COMMANDS

PACKAGE = Path(__file__).parents[1] / "ssd_zoo"
FILES = sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))
MODULES = [info.name for info in pkgutil.walk_packages(ssd_zoo.__path__, "ssd_zoo.") if "__main__" not in info.name]

_MODELS = ("layers", "detector", "backbones", "weights", "models")
_TASKS = (*_MODELS, "saved", "data")

# Each room and the rooms that it may import.
ROOMS = (
    *((room, _MODELS[:i]) for i, room in enumerate(_MODELS)),
    ("saved", _MODELS),
    ("data", _MODELS),
    ("training", _TASKS),
    ("video", (*_TASKS, "training")),
    ("deploy", _TASKS),
    ("prediction", (*_TASKS, "deploy")),
    ("cli", (*_TASKS, "training", "video", "deploy", "prediction")),
)
# Files of these folders stand alone, but for what all of them share, and for what makes models of clips from those of
# images.
FAMILIES = {"models": {"options", "registry", "settle", "loading", "projects", "table"}, "weights/converters": set()}
ON_FAMILIES = ("models/clips.py", "weights/converters/__init__.py")
# Packages and the only files or folders that may import them.
HOMES = (("timm", ("backbones/timm.py", "training/")), ("huggingface_hub", ("weights/", "saved/")))
PRIVATE_TORCHVISION = "models/registry.py"
# Packages that `import ssd_zoo` must do without.
OPTIONAL = (
    "accelerate",
    "ai_edge_litert",
    "av",
    "coremltools",
    "executorch",
    "faster_coco_eval",
    "litert_torch",
    "matplotlib",
    "nncf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pyarrow",
    "pycocotools",
    "ray",
    "supervision",
    "tensorboard",
    "tflite",
    "torchcodec",
    "trackers",
)


class Import(NamedTuple):
    """One imported name, in full."""

    name: str
    line: int
    at_import_time: bool


def imports(file: str, source: str) -> Iterator[Import]:
    """Finds all imports of a file of the package, those within functions too."""

    def visit(node: ast.AST, at_import_time: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_import_time)
            elif isinstance(child, ast.ImportFrom):
                # In `a/b.py` one leading dot means `a`, two mean what holds `a`.
                parents = ["ssd_zoo", *Path(file).parts[:-1]]
                origin = parents[: len(parents) - child.level + 1] if child.level else []
                origin += child.module.split(".") if child.module else []
                for alias in child.names:
                    yield Import(".".join([*origin, alias.name]), child.lineno, at_import_time)
            else:
                yield from visit(child, at_import_time and not _runs_later(child))

    return visit(ast.parse(source), True)


def _runs_later(node: ast.AST) -> bool:
    only_for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return only_for_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def offences(file: str, source: str) -> list[str]:
    """Lists what a file of the package imports against the rules."""
    found = [(entry, reason) for entry in imports(file, source) for reason in _reasons(file, entry)]
    return [f"ssd_zoo/{file}:{entry.line} imports {entry.name}: {reason}" for entry, reason in found]


def _reasons(file: str, entry: Import) -> Iterator[str]:
    top, *rest = entry.name.split(".")
    if top == "ssd_zoo":
        yield from _reasons_within(file, rest)
    for package, homes in HOMES:
        if top == package and not file.startswith(homes):
            yield f"only {' and '.join(homes)} may import {package}"
    if top in OPTIONAL and entry.at_import_time:
        yield f"{top} is optional; import it in the function that needs it"
    if top == "torchvision" and file != PRIVATE_TORCHVISION and any(part.startswith("_") for part in rest):
        yield f"only {PRIVATE_TORCHVISION} may import torchvision's private modules"
    if entry.name == "__future__.annotations" and file.startswith("models/"):
        yield "get_model_weights reads live annotations"


def _reasons_within(file: str, target: list[str]) -> Iterator[str]:
    if file in ("__init__.py", "__main__.py") or target[:1] == ["version"]:
        return
    room = Path(file).parts[0]
    rooms = dict(ROOMS)
    if room not in rooms:
        yield f"{room} is not among the rooms"
    elif not target or target[0] not in rooms:
        if room != "cli":
            yield "only cli may import from the package's top"
    elif target[0] != room:
        if target[0] not in rooms[room]:
            yield f"{room} may import only {', '.join(rooms[room]) or 'no other room'}"
        if any(part.startswith("_") for part in target):
            yield "files with an underscore are their room's own"
    elif file not in ON_FAMILIES:
        folder, module = Path(file).parent.as_posix(), Path(file).stem
        siblings = {Path(name).stem for name in FILES if Path(name).parent.as_posix() == folder}
        alone = folder in FAMILIES and module not in FAMILIES[folder] and not module.startswith("_")
        inner = target[len(Path(folder).parts) :][:1] if "/".join(target).startswith(folder) else []
        if alone and any(part in siblings - FAMILIES[folder] and not part.startswith("_") for part in inner):
            yield f"files of {folder} stand alone"


@pytest.mark.text
@pytest.mark.parametrize("file", FILES)
def test_imports(file):
    found = offences(file, (PACKAGE / file).read_text())
    assert not found, "\n".join(found)


@pytest.mark.text
@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("layers/basic.py", "from ssd_zoo.detector.ssd import SSD", "may import only no other room"),
        ("detector/ssd.py", "from ssd_zoo.models.vgg import ssd300_vgg16d", "may import only layers"),
        ("detector/ssd.py", "def f():\n    from ssd_zoo import saved", "may import only layers"),
        ("backbones/vgg.py", "from ..models import vgg", "may import only layers, detector"),
        ("models/vgg.py", "import ssd_zoo.saved.pretrained", "may import only layers, detector, backbones"),
        ("models/vgg.py", "from ssd_zoo import SSD", "only cli may import from the package's top"),
        ("models/vgg.py", "import ssd_zoo", "only cli may import from the package's top"),
        ("models/vgg.py", "from ssd_zoo.models.mobilenet_v2 import MobileNetV2_Weights", "stand alone"),
        ("models/vgg.py", "from ssd_zoo.models import mobilenet_v2", "stand alone"),
        ("models/vgg.py", "from . import mobilenet_v2", "stand alone"),
        ("models/vgg.py", "from __future__ import annotations", "live annotations"),
        ("models/vgg.py", "from torchvision.models._api import register_model", "private modules"),
        ("models/vgg.py", "def f():\n    from torchvision.models import _utils", "private modules"),
        ("weights/converters/tensorflow.py", "from ssd_zoo.weights.converters import torchvision", "stand alone"),
        ("weights/read.py", "from ssd_zoo.models.registry import get_model", "may import only layers"),
        ("saved/card.py", "from ssd_zoo.weights.converters._mobilenet import conv_norm", "their room's own"),
        ("data/images.py", "from ssd_zoo.saved import load_checkpoint", "may import only layers"),
        ("training/fit.py", "from ssd_zoo.video import tubes", "may import only"),
        ("detector/tubes.py", "from ssd_zoo.cli.main import main", "may import only"),
        ("elsewhere/new.py", "from ssd_zoo.detector import ssd", "not among the rooms"),
        ("models/vgg.py", "import timm", "only backbones/timm.py"),
        ("data/images.py", "def f():\n    from huggingface_hub import HfApi", "only weights/"),
        ("deploy/onnx.py", "import onnx", "optional"),
        ("deploy/onnx.py", "try:\n    import onnx.helper\nexcept ImportError:\n    pass", "optional"),
        ("deploy/onnx.py", "class A:\n    import onnx", "optional"),
    ],
)
def test_offender_is_caught(file, source, reason):
    [offence] = offences(file, source)
    assert reason in offence


@pytest.mark.text
@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "models/vgg.py",
            "from ssd_zoo.weights.entries import Weights\nfrom ssd_zoo.models.registry import register_model",
        ),
        ("models/vgg.py", "from ssd_zoo.models.options import Options"),
        ("models/clips.py", "from ssd_zoo.models.vgg import VGG16D_Weights, ssd300_vgg16d"),
        ("models/registry.py", "from torchvision.models._api import register_model"),
        ("backbones/timm.py", "import timm"),
        ("weights/hub.py", "from huggingface_hub import HfApi\nfrom ssd_zoo.backbones import vgg"),
        ("weights/converters/tensorflow.py", "from ssd_zoo.weights.converters._mobilenet import conv_norm"),
        ("deploy/onnx.py", "def f():\n    import onnx\n    from ssd_zoo.deploy import export"),
        ("deploy/onnx.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx"),
        ("training/fit.py", "from ssd_zoo.data import read_image\nfrom ssd_zoo.saved import load_checkpoint"),
        ("cli/main.py", "import ssd_zoo\nfrom ssd_zoo.training import fit"),
    ],
)
def test_what_is_allowed_is_not_caught(file, source):
    assert offences(file, source) == []


def test_no_model_file_bears_a_builders_name():
    assert not {Path(file).stem for file in FILES if file.startswith("models/")} & set(ssd_zoo.list_models())


@pytest.mark.text
def test_a_builders_name_is_written_three_times_at_most():
    """In `__all__`, as the function, and once more, as for what makes it a default or a checkpoint's model."""
    written = Counter()
    for file in FILES:
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None
        written.update(re.findall(r"\w+", ast.unparse(tree)))
    builders = {builder.__name__ for builder in map(ssd_zoo.get_model_builder, ssd_zoo.list_models())}
    assert builders <= written.keys()
    assert {name: written[name] for name in builders if written[name] > 3} == {}


# One process for all that a fresh one shows.
FRESH = """
import sys, ssd_zoo
print(ssd_zoo.__file__)
print(*sys.modules)
from ssd_zoo.cli import main
try:
    main.main(["--help"])
except SystemExit:
    print(*sys.modules)
assert {"deploy", "training", "video"} <= set(dir(ssd_zoo))
assert ssd_zoo.training.fit and ssd_zoo.video.link_tubes and ssd_zoo.deploy.optimize
try:
    ssd_zoo.nothing
except AttributeError as error:
    print(error)
"""


def test_packages_and_rooms_are_imported_when_they_are_used():
    file, at_import, *_, at_help, error = run_code(FRESH).stdout.splitlines()
    assert file == ssd_zoo.__file__, "a process of the tests imports the package that they test"
    late = {"ssd_zoo.deploy", "ssd_zoo.prediction", "ssd_zoo.training", "ssd_zoo.video"}
    assert not {*late, "timm", "huggingface_hub"} & {*at_import.split()}
    assert not {*late, *(f"ssd_zoo.cli.{module}" for module, _ in COMMANDS.values())} & {*at_help.split()}
    assert error == "module 'ssd_zoo' has no attribute 'nothing'"


def test_public_names_exist_once():
    names = ssd_zoo.__all__
    missing = [name for name in names if not hasattr(ssd_zoo, name)]
    assert not missing
    assert len(names) == len(set(names))
    assert set(ssd_zoo.list_models()) <= set(names)


# A layer of two families, and what each format and each subcommand has.
SHARED_NAMES = {"InvertedResidual": 2, "find": 8, "add_arguments": len(COMMANDS), "run": len(COMMANDS)}


@pytest.mark.text
def test_no_two_public_functions_bear_one_name():
    places = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(file.relative_to(PACKAGE).as_posix())
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert {name: len(files) for name, files in twice.items()} == SHARED_NAMES, twice


@pytest.mark.parametrize("name", MODULES)
def test_modules_declare_what_is_public(name):
    module = importlib.import_module(name)
    declared = getattr(module, "__all__", None)
    defined = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and inspect.isroutine(value) and value.__module__ == name
    ]
    assert declared is not None or not defined, f"{name} defines {', '.join(defined)} and has no __all__"
    missing = [key for key in declared or () if not hasattr(module, key)]
    assert not missing, f"{name}.__all__ names {', '.join(missing)}, which do not exist"


def test_package_is_typed():
    assert Path(ssd_zoo.__file__).with_name("py.typed").is_file()


# What parses text or objects of others, with the files that may call it: the gate, and those whose text is their own.
_OF_XML = ("fromstring", "XML", "parse", "iterparse", "XMLParser", "XMLPullParser")
PARSERS = {
    # Rows that the package has just made or checked, and header bytes that it has just written.
    "json.loads": {
        "weights/outside/json_text.py",
        "weights/formats/safetensors_file.py",
        "prediction/cluster.py",
        "prediction/facts.py",
        "saved/proof.py",
        "cli/_journal.py",
    },
    # Tables have no nesting; their text comes from `read_text`.
    "csv.reader": {"data/formats/csv_tables.py"},
    "csv.DictReader": {"models/table.py"},
    "torch.load": {"weights/formats/checkpoint.py", "deploy/pt2.py"},
    "yaml": {"weights/outside/yaml_text.py"},
    **{f"xml.etree.ElementTree.{name}": {"weights/outside/xml_text.py"} for name in _OF_XML},
    **{name: set() for name in ("json.load", "eval", "exec", "ast.literal_eval", "numpy.load", "numpy.fromstring")},
    **{name: set() for name in ("configparser", "tomllib", "pickle", "marshal", "shelve", "xml.dom", "xml.sax")},
}


def parsers(file, source):
    """Lists the parsers that a file of the package uses where it may not."""
    tree, known = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
    names = {entry.name for entry in imports(file, source)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(node).partition(".")
            names.add(f"{known.get(first, first)}{'.' if rest else ''}{rest}")
    used = {parser for parser in PARSERS for name in names if name == parser or name.startswith(f"{parser}.")}
    return sorted(parser for parser in used if file not in PARSERS[parser])


@pytest.mark.text
@pytest.mark.parametrize("file", FILES)
def test_text_of_others_is_parsed_by_the_gate(file):
    found = parsers(file, (PACKAGE / file).read_text())
    assert not found, f"ssd_zoo/{file} uses {', '.join(found)}; read_text, parse_json and so on check what is read"


@pytest.mark.text
@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.loads(text)",
        "def f():\n    from json import loads",
        "import xml.etree.ElementTree as ET\nET.parse(file)",
        "import xml.etree.ElementTree\nxml.etree.ElementTree.fromstring(text)",
        "import yaml",
        "import configparser",
        "import numpy as np\nnp.load(file)",
        "import torch\ntorch.load(file)",
        "eval(text)",
    ],
)
def test_parser_outside_the_gate_is_caught(source):
    assert len(parsers("data/inspection.py", source)) == 1


@pytest.mark.text
def test_what_writes_is_no_parser():
    source = (
        "import json, csv\nimport xml.etree.ElementTree as ET\njson.dumps(1), csv.writer(f)\ndef f(x: ET.Element): ..."
    )
    assert parsers("data/inspection.py", source) == []

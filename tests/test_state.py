"""State of the process: all that outlives a call and lies on no model, data set or file is listed here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ssd_zoo"
# Registries are filled by imports. Caches are keyed by all that their values depend on.
STATE = {
    "data/formats/coco_files.py: _entries",
    "data/formats/tree.py: _names",
    "data/formats/yolo_labels.py: _label_folder",
    "data/images.py: _formats",
    # Torch's number of threads is the process's, too.
    "deploy/runtime.py: _UNDER_WAY",
    "layers/winograd.py: _matrices",
    "layers/winograd.py: _of_kernel",
    "models/registry.py: _BUILDERS",
    "models/registry.py: _PLUGINS",
    "training/kept_memory.py: _statements",
}
_CACHES = {"cache", "lru_cache", "WeakKeyDictionary", "WeakValueDictionary"}
_CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def state(source: str) -> Iterator[str]:
    """Finds caches, `global` statements, and names of the module that functions change."""
    tree = ast.parse(source)
    own = {node.id for line in tree.body for node in ast.walk(line) if isinstance(getattr(node, "ctx", None), ast.Store)
           and isinstance(node, ast.Name) and not isinstance(line, (ast.FunctionDef, ast.ClassDef))}  # fmt: skip
    for line in tree.body:
        if isinstance(line, (ast.Assign, ast.AnnAssign)) and {node.id for node in ast.walk(line.value or line)
                                                              if isinstance(node, ast.Name)} & _CACHES:  # fmt: skip
            yield ast.unparse(line.targets[0] if isinstance(line, ast.Assign) else line.target)
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if any(word in _CACHES for mark in function.decorator_list for word in _words(mark)):
            yield function.name
        local = {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield from node.names
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
                yield from {*_words(node.value)[:1]} & own - local
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
                yield from {*_words(node.func.value)[:1]} & own - local


def _words(node: ast.expr) -> list[str]:
    return [part.id if isinstance(part, ast.Name) else part.attr for part in ast.walk(node)
            if isinstance(part, (ast.Name, ast.Attribute))]  # fmt: skip


def test_state_of_the_process_is_listed():
    files = sorted(PACKAGE.rglob("*.py"))
    found = {f"{file.relative_to(PACKAGE).as_posix()}: {name}" for file in files for name in state(file.read_text())}
    assert found == STATE


@pytest.mark.parametrize(
    "source",
    [
        "_kept = {}\ndef f(x):\n    _kept[x] = 1",
        "_kept = []\ndef f(x):\n    _kept.append(x)",
        "_kept = []\nclass A:\n    def f(self, x):\n        _kept.append(x)",
        "_kept: WeakKeyDictionary[A, B] = WeakKeyDictionary()",
        "_kept = None\ndef f():\n    global _kept\n    _kept = 1",
        "@lru_cache(maxsize=2)\ndef _kept(x):\n    return x",
        "@functools.cache\ndef _kept(x):\n    return x",
    ],
)
def test_state_is_found(source):
    assert set(state(source)) == {"_kept"}


def test_what_is_no_state_is_not_found():
    assert not set(state("_table = {1: 2}\ndef f(x):\n    kept = dict(_table)\n    kept[x] = 1\n    kept.pop(1)"))

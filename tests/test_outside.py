"""Text from outside: every reader's gate."""

import contextlib
import json
import logging
import math
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from ssd_zoo.cli.main import main
from ssd_zoo.data import open_dataset
from ssd_zoo.weights import outside
from ssd_zoo.weights.categories import list_names
from ssd_zoo.weights.outside import json_text, parse_json, parse_xml, read_bytes, xml_text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
        ("café".encode("utf-16"), "café"),
        (b"\xfe\xff" + "café".encode("utf-16-be"), "café"),
        (b"caf\xe9", "café"),
        (b"\x80 \x9f", "€ Ÿ"),
        (b"\x81\xe9", "\x81é"),
        (b'<?xml encoding="ISO-8859-5"?><a>\xb4</a>', '<?xml encoding="ISO-8859-5"?><a>Д</a>'),
        (b"", ""),
    ],
)  # fmt: skip
def test_text_of_any_usual_encoding_is_decoded(content: bytes, expected: str, tmp_path) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    assert outside.read_text(tmp_path / "file.txt") == expected


def test_a_guessed_encoding_is_told_with_the_file(tmp_path, caplog) -> None:
    (tmp_path / "names.txt").write_bytes(b"caf\xe9")
    with caplog.at_level(logging.WARNING):
        outside.read_text(tmp_path / "names.txt")
    assert "names.txt is not UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a\nb\0c", "f.txt:2 holds a zero byte"), (b"\xff\xfea", "utf-16"), (b"x" * 65, "more than 64 bytes")],
)
def test_what_is_not_text_is_refused(content: bytes, told: str, tmp_path) -> None:
    (tmp_path / "f.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        outside.read_text(tmp_path / "f.txt", limit=64)


@pytest.mark.parametrize("value", [{"a": [1, -2.5, None, True, "é[[["]}, [], 2**63 - 1, 1e308, 0.12345678901234567890])
def test_json_is_parsed_as_python_does(value: object) -> None:
    assert outside.parse_json(json.dumps(value).encode(), "f") == value


HOSTILE_JSON = {
    "not json": ('{"a": 1,\n"b" 2}', r"f\.json:2 is not JSON"),
    "infinity": ("[1,\nInfinity]", r"f\.json:2 holds Infinity"),
    "nan": ("[NaN]", "NaN"),
    "overflow": ("[1e999]", "1e999"),
    "signed exponent": ("[-1E+0400]", "400"),
    "400 digits": ("[" + "1" * 400 + ".0]", "not a finite number"),
    "int 64": ("[\n9223372036854775808]", r"f\.json:2 holds 9223372036854775808"),
    "5000 digits": ("1" * 5000, "not a finite number"),
    "deep list": ("[" * 65 + "]" * 65, "deeper than 64"),
    "very deep": ("[" * 10**5, "deeper than 64"),
    "deep mapping": ('{"a":' * 500 + "1" + "}" * 500, "deeper than 64"),
    "key twice": ('{"a": 1, "b": 2, "a": 3}', "key 'a' twice"),
    "empty": ("", "is not JSON"),
    "web page": ("<html>", "is not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_hostile_json_is_refused_with_its_line(case: str) -> None:
    content, told = HOSTILE_JSON[case]
    with pytest.raises(ValueError, match=told) as caught:
        outside.parse_json(content, "f.json")
    assert len(str(caught.value)) < 200


def test_depth_is_counted_beside_brackets_in_texts() -> None:
    deep = "[" * 64 + "]" * 64
    assert outside.parse_json(json.dumps({"a": "]{" * 99}), "f") == {"a": "]{" * 99}
    assert json.dumps(outside.parse_json(deep, "f")) == deep


def test_yaml_is_read_by_the_core_schema() -> None:
    content = (
        "nc: 3\nnames: {0: no, 1: 2024-01-01, 2: 'null'}\ntrain:\nrate: 1.5e-3\nuse: true\nlist:\n- 010\n- ~\n- on\n"
    )
    assert outside.parse_yaml(content, "f") == {
        "nc": 3,
        "names": {"0": "no", "1": "2024-01-01", "2": "null"},
        "train": None,
        "rate": 0.0015,
        "use": True,
        "list": [10, None, "on"],
    }
    assert outside.parse_yaml(b"", "f") is None


HOSTILE_YAML = {
    "alias": ("a: &x [1]\nb: *x", r"f:2 has the alias \*x"),
    "tag": ("a: !!python/object/apply:os.system [x]\nb: !!int x", "tag"),
    "twice": ("a: 1\na: 2", "f:2 has the key 'a' twice"),
    "two documents": ("a: 1\n---\nb: 2", "second document"),
    "deep": ("[" * 200, "deeper than 64"),
    "list as key": ("[1, 2]: 3", "as a key"),
    "overflow": ("a: 1e999", "finite number"),
    "broken": ("a: 1\nb: ]", "f:2 is not YAML"),
    "control": ("a: \x01", "not YAML"),
    "long": ("a" * (2**20 + 1), "characters"),
}


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_hostile_yaml_is_refused(case: str) -> None:
    content, told = HOSTILE_YAML[case]
    with pytest.raises(ValueError, match=told) as caught:
        outside.parse_yaml(content, "f")
    assert len(str(caught.value)) < 250


def test_xml_is_parsed_in_its_declared_encoding() -> None:
    content = '<?xml version="1.0" encoding="gbk"?><a><b>猫</b></a>'.encode("gbk")
    assert outside.parse_xml(content, "f").findtext("b") == "猫"
    assert outside.parse_xml(b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-16"?><a>x</a>', "f").text == "x"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('<a>\n<!DOCTYPE a [<!ENTITY x "y">]><b/></a>', "f:2 declares a document type"),
        ("<a>" * 10**5, "deeper than 64"),
        ("<a>\n<b></a>", "f:2 is not XML: mismatched tag"),
        ("<a>&x;</a>", "undefined entity"),
        ("", "no element found"),
    ],
)
def test_hostile_xml_is_refused(content: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        outside.parse_xml(content, "f")


@pytest.mark.parametrize("value", [True, "1", None, [1], math.nan, math.inf, 10**400, 2**63, -1, 11, b"1"])
def test_what_is_not_a_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="x must be a finite number from 0 up to 10, got "):
        outside.number(value, "x", low=0, high=10)
    with pytest.raises(ValueError, match="x must be a whole number from 0 up to 10, got "):
        outside.whole(value, "x", low=0, high=10)


def test_numbers_are_returned() -> None:
    assert outside.number(3, "x") == 3.0
    assert outside.whole(3.0, "x", low=3, high=3) == 3
    assert outside.parse_number(" -1.5e3 ", "x") == -1500
    with pytest.raises(ValueError, match="whole"):
        outside.whole(0.5, "x")


@pytest.mark.parametrize("word", ["nan", "inf", "1_000", "١", "0x1", "", "1e999", "1 2"])
def test_words_that_only_python_takes_for_numbers_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="x must be a finite number"):
        outside.parse_number(word, "x")


def test_texts_lists_and_mappings_are_checked() -> None:
    assert outside.text("a", "x") == "a"
    for bad in (1, "a\0", "\ud800", b"a", None):
        with pytest.raises(ValueError, match="x must be a text"):
            outside.text(bad, "x")
    with pytest.raises(ValueError, match="at most 3"):
        outside.text("abcd", "x", longest=3)
    with pytest.raises(ValueError, match="x must be a mapping"):
        outside.mapping([("a", 1)], "x")
    with pytest.raises(ValueError, match="x must be a list"):
        outside.listing("abcd", "x")
    with pytest.raises(ValueError, match="x must have 4 entries, got 3"):
        outside.listing([1, 2, 3], "x", shortest=4, longest=4)


def test_quotes_are_short() -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep, "x" * 10**6]
    for value in ("x" * 10**6, deep, 10**4000, {str(i): i for i in range(10**4)}):
        assert len(outside.quote(value)) <= 100


def test_a_small_file_takes_little_memory_whatever_its_limit(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert read_bytes(tmp_path / "x", limit=2**45) == b"abc"
    assert read_bytes(tmp_path / "x", limit=3) == b"abc"
    with pytest.raises(ValueError, match="has more than 2 bytes"):
        read_bytes(tmp_path / "x", limit=2)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="has no names of pipes")
def test_pipes_are_read_up_to_the_limit():
    for content, limit in ((b"x" * 5000, 5000), (b"x" * 5000, 4999)):
        read, write = os.pipe()
        os.write(write, content)
        os.close(write)
        with contextlib.nullcontext() if limit == 5000 else pytest.raises(ValueError, match="has more than 4999"):
            assert read_bytes(Path(f"/dev/fd/{read}"), limit=limit) == content
        os.close(read)


@pytest.mark.parametrize("content", ["[1,[2,{}]]", b"[1,[2,{}]]"])
def test_the_number_of_values_of_json_is_known_before_they_take_memory(content, monkeypatch):
    monkeypatch.setattr(json_text, "_MOST_VALUES", 5)
    assert parse_json(content, "a.json") == [1, [2, {}]]
    monkeypatch.setattr(json_text, "_MOST_VALUES", 4)
    monkeypatch.setattr(json_text.json, "loads", None)
    with pytest.raises(ValueError, match=r"^a\.json has 5 values, and 4 are allowed; split it into several files\.$"):
        parse_json(content, "a.json")


def test_the_number_of_elements_of_xml_is_known_before_they_take_memory(monkeypatch):
    content = '<a><b c="1"/></a>'
    monkeypatch.setattr(xml_text, "_MOST_TAGS", 4)
    assert parse_xml(content, "a.xml").tag == "a"
    monkeypatch.setattr(xml_text, "_MOST_TAGS", 3)
    with pytest.raises(ValueError, match=r"^a\.xml has 4 tags and attributes, and 3 are allowed"):
        parse_xml(content, "a.xml")


def test_a_line_of_many_digits_is_soon_no_line_of_ten_numbers(tmp_path):
    """Ten numbers can be cut from 60 digits in 12,565,671,261 ways, 59! / (9! 50!)."""
    (tmp_path / "list.txt").write_text(f"a.jpg\n1\n{'1' * 60}x\n")
    began = time.thread_time()
    with pytest.raises(ValueError, match="has no known layout"):
        open_dataset(tmp_path)
    assert time.thread_time() - began < 5


def test_long_names_are_cut_in_lists():
    assert list_names(["a", "b" * 3000, "c"], 2) == f"a, {'b' * 199}…, …"


@pytest.mark.parametrize(
    ("given", "there", "command"),
    [
        ("dgo.jpg", "dog.jpg", ["detect"]),
        ("strete.mp4", "street.mp4", ["detect"]),
        ("cels", "cells", ["data"]),
        ("old.pht", "old.pth", ["convert", "--output", "new"]),
        ("det.onxx", "det.onnx", ["export", "--output", "x.onnx"]),
        ("detc.onnx", "det.onnx", ["detect", "dog.jpg", "--model"]),
    ],
)
def test_a_path_that_is_not_there_proposes_those_beside_it(given, there, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("dog.jpg")
    (tmp_path / there).touch()
    assert main([*command, given]) == 2
    assert f"Did you mean {there}?" in " ".join(capsys.readouterr().err.split())

"""YAML that others wrote."""

import json
import re
from collections.abc import Sequence
from typing import Protocol

from ssd_zoo.weights.outside.texts import decode
from ssd_zoo.weights.outside.values import DEEPEST, JSON, parse_number, quote, too_deep

__all__ = ["parse_yaml"]

_LARGEST = 2**20
_INTEGER = re.compile(r"[-+]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def parse_yaml(content: str | bytes, source: object) -> JSON:
    """Parse one YAML document by the rules of YAML 1.2's core schema.

    An empty text is None. `no`, `on` and dates are texts, and keys of mappings are texts, numbers among them.

    Args:
        content: The text; bytes are decoded by `decode`.
        source: Name of the text in messages.

    Raises:
        ValueError: If it is not YAML, is too long or too deep, or has anchors, tags, repeated keys or two documents.
    """
    import yaml

    content = decode(content, source) if isinstance(content, bytes) else content
    if len(content) > _LARGEST:
        raise ValueError(f"{source} has {len(content)} characters; YAML may have {_LARGEST}.")
    builder = _YamlBuilder(source)
    try:
        for event in yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.add(type(event).__name__, event)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{source}:{line} is not YAML: {str(error.problem)[:100]}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {' '.join(str(error).split())[:100]}.") from error
    return builder.root[0] if builder.root else None


class _Mark(Protocol):
    """A place in the text."""

    line: int


class _Event(Protocol):
    """The attributes of YAML's events that are read; each class has some."""

    start_mark: _Mark
    anchor: str | None
    value: str
    tag: str | None
    implicit: Sequence[bool]


class _YamlBuilder:
    """Builder of values from the parser's events, without recursion or references."""

    def __init__(self, source: object) -> None:
        self._source = source
        self.root: list[JSON] = []
        self._open: list[list[JSON] | dict[str, JSON]] = [self.root]
        self._keys: list[str | None] = [None]

    def add(self, kind: str, event: _Event) -> None:
        """Add the parser's next event to the values.

        Args:
            kind: Name of the event's class.
            event: The event.
        """
        place = f"{self._source}:{event.start_mark.line + 1}"
        if kind == "AliasEvent":
            raise ValueError(f"{place} has the alias *{event.anchor!s:.40}; write the value out.")
        if kind == "DocumentStartEvent" and self.root:
            raise ValueError(f"{place} begins a second document; the file must hold one.")
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._open.pop()
            self._keys.pop()
        elif kind == "ScalarEvent":
            self._put(_scalar(event, place), place)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            node: list[JSON] | dict[str, JSON] = {} if kind == "MappingStartEvent" else []
            if len(self._open) > DEEPEST:
                raise too_deep(place, "YAML")
            self._put(node, place)
            self._open.append(node)
            self._keys.append(None)

    def _put(self, value: JSON, place: str) -> None:
        parent, key = self._open[-1], self._keys[-1]
        if isinstance(parent, list):
            parent.append(value)
        elif key is not None:
            parent[key] = value
            self._keys[-1] = None
        elif isinstance(value, (list, dict)):
            raise ValueError(f"{place} has a list or a mapping as a key; keys must be texts or numbers.")
        else:
            name = value if isinstance(value, str) else json.dumps(value)
            if name in parent:
                raise ValueError(f"{place} has the key {quote(name)} twice.")
            self._keys[-1] = name


def _scalar(event: _Event, place: str) -> JSON:
    written, tag, plain = event.value, event.tag, event.implicit[0]
    if tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise ValueError(f"{place} has the tag {quote(tag)}; only plain values are read.")
    if not plain or tag is not None:
        return written
    if written.lower() in ("", "~", "null"):
        return None
    if written.lower() in ("true", "false"):
        return written.lower() == "true"
    if _INTEGER.fullmatch(written):
        return int(written)
    return parse_number(written, f"{place}: a number") if _NUMBER.fullmatch(written) else written

"""JSON that others wrote."""

import json
import math
from collections import Counter
from typing import NoReturn

from ssd_zoo.weights.outside.texts import decode
from ssd_zoo.weights.outside.values import DEEPEST, JSON, LARGEST_INT, check_number_of, line_at, quote, too_deep

__all__ = ["parse_json"]

# Each takes 32 bytes, as a floating-point number in a list, or more.
_MOST_VALUES = 2**28
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")


def parse_json(content: str | bytes, source: object, *, constants: bool = False) -> JSON:
    """Parse JSON with finite numbers, integers of 64 bits and unique keys.

    Args:
        content: The text; bytes are decoded by `decode`.
        source: Name of the text in messages.
        constants: Whether `NaN` and `Infinity` are allowed.

    Raises:
        ValueError: If it is not JSON, is nested too deep, repeats a key, or holds a number out of range or too many
            values.
    """
    content = decode(content, source) if isinstance(content, bytes) else content
    check_number_of("values", content, (",", "[", "{"), _MOST_VALUES, source)

    def refuse(literal: str) -> NoReturn:
        line = line_at(content, max(content.find(literal), 0))
        raise ValueError(f"{source}:{line} holds {literal:.40}, which is not a finite number of 64 bits.")

    def read_float(literal: str) -> float:
        value = float(literal)
        return value if math.isfinite(value) else refuse(literal)

    def read_int(literal: str) -> int:
        value = int(literal) if len(literal) < 21 else LARGEST_INT + 1
        return value if abs(value) <= LARGEST_INT else refuse(literal)

    constant = float if constants else refuse
    # Python functions for each number take twice the time; only long numbers and exponents need them.
    alike = content.encode(errors="replace").translate(_ALIKE)
    suspicious = any(pattern in alike for pattern in (b"0" * 19, b"e000", b"e+000"))

    def unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
            raise ValueError(f"{source} has the key {quote(key)} twice in one object.")
        return entry

    try:
        if suspicious:
            value: JSON = json.loads(
                content, object_pairs_hook=unique, parse_constant=constant, parse_float=read_float, parse_int=read_int
            )
        else:
            value = json.loads(content, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}:{error.lineno} is not JSON: {error.msg}.") from error
    except RecursionError:
        raise too_deep(source, "JSON") from None
    if _may_be_deep(alike) and _is_deep(value):
        raise too_deep(source, "JSON")
    return value


def _may_be_deep(content: bytes) -> bool:
    """Return whether a text may be nested deeper than `DEEPEST`.

    It removes the innermost pairs of brackets `DEEPEST` times. Brackets in strings may remain, so a text that is not
    deep may seem so.
    """
    rest = content.translate(None, _NOT_BRACKETS)
    for _ in range(DEEPEST):
        rest = rest.replace(b"[]", b"").replace(b"{}", b"")
    return bool(rest)


def _is_deep(value: JSON) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        nodes = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))]
        level = [child for node in nodes for child in node]
    return any(isinstance(node, (dict, list)) for node in level)

"""XML that others wrote."""

import xml.etree.ElementTree as ET
from xml.parsers import expat

from ssd_zoo.weights.outside.texts import decode
from ssd_zoo.weights.outside.values import DEEPEST, check_number_of, line_at, too_deep

__all__ = ["parse_xml"]

# Each takes some hundred bytes with its attributes.
_MOST_TAGS = 2**25


def parse_xml(content: str | bytes, source: object) -> ET.Element:
    """Parse XML without entities of its own.

    Args:
        content: The text; bytes are decoded by `decode`.
        source: Name of the text in messages.

    Raises:
        ValueError: If it is not XML, declares a document type or entities, is nested too deep or has too many elements.
    """
    content = decode(content, source) if isinstance(content, bytes) else content
    if (at := content.find("<!DOCTYPE")) >= 0:
        raise ValueError(f"{source}:{line_at(content, at)} declares a document type; remove that, it is not read.")
    check_number_of("tags and attributes", content, ("<", "="), _MOST_TAGS, source)
    parser = ET.XMLParser(target=_Tree(source))
    try:
        parser.feed(content.removeprefix("\ufeff"))
        root: ET.Element = parser.close()
    except ET.ParseError as error:
        reason = expat.ErrorString(error.code)
        raise ValueError(f"{source}:{error.position[0]} is not XML: {reason}.") from error
    return root


class _Tree(ET.TreeBuilder):
    """A builder of trees that refuses deep ones."""

    def __init__(self, source: object) -> None:
        super().__init__()
        self._source, self._depth = source, 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(self._source, "XML")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)

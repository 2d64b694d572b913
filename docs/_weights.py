"""Puts the table of weights where a page asks for it, made from the enums when the docs are built."""

from typing import Any

from ssd_zoo.models.table import weights_table


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    return markdown.replace("<!-- table of weights -->", weights_table())

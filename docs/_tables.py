"""Puts tables where pages ask for them, and lets all tables fit a phone, when the docs are built."""

import re
from typing import Any

from ssd_zoo.models.table import latencies, weights_table

ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
CELL = re.compile(r"<(t[hd])([^>]*)>(.*?)</\1>", re.DOTALL)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    markdown = markdown.replace("<!-- table of weights -->", weights_table())
    return markdown.replace("<!-- table of latency -->", latency_table())


def latency_table() -> str:
    machine, times = latencies()
    rows = [f"| `{builder}` | `{weights}` | {a:.0f} | {b:.0f} |" for (builder, weights), (a, b) in times.items()]
    heading = ["| Model | Weights | eager, ms | OpenVINO, ms |", "|---|---|---:|---:|"]
    return "\n".join([*heading, *rows, "", f"Measured on {machine}."])


def on_page_content(html: str, **kwargs: Any) -> str:
    """Mark tables of many columns, name the column of each cell for `extra.css`, and let long names break."""
    html = re.sub(r"(?<=<code>)(--[\w-]+)", r'<span class="option">\1</span>', html)
    return re.sub(
        r"<table>(.*?)</table>", lambda table: f"{_start(table[1])}{_labelled(table[1])}</table>", html, flags=re.DOTALL
    )


def _start(table: str) -> str:
    return '<table class="cards">' if len(_headings(table)) > 3 else "<table>"


def _headings(table: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", text) for kind, _, text in CELL.findall(ROW.search(table)[1]) if kind == "th"]


def _labelled(table: str) -> str:
    headings = _headings(table)

    def label(row: re.Match[str]) -> str:
        names = iter(headings)
        return CELL.sub(lambda cell: _cell(cell, next(names, "")), row[0])

    return ROW.sub(label, table)


def _cell(cell: re.Match[str], heading: str) -> str:
    kind, attributes, text = cell.groups()
    text = re.sub(r"(?<=\d) (×|MB|M|G|ms|px)(?![\w])( (?=\d))?", lambda unit: unit[0].replace(" ", "\u00a0"), text)
    # Long names may break where this leaves markup alone.
    text = re.sub(r"([_/.(,=])(?=[^\W\d])(?![^<]*>)", r"\1<wbr>", text)
    label = f' data-label="{heading}"' if heading and text else ""
    return f"<{kind}{attributes}{label if kind == 'td' else ''}>{text}</{kind}>"

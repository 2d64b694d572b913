"""Keep the results of many images while they are found, so that a killed command can go on."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import nn
from typing_extensions import NotRequired

from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.prediction.results import ResultRow
from ssd_zoo.weights.files import write_file

__all__ = ["Journal", "JournalRow", "fingerprint"]

_KEYS = ResultRow.__annotations__.keys()
Header = Mapping[str, str | float | list[str] | None]


class JournalRow(TypedDict):
    """Result of one image: its detections, or why it failed."""

    file_name: str
    changed: list[int]
    detections: NotRequired[list[ResultRow]]
    error: NotRequired[str]


class Journal:
    """File of JSON Lines beside the results: one line with the options, then one line an image.

    A line is written at once, when its image is done. What a kill cut off is removed when the file is opened again.

    Args:
        results: The file of results. `found.json` has the journal `found.json.jsonl`.
        header: What the results depend on. With other values the journal starts anew.

    Attributes:
        rows: By file name the rows of images that are done.
        note: What was found: how many images are done, or why the journal starts anew.

    Raises:
        OSError: If the journal can't be read or written.
        ValueError: If a file that is not a journal has its name.
    """

    def __init__(self, results: Path, header: Header) -> None:
        self.file = results.with_name(f"{results.name}.jsonl")
        self.rows: dict[str, JournalRow] = {}
        self.note = ""
        first = json.dumps(header)
        lines = self._lines()
        differ = self._differences(lines[0], header) if lines else []
        if lines and not differ:
            self.rows = {row["file_name"]: row for row in map(_row, lines[1:]) if row is not None}
            self.note = f"{self.file} has the results of {len(self.rows)} images; going on."
        elif lines:
            self.note = f"{self.file} is of another command ({', '.join(differ)}); starting anew."
        kept = [first, *map(json.dumps, self.rows.values())]
        write_file(self.file, "".join(f"{line}\n" for line in kept).encode())

    def _lines(self) -> list[str]:
        if not self.file.is_file():
            return []
        whole, _, _ = self.file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        return whole.splitlines()

    def _differences(self, line: str, header: Header) -> list[str]:
        try:
            old = json.loads(line)
        except ValueError:
            old = None
        if not isinstance(old, dict) or "ssd_zoo" not in old:
            raise ValueError(f"{self.file} is in the way: it is not a journal of ssd-zoo detect. Move it elsewhere.")
        return [f"{key} was {old.get(key)}" for key, value in header.items() if old.get(key) != value]

    def add(self, row: JournalRow) -> None:
        """Append the result of an image."""
        self.rows[row["file_name"]] = row
        with self.file.open("ab", buffering=0) as stream:
            line = f"{json.dumps(row)}\n".encode()
            if stream.write(line) != len(line):
                raise OSError(f"{self.file} can't be written: the disk may be full.")

    def is_done(self, file: Path | str) -> bool:
        """Check whether an image has detections and has not changed since."""
        row = self.rows.get(str(file))
        return row is not None and "error" not in row and row["changed"] == changed(file)

    def remove(self) -> None:
        """Delete the journal."""
        self.file.unlink(missing_ok=True)


def changed(file: Path | str) -> list[int]:
    """Return size and time of change of a file; zeros if it is gone, or is an address."""
    try:
        status = os.stat(file)
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def fingerprint(model: nn.Module, name: str) -> str:
    """Return a digest of a model's weights and buffers, or of the files of an exported one."""
    digest = hashlib.sha256()
    if is_exported(name):
        # OpenVINO keeps its weights beside.
        for file in (Path(name), Path(name).with_suffix(".bin")):
            digest.update(file.read_bytes() if file.exists() else b"")
    for tensor in model.state_dict().values():
        # NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _row(line: str) -> JournalRow | None:
    """Read a row; one that is damaged does not count."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("file_name"), str) and "changed" in row
    found = row.get("detections", []) if whole else None
    if not isinstance(found, list) or any(not isinstance(one, dict) or one.keys() != _KEYS for one in found):
        return None
    return cast(JournalRow, row)

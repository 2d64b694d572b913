"""Keep the results of many images while they are found, so that a killed command can go on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from torch import nn
from typing_extensions import NotRequired

from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.prediction.results import ResultRow
from ssd_zoo.weights.files import digest_file, write_file
from ssd_zoo.weights.formats.safetensors_file import pack
from ssd_zoo.weights.outside import listing, mapping, number, parse_json, text

__all__ = ["Journal", "JournalRow", "weights_of"]

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
            old = parse_json(line, self.file)
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
        """Check whether a file has detections and has not changed since; of other sources that is not known."""
        row = self.rows.get(str(file)) if isinstance(file, Path) else None
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


def weights_of(model: nn.Module, name: str) -> str:
    """Return the digest of a model's tensors, or those of the files of an exported one."""
    if is_exported(name):
        # OpenVINO keeps its weights beside.
        files = (Path(name), Path(name).with_suffix(".bin"))
        return " ".join(digest_file(file) for file in files if file.exists())
    return pack(model.state_dict()).digest


def _row(line: str) -> JournalRow | None:
    """Read a row; one that is damaged does not count."""
    try:
        row = mapping(parse_json(line, "the row"), "the row")
        text(row.get("file_name"), "file_name")
        listing(row.get("changed"), "changed", shortest=2, longest=2)
        for one in listing(row.get("detections", []), "detections"):
            found = mapping(one, "a detection")
            box = listing(found.get("bbox"), "bbox", shortest=4, longest=4)
            for value in (*box, *(found.get(name) for name in ("score", "category_id", "image_id"))):
                number(value, "a number")
            if found.keys() != _KEYS:
                return None
    except ValueError:
        return None
    return cast(JournalRow, row)

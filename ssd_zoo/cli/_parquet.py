"""Write results as Parquet, with the rows that JSON Lines has."""

import itertools
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from ssd_zoo.cli._journal import JournalRow
from ssd_zoo.weights.files import replacing

__all__ = ["check_parquet", "write_parquet"]

# Images whose rows are in memory at once.
_GROUP = 10_000


def check_parquet(file: Path | None) -> None:
    """Raise ImportError if a Parquet file is asked for and can't be written."""
    if file is not None and find_spec("pyarrow") is None:
        raise ImportError('--parquet needs pyarrow: pip install "ssd_zoo[parquet]".')


def write_parquet(rows: Iterable[JournalRow], file: Path) -> None:
    """Write results to a Parquet file, atomically.

    Columns are `file_name`, `error` and `detections`, a list of structs as in the lines of JSON.

    Raises:
        OSError: If the file can't be written; an older one stays.
    """
    import pyarrow
    import pyarrow.parquet

    detection = {"category_id": pyarrow.int64(), "category": pyarrow.string(),
                 "bbox": pyarrow.list_(pyarrow.float64(), 4), "score": pyarrow.float64()}  # fmt: skip
    detections = pyarrow.list_(pyarrow.struct(list(detection.items())))
    schema = pyarrow.schema({"file_name": pyarrow.string(), "error": pyarrow.string(), "detections": detections})
    given = iter(rows)
    with replacing(file) as stream, pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        while group := list(itertools.islice(given, _GROUP)):
            writer.write_table(pyarrow.Table.from_pylist([_in_unicode(row) for row in group], schema))


def _in_unicode(row: JournalRow) -> dict[str, object]:
    """Escape the bytes of file names that are not UTF-8."""
    return {
        key: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }

"""Images and results of a cluster, on any of Ray's file systems."""

import json
import os
import posixpath
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from ssd_zoo.data.images import image_endings, is_hidden
from ssd_zoo.weights.outside import mapping, parse_json

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.fs import FileSystem

__all__ = ["ImageFile", "ParquetFolder", "ParquetRow", "find_image_files", "resolve_address"]

_HEADER = "_ssd_zoo.json"
_FAILED = "failed-"


class ImageFile(NamedTuple):
    """An image file of a file system.

    Attributes:
        name: Name in the results, as the caller wrote it.
        path: Path on the file system.
        size: Number of bytes.
        modified: Time of the last change, in nanoseconds; 0 if the file system does not know it.
    """

    name: str
    path: str
    size: int
    modified: int


class ParquetRow(TypedDict):
    """Result of one image.

    Boxes are xyxy in the image's pixels. If it could not be read, `error` has the reason and detections are None; else
    `error` is None.
    """

    file_name: str
    boxes: list[list[float]] | None
    scores: list[float] | None
    labels: list[int] | None
    names: list[str] | None
    error: str | None
    size: int
    modified: int


def resolve_address(address: str, filesystem: "FileSystem | None") -> "tuple[FileSystem, str]":
    """Return the file system of an address, and the path there.

    Args:
        address: A local path, an address that pyarrow knows (`s3://…`, `gs://…`), or one of fsspec's.
        filesystem: The file system of paths without `://`; None is the local one.

    Raises:
        ValueError: If no installed package knows the address.
    """
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

    if "://" not in address:
        if filesystem is not None:
            return filesystem, address.rstrip("/")
        return LocalFileSystem(), os.path.abspath(address)
    try:
        return FileSystem.from_uri(address)
    except ArrowInvalid:
        import fsspec
    try:
        known, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address} can't be opened: {error}") from error
    return PyFileSystem(FSSpecHandler(known)), path


def find_image_files(sources: Iterable[str], filesystem: "FileSystem | None") -> "tuple[FileSystem, list[ImageFile]]":
    """List image files as `find_images` does, without patterns.

    Args:
        sources: Files and folders, all of one file system. Folders are searched recursively; hidden names are skipped.
        filesystem: See `resolve_address`.

    Returns:
        The file system, and the files without duplicates, sorted within each folder.

    Raises:
        FileNotFoundError: If a source does not exist, or is a folder without images.
        ValueError: If the sources lie on several file systems, or there are none.
    """
    from pyarrow.fs import FileSelector, FileType

    found: dict[str, ImageFile] = {}
    first: FileSystem | None = None
    for source in sources:
        place, path = resolve_address(source, filesystem)
        if first is not None and not place.equals(first):
            raise ValueError(f"{source} is on another file system than the sources before it; one call for each.")
        first = place
        [info] = place.get_file_info([path])
        if info.type == FileType.NotFound:
            raise FileNotFoundError(f"{source} is not a file or folder of {place.type_name}.")
        inside = [info]
        if info.type == FileType.Directory:
            inside = [one for one in place.get_file_info(FileSelector(path, recursive=True)) if _is_image(one, path)]
        if not inside:
            raise FileNotFoundError(f"{source} holds no image.")
        for one in sorted(inside, key=lambda one: one.path):
            name = posixpath.join(source, posixpath.relpath(one.path, path)) if one.path != path else source
            found.setdefault(one.path, ImageFile(name, one.path, one.size or 0, one.mtime_ns or 0))
    if first is None:
        raise ValueError("There are no images: name at least one file or folder.")
    return first, list(found.values())


def _is_image(info: "pyarrow.fs.FileInfo", folder: str) -> bool:
    hidden = any(map(is_hidden, posixpath.relpath(info.path, folder).split("/")))
    return info.is_file and not hidden and posixpath.splitext(info.path)[1].lower() in image_endings()


class ParquetFolder:
    """A folder of Parquet files, in which each image has one row.

    Every file is whole: it is written under a hidden name and then moved. Images that failed are in files of their own.

    Args:
        filesystem: The file system.
        path: The folder's path there.
    """

    def __init__(self, filesystem: "FileSystem", path: str) -> None:
        self.filesystem, self.path = filesystem, path

    def start(self, header: Mapping[str, object]) -> None:
        """Create the folder, or check that it is of the same options.

        Raises:
            ValueError: If the folder holds results of other options, or other files.
        """
        from pyarrow.fs import FileType

        self.filesystem.create_dir(self.path, recursive=True)
        file = f"{self.path}/{_HEADER}"
        if self.filesystem.get_file_info([file])[0].type == FileType.NotFound:
            if self._clean_and_list():
                raise ValueError(f"{self.path} holds files that are not results of a cluster. Take another output.")
            self._write(file, json.dumps(header).encode())
            return
        with self.filesystem.open_input_stream(file) as stream:
            before = mapping(parse_json(stream.read().decode(), file), file)
        differ = [f"{key} was {before.get(key)}" for key, value in header.items() if before.get(key) != value]
        if differ:
            raise ValueError(
                f"{self.path} holds results of other options ({', '.join(differ)}). Take another output, or delete it."
            )

    def remove_failed(self, files: Sequence[ImageFile]) -> set[str]:
        """Remove rows that have to be made again.

        They are those of images that failed, and files with images that have changed.

        Returns:
            Names of the images that are done.

        Raises:
            ValueError: If a file is damaged.
        """
        import pyarrow.parquet

        now = {file.name: (file.size, file.modified) for file in files}
        done: set[str] = set()
        for path in self._clean_and_list():
            if posixpath.basename(path).startswith(_FAILED):
                self.filesystem.delete_file(path)
                continue
            try:
                with self.filesystem.open_input_file(path) as stream:
                    rows = pyarrow.parquet.read_table(stream, columns=["file_name", "size", "modified"]).to_pylist()
            except pyarrow.ArrowException as error:
                raise ValueError(f"{path} is damaged, delete it: {error}") from error
            stamps = {row["file_name"]: (row["size"], row["modified"]) for row in rows}
            if any(now.get(name, stamp) != stamp for name, stamp in stamps.items()):
                self.filesystem.delete_file(path)
            else:
                done |= stamps.keys()
        return done

    def write_rows(self, key: str, rows: Sequence[ParquetRow]) -> None:
        """Write the rows of some images.

        The same key replaces what was written before, so none is there twice.

        Images that failed are in a file of their own.
        """
        failed = [row for row in rows if row["error"] is not None]
        found = [row for row in rows if row["error"] is None]
        for start, some in ((_FAILED, failed), ("part-", found)):
            self._replace(f"{self.path}/{start}{key}.parquet", some)

    def _replace(self, path: str, rows: Sequence[ParquetRow]) -> None:
        import pyarrow.parquet
        from pyarrow.fs import FileType

        if rows:
            sink = pyarrow.BufferOutputStream()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), sink)
            self._write(path, sink.getvalue())
        elif self.filesystem.get_file_info([path])[0].type != FileType.NotFound:
            self.filesystem.delete_file(path)

    def _write(self, path: str, content: "bytes | pyarrow.Buffer") -> None:
        folder, _, name = path.rpartition("/")
        # Readers of Parquet pass over names that begin with a dot.
        hidden = f"{folder}/.{uuid.uuid4().hex}-{name}"
        with self.filesystem.open_output_stream(hidden) as stream:
            stream.write(content)
        self.filesystem.move(hidden, path)

    def _clean_and_list(self) -> list[str]:
        """List files that are not hidden; remove what a kill has left half-written."""
        from pyarrow.fs import FileSelector

        paths = [info.path for info in self.filesystem.get_file_info(FileSelector(self.path))]
        for path in paths:
            if posixpath.basename(path).startswith("."):
                self.filesystem.delete_file(path)
        return sorted(path for path in paths if not posixpath.basename(path).startswith((".", "_")))


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    numbers = pa.list_(pa.float32())
    return pa.schema(
        {
            "file_name": pa.string(),
            "boxes": pa.list_(numbers),
            "scores": numbers,
            "labels": pa.list_(pa.int64()),
            "names": pa.list_(pa.string()),
            "error": pa.string(),
            "size": pa.int64(),
            "modified": pa.int64(),
        }
    )

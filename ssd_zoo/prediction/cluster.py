"""Detect in very many images, on a cluster by Ray Data."""

import hashlib
import io
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ssd_zoo.data.images import MAX_PIXELS, read_image
from ssd_zoo.deploy.load import ExportedDetector, load
from ssd_zoo.deploy.runtime import missing
from ssd_zoo.detector.ranges import check_count, check_fraction
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.prediction.batch import detect_batch
from ssd_zoo.prediction.cluster_files import ImageFile, ParquetFolder, ParquetRow, find_image_files, resolve_address
from ssd_zoo.prediction.facts import model_facts, model_files
from ssd_zoo.prediction.opening import open_detector, pick_thresh

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["ClusterCounts", "detect_on_cluster"]


class ClusterCounts(NamedTuple):
    """Numbers of images.

    Attributes:
        detected: Images in which this call has detected objects, or found that there are none.
        failed: Images that could not be read. Their rows have the reason.
        before: Images that earlier calls had done.
    """

    detected: int
    failed: int
    before: int


@with_near_keywords
def detect_on_cluster(
    model: str | os.PathLike[str],
    images: str | Sequence[str],
    output: str,
    *,
    score_thresh: float | None = None,
    batch_size: int = 8,
    workers: int | tuple[int, int | None] = (1, None),
    cpus: int = 1,
    gpus: float = 0,
    images_per_file: int = 256,
    max_pixels: int | None = MAX_PIXELS,
    filesystem: "FileSystem | None" = None,
) -> ClusterCounts:
    """Detect objects in many images on a cluster, by Ray Data.

    Each worker opens the model once, reads and detects images, and writes one whole Parquet file for each
    `images_per_file` images. What a lost worker had not written is done again by another. The same call goes on where
    an earlier one stopped: it does images that are new, have changed or have failed. Run one call at a time for an
    output.

    Args:
        model: What `open_detector` opens. It is opened here and sent to the workers, so they need no access to it.
        images: Files and folders of one file system: local paths, which all machines need to see, or addresses such as
            `s3://bucket/photos`. Folders are searched recursively.
        output: Folder for the Parquet files, as `images`.
        score_thresh: Scores of detections must be greater; by default 0.5, or the model's own if that is higher.
        batch_size: Images per batch.
        workers: Number of models that run at once, or the least and most; None is as many as the cluster can run.
        cpus: Cores of a worker, for reading and detecting.
        gpus: GPUs of a worker; a fraction lets several share one.
        images_per_file: Images per Parquet file.
        max_pixels: Largest image that is read, in pixels; None for no limit.
        filesystem: pyarrow's file system of paths without `://`; None is the local one.

    Returns:
        Numbers of images.

    Raises:
        FileNotFoundError: If a source does not exist, or is a folder without images.
        ImportError: If ray or pyarrow is missing.
        TypeError: If a number has the wrong type.
        ValueError: If there is no such model, a number is out of range, sources are on several file systems, a file of
            results is damaged, or the output holds results of other options.
    """
    if score_thresh is not None:
        check_fraction("score_thresh", score_thresh, "a score")
    for option, value in (("batch_size", batch_size), ("cpus", cpus), ("images_per_file", images_per_file)):
        check_count(option, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing("Detecting on a cluster", error, "ray") from error
    name = os.fspath(model)
    opened = open_detector(model)
    opened.score_thresh = pick_thresh(opened, score_thresh)
    place, files = find_image_files([images] if isinstance(images, str) else images, filesystem)
    folder = ParquetFolder(*resolve_address(output, filesystem))
    packed = _packed(opened, name)
    folder.start(model_facts(opened, name))
    done = folder.remove_failed(files)
    todo = [file for file in files if file.name not in done]
    before = len(files) - len(todo)
    if not todo:
        return ClusterCounts(0, 0, before)
    parts = [json.dumps(part) for part in _batched(todo, images_per_file)]
    least, most = (workers, workers) if isinstance(workers, int) else workers
    counts = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map(
        _Worker,
        fn_constructor_kwargs={
            "model": ray.put(packed),
            "score_thresh": opened.score_thresh,
            "place": place,
            "folder": folder,
            "batch_size": batch_size,
            "threads": cpus,
            "device": "cuda" if gpus else "cpu",
            "max_pixels": max_pixels,
        },
        compute=ray.data.ActorPoolStrategy(min_size=min(least, len(parts)), max_size=most),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    failed = sum(row["failed"] for row in counts.iter_rows())
    return ClusterCounts(len(todo) - failed, failed, before)


Packed = SSD | dict[str, bytes]
"""A model that can be sent to another process: one of torch, or the files of an exported one."""


def _packed(model: SSD | ExportedDetector, name: str) -> Packed:
    if isinstance(model, SSD):
        return model
    return {file.name: file.read_bytes() for file in model_files(name)}


def _batched(files: Sequence[ImageFile], size: int) -> Iterator[list[ImageFile]]:
    rest = iter(files)
    while batch := list(itertools.islice(rest, size)):
        yield batch


class _Worker:
    """A model on a machine of the cluster; Ray Data calls it with parts of the images."""

    def __init__(
        self,
        model: object,
        place: "FileSystem",
        folder: ParquetFolder,
        *,
        score_thresh: float,
        batch_size: int,
        threads: int,
        device: str,
        max_pixels: int | None,
    ) -> None:
        import ray

        torch.set_num_threads(threads)
        packed: Packed = ray.get(model)
        self.model = (packed if isinstance(packed, SSD) else self._load(packed)).to(device)
        self.model.score_thresh = score_thresh
        self.place, self.folder, self.batch_size, self.max_pixels = place, folder, batch_size, max_pixels
        self.pool = ThreadPoolExecutor(threads)

    def _load(self, files: dict[str, bytes]) -> ExportedDetector:
        self.files = tempfile.TemporaryDirectory()
        paths = [Path(self.files.name, name) for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        return load(paths[0])

    def __call__(self, row: dict[str, str]) -> dict[str, int]:
        """Detect in the images of a part and write its file."""
        files = [ImageFile(*file) for file in json.loads(row["part"])]
        rows = [row for batch, images in self._read_ahead(files) for row in self._rows(batch, images)]
        self.folder.write_rows(hashlib.sha256(row["part"].encode()).hexdigest()[:16], rows)
        return {"failed": sum(row["error"] is not None for row in rows)}

    def _read_ahead(self, files: Sequence[ImageFile]) -> Iterator[tuple[list[ImageFile], list[Tensor | str]]]:
        """Yield batches of files with their images, and read the next batch meanwhile.

        In place of an image that can't be read is the reason.
        """
        reading: tuple[list[ImageFile], list[Future[Tensor | str]]] = ([], [])
        for batch in [*_batched(files, self.batch_size), []]:
            ready, reading = reading, (batch, [self.pool.submit(self._read, file) for file in batch])
            if ready[0]:
                yield ready[0], [image.result() for image in ready[1]]

    def _read(self, file: ImageFile) -> Tensor | str:
        """Return an image, RGB, uint8 `(3, H, W)`, or the reason why it can't be read."""
        try:
            with self.place.open_input_stream(file.path) as stream:
                content = io.BytesIO(stream.read())
            content.name = file.name
            return read_image(content, max_pixels=self.max_pixels)
        except (ValueError, OSError) as error:
            return str(error)

    def _rows(self, files: Sequence[ImageFile], images: Sequence[Tensor | str]) -> Iterator[ParquetRow]:
        found = iter(detect_batch(self.model, [image for image in images if isinstance(image, Tensor)]))
        for file, image in zip(files, images, strict=True):
            row: ParquetRow = {
                "file_name": file.name,
                "boxes": None,
                "scores": None,
                "labels": None,
                "names": None,
                "error": image if isinstance(image, str) else None,
                "size": file.size,
                "modified": file.modified,
            }
            if isinstance(image, Tensor):
                detections = next(found)
                row["boxes"], row["scores"] = detections["boxes"].tolist(), detections["scores"].tolist()
                row["labels"] = labels = detections["labels"].tolist()
                row["names"] = [self.model.categories[label] for label in labels]
            yield row

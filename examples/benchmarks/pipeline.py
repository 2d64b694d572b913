"""Measure `ssd-zoo detect` over a folder of photos and over a video, from the start of the command to its end.

    python examples/benchmarks/pipeline.py PHOTOS --model model.xml --before ../older

The rate after the start is that of all photos but one, over the time that they take beyond a run of one photo; of
frames likewise. The video is made of the photos: 300 frames of 300 × 300 pixels, which move. The bound is the rate of
the same threads and batches where photos are decoded, and the network runs on a prepared batch, but nothing else is
done. An older version without exported files takes the model that it takes by default. Runs alternate, and the fastest
counts; of memory the largest.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from ssd_zoo.data import VideoWriter, find_images, read_image
from ssd_zoo.deploy import ExportedDetector, load
from ssd_zoo.prediction import open_detector
from ssd_zoo.prediction.pipeline import detect_ahead

YOLO = """
import sys
from ultralytics import YOLO
for found in YOLO(sys.argv[2], task="detect").predict(sys.argv[1], imgsz=320, stream=True, verbose=False):
    found.to_json()
"""
T = TypeVar("T")
FRAMES, SIDE = 300, 300
WORKERS, BATCHES = (1, 2, 3, 4), (1, 2, 4, 8)


class Used(NamedTuple):
    """What a process took: seconds, seconds of CPU, and peak memory in GB."""

    wall: float
    cpu: float
    memory: float


def network_alone(file: str, photo: Tensor, callers: int) -> ExportedDetector:
    """Open an exported file that runs on the same batch whatever the image, and gives nothing."""
    detector = load(file, threads=1, callers=callers)
    batch, _ = detector.description.resize([photo])

    def forward(images: list[Tensor]) -> list[dict[str, Tensor]]:
        for _ in images:
            detector._run({"images": batch})
        return [{} for _ in images]

    detector.forward = forward
    return detector


def run(command: list[str], folder: Path) -> Used:
    """Run a command of the package in a folder."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Used(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def rate(model: nn.Module, files: list[Path], *, batch_size: int, workers: int, callers: int) -> float:
    """Return the photos per second of a model that has run before."""
    start = time.perf_counter()
    found = detect_ahead(model, files, read_image, batch_size=batch_size, workers=workers, callers=callers)
    return sum(1 for _ in found) / (time.perf_counter() - start)


def bound(model: str, files: list[Path], threads: int) -> tuple[float, float]:
    """Return the photos per second, and milliseconds of CPU time a photo, of decoding and the network alone."""
    alone = network_alone(model, read_image(files[0]), threads)
    rates, times = [], []
    for _ in range(3):
        start = time.process_time()
        rates.append(rate(alone, files, batch_size=1, workers=threads, callers=threads))
        times.append(1000 * (time.process_time() - start) / len(files))
    return max(rates), min(times)


def sweep(model: str | None, files: list[Path], workers: int) -> list[float]:
    """Return the photos per second by batch size; an exported file is called by each worker."""
    callers = 1 if model is None else workers
    threads = None if model is None else 1
    opened = open_detector(model or "ssdlite300_mobilenet_v2", threads=threads, callers=callers, score_thresh=0.5)
    return [
        max(rate(opened, files, batch_size=size, workers=workers, callers=callers) for _ in range(2))
        for size in BATCHES
    ]


def make_video(file: Path, photos: list[Path], frames: int) -> Path:
    """Write photos that move, 30 frames each."""
    with VideoWriter(file, fps=25) as writer:
        for i in range(frames):
            if i % 30 == 0:
                photo = resize(read_image(photos[i // 30 % len(photos)]), [SIDE, SIDE])
            writer.write(photo.roll(2 * i, 2))
    return file


def alone(function: Callable[..., T], *args: object) -> T:
    """Call a function in a process of its own, so that its memory is not this one's, which others inherit."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def show_sweep(model: str, files: list[Path]) -> None:
    """Print the photos per second for numbers of workers and batch sizes."""
    print(
        f"| photos/s | workers | {' | '.join(f'batch {size}' for size in BATCHES)} |\n|---|---|{len(BATCHES) * '---:|'}"
    )
    for what, file in (("exported file", model), ("the model itself", None)):
        for workers in WORKERS:
            rates = alone(sweep, file, files, workers)
            print(f"| {what} | {workers} | {' | '.join(f'{rate:.1f}' for rate in rates)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", required=True, help="exported file")
    parser.add_argument("--before", type=Path, help="checkout of an older version")
    parser.add_argument("--yolo", metavar="FOLDER", help="model that ultralytics exported to OpenVINO")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweep", action="store_true", help="compare numbers of workers and batch sizes instead")
    args = parser.parse_args()
    files = find_images([args.photos])
    if args.sweep:
        show_sweep(args.model, files)
        return
    here, threads = Path(__file__).parents[2], torch.get_num_threads()
    bounds: list[tuple[float, float]] = []
    used: dict[tuple[str, Path], list[Used]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = folder / files[0].name
        one.write_bytes(files[0].read_bytes())
        frame, video = (make_video(folder / f"{n}.mp4", files, n) for n in (1, FRAMES))
        detect = [sys.executable, "-m", "ssd_zoo", "detect", "--quiet", "--json", str(folder / "found.json")]
        exported = ["--model", os.path.abspath(args.model)]
        tools = {"ssd-zoo": (here, [*detect, *exported])}
        if args.before is not None:
            has_exported = (args.before / "ssd_zoo/deploy/load.py").exists()
            tools["before"] = (args.before.absolute(), [*detect, *(exported if has_exported else [])])
        if args.yolo is not None:
            tools["ultralytics"] = (here, [sys.executable, "-c", YOLO])
        for _ in range(args.repeats):
            for tool, (place, command) in tools.items():
                for source in (one, args.photos, frame, video):
                    given = [str(source), *([args.yolo] if tool == "ultralytics" else [])]
                    used.setdefault((tool, source), []).append(run([*command, *given], place))
            bounds.append(alone(bound, args.model, files, threads))
    for few, many, what, count in ((one, args.photos, "photo", len(files)), (frame, video, "frame", FRAMES)):
        print(f"\n| {threads} threads | one {what} | {count} {what}s | {what}s/s after the start | CPU time a {what} |"
              " peak memory |\n|---|---:|---:|---:|---:|---:|")  # fmt: skip
        for tool in tools:
            first, whole = (Used(*map(min, zip(*used[tool, source], strict=True))) for source in (few, many))
            peak = max(each.memory for each in used[tool, many])
            rate = (count - 1) / (whole.wall - first.wall)
            cpu = 1000 * (whole.cpu - first.cpu) / (count - 1)
            print(f"| {tool} | {first.wall:.2f} s | {whole.wall:.2f} s | {rate:.1f} | {cpu:.1f} ms | {peak:.2f} GB |")
    rates, times = zip(*bounds, strict=True)
    print(f"\nDecoding and the network alone: {max(rates):.1f} photos/s, {min(times):.1f} ms of CPU time a photo")


if __name__ == "__main__":
    main()

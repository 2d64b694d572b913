"""Measure `ssd-zoo detect` over a folder of photos, from the start of the command to its end.

    python examples/benchmarks/pipeline.py PHOTOS --model model.xml --before ../older

The rate after the start is that of all photos but one, over the time that they take beyond a run of one photo. The
bound is the rate at which the same threads decode photos and run the network alone. Runs alternate, and the fastest
counts.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from ssd_zoo.data import find_images, read_image
from ssd_zoo.deploy import load

YOLO = """
import sys
from ultralytics import YOLO
for found in YOLO(sys.argv[2], task="detect").predict(sys.argv[1], imgsz=320, stream=True, verbose=False):
    found.to_json()
"""


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Return a command's seconds and its CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(folder)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def bound(model: str, files: list[Path], threads: int) -> float:
    """Return the photos per second of decoding and the network alone."""
    torch.set_num_threads(1)
    copies = [load(model, threads=1) for _ in range(threads)]
    batch, _ = copies[0].description.resize([read_image(files[0])])

    def work(first: int) -> None:
        for file in files[first::threads]:
            read_image(file)
            copies[first]._run({"images": batch})

    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(work, range(threads)))
            best = min(best, time.perf_counter() - start)
    return len(files) / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", required=True, help="exported file")
    parser.add_argument("--before", type=Path, help="checkout of an older version")
    parser.add_argument("--yolo", metavar="FOLDER", help="model that ultralytics exported to OpenVINO")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    files = find_images([args.photos])
    here = Path(__file__).parents[2]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / files[0].name
        one.write_bytes(files[0].read_bytes())
        command = [sys.executable, "-m", "ssd_zoo", "detect", "--model", args.model, "--json", f"{folder}/found.json"]
        tools = {"ssd-zoo": (here, [*command, "--quiet"])}
        if args.before is not None:
            tools["before"] = (args.before, [*command, "--quiet"])
        if args.yolo is not None:
            tools["ultralytics"] = (here, [sys.executable, "-c", YOLO])
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(args.repeats):
            for name, (place, start) in tools.items():
                for what in (one, args.photos):
                    given = [str(what), args.yolo] if name == "ultralytics" else [str(what)]
                    times.setdefault((name, what.name), []).append(run([*start, *given], place))
    print(f"{len(files)} photos, {threads} threads; bound {bound(args.model, files, threads):.1f} photos/s")
    for name in tools:
        (first, first_cpu), (whole, cpu) = (
            [min(column) for column in zip(*times[name, what.name], strict=True)] for what in (one, args.photos)
        )
        print(
            f"{name:12} one photo {first:6.2f} s, all {whole:6.2f} s, then {(len(files) - 1) / (whole - first):6.1f} "
            f"photos/s; CPU {first_cpu:5.2f} s, then {1000 * (cpu - first_cpu) / (len(files) - 1):5.1f} ms a photo"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()

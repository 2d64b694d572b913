"""Time one photo through each model that has weights: the numbers of `ssd-zoo list` and of the page "Which model?".

    python examples/benchmarks/latency.py

One thread computes, and its own processor time counts, so that other load on the machine matters little. The least of
many runs stands in the table. Weights that do not ship are
not needed: the other models get random weights, and a score threshold of .5 drops nearly all of their detections too.
"""

import argparse
import csv
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine

import ssd_zoo
from ssd_zoo.data import read_image
from ssd_zoo.deploy import export, load
from ssd_zoo.models.table import LATENCIES, list_weights
from ssd_zoo.weights.entries import WeightsEnum

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="time for each model (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=LATENCIES, help="the table (default: that of the package)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    photo = read_image(ROOT / "examples" / "astronaut.jpg")
    models = [(builder, entry, build(builder, entry)) for builder, entry in list_weights()]
    # Models of other weights with as many classes are equal.
    same = {(builder, len(entry.meta["categories"]), model.size): model for builder, entry, model in models}
    eager = {key: measure(model, photo, args.seconds) for key, model in same.items()}
    rows = []
    for builder, entry, model in models:
        key = (builder, len(entry.meta["categories"]), model.size)
        rows.append([builder, entry.name, f"{eager[key]:.1f}", f"{exported(same[key], photo, args.seconds):.1f}"])
        print(*rows[-1], flush=True)
    with args.output.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"# one thread of {facts['cpu']}, {facts['vector units']}; torch {torch.__version__}\n")
        csv.writer(stream, lineterminator="\n").writerows([["builder", "weights", "eager_ms", "openvino_ms"], *rows])


def build(builder: str, entry: WeightsEnum) -> ssd_zoo.SSD:
    ships = entry.url.startswith("package:")
    options = {"weights": entry} if ships else {"num_classes": len(entry.meta["categories"])}
    return ssd_zoo.get_model(builder, weights_backbone=None, score_thresh=0.5, **options).eval()


@functools.cache
def exported(model: ssd_zoo.SSD, photo: torch.Tensor, seconds: float) -> float:
    """Return milliseconds of the model's file for OpenVINO."""
    with tempfile.TemporaryDirectory() as folder:
        file = load(export(model, Path(folder) / "model.xml", format="openvino"))
        return measure(file, photo, seconds)


@torch.inference_mode()
def measure(model: Callable[[list[torch.Tensor]], object], photo: torch.Tensor, seconds: float) -> float:
    """Return the least milliseconds of processor time that a call took."""
    times, start = [], time.perf_counter()
    while len(times) < 8 or time.perf_counter() - start < seconds:
        before = time.process_time()
        model([photo])
        times.append(time.process_time() - before)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()

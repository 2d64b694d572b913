"""Time one photo through each model that has weights: the numbers of `ssd-zoo list` and of the page "Which model?".

    python examples/benchmarks/latency.py

One thread computes, and its own processor time counts, so that other load on the machine matters little. The least of
many runs stands in the table. Weights that do not ship are
not needed: the other models get random weights, and a score threshold of .5 drops nearly all of their detections too.
"""

import argparse
import csv
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
    rows = []
    for builder, entry in list_weights():
        eager, file = measure(builder, entry, photo, args.seconds)
        rows.append([builder, entry.name, f"{eager:.1f}", f"{file:.1f}"])
        print(*rows[-1], flush=True)
    with args.output.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"# one thread of {facts['cpu']}, {facts['vector units']}; torch {torch.__version__}\n")
        csv.writer(stream, lineterminator="\n").writerows([["builder", "weights", "eager_ms", "openvino_ms"], *rows])


@torch.inference_mode()
def measure(builder: str, entry: WeightsEnum, photo: torch.Tensor, seconds: float) -> tuple[float, float]:
    """Return milliseconds of the model, and of its file for OpenVINO."""
    ships = entry.url.startswith("package:")
    known = {key: entry.settings[key] for key in ("size", "default_boxes") if key in entry.settings and not ships}
    options = {"weights": entry} if ships else {"weights": None, "num_classes": len(entry.meta["categories"]), **known}
    model = ssd_zoo.get_model(builder, weights_backbone=None, score_thresh=0.5, **options).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        file = load(export(model, Path(folder) / "model.xml", format="openvino"))
    return least(lambda: model([photo]), seconds), least(lambda: file([photo]), seconds)


def least(run: Callable[[], object], seconds: float) -> float:
    times, start = [], time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < seconds:
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()

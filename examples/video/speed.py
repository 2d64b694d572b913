"""Compare the speed of streams, a window and a 2-D model.

The window of eight frames is computed again for each frame, and detects in its last one. Times are the minimum of
several alternating runs. On a CPU they are process time, which depends little on other load.

OMP_NUM_THREADS=1 python examples/video/speed.py
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import ssd_zoo

WINDOW = 8


def measure(runs: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Time each run in milliseconds; return the minimum of `repeats`."""
    best = dict.fromkeys(runs, float("inf"))
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for i in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i > 0:  # The first round warms up.
                best[name] = min(best[name], 1000 * (clock() - start))
    return best


class Stream:
    """Stream of a model that keeps its state between calls."""

    def __init__(self, model: ssd_zoo.SSD) -> None:
        self.model, self.state = model, None

    def __call__(self, frame: Tensor) -> object:
        found, self.state = self.model.step([frame], self.state)
        return found


def compare(two_d: str, settings: dict[str, object], repeats: int, device: torch.device) -> dict[str, float]:
    """Time a model for clips and the 2-D model of its family."""
    build = partial(ssd_zoo.get_model, weights=None, weights_backbone=None, num_classes=91, score_thresh=0.5)
    image = build(two_d).eval().to(device)
    video = build(f"{two_d}_3d", **settings).eval().to(device)
    window = build(f"{two_d}_3d", frames="last", **settings).eval().to(device)
    window.load_state_dict(video.state_dict())
    frame = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8, device=device)
    clip = frame.expand(WINDOW, -1, -1, -1)
    stream = Stream(video)
    runs = {
        "2-D": lambda: image([frame]),
        "step": lambda: stream(frame),
        "window": lambda: window([clip]),
    }
    with torch.inference_mode():
        times = measure(runs, repeats, device)
    return {
        "2-D, frames/s": round(1000 / times["2-D"], 2),
        "step, frames/s": round(1000 / times["step"], 2),
        "window, frames/s": round(1000 / times["window"], 2),
        "step / 2-D": round(times["step"] / times["2-D"], 2),
        "window / step": round(times["window"] / times["step"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["ssd300_vgg16d", "ssdlite300_mobilenet_v2"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "speed.json")
    args = parser.parse_args()
    device = torch.device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    variants: dict[str, dict[str, object]] = {
        "3d, stages 4 and 5": {},
        "2plus1d, stages 3 to 5": {"temporal": "2plus1d", "temporal_stages": (3, 4, 5)},
        "depthwise, stages 3 to 5": {"temporal": "depthwise", "temporal_stages": (3, 4, 5)},
        "shift, stages 3 to 5": {"temporal": "shift", "temporal_stages": (3, 4, 5)},
    }
    results: dict[str, object] = {"where": where, "torch": torch.__version__}
    for model in args.models:
        for name, settings in variants.items():
            row = compare(model, settings, args.repeats, device)
            results[f"{model}_3d, {name}"] = row
            print(f"{model}_3d | {name} | " + " | ".join(map(str, row.values())), flush=True)
            args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Measure whether detectors recognise the direction of motion.

The class is the direction of a moving digit. Every clip is also shown reversed, with the opposite class. So a single
frame is uninformative, and a 2-D detector has an AP of 0.5. The first frame is not evaluated.

python examples/video/direction.py
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from digits import FRAMES, VARIANTS, build, detect, load_digits, make_clips, train
from torch import Tensor

from ssd_zoo.video import frame_map

CATEGORIES = ["background", "to the right", "to the left"]


def both_ways(digits: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Draw clips; return each forwards and reversed, with targets."""
    clips, boxes = make_clips(digits, count, generator)
    targets = [
        {
            "boxes": of_clip,
            "labels": torch.full((FRAMES,), label),
            "frame_index": torch.arange(FRAMES),
            "labeled_frames": torch.arange(FRAMES),
        }
        for label, way in ((1, boxes), (2, boxes.flip(1)))
        for of_clip in way
    ]
    return torch.cat([clips, clips.flip(1)]), targets


def batches(digits: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    while True:
        yield both_ways(digits, 8, generator)


def in_order(
    clips: Tensor, targets: list[dict[str, Tensor]], order: list[int]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Reorder the frames and boxes of clips; keep the class."""
    judged = torch.arange(1, FRAMES)
    moved = [
        {
            "boxes": target["boxes"][order][1:],
            "labels": target["labels"][1:],
            "frame_index": judged,
            "labeled_frames": judged,
        }
        for target in targets
    ]
    return clips[:, order], moved


def run(variant: str, seed: int, steps: int, test_clips: int) -> dict[str, float]:
    """Train and evaluate one detector."""
    torch.manual_seed(seed)
    train_digits, test_digits = load_digits()
    model = build(variant, CATEGORIES)
    start = time.perf_counter()
    train(model, batches(train_digits, torch.Generator().manual_seed(seed)), steps=steps)
    seconds = time.perf_counter() - start
    clips, targets = both_ways(test_digits, test_clips, torch.Generator().manual_seed(1000))
    orders = {
        "as it is": list(range(FRAMES)),
        "shuffled": torch.randperm(FRAMES, generator=torch.Generator().manual_seed(7)).tolist(),
        "reversed": list(range(FRAMES))[::-1],
    }
    scores = {}
    for name, order in orders.items():
        shown, expected = in_order(clips, targets, order)
        scores[name] = round(frame_map(detect(model, shown), expected), 4)
    return {**scores, "seconds": round(seconds), "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--test-clips", type=int, default=100, help="number of clips, each shown forwards and reversed")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "direction.json")
    args = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for variant in args.variants:
        for seed in range(args.seeds):
            results.setdefault(variant, []).append(run(variant, seed, args.steps, args.test_clips))
            print(variant, seed, results[variant][-1], flush=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    print("| model | parameters | AP50 | shuffled | reversed | seconds |\n|---|---|---|---|---|---|")
    for variant, runs in results.items():
        columns = [statistics.mean(run[key] for run in runs) for key in ("as it is", "shuffled", "reversed")]
        row = " | ".join(f"{value:.3f}" for value in columns)
        seconds = statistics.mean(run["seconds"] for run in runs)
        print(f"| {variant} | {runs[0]['parameters'] / 1e3:.0f} k | {row} | {seconds:.0f} |")


if __name__ == "__main__":
    main()

"""Measure detection in frames that are replaced by noise.

30 % of the frames are noise. Detectors for clips learn to locate the digit there. A 2-D detector can't; its last
detection is held instead, or extrapolated by a Kalman filter.

python examples/video/blanked.py
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from digits import FRAMES, VARIANTS, build, detect, load_digits, make_clips, train
from torch import Tensor

from ssd_zoo.video import frame_map, split_frames

CATEGORIES = ["background", "digit"]
BLANKED = 0.3
SURE = 0.3

Target = dict[str, Tensor]
Detections = dict[str, Tensor]


def blanked_clips(digits: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clips, half of them reversed, with random frames replaced by noise.

    The first frame is never replaced.

    Returns:
        Clips `(count, T, 3, 64, 64)`, boxes `(count, T, 4)`, and a mask of the noise frames, `(count, T)`.
    """
    clips, boxes = make_clips(digits, count, generator)
    clips[::2], boxes[::2] = clips[::2].flip(1), boxes[::2].flip(1)
    blank = torch.rand(count, FRAMES, generator=generator) < BLANKED
    blank[:, 0] = False
    noise = torch.randint(0, 256, clips.shape, generator=generator).byte()
    return torch.where(blank[:, :, None, None, None], noise, clips), boxes, blank


def targets_of(boxes: Tensor, shown: Tensor) -> list[Target]:
    """Build targets with boxes in the frames of the mask `shown` only."""
    return [
        {
            "boxes": of_clip[frames],
            "labels": torch.ones(int(frames.sum()), dtype=torch.int64),
            "frame_index": frames.nonzero().squeeze(1),
        }
        for of_clip, frames in zip(boxes, shown, strict=True)
    ]


def batches(digits: Tensor, generator: torch.Generator, in_time: bool) -> Iterator[tuple[Tensor, list[Target]]]:
    """Yield training batches.

    Noise frames have targets only for detectors for clips (`in_time`).
    """
    while True:
        clips, boxes, blank = blanked_clips(digits, 16, generator)
        yield clips, targets_of(boxes, torch.ones_like(blank) if in_time else ~blank)


class Kalman:
    """Kalman filter of four independent values with constant velocity."""

    def __init__(self, box: Tensor, *, drift: float = 0.05, error: float = 1.0) -> None:
        self.place, self.velocity = box, torch.zeros(4)
        self.spread = torch.tensor([[error, 0.0], [0.0, 10.0]])
        self.drift, self.error = drift, error

    def predict(self) -> Tensor:
        step = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        self.place = self.place + self.velocity
        self.spread = step @ self.spread @ step.T + self.drift * torch.eye(2)
        return self.place

    def correct(self, box: Tensor) -> None:
        gain = self.spread[:, 0] / (self.spread[0, 0] + self.error)
        surprise = box - self.place
        self.place, self.velocity = self.place + gain[0] * surprise, self.velocity + gain[1] * surprise
        self.spread = self.spread - gain[:, None] * self.spread[0]


def fill(found: Detections, *, kalman: bool) -> Detections:
    """Add a box to frames without a confident detection.

    It is the last confident box, or a Kalman filter's prediction. Its score falls by 10 % per frame.
    """
    boxes, scores, index = [found["boxes"]], [found["scores"]], [found["frame_index"]]
    follower: Kalman | None = None
    score = 0.0
    for t, frame in enumerate(split_frames(found, FRAMES)):
        expected = follower.predict() if follower is not None else None
        if len(frame["scores"]) and frame["scores"][0] > SURE:
            score = float(frame["scores"][0])
            if follower is None or not kalman:
                follower = Kalman(frame["boxes"][0])
            else:
                follower.correct(frame["boxes"][0])
        elif expected is not None:
            score *= 0.9
            boxes.append(expected.unsqueeze(0))
            scores.append(torch.tensor([score]))
            index.append(torch.tensor([t]))
    filled = {"boxes": torch.cat(boxes), "scores": torch.cat(scores), "frame_index": torch.cat(index)}
    return {**filled, "labels": torch.ones(len(filled["scores"]), dtype=torch.int64)}


def run(variant: str, seed: int, steps: int, test_clips: int) -> dict[str, dict[str, float]]:
    """Train and evaluate a detector; the 2-D one also with filled frames."""
    torch.manual_seed(seed)
    train_digits, test_digits = load_digits()
    model = build(variant, CATEGORIES)
    in_time = not variant.startswith("2-D")
    train(model, batches(train_digits, torch.Generator().manual_seed(seed), in_time), steps=steps)
    clips, boxes, blank = blanked_clips(test_digits, test_clips, torch.Generator().manual_seed(1000))
    found = detect(model, clips)
    candidates = {variant: found}
    if variant == "2-D":
        candidates["2-D, last held"] = [fill(one, kalman=False) for one in found]
        candidates["2-D, Kalman filter"] = [fill(one, kalman=True) for one in found]
    targets = targets_of(boxes, torch.ones_like(blank))
    return {
        name: {
            f"AP{round(100 * thresh)}": round(frame_map(given, targets, iou_thresh=thresh), 4) for thresh in (0.5, 0.75)
        }
        for name, given in candidates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--test-clips", type=int, default=200)
    parser.add_argument("--variants", nargs="+", default=[name for name in VARIANTS if "wide" not in name])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "blanked.json")
    args = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    for variant in args.variants:
        for seed in range(args.seeds):
            for name, scores in run(variant, seed, args.steps, args.test_clips).items():
                results.setdefault(name, []).append(scores)
                print(name, seed, scores, flush=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    print("| model | AP50 | AP75 |\n|---|---|---|")
    for name, runs in results.items():
        print(f"| {name} | " + " | ".join(f"{statistics.mean(run[key] for run in runs):.3f}" for key in runs[0]) + " |")


if __name__ == "__main__":
    main()

"""Measure AP by number of training images, with and without pretraining.

    python examples/ten_images.py DATA/bccd --output runs/ten

Every training has the same number of steps, so fewer images are repeated more often. The results are written to
`ten_images.json` and `ten_images.png` in the output folder. A second run continues after the last finished training.
"""

import argparse
import json
from pathlib import Path

import torch

import ssd_zoo
from ssd_zoo.data import fit_default_boxes, inspect_dataset, open_dataset, usable
from ssd_zoo.data.cache import CachedDataset
from ssd_zoo.training import evaluate, fit
from ssd_zoo.training.plots import new_figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2")
    parser.add_argument("--weights", default="COCO_TF_V1")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--numbers", type=int, nargs="*", default=[5, 10, 20, 50], help="numbers of images, and all")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    train, test = (open_usable(args.data, split) for split in (args.train_split, args.test_split))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(args.seed)).tolist()
    file = args.output / "ten_images.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for start in ("pretrained", "scratch"):
        for number in [*args.numbers, len(train)]:
            key = f"{start} {number}"
            if key not in results:
                some = train.with_images([train.images[i] for i in order[:number]])
                results[key] = train_and_measure(args, some, test, start)
                file.write_text(json.dumps(results, indent=1))
            print(f"{number:4} images, {start:10}  AP {results[key]['AP']:.3f}  AP50 {results[key]['AP50']:.3f}")
    plot(results, args.output / "ten_images.png")


def open_usable(data, split):
    dataset = open_dataset(data, split)
    return usable(dataset, inspect_dataset(dataset, read_images=False), "drop")


def train_and_measure(args, train, test, start):
    weights = args.weights if start == "pretrained" else None
    backbone = {} if weights else {"weights_backbone": None}
    settings = {"weights": weights, "categories": train.categories, "box_loss": "giou", **backbone}
    model = ssd_zoo.get_model(args.model, **settings)
    boxes = fit_default_boxes((train[i] for i in range(len(train))), model).default_boxes
    model = ssd_zoo.get_model(args.model, **settings, default_boxes=boxes)
    steps_per_epoch = -(-len(train) // args.batch_size)
    result = fit(
        model,
        CachedDataset(train),
        output=args.output / f"{start}_{len(train)}",
        epochs=-(-args.steps // steps_per_epoch),
        batch_size=args.batch_size,
        augmentation="light",
        optimizer="adamw",
        ema_decay=0.998,
        evaluate_every=10**6,
        seed=args.seed,
        resume=True,
    )
    return evaluate(result.model, test).metrics


def plot(results, file):
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for start in ("pretrained", "scratch"):
        points = [(int(key.split()[1]), value["AP"]) for key, value in results.items() if key.startswith(start)]
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=start)
    axes.set(xscale="log", xlabel="training images", ylabel="AP", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    main()

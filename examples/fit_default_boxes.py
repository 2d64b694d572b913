"""Fit default boxes to a data set and report the improvement.

    python examples/fit_default_boxes.py DATA --split train --model ssdlite300_mobilenet_v2 --size 640

DATA is a data set in a layout of `open_dataset`; its images are not decoded. --output writes the arguments of
`DefaultBoxGenerator` as JSON.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

import ssd_zoo
from ssd_zoo.data import open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", help="split of the data set (default: the only one)")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", choices=ssd_zoo.list_models())
    parser.add_argument("--size", type=int, help="side of the input (default: the model's)")
    parser.add_argument("--output", type=Path, help="JSON file for the default boxes")
    args = parser.parse_args()

    with torch.device("meta"):
        size = {} if args.size is None else {"size": args.size}
        model = ssd_zoo.get_model(args.model, weights=None, weights_backbone=None, **size)
    fit = ssd_zoo.fit_default_boxes(open_dataset(args.data, args.split), model)
    print(fit)
    for k, shapes in enumerate(fit.default_boxes.shapes):
        in_pixels = "  ".join(f"{w * min(model.size):.0f}×{h * min(model.size):.0f}" for w, h in shapes)
        print(f"  map {k}: {in_pixels}")
    if args.output is not None:
        args.output.write_text(json.dumps(asdict(fit.default_boxes)))


if __name__ == "__main__":
    main()

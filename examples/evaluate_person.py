"""Measures the person detector that ships with ssd_zoo: COCO's AP of persons on the 128 images of coco128.

    python examples/evaluate_person.py [DATA]

DATA/coco128 holds `instances.json` and `images/`. The images are fed at 300 × 300, resized by Pillow, as the original
TensorFlow model was measured; `--full-size` feeds them as they are and leaves the resizing to the model. With
`--variables` the original's float32 variables are measured instead of the half-precision weights of the package. With
`--results` nothing is detected, but what the command found is scored:

    ssd-zoo detect DATA/coco128/images --score-thresh 0 --quiet --json results.json
    python examples/evaluate_person.py DATA --results results.json
"""

import argparse
import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from torchvision.ops import box_convert
from torchvision.transforms.v2.functional import pil_to_tensor

from ssd_zoo import SSD, ssdlite300_mobilenet_v2
from ssd_zoo.converters import tensorflow

DATA = Path(os.environ.get("SSD_ZOO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PERSON = 1
"""COCO's category id, and the detector's label."""


def build(variables: Path | None = None) -> SSD:
    """Builds the detector with the package's weights, or with the original's variables."""
    if variables is None:
        return ssdlite300_mobilenet_v2(weights="PERSON_V1").eval()
    model = ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2)
    model.load_state_dict(tensorflow.convert(load_file(variables)))
    return model.eval()


def evaluate(model: SSD, data: Path, *, full_size: bool = False) -> dict[str, float]:
    """Detects in the images of `data`/coco128 and scores what was found; see `detect` and `score`."""
    truth = read_truth(data)
    return score(detect(model, truth, data, full_size=full_size), truth)


def read_truth(data: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(data / "coco128" / "instances.json")


@torch.inference_mode()
def detect(model: SSD, truth: COCO, data: Path, *, full_size: bool = False) -> list[dict[str, Any]]:
    """Gives COCO results.

    Args:
        model: Its label 1 is the person.
        truth: Names the images.
        data: Folder that holds `coco128/images/`.
        full_size: Whether the model resizes the images, not Pillow.
    """
    results = []
    for image_id, entry in truth.imgs.items():
        with Image.open(data / "coco128" / "images" / entry["file_name"]) as file:
            image = file.convert("RGB")
        scale = torch.ones(4)
        if not full_size:
            scale = torch.tensor([image.width / 300, image.height / 300]).repeat(2)
            image = image.resize((300, 300), Image.Resampling.BILINEAR)
        [found] = model([pil_to_tensor(image)])
        boxes = box_convert(found["boxes"] * scale, "xyxy", "xywh")
        for box, sure, label in zip(boxes.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": label, "bbox": box, "score": sure})
    return results


def score(results: Sequence[dict[str, Any]], truth: COCO) -> dict[str, float]:
    """Gives AP, AP50 and AP75 of persons, between 0 and 1, at most 100 detections an image."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(truth, truth.loadRes(list(results)), "bbox")
        coco_eval.params.catIds = [PERSON]
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return dict(zip(("AP", "AP50", "AP75"), map(float, coco_eval.stats), strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="folder of coco128 (default: %(default)s)")
    parser.add_argument("--variables", type=Path, metavar="FILE", help="safetensors file of the original's variables")
    parser.add_argument("--full-size", action="store_true", help="leave the resizing to the model")
    parser.add_argument("--results", type=Path, metavar="FILE", help="score what `ssd-zoo detect --json FILE` wrote")
    args = parser.parse_args()

    if args.results is None:
        figures = evaluate(build(args.variables), args.data, full_size=args.full_size)
    else:
        figures = score(json.loads(args.results.read_text()), read_truth(args.data))
    print("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()

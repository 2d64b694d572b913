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
import os
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2.functional import pil_to_tensor

from ssd_zoo import SSD, ssdlite300_mobilenet_v2
from ssd_zoo.converters import tensorflow
from ssd_zoo.data import DetectionDataset, open_dataset
from ssd_zoo.training import evaluate_results
from ssd_zoo.training.coco_ap import CocoScores, score_records
from ssd_zoo.training.records import Record, make_record

DATA = Path(os.environ.get("SSD_ZOO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def build(variables: Path | None = None) -> SSD:
    """Builds the detector with the package's weights, or with the original's variables."""
    if variables is None:
        return ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    model = ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=2)
    model.load_state_dict(tensorflow.convert(load_file(variables)))
    return model.eval()


def evaluate(model: SSD, data: Path, *, full_size: bool = False) -> dict[str, float]:
    """Detects in the images of `data`/coco128 and gives AP, AP50 and AP75 of persons, between 0 and 1."""
    dataset = open_dataset(data / "coco128")
    return of_persons(score_records(detect(model, dataset, full_size=full_size), dataset.categories))


@torch.inference_mode()
def detect(model: SSD, dataset: DetectionDataset, *, full_size: bool = False) -> list[Record]:
    """Detects persons, label 1 of model and data set, in the images at full size or as Pillow resizes them."""
    records = []
    for i, entry in enumerate(dataset.images):
        with Image.open(entry.file) as file:
            image = file.convert("RGB")
        scale = torch.ones(4)
        if not full_size:
            scale = torch.tensor([image.width / 300, image.height / 300]).repeat(2)
            image = image.resize((300, 300), Image.Resampling.BILINEAR)
        [found] = model([pil_to_tensor(image)])
        found["boxes"] *= scale
        records.append(make_record(dataset.target(i, (image.height, image.width)), found, None, entry.image_id))
    return records


def of_persons(scores: CocoScores) -> dict[str, float]:
    return {name: scores.per_class["person"][name] for name in ("AP", "AP50", "AP75")}


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
        figures = of_persons(evaluate_results(args.data / "coco128" / "instances.json", args.results))
    print("  ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()

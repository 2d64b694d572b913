"""Measure what tiles bring on pictures whose objects are small.

    python examples/tiles.py coco128/instances.json

Photos are shrunk and pasted side by side, 4 × 4 in a picture. Only objects under 1 % of their picture count; larger
ones are neither right nor wrong. Each line is one way to detect: in whole pictures, and in tiles of several sizes. With
--sahi, SAHI cuts slices of these sizes and joins what is found (pip install sahi).
"""

import argparse
import time
from pathlib import Path

import torch
from torchvision.transforms.v2 import functional as F

import ssd_zoo
from ssd_zoo.data import open_dataset
from ssd_zoo.training import evaluate

SCORE_THRESH = 0.05  # of all ways


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="labelled photos")
    parser.add_argument("--split", help="split of the data")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2")
    parser.add_argument("--weights", default="COCO_TF_V1")
    parser.add_argument("--cell", type=int, default=320, help="longest side of a shrunk photo, in pixels")
    parser.add_argument("--tiles", type=int, nargs="*", default=[640, 480, 320], help="sides of tiles, in pixels")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--sahi", action="store_true", help="measure SAHI's slices too")
    args = parser.parse_args()

    dataset = open_dataset(args.data, args.split)
    mosaics = [mosaic(dataset, first, args.cell) for first in range(0, len(dataset) - 15, 16)]
    model = ssd_zoo.get_model(args.model, weights=args.weights, tile_overlap=args.overlap, score_thresh=SCORE_THRESH)
    model.eval()
    small = sum(int((~target["difficult"]).sum()) for _, target in mosaics)
    print(f"{len(mosaics)} pictures of {4 * args.cell} × {4 * args.cell} pixels, {small} objects under 1 %")
    for tile in (None, *args.tiles):
        model.tile = tile
        measure("whole pictures" if tile is None else f"tiles of {tile} × {tile}", model, mosaics, dataset.categories)
    model.tile = None
    for tile in args.tiles if args.sahi else ():
        sliced = Sliced(model, tile, args.overlap)
        measure(f"SAHI, {tile} × {tile}", sliced, mosaics, dataset.categories)


def measure(what, model, mosaics, categories):
    began = time.process_time()  # Other programs do not count.
    metrics = evaluate(model, mosaics, categories=categories).metrics
    seconds = (time.process_time() - began) / len(mosaics)
    figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "APsmall", "AP50"))
    print(f"{what:20} {figures}  {seconds:.2f} s a picture", flush=True)


class Sliced(torch.nn.Module):
    """A detector in the slices of SAHI, joined by NMS, which SAHI takes by itself at low scores."""

    def __init__(self, model, side, overlap):
        super().__init__()
        from sahi import AutoDetectionModel

        self.model, self.categories = model, model.categories
        self.side, self.overlap = side, overlap
        names = {str(label): name for label, name in enumerate(model.categories)}
        self.theirs = AutoDetectionModel.from_pretrained(
            "torchvision", model=model, category_mapping=names, confidence_threshold=SCORE_THRESH, device="cpu"
        )

    def forward(self, images):
        return [self.detect(image) for image in images]

    def detect(self, image):
        from sahi.predict import get_sliced_prediction

        found = get_sliced_prediction(
            image.permute(1, 2, 0).numpy(), self.theirs, verbose=0, slice_height=self.side, slice_width=self.side,
            overlap_height_ratio=self.overlap, overlap_width_ratio=self.overlap,
            postprocess_type="NMS", postprocess_match_metric="IOU",
        ).object_prediction_list  # fmt: skip
        return {
            "boxes": torch.tensor([one.bbox.to_xyxy() for one in found]).reshape(-1, 4).float(),
            "scores": torch.tensor([one.score.value for one in found]),
            "labels": torch.tensor([one.category.id for one in found], dtype=torch.int64),
        }


def mosaic(dataset, first, cell):
    """Paste sixteen photos into a picture; objects of 1 % of it or more are marked as difficult."""
    picture = torch.full((3, 4 * cell, 4 * cell), 128, dtype=torch.uint8)
    targets = []
    for k in range(16):
        image, target = dataset[first + k]
        scale = cell / max(image.shape[-2:])
        size = [round(side * scale) for side in image.shape[-2:]]
        top, left = k // 4 * cell, k % 4 * cell
        picture[:, top : top + size[0], left : left + size[1]] = F.resize(image, size, antialias=True)
        corner = torch.tensor([left, top, left, top])
        targets.append({**target, "boxes": target["boxes"].as_subclass(torch.Tensor) * scale + corner})
    joined = {key: torch.cat([target[key] for target in targets]) for key in ("boxes", "labels", "iscrowd")}
    sides = joined["boxes"][:, 2:] - joined["boxes"][:, :2]
    return picture, {**joined, "difficult": sides.prod(1) >= 0.01 * picture[0].numel()}


if __name__ == "__main__":
    main()

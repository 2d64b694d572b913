"""Fits default boxes to a data set of one's own and says what that brings.

    python examples/fit_default_boxes.py DATA --model ssdlite300_mobilenet_v2 --size 640

DATA is a COCO json or a folder in Pascal VOC's layout, of which the split `train` is read. Only annotations are read;
the JSON that --output writes holds what `DefaultBoxGenerator` takes.
"""

import argparse
import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

import ssd_zoo


def read_coco(file: Path) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    content = json.loads(file.read_text())
    boxes = defaultdict(list)
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes[annotation["image_id"]].append([x, y, x + width, y + height])
    for image in content["images"]:
        yield blank(image["height"], image["width"]), {"boxes": torch.tensor(boxes[image["id"]]).reshape(-1, 4)}


def read_voc(folder: Path) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    for name in (folder / "ImageSets/Main/train.txt").read_text().split():
        annotation = ET.parse(folder / "Annotations" / f"{name}.xml").getroot()
        boxes = [
            [float(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in annotation.iterfind("object/bndbox")
        ]
        height, width = (int(annotation.findtext(f"size/{side}")) for side in ("height", "width"))
        yield blank(height, width), {"boxes": torch.tensor(boxes).reshape(-1, 4)}


def blank(height: int, width: int) -> torch.Tensor:
    """An image of that size which takes no memory."""
    return torch.zeros(1).expand(3, height, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", choices=ssd_zoo.list_models())
    parser.add_argument("--size", type=int, help="side of the input (default: the model's)")
    parser.add_argument("--output", type=Path, help="where to write the default boxes")
    args = parser.parse_args()

    with torch.device("meta"):
        size = {} if args.size is None else {"size": args.size}
        model = ssd_zoo.get_model(args.model, weights=None, weights_backbone=None, **size)
    fit = ssd_zoo.fit_default_boxes(read_coco(args.data) if args.data.is_file() else read_voc(args.data), model)
    print(fit)
    for k, shapes in enumerate(fit.default_boxes.shapes):
        in_pixels = "  ".join(f"{w * min(model.size):.0f}×{h * min(model.size):.0f}" for w, h in shapes)
        print(f"  map {k}: {in_pixels}")
    if args.output is not None:
        boxes = fit.default_boxes
        args.output.write_text(json.dumps({"shapes": boxes.shapes, "steps": boxes.steps, "clip": boxes.clip}))


if __name__ == "__main__":
    main()

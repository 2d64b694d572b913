"""Time exported files against the model and torchvision, from decoded photos to detections.

    python examples/benchmarks/deploy.py PHOTOS --threads 2 --json deploy.json

A row "network alone" is the file with raw output on a prepared batch: what its runtime can't do without. All contenders
run in turn in one process, so that other load on the machine affects all alike.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from timing import Contenders, alternate, machine
from torch import Tensor
from torchvision.transforms.v2.functional import resize

import ssd_zoo
from ssd_zoo.data import find_images, read_image
from ssd_zoo.deploy import ExportedDetector, export, load, optimize
from ssd_zoo.deploy.formats import FORMATS

HEIGHT, WIDTH = 480, 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of at least eight photos")
    parser.add_argument(
        "--model", default="ssdlite300_mobilenet_v2", help="a model with weights (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="time for each batch size (default: %(default)s)")
    parser.add_argument("--formats", default="onnx,openvino", help="formats (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    photos = [resize(read_image(file), [HEIGHT, WIDTH]) for file in sorted(find_images([args.photos]))[:8]]
    entry = ssd_zoo.get_model_weights(args.model).DEFAULT
    model = ssd_zoo.get_model(args.model, weights=entry, score_thresh=0.01).eval()
    theirs = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    fast = optimize(model, compile=False)
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = export_all(model, args.formats.split(","), Path(folder))
        for count in (1, 8):
            images = photos[:count]
            contenders: Contenders = {
                "torchvision's SSDLite320": lambda: theirs([image / 255 for image in images]),  # noqa: B023
                "ssd_zoo": lambda: model(images),  # noqa: B023
                "ssd_zoo, optimized": lambda: fast(images),  # noqa: B023
            }
            for name, detector in files.items():
                contenders[name] = call(detector, images)
                if name.endswith("outside"):
                    contenders[f"{name}, network alone"] = alone(model, detector, images)
            times = alternate(contenders, seconds=args.seconds)
            rows += [{"contender": name, "images": count, **row} for name, row in times.items()]
    report(rows, args.json)


def export_all(model: ssd_zoo.SSD, names: list[str], folder: Path) -> dict[str, ExportedDetector]:
    files = {}
    for name in names:
        known = FORMATS[name]
        for nms in known.nms:
            file = export(model, folder / f"{nms}{known.suffix}", format=name, nms=nms)
            files[f"{name}, NMS {nms}"] = load(file)
    return files


def call(detector: ExportedDetector, images: list[Tensor]) -> Callable[[], object]:
    return lambda: detector(images)


def alone(model: ssd_zoo.SSD, detector: ExportedDetector, images: list[Tensor]) -> Callable[[], object]:
    batch = (model.prepare(images) * model.image_std + model.image_mean).contiguous()
    return lambda: detector._run({"images": batch})


def report(rows: list[dict[str, object]], file: Path | None) -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f}\n")
    print("| Contender | images | ms | quartiles |\n|---|---|---|---|")
    for row in rows:
        print("| {contender} | {images} | {median:.1f} | {low:.1f} – {high:.1f} |".format(**row))
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

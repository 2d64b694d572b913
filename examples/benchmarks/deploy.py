"""Time exported files against the model and torchvision, from decoded photos to detections.

    python examples/benchmarks/deploy.py PHOTOS --threads 2 --json deploy.json --docs docs/benchmarks.md

A row "network alone" is the file with raw output on a prepared batch: what its runtime can't do without. All contenders
run in turn in one process, so that other load on the machine affects all alike. torchvision's model has random weights:
it is timed with every candidate above its threshold, and with none.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tables import table, write_into
from timing import Contenders, alternate, machine
from torch import Tensor
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms.v2.functional import resize

import ssd_zoo
from ssd_zoo.data import find_images, read_image
from ssd_zoo.deploy import ExportedDetector, export, load, optimize
from ssd_zoo.deploy.formats import FORMATS

HEIGHT, WIDTH = 480, 640
BEGIN, END = "<!-- files: written by examples/benchmarks/deploy.py -->", "<!-- end of files -->"
BASE = "ssd_zoo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of at least eight photos")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", help="a builder (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="time for each batch size (default: %(default)s)")
    parser.add_argument("--formats", default="onnx,openvino", help="formats (default: %(default)s)")
    parser.add_argument("--int8", type=int, default=0, help="photos to quantise on; 0 for none (default: %(default)s)")
    parser.add_argument("--ultralytics", default="", help="names such as yolo11n, whose package is to be installed")
    parser.add_argument("--folder", help="folder that keeps the exported files; those in it are not made again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path, help="page to write the table into")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    every = [resize(read_image(file), [HEIGHT, WIDTH]) for file in sorted(find_images([args.photos]))]
    known = list(ssd_zoo.get_model_weights(args.model))
    torch.manual_seed(0)
    model = ssd_zoo.get_model(args.model, weights="DEFAULT" if known else None, score_thresh=0.01).eval()
    fast = optimize(model, compile=False)
    rows = []
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(args.folder or draft)
        files = export_all(model, args.formats.split(","), folder, every[: args.int8])
        others = [name for name in args.ultralytics.split(",") if name]
        yolos = {name: ultralytics(name, folder) for name in others}
        for run in yolos.values():
            run(every[:1])()
        # The package of ultralytics sets another number at its first call.
        torch.set_num_threads(args.threads)
        with torch.inference_mode():
            for count in (1, 8):
                images = every[:count]
                contenders = {**torchvisions(images), BASE: call(model, images), "optimized": call(fast, images)}
                for name, detector in files.items():
                    contenders[name] = call(detector, images)
                    if name.endswith("outside"):
                        contenders[name.replace("NMS outside", "network alone")] = alone(detector, images)
                contenders |= {name: run(images) for name, run in yolos.items()}
                times = alternate(contenders, seconds=args.seconds, twice=True)
                rows += [{"contender": name, "images": count, **row} for name, row in times.items()]
    results = {"machine": {**machine(), "load": round(os.getloadavg()[0], 1)}, "model": args.model, "rows": rows}
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(text := render(results))
    if args.docs is not None:
        write_into(args.docs, text, BEGIN, END)


def torchvisions(images: list[Tensor]) -> Contenders:
    """Return torchvision's SSDLite320 at its slowest and fastest."""
    contenders: Contenders = {}
    for score_thresh, what in ((0.001, "all candidates"), (0.5, "no candidates")):
        theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, score_thresh=score_thresh).eval()
        contenders[f"torchvision's SSDLite320, {what}"] = call(theirs, [image / 255 for image in images])
    return contenders


def export_all(
    model: ssd_zoo.SSD, names: list[str], folder: Path, typical: list[Tensor]
) -> dict[str, ExportedDetector]:
    files = {}
    for name in names:
        known = FORMATS[name]
        for nms in known.nms:
            numbers = {"": True, " bfloat16": known.bfloat16, " int8": known.int8 and bool(typical)}
            for number in (key for key, has in numbers.items() if has):
                for pixels in ("float32", "uint8"):
                    kind = f"{number}{' of bytes' * (pixels == 'uint8')}"
                    file = folder / f"{nms}{kind.replace(' ', '-')}{known.suffix}"
                    int8, bfloat16 = typical if number == " int8" else None, number == " bfloat16"
                    if not file.exists():
                        export(model, file, format=name, nms=nms, pixels=pixels, int8=int8, bfloat16=bfloat16)
                    files[f"{name}{kind}, NMS {nms}"] = load(file)
    return files


def call(detector: Callable[[list[Tensor]], object], images: list[Tensor]) -> Callable[[], object]:
    return lambda: detector(images)


def alone(detector: ExportedDetector, images: list[Tensor]) -> Callable[[], object]:
    batch, _ = detector.description.resize(images)
    return lambda: detector._run({"images": batch})


def ultralytics(name: str, folder: Path) -> Callable[[list[Tensor]], Callable[[], object]]:
    """Export a network of ultralytics with random weights at 320 × 320 to OpenVINO, to be called by its package."""
    from ultralytics import YOLO

    exported = folder / f"{name}_openvino_model"
    if not exported.exists():
        network = YOLO(f"{name}.yaml")
        Path(network.export(format="openvino", imgsz=320)).rename(exported)
    detector = YOLO(exported, task="detect")

    def run(images: list[Tensor]) -> Callable[[], object]:
        arrays = [image.flip(0).permute(1, 2, 0).contiguous().numpy() for image in images]
        # Its files take one image.
        return lambda: [detector.predict(array, imgsz=320, verbose=False) for array in arrays]

    return run


def render(results: Mapping[str, Any]) -> str:
    """Format the results as text and a table."""
    lines = []
    of_count = {count: {row["contender"]: row for row in results["rows"] if row["images"] == count} for count in (1, 8)}
    for name in of_count[1]:
        cells: list[object] = [name]
        for rows in of_count.values():
            row, least = rows[name], {key: value["least"] for key, value in rows.items()}
            network = least.get(f"{name.partition(',')[0]}, network alone")
            over = "" if network is None else f"{row['least'] / network:.2f}"
            ratio = least[BASE] / row["least"]
            cells += [f"{row['least']:.1f}", f"{row['median']:.1f}", f"{ratio:.2f} ×", over]
        lines.append(cells)
    heads = [f"{count}: {head}" for count in of_count for head in ("least, ms", "median, ms", "speed", "over network")]
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return f"{results['model']}, measured on: {about}.\n\n{table(['images', *heads], lines)}"


if __name__ == "__main__":
    main()

"""Detects objects in images and shows what was found.

Without --model and --weights it finds persons, with the weights that ship with ssd_zoo.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_zoo.data import draw_detections, find_images, read_image
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models._registry import get_model, get_model_weights, list_models, propose

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommand's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or glob patterns")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2", choices=list_models(), metavar="NAME",
                        help="see ssd-zoo list (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="NAME", help="weights of the model (default: its DEFAULT)")
    parser.add_argument("--score-thresh", type=_fraction, default=0.5, help="least score (default: %(default)s)")
    parser.add_argument("--classes", metavar="NAME,NAME", help="show only these classes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    parser.add_argument("--batch-size", type=_positive, default=1, help="images at once (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write annotated pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write results in COCO's format")
    parser.add_argument("--quiet", action="store_true", help="print neither table nor progress")


def run(args: argparse.Namespace) -> int:
    """Detects, prints, draws and writes. The result is 1 if an image could not be read."""
    files = find_images(args.images)
    pictures = None if args.output is None else _picture_files(files, args.output)
    model = _build(args)
    classes = _class_indices(args.classes, model.categories)
    image_ids = _image_ids(files)
    failures: list[str] = []
    results: list[dict[str, Any]] = []
    progress = tqdm(total=len(files), unit="image", disable=args.quiet or len(files) < 2 or not sys.stderr.isatty())
    with progress:
        for batch in _batches(files, args.batch_size, failures, progress):
            detections = _detect(model, [image for _, image in batch], args.device)
            for (file, image), found in zip(batch, detections, strict=True):
                if classes is not None:
                    chosen = torch.isin(found["labels"], classes)
                    found = {key: value[chosen] for key, value in found.items()}
                rows = _results(found, model.categories, image_ids[file], file)
                results += rows
                if not args.quiet:
                    progress.write(_table(file, rows), end="")
                if pictures is not None:
                    pictures[file].parent.mkdir(parents=True, exist_ok=True)
                    draw_detections(image, found, model.categories).save(pictures[file])
            progress.update(len(batch))
    if args.json is not None:
        _write_json(results, args.json)
    for failure in failures:
        print(f"ssd-zoo: {failure}", file=sys.stderr)
    if failures:
        print(f"ssd-zoo: {len(failures)} of {len(files)} images failed", file=sys.stderr)
    return 1 if failures else 0


def _build(args: argparse.Namespace) -> SSD:
    weights = args.weights or get_model_weights(args.model).DEFAULT
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(args.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Device {args.device!r} can't be used: {str(error).splitlines()[0]}") from error
    model = get_model(args.model, weights=weights, score_thresh=args.score_thresh, progress=not args.quiet)
    return model.eval().to(device)


def _class_indices(names: str | None, categories: Sequence[str]) -> Tensor | None:
    if names is None:
        return None
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in categories[1:]:
            raise ValueError(f"The model has no class {name!r}. {propose(name, list(categories[1:]))}")
    return torch.tensor([categories.index(name) for name in wanted])


def _image_ids(files: Sequence[Path]) -> dict[Path, int]:
    """Gives COCO's image ids: the numbers that files are named by, or running ones."""
    by_name = {file: int(file.stem) for file in files if file.stem.isdecimal()}
    if len(set(by_name.values())) == len(files):
        return by_name
    return {file: i for i, file in enumerate(files, start=1)}


def _batches(
    files: Sequence[Path], batch_size: int, failures: list[str], progress: tqdm
) -> Iterator[list[tuple[Path, Tensor]]]:
    batch: list[tuple[Path, Tensor]] = []
    for file in files:
        try:
            batch.append((file, read_image(file)))
        except (ValueError, OSError) as error:
            failures.append(str(error))
            progress.update()
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.inference_mode()
def _detect(model: SSD, images: Sequence[Tensor], device: str) -> list[dict[str, Tensor]]:
    detections = model([image.to(device) for image in images])
    return [{key: value.cpu() for key, value in found.items()} for found in detections]


def _results(
    detections: dict[str, Tensor], categories: Sequence[str], image_id: int, file: Path
) -> list[dict[str, Any]]:
    """Gives one row a detection in COCO's results format, with the names of file and class besides."""
    rows = zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    return [
        {
            "image_id": image_id,
            "file_name": str(file),
            "category_id": label,
            "category": categories[label],
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), label, score in rows
    ]


def _table(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{file}: {len(rows) or 'no'} object{'' if len(rows) == 1 else 's'}"]
    width = max((len(row["category"]) for row in rows), default=0)
    for row in rows:
        x, y, box_width, box_height = (round(value) for value in row["bbox"])
        lines.append(f"  {row['category']:{width}}  {row['score']:.2f}  {box_width} × {box_height} at ({x}, {y})")
    return "\n".join(lines) + "\n"


def _picture_files(files: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Says where each annotated picture goes: as the files lie to each other, in formats that all programs read."""
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    targets = {}
    for file in files:
        target = output / file.absolute().relative_to(root)
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(target.name + ".png")
        targets[file] = target
    overwritten = {file.resolve() for file in files} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ValueError(f"--output {output} would overwrite {min(overwritten)}; choose another folder.")
    return targets


def _write_json(results: Sequence[dict[str, Any]], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(results, indent=1))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value

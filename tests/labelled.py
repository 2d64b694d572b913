"""Small data sets of labelled images, the same in every layout."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CATEGORIES = ["background", "cat", "dog"]


class Thing(NamedTuple):
    label: int
    box: tuple[float, float, float, float]


class Picture(NamedTuple):
    name: str
    size: tuple[int, int]  # height, width
    things: tuple[Thing, ...]


PICTURES = (
    Picture("first", (60, 80), (Thing(1, (8, 6, 40, 30)), Thing(2, (20, 12, 76, 54)))),
    Picture("second", (40, 40), ()),
    Picture("third", (100, 50), (Thing(2, (5, 10, 30, 90)),)),
)


def colourful(number, shape=(64, 64)):
    """Pictures of one bright rectangle each, whose class is its colour: something that can be learned in seconds."""
    random = np.random.default_rng(0)
    pictures = []
    for i in range(number):
        width, height = random.integers(20, 40, 2)
        x, y = random.integers(0, shape[1] - width), random.integers(0, shape[0] - height)
        box = (float(x), float(y), float(x + width), float(y + height))
        pictures.append(Picture(f"p{i:03d}", shape, (Thing(1 + i % 2, box),)))
    return tuple(pictures)


def draw(picture, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*picture.size, 3), 60, np.uint8)
    for thing in picture.things:
        x1, y1, x2, y2 = map(int, thing.box)
        pixels[y1:y2, x1:x2] = (230, 40, 40) if thing.label == 1 else (40, 40, 230)
    Image.fromarray(pixels).save(file)


def make_coco(folder: Path, split="train", pictures=PICTURES, first_id=7) -> Path:
    """Category ids have a gap and another order than the names."""
    ids = {1: 3, 2: 9}
    annotations = []
    for i, picture in enumerate(pictures):
        draw(picture, folder / "images" / f"{picture.name}.png")
        for label, (x1, y1, x2, y2) in picture.things:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": first_id + i,
                    "category_id": ids[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    content = {
        "images": [
            {"id": first_id + i, "file_name": f"{p.name}.png", "height": p.size[0], "width": p.size[1]}
            for i, p in enumerate(pictures)
        ],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    file = folder / f"instances_{split}.json"
    file.write_text(json.dumps(content, indent=1))
    return file


def make_voc(folder: Path, split="train", pictures=PICTURES) -> Path:
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{picture.name}\n" for picture in pictures))
    for picture in pictures:
        draw(picture, folder / "JPEGImages" / f"{picture.name}.png")
        objects = "".join(
            f"<object>\n<name>{CATEGORIES[label]}</name>\n<difficult>{int(label == 2)}</difficult>\n<bndbox>\n"
            + "".join(f"<{k}>{v}</{k}>\n" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
            + "</bndbox>\n</object>\n"
            for label, box in picture.things
        )
        size = f"<size><width>{picture.size[1]}</width><height>{picture.size[0]}</height></size>"
        (folder / "Annotations" / f"{picture.name}.xml").write_text(f"<annotation>\n{size}\n{objects}</annotation>")
    return folder


def make_yolo(folder: Path, split="train", pictures=PICTURES) -> Path:
    for picture in pictures:
        height, width = picture.size
        draw(picture, folder / "images" / split / f"{picture.name}.png")
        lines = [
            f"{label - 1} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in picture.things
        ]
        if lines:
            labels = folder / "labels" / split / f"{picture.name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("".join(lines))
    file = folder / "data.yaml"
    lines = file.read_text().splitlines() if file.exists() else ["names: {0: cat, 1: dog}"]
    file.write_text("\n".join([*lines, f"{split}: images/{split}", ""]))
    return folder

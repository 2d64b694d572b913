"""Benchmark reading and augmentation against torchvision, with and without workers."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timing import alternate
from torch.utils.data import DataLoader
from torchvision.datasets import VOCDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from ssd_zoo.data import DetectionPresetTrain, collate, open_dataset
from ssd_zoo.data.cache import CachedDataset

IMAGES, WIDTH, HEIGHT = 64, 640, 480
PHOTO = Path(__file__).parents[1] / "astronaut.jpg"
MEAN = (123, 117, 104)

_DISTORT = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=MEAN)]
# The augmentation of torchvision's training references, in the same order.
REFERENCE = {
    kind: v2.Compose(
        [
            v2.ToImage(),
            *(_DISTORT if kind == "ssd" else []),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    for kind in ("ssd", "ssdlite")
}


def loading(models: list[str], *, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Time an epoch over a data set in Pascal VOC's layout.

    The images are JPEG files of 640 × 480. Our loader also resizes them; torchvision resizes in the model.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "VOCdevkit", "VOC2012")
        _write_images(folder)
        theirs = VOCDetection(root, year="2012", image_set="train")
        for kind, reference in REFERENCE.items():
            preset = DetectionPresetTrain(kind, size=(300, 300))
            wrapped = wrap_dataset_for_transforms_v2(theirs, target_keys=("boxes", "labels"))
            wrapped.transforms = reference
            ours = open_dataset(folder, "train", transforms=preset)
            cached = CachedDataset(open_dataset(folder, "train"))
            in_memory = _Augmented(cached, preset)
            for workers in (0, 2):
                kinds = {"torchvision": wrapped, "ssd_zoo": ours, "ssd_zoo, cached": in_memory}
                contenders = {name: _epoch(dataset, workers) for name, dataset in kinds.items()}
                times = alternate(contenders, seconds=seconds, at_least=3)
                yield {"augmentation": kind, "workers": workers, "images": IMAGES, "times": times}


class _Augmented:
    def __init__(self, dataset: Any, augment: Callable[..., Any]) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Any:
        return self.augment(*self.dataset[i])


def _epoch(dataset: Any, workers: int) -> Callable[[], object]:
    loader = DataLoader(dataset, batch_size=16, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0)
    return lambda: [len(images) for images, _ in loader]


def _write_images(folder: Path) -> None:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    photo = Image.open(PHOTO).convert("RGB").resize((WIDTH + 8, HEIGHT + 8))
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + 120}</xmax>"
        f"<ymax>{y + 90}</ymax></bndbox><difficult>0</difficult></object>"
        for name, x, y in (("person", 40, 30), ("cat", 200, 60), ("dog", 330, 250), ("bus", 480, 340))
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    for i in range(IMAGES):
        x, y = i % 8, i // 8
        photo.crop((x, y, x + WIDTH, y + HEIGHT)).save(folder / "JPEGImages" / f"{i}.jpg", quality=90)
        text = f"<annotation><filename>{i}.jpg</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{i}.xml").write_text(text)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{i}\n" for i in range(IMAGES)))

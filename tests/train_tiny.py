"""Trains a tiny detector; a program of its own, so that it can be killed, or started as several processes.

    python train_tiny.py OUTPUT OPTIONS_AS_JSON

The data are made beside the output. The weights at the end go to OUTPUT/final.pt.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from labelled import CATEGORIES, colourful, make_coco

import ssd_zoo
from ssd_zoo.data import open_dataset
from ssd_zoo.training import fit
from ssd_zoo.training.processes import process

warnings.simplefilter("error")


def build(size=64, **options):
    torch.manual_seed(0)
    return ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", size=size, categories=CATEGORIES, **options)


def data(folder):
    """Eleven images to train on, an odd number, and five to measure on."""
    if not (folder / "instances_val.json").exists():
        make_coco(folder, "train", colourful(16)[:11])
        make_coco(folder, "val", colourful(16)[11:])
    return open_dataset(folder, "train"), open_dataset(folder, "val")


def clips():
    """Six clips of two frames; one frame in three is not annotated."""
    data = []
    for i, picture in enumerate(colourful(6)):
        clip, [thing] = torch.full((2, 3, 64, 64), 60, dtype=torch.uint8), picture.things
        x1, y1, x2, y2 = map(int, thing.box)
        clip[:, 0 if thing.label == 1 else 2, y1:y2, x1:x2] = 230
        frames = [0] if i % 3 == 0 else [0, 1]
        target = {"boxes": torch.tensor([thing.box] * len(frames)), "labels": torch.tensor([thing.label] * len(frames))}
        target |= {"frame_index": torch.tensor(frames), "labeled_frames": torch.tensor(frames)}
        data.append((clip, {**target, "track_ids": torch.zeros(len(frames), dtype=torch.int64)}))
    return data


def train(output, folder, *, of_clips=False, size=64, **options):
    train, val = (clips(), clips()) if of_clips else data(folder)
    defaults = {"epochs": 3, "batch_size": 4, "optimizer": "sgd", "augmentation": "ssd", "evaluate_every": 1}
    defaults |= {"tensorboard": False, "progress": False, "device": "cpu"}
    return fit(build(size), train, validation=val, output=output, **{**defaults, **options})


def main(output, **options):
    torch.set_num_threads(1)
    backend = options.pop("backend", None)
    if backend is not None:
        torch.distributed.init_process_group(backend)
    result = train(output, output.parent / "data", **options)
    rank, world = process()
    if rank == 0:
        print(f"trained by {world} process{'es' if world > 1 else ''}", flush=True)
        torch.save(result.model.state_dict(), output / "final.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))

"""Fine-tune a detector on blood cells with a plain training loop.

    python examples/finetune.py DATA/bccd --epochs 30

The loop is that of torchvision's detection tutorial. DATA/bccd is https://github.com/Shenggan/BCCD_Dataset (MIT). The
model can be any detector of ssd_zoo or torchvision:

    python examples/finetune.py DATA/bccd --model ssdlite320_mobilenet_v3_large --torchvision

`ssd-zoo train` adds checkpoints, a moving average of weights, reports and several processes.
"""

import argparse
import time

import torch
import torchvision
from torch.utils.data import DataLoader

import ssd_zoo
from ssd_zoo.data import DetectionPresetEval, DetectionPresetTrain, collate, inspect_dataset, open_dataset, usable
from ssd_zoo.training import evaluate, keep_memory


def open_cells(folder, split, transforms):
    dataset = open_dataset(folder, split, transforms=transforms)
    report = inspect_dataset(dataset, read_images=False)
    print(f"{split}: {report}")
    return usable(dataset, report, "drop")


def build(arguments, categories):
    if arguments.torchvision:
        build = torchvision.models.get_model_builder(arguments.model)
        return build(weights=None, weights_backbone=arguments.weights_backbone, num_classes=len(categories))
    weights = None if arguments.weights == "none" else arguments.weights
    backbone = {} if weights else {"weights_backbone": arguments.weights_backbone}
    return ssd_zoo.get_model(arguments.model, weights=weights, categories=categories, **backbone)


def train_one_epoch(model, optimizer, scheduler, loader, device):
    model.train()
    total = 0.0
    for images, targets in loader:
        images = [image.to(device) for image in images]
        targets = [{key: target[key].to(device) for key in ("boxes", "labels")} for target in targets]
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        scheduler.step()
        total += loss.item()
    return total / len(loader)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of BCCD, in Pascal VOC's layout")
    parser.add_argument("--model", default="ssdlite300_mobilenet_v2")
    parser.add_argument("--weights", default="COCO_TF_V1", help="name of weights, or none to start from the backbone's")
    parser.add_argument("--weights-backbone", help="weights of the backbone, such as DEFAULT (default: none)")
    parser.add_argument("--torchvision", action="store_true", help="build torchvision's model of that name")
    parser.add_argument("--augmentation", default="light")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = open_cells(arguments.data, "train", DetectionPresetTrain(arguments.augmentation))
    test = open_cells(arguments.data, "test", DetectionPresetEval())
    loader = DataLoader(train, batch_size=16, shuffle=True, drop_last=True, collate_fn=collate)
    model = build(arguments, train.categories).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=5e-4)
    steps = arguments.epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.learning_rate, total_steps=steps, pct_start=0.1
    )
    for epoch in range(1, arguments.epochs + 1):
        started = time.monotonic()
        with keep_memory():
            loss = train_one_epoch(model, optimizer, scheduler, loader, device)
        print(f"epoch {epoch}/{arguments.epochs}  loss {loss:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    print(evaluate(model, test))


if __name__ == "__main__":
    main()

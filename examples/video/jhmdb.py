"""Compare a 2-D SSDLite with models for clips on actions of J-HMDB-21.

All models start from the packaged COCO detector, with new classes. They are trained on clips of two folds and
evaluated on whole videos of the third; no source video is in two folds. Detections of each model and fold are stored in
the work folder. An interrupted run can be continued, and parts can run in parallel. At the end all stored detections
are evaluated.

python examples/video/jhmdb.py ../shared/data/jhmdb --work jhmdb
python examples/video/jhmdb.py ../shared/data/jhmdb --work trial --steps 2 --videos 6 --folds 0     # does it run?
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

import ssd_zoo
from ssd_zoo.data import AnnotatedVideo, ClipSampler, VideoDataset
from ssd_zoo.training import keep_memory
from ssd_zoo.video import bootstrap_difference, link_tubes, match_frames, match_tubes, mean_ap

METRICS = ("frame-mAP@.5", "video-mAP@.2", "video-mAP@.5")


def open_jhmdb(folder: Path) -> VideoDataset:
    """Open videos in `clips/` with one box per frame, in xyxy, in `annotations.json`."""
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    videos = []
    for name, video in content["videos"].items():
        number = len(video["boxes"])
        target = {
            "boxes": torch.tensor(video["boxes"], dtype=torch.float32),
            "labels": torch.full((number,), video["label"] + 1),
            "frame_index": torch.arange(number),
            "track_ids": torch.zeros(number, dtype=torch.int64),
        }
        target["boxes"][:, 0::2].clamp_(0, 320)
        target["boxes"][:, 1::2].clamp_(0, 240)
        file = folder / "clips" / f"{name}.avi"
        videos.append(AnnotatedVideo(name, file, number, target, (240, 320), meta={"fold": video["fold"]}))
    return VideoDataset(videos, ["background", *content["classes"]], trimmed=True)


def build(variant: str, categories: list[str], size: int) -> ssd_zoo.SSD:
    """Build a model from the packaged weights, with new classes."""
    settings: dict[str, Any] = {"weights": "COCO_TF_V1", "categories": categories, "size": size, "score_thresh": 0.01}
    settings["score_function"] = "softmax"  # Actions are mutually exclusive.
    if variant == "2-D":
        return ssd_zoo.ssdlite300_mobilenet_v2(**settings)
    return ssd_zoo.ssdlite300_mobilenet_v2_3d(temporal=variant, temporal_stages=(3, 4, 5), **settings)


def train(model: ssd_zoo.SSD, dataset: VideoDataset, args: argparse.Namespace, device: torch.device) -> None:
    """Train on clips; a 2-D model sees their frames separately."""
    order: list[int] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.rate, total_steps=args.steps, pct_start=0.1)
    model.train()
    start = time.perf_counter()
    for step in range(args.steps):
        clips, targets = [], []
        for _ in range(args.batch_size):
            order = order or random.sample(range(len(dataset)), len(dataset))
            clip, target = dataset[order.pop()]
            clips.append(clip.to(device))
            targets.append({key: value.to(device) for key, value in target.items()})
        loss = sum(model(clips, targets).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"  step {step}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)


@torch.inference_mode()
def detect(model: ssd_zoo.SSD, dataset: VideoDataset, device: torch.device) -> dict[str, dict[str, Tensor]]:
    """Detect in each video; return detections by video name."""
    model.eval()
    found = {}
    for video, (clip, _) in zip(dataset.videos, dataset, strict=True):
        [of_video] = model([clip.to(device)])
        found[video.name] = {key: value.cpu() for key, value in of_video.items()}
    return found


def run(variant: str, fold: int, dataset: VideoDataset, args: argparse.Namespace) -> None:
    """Train, detect and store the detections, unless already stored."""
    file = args.work / f"{variant}_{fold}_{args.seed}.pt"
    if file.exists():
        return
    print(f"{variant}, fold {fold}", flush=True)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    inside = [video for video in dataset.videos if video.meta["fold"] != fold]
    outside = [video for video in dataset.videos if video.meta["fold"] == fold]
    if args.videos is not None:
        inside, outside = random.sample(inside, args.videos), random.sample(outside, args.videos)
    sampler = ClipSampler(args.frames, strides=(1, 2, 3))
    # No cropping, as the surroundings help to recognise the action. A mirrored action keeps its class.
    augmentation = v2.Compose([v2.ColorJitter(0.3, 0.3, 0.3, 0.05), v2.RandomHorizontalFlip()])
    training = VideoDataset(inside, dataset.categories, sampler=sampler, transforms=augmentation)
    model = build(variant, dataset.categories, args.size).to(device)
    with keep_memory():
        train(model, training, args, device)
    torch.save(detect(model, VideoDataset(outside, dataset.categories), device), file)


def summarise(dataset: VideoDataset, args: argparse.Namespace) -> dict[str, Any]:
    """Compute the metrics of all stored detections.

    They include differences to the 2-D model on the same videos.
    """
    targets = {video.name: video.target for video in dataset.videos}
    matches: dict[str, dict[str, list[Any]]] = {}
    for variant in args.variants:
        files = [args.work / f"{variant}_{fold}_{args.seed}.pt" for fold in args.folds]
        for file in filter(Path.exists, files):
            for name, found in torch.load(file, weights_only=True).items():
                likely = {key: value[found["scores"] > 0.05] for key, value in found.items()}
                tubes = link_tubes(likely)
                matches.setdefault(variant, {})[name] = [
                    match_frames(found, targets[name]),
                    match_tubes(tubes, targets[name], iou_thresh=0.2),
                    match_tubes(tubes, targets[name], iou_thresh=0.5),
                ]
    settings = {key: value for key, value in vars(args).items() if key not in ("data", "work", "output")}
    results: dict[str, Any] = {"setting": "trimmed", "settings": settings}
    for variant, of_videos in matches.items():
        results[variant] = {"videos": len(of_videos)}
        common = sorted(of_videos.keys() & matches.get("2-D", {}).keys())
        for i, metric in enumerate(METRICS):
            results[variant][metric] = round(mean_ap([of_video[i] for of_video in of_videos.values()]), 4)
            if variant != "2-D" and common:
                pair = ([matches[one][name][i] for name in common] for one in ("2-D", variant))
                difference = bootstrap_difference(*pair, samples=args.samples)
                results[variant][f"{metric} less 2-D's, and 95 % interval"] = [round(value, 4) for value in difference]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("jhmdb"))
    parser.add_argument("--variants", nargs="+", default=["2-D", "3d"])
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--frames", type=int, default=6, help="frames per training clip")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1000, help="number of bootstrap samples")
    parser.add_argument("--videos", type=int, help="number of videos for training, and for the test (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "jhmdb.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    dataset = open_jhmdb(args.data)
    for fold in args.folds:
        for variant in args.variants:
            run(variant, fold, dataset, args)
    results = summarise(dataset, args)
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

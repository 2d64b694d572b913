"""Measure how well persons are found in degraded videos of J-HMDB.

Every frame has one labelled person, the actor. Frames are degraded as bad cameras do it, at several strengths. Flicker
is the share of frames without the person, among the frames after the person was found first.

python examples/video/persons.py ../shared/data/jhmdb --fold 2 --models student2d student
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from blanked import Kalman
from degrade import KINDS, degrade
from jhmdb import open_jhmdb
from torch import Tensor
from torchvision.ops import box_iou

import ssd_zoo
from ssd_zoo.data import VideoDataset
from ssd_zoo.video import bootstrap_difference, match_frames, mean_ap, split_frames

SURE = 0.3
MOST_HELD = 10

Detections = dict[str, Tensor]


def open_models(names: Sequence[str]) -> dict[str, ssd_zoo.SSD]:
    """Open the 2-D model that ships, and saved models of all or some of its classes."""
    models = {"2-D": ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")}
    models |= {Path(name).name: ssd_zoo.from_pretrained(name) for name in names}
    for model in models.values():
        model.score_thresh = 0.02
    return {name: model.eval() for name, model in models.items()}


def detect_persons(model: ssd_zoo.SSD, clip: Tensor) -> Detections:
    """Detect the persons in each frame of a clip, as a stream; an image's detector takes each frame alone."""
    with torch.inference_mode():
        [found] = model([clip])
    persons = found["labels"] == model.categories.index("person")
    return {key: value[persons] for key, value in found.items()}


def hold(found: Detections, frames: int, *, kalman: bool) -> Detections:
    """Add boxes where a person was lost: the last box, or a Kalman filter's prediction.

    A person is followed from a sure box to the box in the next frame that overlaps most. For ten frames without such a
    box, its box is added, and its score falls by 10 % a frame.
    """
    followed: list[dict[str, Any]] = []
    result: list[Detections] = []
    for t, frame in enumerate(split_frames(found, frames)):
        boxes, scores = frame["boxes"], frame["scores"].clone()
        free = torch.ones(len(boxes), dtype=torch.bool)
        added = []
        for one in followed:
            place = one["filter"].predict() if kalman else one["filter"].place
            iou = box_iou(place[None], boxes)[0].masked_fill(~free | (scores < SURE), 0) if len(boxes) else free.float()
            if len(boxes) and iou.max() > 0.3:
                k = int(iou.argmax())
                free[k], one["lost"], one["score"] = False, 0, scores[k]
                if kalman:
                    one["filter"].correct(boxes[k])
                else:
                    one["filter"].place = boxes[k]
            else:
                one["lost"], one["score"] = one["lost"] + 1, one["score"] * 0.9
                added.append((place, one["score"]))
        followed = [one for one in followed if one["lost"] < MOST_HELD]
        sure = (free & (scores > SURE)).nonzero().flatten().tolist()
        followed += [{"filter": Kalman(boxes[k]), "lost": 0, "score": scores[k]} for k in sure]
        boxes = torch.cat([boxes, *(place[None] for place, _ in added)])
        scores = torch.cat([scores, *(score[None] for _, score in added)])
        result.append({"boxes": boxes, "scores": scores, "frame_index": torch.full((len(boxes),), t)})
    joined = {key: torch.cat([frame[key] for frame in result]) for key in result[0]}
    return {**joined, "labels": torch.ones(len(joined["scores"]), dtype=torch.int64)}


def flicker(found: Detections, target: Detections) -> tuple[int, int]:
    """Count the frames in which a person is lost, and the frames after it was found first."""
    seen = []
    for t, box in zip(target["frame_index"].tolist(), target["boxes"], strict=True):
        here = (found["frame_index"] == t) & (found["scores"] >= SURE)
        seen.append(bool((box_iou(found["boxes"][here], box[None]) >= 0.5).any()))
    after = seen[seen.index(True) :] if True in seen else []
    return after.count(False), len(after)


def measure(
    model_found: dict[str, list[Detections]], targets: list[Detections], saved: list[str]
) -> dict[str, dict[str, Any]]:
    """Compute AP50, AP75 and flicker of each way of detecting.

    Of saved models AP50 is compared to that of 2-D, of its held boxes, and of the saved models before it.
    """
    matches = {
        name: [match_frames(one, target) for one, target in zip(found, targets, strict=True)]
        for name, found in model_found.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, found in model_found.items():
        strict = [match_frames(one, target, iou_thresh=0.75) for one, target in zip(found, targets, strict=True)]
        lost = [flicker(one, target) for one, target in zip(found, targets, strict=True)]
        row = {"AP50": mean_ap(matches[name]), "AP75": mean_ap(strict)}
        row["flicker"] = sum(one[0] for one in lost) / max(1, sum(one[1] for one in lost))
        rows[name] = {key: round(value, 4) for key, value in row.items()}
        if name in saved:
            for other in ("2-D", "2-D, last held", *saved[: saved.index(name)]):
                difference = bootstrap_difference(matches[other], matches[name])
                rows[name][f"AP50 less {other}'s, and 95 % interval"] = [round(value, 4) for value in difference]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fold", type=int, default=2)
    parser.add_argument("--models", nargs="*", default=[], help="saved models, beside the one that ships")
    parser.add_argument("--kinds", nargs="*", default=["clean", *KINDS])
    parser.add_argument("--strengths", nargs="*", type=float, default=[0.3, 0.7])
    parser.add_argument("--videos", type=int, help="number of videos (default: all of the fold)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "persons.json")
    args = parser.parse_args()
    models = open_models(args.models)
    videos = [video for video in open_jhmdb(args.data).videos if video.meta["fold"] == args.fold][: args.videos]
    dataset = VideoDataset(videos, ["background", "person"])
    targets = [{**video.target, "labels": torch.ones_like(video.target["labels"])} for video in videos]
    results: dict[str, Any] = {}
    for kind in args.kinds:
        for strength in args.strengths if kind != "clean" else [0.0]:
            found: dict[str, list[Detections]] = {}
            for i in range(len(videos)):
                clip, _ = dataset[i]
                if kind != "clean":
                    clip = degrade(clip, kind, strength, torch.Generator().manual_seed(i))
                for name, model in models.items():
                    found.setdefault(name, []).append(detect_persons(model, clip))
                one = found["2-D"][-1]
                for name, kalman in (("2-D, last held", False), ("2-D, Kalman filter", True)):
                    found.setdefault(name, []).append(hold(one, len(clip), kalman=kalman))
            results[f"{kind} {strength:g}"] = measure(found, targets, list(models)[1:])
            print(kind, strength, json.dumps(results[f"{kind} {strength:g}"], indent=1), flush=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

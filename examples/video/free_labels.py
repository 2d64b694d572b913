"""Teach a detector for clips to see through bad frames, without labels.

The teacher is the detector of images, on clean frames. The student, which looks back in time, sees the same frames
degraded, and learns to give the teacher's feature maps, scores and offsets. Clips are videos, or pans and zooms over
photos, as sharp as a video's frames.

python examples/video/free_labels.py ../shared/data/jhmdb --without-fold 2 --output student
python examples/video/free_labels.py ../shared/data/jhmdb --without-fold 2 --output student2d \
    --temporal 2-D --rate 1e-4 --slower 1
python examples/video/persons.py ../shared/data/jhmdb --fold 2 --models student2d student
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from degrade import KINDS, as_jpeg, degrade
from torch import Tensor

import ssd_zoo
from ssd_zoo.data import read_clip, read_image


def list_files(folder: Path, without_fold: int | None) -> list[Path]:
    """List the files of a folder, or the clips of J-HMDB that are not in a fold."""
    if without_fold is None:
        return sorted(file for file in folder.iterdir() if file.is_file())
    videos = json.loads((folder / "annotations.json").read_text())["videos"]
    return [folder / "clips" / f"{name}.avi" for name, video in videos.items() if video["fold"] != without_fold]


def clips_of(files: list[Path], frames: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw clips `(T, 3, H, W)`, uint8, from videos, or from photos by pans and zooms."""
    kept: dict[Path, Tensor] = {}
    while True:
        for file in random.sample(files, len(files)):
            if is_photo(file):
                clip = pan(_photo(file, kept), frames, generator)
                for _ in range(random.randrange(3)):
                    other = random.choice([one for one in files if is_photo(one)])
                    move_over(clip, _photo(other, kept), generator)
                yield as_video(clip, generator)
            else:
                kept.setdefault(file, read_clip(file))
                clip = kept[file]
                first = random.randrange(max(1, len(clip) - frames + 1))
                yield clip[first : first + frames]


def is_photo(file: Path) -> bool:
    return file.suffix.lower() in (".jpg", ".jpeg", ".png")


def _photo(file: Path, kept: dict[Path, Tensor]) -> Tensor:
    return kept.setdefault(file, read_image(file))


def move_over(clip: Tensor, photo: Tensor, generator: torch.Generator) -> None:
    """Move an oval part of a photo over a clip, in a straight line."""
    height, width = clip.shape[-2:]
    side = int(min(height, width) * (0.15 + 0.45 * torch.rand((), generator=generator)))
    part = pan(photo, 1, generator, side)[0]
    grid = torch.linspace(-1, 1, side).square()
    oval = grid[:, None] + grid < 1
    (top, down), (left, right) = (torch.rand(2, 2, generator=generator) * torch.tensor([[height], [width]])).tolist()
    for t, frame in enumerate(clip):
        share = t / max(1, len(clip) - 1)
        y, x = round(top + (down - top) * share) - side // 2, round(left + (right - left) * share) - side // 2
        rows, columns = slice(max(0, y), min(height, y + side)), slice(max(0, x), min(width, x + side))
        inside = oval[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        place = frame[:, rows, columns]
        place[:, inside] = part[:, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x][:, inside]


def pan(photo: Tensor, frames: int, generator: torch.Generator, size: int = 300) -> Tensor:
    """Move a window over a photo, between two random places and sizes."""
    height, width = photo.shape[-2:]
    ends = torch.rand(2, 3, generator=generator)
    # From a picture that stands still to a turn of the camera.
    ends[1] = ends[0] + (ends[1] - ends[0]) * torch.rand((), generator=generator).square()
    windows = []
    for t in range(frames):
        share, x, y = (ends[0] + (ends[1] - ends[0]) * t / max(1, frames - 1)).tolist()
        h, w = (round(side * (0.5 + 0.5 * share)) for side in (height, width))
        top, left = round((height - h) * y), round((width - w) * x)
        window = photo[None, :, top : top + h, left : left + w].float()
        windows.append(F.interpolate(window, (size, size), mode="bilinear", antialias=True)[0])
    return torch.stack(windows).round().clamp(0, 255).byte()


def as_video(clip: Tensor, generator: torch.Generator) -> Tensor:
    """Make photos as soft, and as much compressed, as frames of a video of 150 to 300 lines."""
    soft, quality = torch.rand(2, generator=generator).tolist()
    size = round(clip.shape[-1] * (0.5 + 0.5 * soft))
    small = F.interpolate(clip.float(), (size, size), mode="bilinear", antialias=True)
    frames = F.interpolate(small, clip.shape[-2:], mode="bilinear").round().byte()
    return torch.stack([as_jpeg(frame, round(30 + 65 * quality)) for frame in frames])


def output_distance(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Return the difference of scores and of the objects' offsets, per object that the teacher sees."""
    ours, theirs = (raw["cls_logits"][..., 1:].sigmoid() for raw in (student, teacher))
    seen = theirs.amax(-1)
    seen = torch.where(seen > 0.1, seen, 0)
    count = seen.sum().clamp(min=1)
    pair = student["bbox_regression"], teacher["bbox_regression"]
    offsets = F.smooth_l1_loss(*pair, reduction="none").sum(-1)
    return ((ours - theirs).square().sum() + (seen * offsets).sum() / 4) / count


def distance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Return the squared difference of feature maps, relative to the teacher's square; mean over the maps."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([(ours - theirs).square().mean() / theirs.square().mean() for ours, theirs in pairs]).mean()


def train(student: ssd_zoo.SSD, teacher: ssd_zoo.SSD, args: argparse.Namespace) -> None:
    """Train the student's backbone; the norms keep their statistics, and the head stays the teacher's."""
    generator = torch.Generator().manual_seed(args.seed)
    clips = clips_of(list_files(args.data, args.without_fold), args.frames, generator)
    student.head.requires_grad_(False)
    fast, slow = [], []
    for name, value in student.backbone.named_parameters():
        block = re.match(r"blocks\.(\d+)\.", name)
        if ".temporal." in name:
            fast.append(value)
        elif args.blocks is None or (block and int(block[1]) < args.blocks) or name.startswith("stem"):
            slow.append(value)
        else:
            value.requires_grad_(False)
    groups = [{"params": fast, "lr": args.rate}, {"params": slow, "lr": args.rate * args.slower}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=args.steps, pct_start=0.1)
    student.eval().to(memory_format=torch.channels_last)
    for step in range(args.steps):
        clean = [next(clips) for _ in range(args.batch_size)]
        # Some stay clean, so that clean frames are not forgotten.
        bad = [
            clip if random.random() < args.clean else degrade(clip, random.choice(KINDS), random.random(), generator)
            for clip in clean
        ]
        with torch.no_grad():
            wanted = teacher.backbone(teacher.prepare(clean))
            wanted_raw = teacher.head(wanted)
        batch, lengths = student.prepare(bad), [len(clip) for clip in bad]
        found = student.backbone(batch, lengths) if hasattr(student.backbone, "step") else student.backbone(batch)
        loss = distance(found, wanted) + output_distance(student.head(found), wanted_raw)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            print(f"step {step}: {loss.item():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of videos, or of photos to pan over, or J-HMDB")
    parser.add_argument("--without-fold", type=int, help="fold of J-HMDB to leave out")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--temporal", default="depthwise", help="kind of temporal layer; 2-D for a model of images")
    parser.add_argument("--stages", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--slower", type=float, default=0.1, help="rate of all but the temporal weights")
    parser.add_argument("--blocks", type=int, help="how many of MobileNet's blocks learn beside the temporal weights")
    parser.add_argument("--clean", type=float, default=0.17, help="share of the clips that are not degraded")
    parser.add_argument("--start", type=Path, help="student of an earlier training, which goes on")
    parser.add_argument(
        "--share", type=float, default=1.0, help="how far to go from the weights of images to the learned"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    teacher = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    if args.temporal == "2-D":
        student = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")
    else:
        settings = {"temporal": args.temporal, "temporal_stages": tuple(args.stages)}
        student = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1", **settings)
    images = {name: value.detach().clone() for name, value in student.named_parameters()}
    if args.start:
        student.load_state_dict(ssd_zoo.from_pretrained(args.start).state_dict())
    train(student, teacher, args)
    # Between both, a model keeps what it did well and most of what it learned (Wortsman et al., CVPR 2022, WiSE-FT).
    with torch.no_grad():
        for name, value in student.named_parameters():
            value.copy_(torch.lerp(images[name], value, args.share))
    ssd_zoo.save_pretrained(student.eval(), args.output)


if __name__ == "__main__":
    main()

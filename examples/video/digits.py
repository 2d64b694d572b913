"""Make clips of moving digits, and train small detectors on them.

The digits are scikit-learn's (UCI's handwritten digits, 8 × 8 pixels), upscaled to 16 × 16, on a textured background.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_zoo import SSD, DefaultBoxGenerator
from ssd_zoo.backbones.inflated import VideoBackbone, run_in_time
from ssd_zoo.backbones.temporal import Past
from ssd_zoo.layers.basic import ConvNormAct

SIZE, DIGIT, FRAMES = 64, 16, 8
VARIANTS = ("2-D", "2-D, wide", "3d", "2plus1d", "depthwise", "shift")


def load_digits() -> tuple[Tensor, Tensor]:
    """Load training and test digits, `(n, 16, 16)` between 0 and 1."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
    large = F.interpolate(images, size=(DIGIT, DIGIT), mode="bilinear")[:, 0]
    return large[:1500], large[1500:]


def make_clips(digits: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw clips of one digit that moves from left to right.

    Each clip has a random constant speed.

    Returns:
        Clips `(count, T, 3, 64, 64)`, uint8, and the digit's boxes `(count, T, 4)`.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    ground = F.interpolate(uniform(0, 0.5, count, 3, 16, 16), size=(SIZE, SIZE), mode="bilinear")
    ground += uniform(0, 0.15, count, 3, SIZE, SIZE)
    speed = uniform(1.5, 4, count)
    left = uniform(0, 1, count) * (SIZE - DIGIT - speed * (FRAMES - 1))
    x = (left.unsqueeze(1) + speed.unsqueeze(1) * torch.arange(FRAMES)).round().long()
    y = uniform(0, SIZE - DIGIT, count).round().long().unsqueeze(1).expand_as(x)
    chosen = digits[torch.randint(len(digits), (count,), generator=generator)]
    clips = ground.unsqueeze(1).repeat(1, FRAMES, 1, 1, 1)
    for clip, xs, ys, digit in zip(clips, x.tolist(), y.tolist(), chosen, strict=True):
        for frame, left_, top in zip(clip, xs, ys, strict=True):
            frame[:, top : top + DIGIT, left_ : left_ + DIGIT].clamp_(min=0).lerp_(torch.ones(()), digit)
    boxes = torch.stack([x, y, x + DIGIT, y + DIGIT], dim=-1).float()
    return (clips.clamp(0, 1) * 255).byte(), boxes


class Small(nn.Module):
    """Backbone of five convolutions, with one feature map at stride 8."""

    new_layers = ()

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        rows = [(3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1)]
        rows += [(4 * width, 4 * width, 2), (4 * width, 4 * width, 1)]
        self.layers = nn.ModuleList(ConvNormAct(*channels, 3, stride=stride) for *channels, stride in rows)

    def forward(self, batch: Tensor) -> list[Tensor]:
        for layer in self.layers:
            batch = layer(batch)
        return [batch]


class VideoSmall(VideoBackbone):
    """Backbone for clips; the last four convolutions also see past frames."""

    layers: nn.ModuleList

    def __init__(self, backbone: Small, **settings: Any) -> None:
        stages = [["layers.0.conv"], [f"layers.{i}.conv" for i in range(1, 5)]]
        super().__init__(backbone, stages, temporal_stages=(2,), inflate="identity", frames="all", **settings)

    def maps(self, batch: Tensor, past: Past) -> list[Tensor]:
        for layer in self.layers:
            batch = run_in_time(layer, batch, past)
        return [batch]


def build(variant: str, categories: list[str]) -> SSD:
    """Build a detector; "2-D, wide" has as many parameters as "3d"."""
    backbone: nn.Module = Small(27 if variant == "2-D, wide" else 16)
    model = SSD(
        backbone,
        DefaultBoxGenerator(aspect_ratios=[[]], scales=[0.25, 0.3]),
        (SIZE, SIZE),
        categories,
        image_mean=(0.4, 0.4, 0.4),
        image_std=(0.25, 0.25, 0.25),
        score_thresh=0.02,
        detections_per_img=10,
    )
    if not variant.startswith("2-D"):
        model.backbone = VideoSmall(backbone, temporal=variant)
    return model


def train(model: SSD, batches: Any, *, steps: int, rate: float = 3e-3) -> None:
    """Train a detector on batches of clips and targets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        clips, targets = next(batches)
        loss = sum(model(clips, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def detect(model: SSD, clips: Tensor) -> list[dict[str, Tensor]]:
    """Detect in clips."""
    model.eval()
    return [found for part in clips.split(32) for found in model(part)]

"""Degrade clips as bad cameras do."""

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

KINDS = ("noise", "blur", "compression", "blanks", "bars")


def degrade(clip: Tensor, kind: str, strength: float, generator: torch.Generator) -> Tensor:
    """Degrade a clip.

    Args:
        clip: `(T, 3, H, W)`, uint8.
        kind: `"noise"` of low light; `"blur"` of motion; `"compression"` as JPEG; `"blanks"`, frames that are replaced
            by grey noise; or `"bars"`, three vertical bars that pass over the picture.
        strength: From 0 to 1.
        generator: Source of all that is random.

    Returns:
        A clip of the same shape and type.
    """
    if kind == "noise":
        # Photons of a white pixel: 60 in weak noise, 3 in strong.
        photons = 60 * 0.05**strength
        light = torch.poisson(clip / 255 * photons, generator) / photons
        return (light * 255).clamp(0, 255).byte()
    if kind == "blur":
        return torch.stack([_blur(frame, strength, generator) for frame in clip])
    if kind == "compression":
        quality = round(30 * 0.1**strength)
        return torch.stack([as_jpeg(frame, quality) for frame in clip])
    if kind == "blanks":
        lost = torch.rand(len(clip), generator=generator) < 0.2 + 0.4 * strength
        noise = 128 + 30 * torch.randn(clip.shape, generator=generator)
        return torch.where(lost[:, None, None, None], noise.clamp(0, 255).byte(), clip)
    if kind == "bars":
        return _bars(clip, strength, generator)
    raise ValueError(f"There is no kind {kind!r}; there are {', '.join(KINDS)}.")


def as_jpeg(frame: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_pil_image(frame).save(file, "JPEG", quality=quality)
    return pil_to_tensor(Image.open(file))


def _blur(frame: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blur along a random line, whose length differs from frame to frame."""
    share, turn = torch.rand(2, generator=generator).tolist()
    length, angle = 1 + 30 * strength * share, math.pi * turn
    reach = math.ceil(length / 2)
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    for place in torch.linspace(-length / 2, length / 2, 4 * reach + 1).tolist():
        kernel[round(reach + place * math.sin(angle)), round(reach + place * math.cos(angle))] += 1
    weight = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    padded = F.pad(frame[None].float(), [reach] * 4, mode="replicate")
    return F.conv2d(padded, weight, groups=3)[0].round().clamp(0, 255).byte()


def _bars(clip: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    width = clip.shape[-1]
    bar = round(width * (0.06 + 0.12 * strength))
    start, speed = torch.rand(2, generator=generator).tolist()
    clip = clip.clone()
    for t, frame in enumerate(clip):
        for k in range(3):
            left = round(width * (start + k / 3) + t * width * (0.01 + 0.02 * speed)) % width
            frame[..., left : left + bar] = 30
    return clip

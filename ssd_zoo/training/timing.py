"""Measure how much time and memory a training would take."""

import copy
import os
import sys
import time
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from ssd_zoo.data.annotations import number_of
from ssd_zoo.data.presets import Augmentation, DetectionPresetEval
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.batches import Plan, Sample, SeededSamples, augmentation_for, make_loader, to_device
from ssd_zoo.training.kept_memory import keep_memory
from ssd_zoo.training.optimizers import make_optimizer

__all__ = ["Times", "busy", "time_training"]


class Times(NamedTuple):
    """Measured times and memory.

    Attributes:
        step: Seconds of a step, with reading and augmenting its images.
        image: Seconds of detecting in an image or clip.
        memory: Most bytes that the process, or on a GPU its tensors, held so far; 0 where it can't be read, on Windows.
    """

    step: float
    image: float
    memory: int = 0


def time_training(
    model: SSD,
    dataset: Dataset[Sample],
    *,
    batch_size: int,
    augmentation: Augmentation = "light",
    num_workers: int = 0,
    device: str | None = None,
    steps: int = 3,
    rough: bool = False,
) -> Times:
    """Measure a few training steps' time on a copy of the model.

    The copy trains by AdamW at a rate of 1e-6.

    Args:
        model: The model, which stays as it is.
        dataset: Data set of images or clips.
        batch_size: Images or clips per step.
        augmentation: A kind of `DetectionPresetTrain`.
        num_workers: Number of processes that read and augment images.
        device: Device to train on; by default a GPU if there is one.
        steps: Number of steps that are measured, after one that is not.
        rough: Whether to time a quarter of the batch on a CPU. That takes less time and memory; the step's time then is
            four times what was measured.
    """
    at = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trained = copy.deepcopy(model).to(at).to(memory_format=torch.channels_last).train()
    samples = SeededSamples(dataset, augmentation_for(model, augmentation), seed=0)
    if at.type == "cuda":
        torch.cuda.reset_peak_memory_stats(at)
    # Batch norm needs two images. On a GPU a quarter would take nearly as long.
    timed = min(batch_size, max(2, -(-batch_size // 4))) if rough and at.type == "cpu" else batch_size
    plan = Plan(len(dataset), timed, epochs=1, seed=0, max_steps=steps + 1)  # type: ignore[arg-type]
    optimizer = make_optimizer(trained, "adamw", learning_rate=1e-6, weight_decay=0)
    began = 0.0
    with keep_memory():
        for step, part in enumerate(make_loader(samples, plan, 0, num_workers)):
            images, targets = to_device(part, at)
            loss = sum(trained(images, targets).values(), torch.zeros((), device=at))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # It waits for a GPU.
            began = began if step else time.monotonic()
        per_step = (time.monotonic() - began) / steps * batch_size / timed
        return Times(per_step, _detecting(trained, dataset, at), _peak(at))


def busy() -> str:
    """Return words about a high load, which slows this machine down.

    Empty if the load is low, or can't be measured.
    """
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    return f"; busy: load {load:.0f} on {number_of(cores, 'core')}" if load > 2 * cores else ""


def _detecting(model: SSD, dataset: Dataset[Sample], device: torch.device) -> float:
    """Return the seconds of detecting in an image."""
    convert, number = DetectionPresetEval(), min(4, len(dataset))  # type: ignore[arg-type]
    images = [convert(*dataset[i])[0].to(device) for i in range(number)]
    model.eval()
    began = time.monotonic()
    with torch.inference_mode():
        model(images)[0]["scores"].sum().item()
    return (time.monotonic() - began) / number


def _peak(device: torch.device) -> int:
    """Return the most bytes that the process, or on a GPU its tensors, held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB.

"""Run a detector over labelled data, in one process or several."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssd_zoo.data.presets import PER_OBJECT, without_crowds
from ssd_zoo.detector.frames import holds_clips, join_frames, shown_frames, split_frames
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.tiles import tile_grid
from ssd_zoo.detector.tubes import Tube, link_tubes
from ssd_zoo.training.balance import count_positives, part_weights
from ssd_zoo.training.batches import Place, Sample, SeededSamples, Target
from ssd_zoo.training.metrics.records import Record, make_record
from ssd_zoo.training.processes import all_gather, process

__all__ = ["Results", "Scored", "parts_per_item", "run_detector"]

Detections = dict[str, Tensor]


@dataclass
class Scored:
    """Results of one image or clip.

    Attributes:
        records: One of the image, or one per labeled frame.
        tubes: A clip's tubes in its labeled frames, by the data set's labels; None for an image.
        target: A clip's target, if it has `track_ids`.
    """

    records: list[Record]
    tubes: list[Tube] | None = None
    target: Target | None = None


@dataclass
class Results:
    """Results of a data set.

    Attributes:
        items: One per image or clip.
        losses: `validation_loss` and its parts; empty if they were not asked for.
    """

    items: list[Scored]
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """Records of all images or labeled frames."""
        return [record for item in self.items for record in item.records]


def parts_per_item(model: SSD, dataset: Dataset[Sample]) -> int:
    """Return the number of tiles of a data set's first image; 1 for a model without tiles.

    It stands for those of all images.
    """
    if model.tile is None:
        return 1
    image, _ = SeededSamples(dataset, None, 0)[Place(0, 0, 0)]
    return len(tile_grid((image.shape[-2], image.shape[-1]), model.tile, model.tile_overlap))


@torch.inference_mode()
def run_detector(
    model: nn.Module,
    dataset: Dataset[Sample],
    labels: Tensor | None,
    *,
    batch_size: int,
    num_workers: int,
    progress: bool,
    losses: bool,
) -> Results:
    """Return results of all images or clips, in the data set's order; several processes share the work.

    Args:
        model: The detector.
        dataset: Data set of images or clips, and targets. Where it draws at random, it draws the same each time.
        labels: From `label_map`.
        batch_size: Images, or frames of a clip, at once.
        num_workers: Processes that read.
        progress: Whether to show a progress bar.
        losses: Whether to compute losses too.

    Raises:
        ValueError: If the data set is empty, or has no labeled frame.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError("The data set has no images.")
    rank, world = process()
    share = range(rank, size, world)
    loader: DataLoader[Sample] = DataLoader(
        SeededSamples(dataset, None, 0),
        batch_size=None,
        sampler=[Place(0, item, item) for item in share],
        num_workers=num_workers,
        collate_fn=_unchanged,  # type: ignore[arg-type]  # With no batches it gets items.
        prefetch_factor=2 * batch_size if num_workers else None,
    )
    was_training = model.training
    model.eval()
    items: list[Scored] = []
    parts: list[tuple[int | None, dict[str, float]]] = []
    off = not progress or rank > 0 or not sys.stderr.isatty()
    try:
        with tqdm(total=len(share), desc="evaluating", unit="item", leave=False, disable=off) as bar:
            for batch in _batches(loader, batch_size):
                found, part = _run(model, batch, batch_size, losses)
                parts += part
                for (image, target), one in zip(batch, found, strict=True):
                    items.append(_scored(image, target, one, labels, share[len(items)]))
                bar.update(len(batch))
    finally:
        model.train(was_training)
    # The shares were dealt round robin.
    shares = all_gather((items, parts))
    results = Results([shares[i % world][0][i // world] for i in range(size)])
    if not results.records:
        raise ValueError("The data set has no labeled frame.")
    results.losses = _mean_losses([part for _, parts in shares for part in parts])
    return results


def _unchanged(sample: Sample) -> Sample:
    return sample


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield samples in batches, in their order: up to `size` images, or one clip."""
    batch: list[Sample] = []
    for sample in samples:
        alone = holds_clips([sample[0]])
        if batch and (alone or len(batch) == size):
            yield batch
            batch = []
        if alone:
            yield [sample]
        else:
            batch.append(sample)
    if batch:
        yield batch


def _run(
    model: nn.Module, batch: Sequence[Sample], size: int, losses: bool
) -> tuple[list[Detections], list[tuple[int | None, dict[str, float]]]]:
    """Detect in a batch of images, or in one clip.

    Args:
        model: The detector.
        batch: Images with their targets, or one clip with its target.
        size: Frames of a clip at once.
        losses: Whether to compute the losses too.

    Returns:
        The detections. Then, if losses are asked for and defined, the number of positive default boxes and the losses.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    images = [image for image, _ in batch]
    clips = holds_clips(images)
    if not losses or not isinstance(model, SSD):
        return (_of_clip(model, images[0], size, device) if clips else model(_floats(images, device))), []
    objects = [_objects(target, device) for _, target in batch]
    floats = _floats(images, device)
    positives = count_positives(model, floats, objects)
    # A model that shows only the last frame of a clip detects in all frames of a stream.
    streams = clips and len(shown_frames(model.backbone, [len(images[0])])[0]) < len(images[0])
    if positives is None:
        return _of_clip(model, images[0], size, device), []
    found, part = model(floats, objects, return_losses=True)
    if streams:
        found = _of_clip(model, images[0], size, device)
    return found, [(positives, {name: value.item() for name, value in part.items()})]


def _of_clip(model: nn.Module, clip: Tensor, size: int, device: torch.device) -> list[Detections]:
    """Detect in all frames of a clip, `size` at a time.

    A detector other than an `SSD` gets the frames as images.
    """
    if not isinstance(model, SSD):
        found = [one for part in clip.split(size) for one in model(list(_floats([part], device)[0]))]
        return join_frames(found, [range(len(clip))])
    state, parts = None, []
    for part in clip.split(1 if getattr(model.backbone, "frames", "all") == "last" else size):
        [of_part], state = model.step(_floats([part], device), state)
        parts.append(of_part)
    return [{key: torch.cat([part[key] for part in parts]) for key in parts[0]}]


def _floats(images: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Move images to a device, with floating-point pixels between 0 and 1."""
    plain = [image.as_subclass(Tensor).to(device, non_blocking=True) for image in images]
    return [image.float() / 255 if image.dtype == torch.uint8 else image for image in plain]


def _objects(target: Target, device: torch.device) -> Target:
    """Return a target with only the keys that the model reads, without crowds."""
    chosen = without_crowds(target)
    read = ("boxes", "labels", "frame_index", "labeled_frames")
    return {key: chosen[key].as_subclass(Tensor).to(device) for key in read if key in chosen}


def _scored(image: Tensor, target: Target, found: Detections, labels: Tensor | None, item: int) -> Scored:
    """Combine the detections in an image or clip with its target.

    A clip's tubes are linked only if its target has `track_ids`.

    Raises:
        TypeError: If a clip's target has no `frame_index`.
    """
    image_id = target.get("image_id")
    if not holds_clips([image]):
        return Scored([make_record(target, found, labels, item, image_id=image_id)])
    if "frame_index" not in target:
        raise TypeError(f"The target of clip {item} has no 'frame_index' (G,), the index of each box's frame.")
    length = len(image)
    rows = {key: target[key] for key in ("boxes", *PER_OBJECT) if key in target}
    pairs = list(zip(split_frames(rows, length), split_frames(found, length), strict=True))
    labeled = target["labeled_frames"].tolist() if "labeled_frames" in target else list(range(length))
    records = [
        make_record(pairs[t][0], pairs[t][1], labels, item, image_id=image_id, frame=t) for t in sorted(set(labeled))
    ]
    if "track_ids" not in target:
        return Scored(records)
    known = {key: value.cpu() for key, value in found.items()}
    if labels is not None:
        known["labels"] = labels[known["labels"]]
        known = {key: value[known["labels"] > 0] for key, value in known.items()}
    plain = {key: value.as_subclass(Tensor).cpu() for key, value in rows.items()}
    return Scored(records, _in_frames(link_tubes(known), labeled), plain)


def _in_frames(tubes: Sequence[Tube], labeled: Sequence[int]) -> list[Tube]:
    """Restrict tubes to labeled frames; drop those without any."""
    frames = torch.tensor(labeled, dtype=torch.int64)
    restricted = []
    for tube in tubes:
        here = torch.isin(tube["frame_index"], frames)
        if here.any():
            restricted.append({**tube, **{key: tube[key][here] for key in ("boxes", "scores", "frame_index")}})
    return restricted


def _mean_losses(parts: Sequence[tuple[int | None, dict[str, float]]]) -> dict[str, float]:
    """Average the batches' losses, so that the result does not depend on the batches.

    Args:
        parts: Per batch the number of positive default boxes, and its losses.
    """
    if not parts:
        return {}
    weights = part_weights([count for count, _ in parts], sum(count or 0 for count, _ in parts))
    means = {
        f"validation_{name}": sum(weight * one[name] for weight, (_, one) in zip(weights, parts, strict=True))
        for name in parts[0][1]
    }
    return {"validation_loss": sum(means.values()), **means}

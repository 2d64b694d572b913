"""Records of an evaluation: each image's objects and detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd_zoo.detector.overlap import area_of
from ssd_zoo.weights.categories import list_names, match_classes, object_classes

__all__ = ["Record", "label_map", "make_record"]


@dataclass
class Record:
    """Objects and detections of one image or frame.

    Tensors are on the CPU, and all labels are the data set's.

    Attributes:
        image_id: The data set's id of the image or clip, or its index.
        item: Index of the image or clip in the data set.
        frame: Frame of the clip; None for an image.
        boxes: Objects `(G, 4)`, xyxy in pixels, float64.
        labels: `(G,)`, int64.
        area: `(G,)`, in square pixels.
        iscrowd: `(G,)`, bool.
        difficult: `(G,)`, bool.
        found_boxes: Detections `(n, 4)`, xyxy in pixels, float64.
        found_labels: `(n,)`, int64.
        scores: `(n,)`.
    """

    image_id: int | str
    item: int
    frame: int | None
    boxes: Tensor
    labels: Tensor
    area: Tensor
    iscrowd: Tensor
    difficult: Tensor
    found_boxes: Tensor
    found_labels: Tensor
    scores: Tensor


def make_record(
    target: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    labels: Tensor | None,
    item: int,
    *,
    image_id: object = None,
    frame: int | None = None,
) -> Record:
    """Combine a target and the detections of an image or frame.

    Detections of classes that the data set lacks are left out.

    Args:
        target: `boxes (G, 4)`, xyxy in pixels, and `labels (G,)`; `area`, `iscrowd` and `difficult` where there are
            any.
        found: Detections: `boxes (n, 4)`, xyxy in pixels, `labels (n,)` and `scores (n,)`.
        labels: From `label_map`, or None where the detector's labels are the data set's.
        item: Index of the image or clip.
        image_id: The data set's id of the image or clip, a number, text or tensor; None for its index.
        frame: Frame of the clip; None for an image.
    """
    boxes = target["boxes"].as_subclass(Tensor).double().cpu().reshape(-1, 4)
    none = torch.zeros(len(boxes), dtype=torch.bool)
    found_labels = found["labels"].cpu().long()
    keep = torch.ones_like(found_labels, dtype=torch.bool)
    if labels is not None:
        found_labels = labels[found_labels]
        keep = found_labels > 0
    own_id = image_id.item() if isinstance(image_id, Tensor) else image_id
    return Record(
        image_id=own_id if isinstance(own_id, int | str) else item,
        item=item,
        frame=frame,
        boxes=boxes,
        labels=target["labels"].as_subclass(Tensor).long().cpu(),
        area=(target["area"].double().cpu() if "area" in target else area_of(boxes[:, 2:] - boxes[:, :2])),
        iscrowd=target["iscrowd"].bool().cpu() if "iscrowd" in target else none,
        difficult=target["difficult"].bool().cpu() if "difficult" in target else none,
        found_boxes=found["boxes"].double().cpu()[keep],
        found_labels=found_labels[keep],
        scores=found["scores"].double().cpu()[keep],
    )


def label_map(of_model: Sequence[str], of_data: Sequence[str]) -> Tensor | None:
    """Map a model's labels to the data set's, by `match_classes`.

    Args:
        of_model: The model's categories, background first.
        of_data: The data set's.

    Returns:
        `(C,)`, int64, the data set's label by the model's, 0 for classes that the data set lacks; None where both lists
        are the same but for the background's name.

    Raises:
        ValueError: If they share no class.
    """
    if list(of_model[1:]) == list(of_data[1:]):
        return None
    matched = match_classes(of_model, of_data)
    if not matched:
        raise ValueError(
            f"The model knows none of the data set's classes: it has {list_names(object_classes(of_model), 20)}; the "
            f"data set has {list_names(object_classes(of_data), 20)}."
        )
    return torch.tensor([matched.get(label, 0) for label in range(len(of_model))])

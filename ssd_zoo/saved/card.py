"""The model card: description, use, results and licence of a saved model."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeAlias, TypedDict

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.loading import find_report
from ssd_zoo.weights.categories import object_classes

__all__ = ["Card", "Metrics", "make_card"]

Metrics: TypeAlias = Mapping[str, Mapping[str, float | str]]
"""Per data set its figures, and under `"source"` who measured them."""


class Card(TypedDict):
    """The keywords of `make_card`."""

    licence: str | None
    trained_on: str | None
    metrics: Metrics
    notes: str | None


_TEXT = """\
# {name}

`{builder}` of the Python package ssd_zoo. It finds {objects} in {images}, which it
resizes to {height} × {width} pixels. It has {params:.1f} million parameters and {boxes} default boxes.

## Use

```sh
pip install ssd_zoo
```

```python
import torch
import ssd_zoo

model = ssd_zoo.from_pretrained("{address}", score_thresh=0.5).eval()
image = ssd_zoo.data.read_image("photo.jpg")  # uint8 (3, H, W)
with torch.inference_mode():
    [detections] = model([image])

for box, label, score in zip(detections["boxes"], detections["labels"], detections["scores"]):
    print(model.categories[label], f"{{score:.2f}}", box.tolist())  # xyxy, in the image's pixels
```

For other classes, give `from_pretrained` the names: `categories=["background", …]`. The class
predictors of names that the model does not know start from the mean of all.

## Results

{results}

## Training data

{trained_on}

## Categories

{categories}

## Licence

{licence}
"""


def make_card(
    model: SSD,
    address: str,
    *,
    licence: str | None,
    trained_on: str | None,
    metrics: Metrics,
    notes: str | None,
) -> str:
    """Return the text of a model card, with the Hub's metadata first.

    Args:
        model: The model, made by a registered builder.
        address: Argument of `from_pretrained` that opens the model.
        licence: The weights' licence, by its SPDX name; None for "Not stated".
        trained_on: Name of the training data; None for "Not stated".
        metrics: Per data set its figures, and under `"source"` who measured them.
        notes: Further text of the card, in Markdown.
    """
    # A run's folder names its models "best" and "last".
    parts = [part for part in PurePath(address).parts if part not in ("best", "last")]
    name, builder = parts[-1] if parts else address, (model.recipe or ("a model", {}))[0]
    objects = object_classes(model.categories)
    text = _TEXT.format(
        name=name,
        builder=builder,
        address=address,
        objects=f"objects of the class{'es' if len(objects) > 1 else ''} {', '.join(objects)}"
        if len(objects) < 5
        else f"objects of {len(objects)} classes",
        images="images" if model.tile is None else "tiles of {} × {} pixels of images".format(*model.tile),
        height=model.size[0],
        width=model.size[1],
        params=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        boxes=len(model.default_boxes),
        results=_results(metrics),
        trained_on=trained_on or "Not stated.",
        categories=", ".join(f"{i} {category}" for i, category in enumerate(model.categories) if category != "N/A"),
        licence=f"{licence or 'Not stated'}.{_began_with(model)}",
    )
    return f"---\n{_metadata(name, licence, metrics)}\n---\n\n{text}" + (f"\n## Notes\n\n{notes}\n" if notes else "")


def _began_with(model: SSD) -> str:
    """Return a sentence about the weights that a model began with; empty if nothing is known of them."""
    report = find_report(model)
    if report is None or report.origin is None:
        return ""
    return f" The model began with weights of {report.origin}; their licence: {report.licence or 'not stated'}."


def _metadata(name: str, licence: str | None, metrics: Metrics) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="object-detection",
            task_name="Object detection",
            dataset_type=re.sub("[^a-z0-9]+", "-", data.lower()),
            dataset_name=data,
            metric_type="mean_average_precision",
            metric_name=figure,
            metric_value=value,
        )
        for data, figures in metrics.items()
        for figure, value in figures.items()
        if figure != "source"
    ]
    card = ModelCardData(
        license=None if licence is None else licence.lower(),
        library_name="ssd_zoo",
        pipeline_tag="object-detection",
        tags=["ssd", "object-detection", "pytorch", "torchvision"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml().rstrip()


def _results(metrics: Metrics) -> str:
    if not metrics:
        return "None are known."
    rows = [
        f"| {data} | {figure} | {value} | {figures.get('source', 'not stated')} |"
        for data, figures in metrics.items()
        for figure, value in figures.items()
        if figure != "source"
    ]
    return "\n".join(["| Data | Figure | Value | Source |", "|---|---|---|---|", *rows])

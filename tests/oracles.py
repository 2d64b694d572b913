"""Numbers that the original implementations computed, and how a model is held against them.

The rules are those of the oracles' own README: weights made from their names, one picture, raw outputs of all or of
some default boxes, and the 50 best detections.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from ssd_zoo import SSD, WeightsEnum
from ssd_zoo.weights.converters import LAYOUTS
from ssd_zoo.weights.key_tables import unwrap

Raw = dict[str, Tensor]


def fill(key: str, shape: list[int], dtype: str = "float32") -> np.ndarray:
    """Makes the weights of one tensor from its original name."""
    if "float" not in dtype:
        return np.zeros(shape, dtype=dtype)
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.endswith("running_var"):
        return 0.9 + np.abs(values) * 0.1
    if key.endswith("running_mean"):
        return values * 0.1
    if len(shape) >= 2:
        values = values * (2.0 / int(np.prod(shape[1:]))) ** 0.5
        normalised = key.endswith(("base_net.0.0.weight", "feature_extractor.0.weight"))
        return values / (2 if normalised else 32) if shape[1] == 3 else values
    if key.endswith("weight"):
        if "l2" in key.lower():
            return 10 + values
        return (0.4 if key.endswith(("bn2.weight", "bn3.weight")) else 1) + 0.1 * values
    return values * 0.05


@dataclass(frozen=True)
class Oracle:
    """One original implementation's outputs on weights made by `fill`."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The original's state dict."""
        state = {key: fill(key, *kind) for key, kind in self.facts["state_dict"].items()}
        digest = hashlib.sha256()
        for values in state.values():
            if values.dtype == np.float32:
                digest.update(np.ascontiguousarray(values, dtype="<f4"))
        assert digest.hexdigest() == self.facts["weights_sha256"], "this NumPy makes other weights"
        return {key: torch.from_numpy(values) for key, values in state.items()}

    @property
    def image(self) -> Tensor:
        """The picture, `(3, H, W)`, uint8."""
        return torch.from_numpy(self.arrays["image"]).permute(2, 0, 1)

    @property
    def categories(self) -> list[str]:
        """The original's class names, background first."""
        names = self.facts["labels"]["names"]
        return [names[i] for i in self._columns]

    @property
    def _columns(self) -> list[int]:
        background = self.facts["labels"]["background_index"]
        others = (i for i in range(self.facts["num_classes"]) if i != background)
        return [background, *others]

    def _in_our_order(self, rows: Tensor) -> Tensor:
        """Reorders `(D, ...)` from the original's order of default boxes to map, row, column, shape."""
        if not self.facts["default_boxes"].get("box_order", "").startswith("inside a feature map: box shape"):
            return rows
        maps = zip(rows.split(self._boxes_per_map), self.facts["boxes_per_location"], strict=True)
        return torch.cat([of_map.unflatten(0, (shapes, -1)).transpose(0, 1).flatten(0, 1) for of_map, shapes in maps])

    @property
    def _boxes_per_map(self) -> list[int]:
        cells = (side**2 for side in self.facts["feature_maps"])
        return [n * boxes for n, boxes in zip(cells, self.facts["boxes_per_location"], strict=True)]

    def check_default_boxes(self, model: SSD, *, atol: float = 2e-4) -> None:
        """Compares default boxes, in pixels of the input."""
        height, width = self.facts["input_size"]
        centres, sizes = torch.from_numpy(self.arrays["priors"]).double().split(2, dim=1)
        scale = torch.tensor([width, height, width, height])
        theirs = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1) * scale
        torch.testing.assert_close(model.default_boxes.double(), self._in_our_order(theirs), atol=atol, rtol=0)

    def check_input(self, batch: Tensor, *, atol: float = 1e-4) -> None:
        """Compares the network's input at 64 places."""
        index = torch.from_numpy(self.arrays["input_sample_index"])
        torch.testing.assert_close(
            batch.flatten()[index], torch.from_numpy(self.arrays["input_sample"]), atol=atol, rtol=1e-5
        )

    def check_raw(self, raw: Raw, *, tolerance: float = 1e-4) -> None:
        """Compares raw outputs, box by box where they are stored and by level for all; relative to their spread."""
        theirs = {"cls_logits": "logits", "bbox_regression": "offsets"}
        place = self._in_our_order(torch.arange(self.facts["num_default_boxes"])).argsort()
        for ours, name in theirs.items():
            # Their columns, their order of boxes.
            output = raw[ours][0][place].double()
            if ours == "cls_logits":
                output = output[:, torch.tensor(self._columns).argsort()]
            expected = torch.from_numpy(self.arrays[name][0]).double()
            bound = tolerance * expected.std().item()
            torch.testing.assert_close(
                output[torch.from_numpy(self.arrays["index"])],
                expected,
                atol=bound,
                rtol=0,
                msg=lambda m, n=name: f"{n}: {m}",
            )
            levels = output.split(self._boxes_per_map)
            for statistic, values in (
                ("mean", [level.mean(0) for level in levels]),
                ("std", [level.std(0, correction=0) for level in levels]),
            ):
                stored = torch.from_numpy(self.arrays[f"level_{name}_{statistic}"])
                torch.testing.assert_close(torch.stack(values), stored, atol=bound, rtol=0)

    def check_detections(self, found: dict[str, Tensor], *, atol: float = 0.01, score_atol: float = 1e-5) -> None:
        """Matches the 50 best detections one to one: same label, score and box. Boxes are compared within the image."""
        height, width = self.facts["input_size"]
        boxes = torch.from_numpy(self.arrays["det_boxes"]).float()
        if "relative" in self.facts["detections"]["box_units"]:
            boxes = boxes * torch.tensor([width, height, width, height])
        boxes = clip_boxes_to_image(boxes, (height, width))
        scores = torch.from_numpy(self.arrays["det_scores"]).float()
        labels = torch.tensor([self._columns.index(label) for label in self.arrays["det_labels"].tolist()])
        # What lies beside the image is no detection of ours.
        within = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, scores, labels = boxes[within], scores[within], labels[within]

        assert len(found["scores"]) >= len(scores)
        torch.testing.assert_close(found["scores"][: len(scores)], scores, atol=score_atol, rtol=0)
        free = set(range(min(len(scores) + 5, len(found["scores"]))))
        for box, score, label in zip(boxes, scores, labels, strict=True):
            same = (
                i
                for i in free
                if found["labels"][i] == label
                and (found["scores"][i] - score).abs() <= score_atol
                and (found["boxes"][i] - box).abs().max() <= atol
            )
            match = next(same, None)
            assert match is not None, f"nothing like label {label}, score {score}, box {box.tolist()} was found"
            free.remove(match)


def load_oracle(test_data: Path, name: str) -> Oracle:
    """Reads an oracle of the test data."""
    file = test_data / "oracles" / f"{name}.json"
    with np.load(file.with_suffix(".npz")) as arrays:
        return Oracle(json.loads(file.read_text()), dict(arrays))


def stand_in_for_downloads(patch: pytest.MonkeyPatch, read: Callable[[str], Any]) -> None:
    """Lets weights entries convert what `read` gives for their addresses instead of a download."""

    def get_state_dict(weights: WeightsEnum, progress: bool = True) -> dict[str, Tensor]:
        return LAYOUTS[weights.value.layout].convert(unwrap(read(weights.value.url)))

    patch.setattr(WeightsEnum, "get_state_dict", get_state_dict)

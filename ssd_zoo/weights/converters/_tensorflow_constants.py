"""Default boxes and the coding of offsets, read from the constants of TensorFlow's graphs."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ssd_zoo.detector.boxes import CENTRE_WEIGHT, SIZE_WEIGHT

__all__ = ["Constants", "check_box_coder", "read_box_shapes", "read_default_boxes"]

_DECODE = r"(.*/)?Postprocessor/Decode"


class Constants:
    """Constants of a graph, found by regular expressions of their names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def all(self, pattern: str) -> list[Tensor]:
        """Return the constants with matching names, in the order of their numbers."""
        names = [name for name in self._state if re.fullmatch(pattern, name)]
        return [self._state[name] for name in sorted(names, key=lambda name: (len(name), name))]

    def number(self, pattern: str) -> float | None:
        """Return the first matching constant that is a single number; None without one."""
        return next((tensor.item() for tensor in self.all(pattern) if tensor.numel() == 1), None)

    def vector(self, pattern: str) -> list[float] | None:
        """Return the first matching constant that is a list; None without one."""
        return next((tensor.tolist() for tensor in self.all(pattern) if tensor.ndim == 1), None)

    def boxes(self, pattern: str) -> Tensor | None:
        """Return the first matching constant that is a table `(D, 4)` of fractions; None without one."""
        tables = (tensor.squeeze(0) if tensor.ndim == 3 else tensor for tensor in self.all(pattern))
        return next((table for table in tables if _is_table(table)), None)


def _is_table(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.shape[1] == 4 and tensor.is_floating_point()


def read_box_shapes(constants: Constants) -> list[list[tuple[float, float]]]:
    """Return the shapes of the default boxes for each feature map: (width, height) as fractions of the input.

    The list is empty if the graph holds no scales and aspect ratios.
    """
    generator = r"MultipleGridAnchorGenerator"
    scales, ratios = (
        [tensor.double() for tensor in constants.all(rf"{generator}/{operation}(_\d+)?/x") if tensor.ndim == 1]
        for operation in ("truediv", "Sqrt")
    )
    if not scales or [len(of_map) for of_map in scales] != [len(of_map) for of_map in ratios]:
        return []
    return [
        list(zip((scale * ratio.sqrt()).tolist(), (scale / ratio.sqrt()).tolist(), strict=True))
        for scale, ratio in zip(scales, ratios, strict=True)
    ]


def read_default_boxes(constants: Constants) -> Tensor | None:
    """Return all default boxes, if a graph holds them as constants.

    Returns:
        `(D, 4)`, xyxy as fractions of the input; None if the graph does not hold them.
    """
    corners = constants.boxes(r"(.*/)?Postprocessor/ExpandDims")
    if corners is not None:
        return corners[:, [1, 0, 3, 2]]
    # TensorFlow Lite's operator has (y, x, height, width), TensorFlow 2's graphs each of them alone.
    centres = constants.boxes(r"(.*/)?anchors")
    if centres is None:
        operations = ("add", "add_1", "sub_1", "sub")
        found = [constants.all(f"{_DECODE}/get_center_coordinates_and_sizes/{name}") for name in operations]
        columns = [tensors[0] for tensors in found if tensors and tensors[0].ndim == 1]
        if len({len(column) for column in columns}) != 1 or len(columns) < 4:
            return None
        centres = torch.stack(columns, dim=1)
    y, x, height, width = centres.double().unbind(1)
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1).float()


def check_box_coder(constants: Constants) -> None:
    """Check that a graph decodes offsets as SSD does.

    A graph without such constants passes.

    Raises:
        ValueError: If it divides them by other numbers.
    """
    for first, expected in ((0, CENTRE_WEIGHT), (2, SIZE_WEIGHT)):
        for index in (first, first + 1):
            division = rf"(ConstantFolding/)?{_DECODE}/(true)?div" + (f"_{index}" if index else "")
            factor, divisor = constants.number(f"{division}_recip"), constants.number(f"{division}/y")
            found = divisor if factor is None else 1 / factor if factor else float("inf")
            if found is not None and abs(found - expected) > 0.01 * expected:
                raise ValueError(
                    f"The file divides offsets by {found:g}, but SSD's detectors by {CENTRE_WEIGHT:g} (centres) and "
                    f"{SIZE_WEIGHT:g} (sizes). Multiply the weights and biases of its box predictors accordingly."
                )

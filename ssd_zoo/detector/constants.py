"""Constants of a module, which move with it and keep their values."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import Self

__all__ = ["WithConstants"]


class WithConstants(nn.Module):
    """Module with constant tensors, which follow its device and keep their type.

    When the module moves to the meta device, they stay where they are. They would lose their values there, and no file
    holds them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._constants: list[str] = []

    def register_constant(self, name: str, value: Tensor) -> None:
        """Add a constant tensor under a name, on torch's default device; state dicts leave it out."""
        self._constants.append(name)
        self.register_buffer(name, _moved(value, torch.empty(0).device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        values = {name: getattr(self, name) for name in self._constants}
        super()._apply(fn, recurse)
        for name, value in values.items():
            # .half() changes the type, .to_empty() the values.
            setattr(self, name, _moved(value, getattr(self, name).device))
        return self


def _moved(constant: Tensor, device: torch.device) -> Tensor:
    """Move a constant to a device, unless that is the meta device."""
    return constant if device.type == "meta" else constant.to(device)

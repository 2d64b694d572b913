"""Checks of values that a device has yet to compute."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DeferredChecks"]


class DeferredChecks:
    """Checks values on a GPU when they are there, so that nothing waits for them.

    Values on the CPU are checked at once. Those on a GPU are copied to the CPU in the background, and checked with the
    first `run` of the same thread that finds the copy ready. A copy of this object, or what is unpickled, has nothing
    to check.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type["DeferredChecks"], tuple[()]]:
        return DeferredChecks, ()

    @property
    def _pending(self) -> list[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], None]]]:
        return self._of_thread.__dict__.setdefault("pending", [])

    def add(self, values: Tensor, check: Callable[[Tensor], None]) -> None:
        """Checks values now or later.

        Args:
            values: Any tensor.
            check: Called with it on the CPU; raises an error where it is wrong.
        """
        if not values.is_cuda:
            check(values.cpu())
            return
        copied = values.to("cpu", non_blocking=True)
        with torch.cuda.device(values.device):
            event = torch.cuda.Event()
            event.record()
        self._pending.append((event, copied, check))

    def run(self, *, wait: bool = False) -> None:
        """Checks what is there.

        Args:
            wait: Whether to wait for what is not. If there is an error, it stands for all.
        """
        pending = self._pending
        while pending and (wait or pending[0][0].query()):
            event, copied, check = pending.pop(0)
            event.synchronize()
            try:
                check(copied)
            except ValueError:
                if wait:
                    pending.clear()
                raise

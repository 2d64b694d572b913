"""Deferred checks of values on a GPU."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DeferredChecks"]


class DeferredChecks:
    """Checks that do not wait for values on a GPU.

    Values on the CPU are checked at once. Values on a GPU are copied to the CPU in the background. The first `run` of
    the same thread after the copy is complete checks them. A copied or unpickled object has no pending checks.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type["DeferredChecks"], tuple[()]]:
        return DeferredChecks, ()

    @property
    def _pending(self) -> list[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], None]]]:
        return self._of_thread.__dict__.setdefault("pending", [])

    def add(self, values: Tensor, check: Callable[[Tensor], None]) -> None:
        """Check values now, or later if they are on a GPU.

        Args:
            values: Any tensor.
            check: Called with the tensor on the CPU; raises ValueError if it is invalid.

        Raises:
            ValueError: If values on the CPU are invalid.
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
        """Run the checks whose values have arrived.

        Args:
            wait: Whether to wait for all values. An error then discards the remaining checks.

        Raises:
            ValueError: If a check fails.
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

"""Requests to stop, obeyed at the end of a step."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["StopRequest"]

_Handler = Callable[[int, FrameType | None], object] | int | None


class StopRequest:
    """Context in which SIGINT and SIGTERM are only noted.

    A second signal acts at once. Outside the main thread signals are not caught.

    Attributes:
        signal: The signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # Only the main thread hears signals.
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            self.leave()
        self.signal = signal.Signals(number)

    def leave(self) -> None:
        """End the program as the signal would have.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After SIGTERM, with code 143; also if the signal went to another process of the training.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

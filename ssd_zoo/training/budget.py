"""Fit a training into a number of minutes."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ssd_zoo.training.batches import Plan
from ssd_zoo.training.plan import evaluation_interval

__all__ = ["Budget"]

# The first steps of a process are slow.
_WARMUP, _FIRST_PLAN, _BETWEEN_PLANS = 2, 5, 10
# Part of the time that evaluations may take.
_EVALUATIONS = 0.25
# Seconds to write models and pictures.
_OVERHEAD = 1.0


class Budget:
    """Time that a training may take, and measured times of its parts.

    Args:
        seconds: The time.
        every: Epochs between evaluations; by default they are chosen so that evaluations take at most a quarter.
        spent: What an interrupted run spent before.
        evaluated: Images of an evaluation divided by images of a step; 0 if there is no evaluation.
        clock: Function that returns seconds.
    """

    def __init__(
        self,
        seconds: float,
        *,
        every: int | None = None,
        spent: float = 0.0,
        evaluated: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self.every = every
        self.evaluated = evaluated
        self.clock = clock
        self._started = clock() - spent
        self._pause_in_steps: float | None = None
        self._count = 0
        self._recent: deque[float] = deque(maxlen=20)

    @property
    def elapsed(self) -> float:
        """Seconds since the training began."""
        return self.clock() - self._started

    def took_step(self, seconds: float) -> bool:
        """Record a step's time; return whether to call `plan` again."""
        self._count += 1
        if self._count > _WARMUP:
            self._recent.append(seconds)
        return self._count == _FIRST_PLAN or self._count % _BETWEEN_PLANS == 0

    def took_pause(self, seconds: float) -> None:
        """Record the time of an evaluation, with the files that it writes."""
        self._pause_in_steps = max(0.0, seconds - _OVERHEAD) / self.rate if self._recent else None

    @property
    def rate(self) -> float:
        """Seconds per step, the mean of the last ones; ZeroDivisionError before the third step."""
        return sum(self._recent) / len(self._recent)

    @property
    def pause(self) -> float:
        """Seconds of an evaluation at the speed of the last steps.

        Before the first it is half the time that training takes for its images.
        """
        in_steps = self.evaluated / 2 if self._pause_in_steps is None else self._pause_in_steps
        return self.rate * in_steps + _OVERHEAD

    @property
    def evaluations(self) -> int:
        """Number of evaluations that the time allows, one to five."""
        return max(1, min(5, int(_EVALUATIONS * self.seconds / self.pause)))

    def plan(self, plan: Plan, done: int) -> tuple[Plan, int]:
        """Return the plan that fits the time, and its evaluation interval.

        Args:
            plan: The plan so far.
            done: Number of steps done.

        Returns:
            The plan, of at least one step, and the epochs between evaluations.
        """
        per_epoch, left = plan.steps_per_epoch, self.seconds - self.elapsed
        if self.every is None:
            guess = done + self._fit(left - self.pause * self.evaluations)
            self.every = evaluation_interval(math.ceil(guess / per_epoch), self.evaluations)
        before = done // per_epoch // self.every
        steps = done + self._fit(left - self.pause)
        # Fewer steps may need fewer evaluations, which leave time for more steps.
        for _ in range(5):
            pauses = math.ceil(steps / per_epoch / self.every) - before
            steps = done + self._fit(left - self.pause * pauses)
        steps = max(1, steps)
        return replace(plan, epochs=math.ceil(steps / per_epoch), max_steps=steps), self.every

    def _fit(self, seconds: float) -> int:
        """Return the number of steps that fit into seconds."""
        return max(0, math.floor(seconds / max(self.rate, 1e-9)))

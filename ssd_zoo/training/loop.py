"""The training loop: steps, epochs, and their results."""

import contextlib
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssd_zoo.detector.frames import holds_clips
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.balance import count_positives, part_weights
from ssd_zoo.training.batches import (
    Part,
    Plan,
    SeededSamples,
    derive_seed,
    make_loader,
    to_device,
    without_objects,
)
from ssd_zoo.training.budget import Budget
from ssd_zoo.training.evaluate import Evaluation, evaluate
from ssd_zoo.training.logs import Row, TensorBoard, describe_row
from ssd_zoo.training.optimizers import freeze_norms
from ssd_zoo.training.plan import LEAST_STEPS
from ssd_zoo.training.run_files import RunFiles
from ssd_zoo.training.run_state import write_checkpoint
from ssd_zoo.training.stop import StopRequest

if TYPE_CHECKING:
    from accelerate import Accelerator
    from timm.scheduler.scheduler import Scheduler
    from timm.utils.model_ema import ModelEmaV3

__all__ = ["Progress", "Trainer"]

# Seconds between lines about the progress of an epoch, where there is no terminal for a bar.
REPORT_SECONDS = 30.0


@dataclass
class Progress:
    """Progress of a training, which checkpoints keep.

    Attributes:
        step: Number of steps done.
        history: One row per finished epoch.
        best: Best AP so far; -1 before the first.
        sums: Sums of the losses over the epoch's steps.
        seconds: Time spent on the epoch's steps.
        elapsed: Time spent on the training, where it has a budget.
        planned: Number of steps that fit into the budget; 0 before it is known.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    best: float = -1.0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    elapsed: float = 0.0
    planned: int = 0


@dataclass
class Trainer:
    """All parts of a training; `fit` puts them together."""

    accelerator: "Accelerator"
    model: SSD
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    make_schedule: "Callable[[int], Scheduler]"
    ema: "ModelEmaV3 | None"
    plan: Plan
    samples: SeededSamples
    files: RunFiles
    settings: dict[str, object]
    progress: Progress
    tensorboard: TensorBoard | None
    freeze_norms: bool
    clip_norm: float | None
    num_workers: int
    evaluate_every: int
    patience: int
    budget: Budget | None
    checkpoint_seconds: float
    show: bool
    reported: float = field(default_factory=time.monotonic)
    best: Evaluation | None = None

    def __post_init__(self) -> None:
        self.schedule = self.make_schedule(self.plan.steps)
        self.announced = self.progress.planned

    def run(self) -> None:
        """Train from the progress so far to the end."""
        loader = make_loader(
            self.samples,
            # With a budget the number of steps changes on the way.
            self.plan if self.budget is None else replace(self.plan, max_steps=sys.maxsize),
            self.progress.step,
            self.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        parts = iter(loader)
        if self.progress.step == 0 and self.accelerator.is_main_process:
            self.files.begin(self.model)
        written = time.monotonic()
        events = contextlib.closing(self.tensorboard) if self.tensorboard else contextlib.nullcontext()
        with StopRequest() as stop, self._bar() as bar, events:
            if self.progress.step == 0:
                # With this checkpoint a run that is killed during its first save of models can begin again.
                self._checkpoint()
            while self._finish_epoch() and not self._ended():
                started = time.monotonic()
                batch: list[Part] = list(islice(parts, self.plan.accumulate))
                stops, due = self._step(batch, stop, time.monotonic() - written > self.checkpoint_seconds)
                self.progress.seconds += time.monotonic() - started
                if self.budget is not None and self.budget.took_step(time.monotonic() - started):
                    self._plan_again(self.budget)
                self._show(bar)
                self._report()
                if stops or due:
                    self._checkpoint()
                    written = time.monotonic()
                if stops:
                    self._say(f"Stopped at step {self.progress.step}; --resume goes on from there.")
                    stop.leave()
        self._write_report()

    def _step(self, batch: Sequence[Part], stop: StopRequest, due: bool) -> tuple[bool, bool]:
        """Train on one batch; return, as all processes agreed, whether to stop and whether a checkpoint is due."""
        step, device = self.progress.step, self.accelerator.device
        torch.manual_seed(derive_seed(self.plan.seed, step, self.plan.rank, 1))
        self.wrapped.train()
        freeze_norms(self.model, whole=self.freeze_norms)
        moved = [to_device(part, device) for part in batch]
        weights, stops, due = self._agree(moved, stop.signal is not None, due)
        self.schedule.step_update(step)
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        for k, (part, weight) in enumerate(zip(moved, weights, strict=True)):
            last = k == len(moved) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.wrapped(*(part if weight else without_objects(part)))
                # Gradients of processes are averaged, but those of the parts of a batch have to be added.
                self.accelerator.backward(sum(losses.values()) * (weight * self.plan.world))
            for name, value in losses.items():
                sums[name] += value.detach().float() * weight
        reduced = self._reduce(sums)
        if not all(map(math.isfinite, reduced.values())):
            self._fail(reduced)
        if self.clip_norm is not None:
            norm = float(self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip_norm))
            # fp16's scaler leaves out steps with such gradients by itself.
            if self.accelerator.scaler is None and not math.isfinite(norm):
                self._fail({**reduced, "the norm of the gradients": norm}, "A gradient is")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.progress.step)
        for name, value in reduced.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        if self.tensorboard is not None and step % 10 == 0:
            rate = self.optimizer.param_groups[-1]["lr"]
            self.tensorboard.write(step, {**{f"train/{name}": v for name, v in reduced.items()}, "learning_rate": rate})
        return stops, due

    def _agree(self, batch: Sequence[Part], stop: bool, due: bool) -> tuple[list[float], bool, bool]:
        """Exchange with the other processes what they must agree on in a step.

        Returns:
            The weights of this process's parts of the batch, 0 for clips without a labeled frame. Then whether any
            process was told to stop, and whether the first has a checkpoint due.
        """
        if self.plan.world == 1 and len(batch) == 1 and not holds_clips(batch[0][0]):
            return [1.0], stop, due
        positives = [count_positives(self.model, *part) for part in batch]
        values = [sum(count or 0 for count in positives), stop, due and self.plan.rank == 0]
        notes = torch.tensor(values, device=self.accelerator.device)
        total, stops, dues = self.accelerator.reduce(notes, "sum").tolist()
        return part_weights(positives, total), stops > 0, dues > 0

    def _reduce(self, sums: dict[str, Tensor]) -> dict[str, float]:
        stacked = torch.stack([*sums.values(), sum(sums.values())])  # type: ignore[list-item]
        values = self.accelerator.reduce(stacked, "sum").tolist()
        return dict(zip([*sums, "loss"], values, strict=True))

    def _fail(self, figures: dict[str, float], what: str = "The loss is") -> None:
        step, told = self.progress.step, ", ".join(f"{name} is {value}" for name, value in figures.items())
        names = ", ".join(self.samples.name(place.item) for place in self.plan.batch(step))
        raise FloatingPointError(
            f"{what} not finite at step {step} (epoch {step // self.plan.steps_per_epoch + 1}): {told}. "
            f"The batch was {names}. "
            "A smaller learning rate, a longer warm-up or clip_norm may help; the last checkpoint is from before."
        )

    def _finish_epoch(self) -> bool:
        """Record the end of an epoch; evaluate and save if that is due.

        Within an epoch, and where the end was recorded before, it does nothing.

        Returns:
            True, so that the loop's condition may call it before it compares steps.
        """
        ends = self.progress.step >= self.plan.steps
        steps = self.progress.step % self.plan.steps_per_epoch or self.plan.steps_per_epoch
        epoch = math.ceil(self.progress.step / self.plan.steps_per_epoch)
        if (steps < self.plan.steps_per_epoch and not ends) or epoch <= len(self.progress.history):
            return True
        started = time.monotonic()
        row: Row = {"epoch": epoch, "step": self.progress.step}
        row |= {name: value / steps for name, value in self.progress.sums.items()}
        row["learning_rate"] = self.optimizer.param_groups[-1]["lr"]
        row["seconds"] = self.progress.seconds
        row["images_per_second"] = steps * self.plan.batch_size / max(self.progress.seconds, 1e-9)
        evaluation = None
        pause = epoch % self.evaluate_every == 0 or ends
        if self.files.validation is not None and pause:
            evaluation = evaluate(
                self.final,
                self.files.validation,
                categories=self.model.categories,
                num_workers=self.num_workers,
                progress=self.show,
                losses=self.model.tile is None,
            )
            figures = {**evaluation.metrics, **evaluation.losses}
            row |= {name: value for name, value in figures.items() if not math.isnan(value)}
        self.progress.history.append(row)
        # Without objects, or if nothing was found so far, the epochs are alike, and the latest counts.
        better = evaluation is not None and (row.get("AP", math.inf) > self.progress.best or self.progress.best == 0)
        self.best = evaluation if better else self.best
        self.progress.best = max(self.progress.best, row.get("AP", -1.0))
        self.progress.sums, self.progress.seconds = {}, 0.0
        if pause:
            if self.accelerator.is_main_process:
                self._save(evaluation, better)
            self._checkpoint()
            if self.budget is not None:
                self.budget.took_pause(time.monotonic() - started)
        self._say(describe_row(row, self.plan.epochs))
        return True

    def _ended(self) -> bool:
        """Return whether all steps are done, or AP has stopped improving."""
        if self.progress.step >= self.plan.steps:
            if self.progress.step < self.announced:
                self._say(f"Ended after {self.progress.step} of {self.announced} steps: the time was over.")
            return True
        measured = [row["AP"] for row in self.progress.history if "AP" in row]
        since_best = len(measured) - 1 - measured.index(max(measured)) if measured else 0
        # A model that has found nothing so far may still be at its beginning.
        if not self.patience or since_best < self.patience or not any(measured):
            return False
        self._say(
            f"AP has not improved in the last {since_best} evaluations, so the training ends; --patience 0 trains on."
        )
        return True

    def _plan_again(self, budget: Budget) -> None:
        """Choose the number of steps that fit into the budget; the first process decides."""
        plan, every = budget.plan(self.plan, self.progress.step)
        mine = torch.tensor([plan.steps, every], device=self.accelerator.device) * (self.plan.rank == 0)
        steps, self.evaluate_every = self.accelerator.reduce(mine, "sum").tolist()
        if not self.progress.planned:
            self.announced = steps
            few = f"; that is few, {LEAST_STEPS} are the least without a limit" if steps < LEAST_STEPS else ""
            self._say(f"{steps} steps of {budget.rate:.2f} s fit into {budget.seconds / 60:.3g} minutes{few}.")
        self.plan = replace(self.plan, epochs=math.ceil(steps / plan.steps_per_epoch), max_steps=steps)
        self.progress.planned = steps
        self.schedule = self.make_schedule(steps)

    @property
    def final(self) -> SSD:
        """Model that is evaluated and saved: the average of weights, if any."""
        return self.model if self.ema is None else self.ema.module

    def _save(self, evaluation: Evaluation | None, better: bool) -> None:
        history = self.progress.history
        self.files.save(self.final, history, evaluation, better=better)
        if self.tensorboard is not None:
            numbers = {f"epoch/{name}": value for name, value in history[-1].items() if name not in ("epoch", "step")}
            self.tensorboard.write(self.progress.step, numbers)

    def _write_report(self) -> None:
        """Write the report; a resumed run first measures its best model again, in all processes."""
        validation, device = self.files.validation, self.accelerator.device
        if validation is not None and self.best is None:
            model = self.files.best(device)
            self.best = evaluate(model, validation, categories=self.model.categories, num_workers=self.num_workers)
        if self.accelerator.is_main_process:
            self.files.report(self.progress.history, self.best, device)
        self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> None:
        if self.budget is not None:
            self.progress.elapsed = self.budget.elapsed
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "settings": self.settings,
                "progress": vars(self.progress),
                "model": self.model.state_dict(),
                "ema": None if self.ema is None else self.ema.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            write_checkpoint(state, self.files.folder / "checkpoint.pt")
        self.accelerator.wait_for_everyone()

    def _bar(self) -> tqdm:
        off = not self.show or not self.accelerator.is_main_process or not sys.stderr.isatty()
        return tqdm(total=self.plan.steps, initial=self.progress.step, unit="step", disable=off)

    def _show(self, bar: tqdm) -> None:
        done = self.progress.step % self.plan.steps_per_epoch or self.plan.steps_per_epoch
        losses = {name: f"{value / done:.3f}" for name, value in self.progress.sums.items()}
        rate = done * self.plan.batch_size / max(self.progress.seconds, 1e-9)
        epoch = -(-self.progress.step // self.plan.steps_per_epoch)
        bar.set_description(f"epoch {epoch}/{self.plan.epochs}", refresh=False)
        bar.set_postfix({**losses, "images/s": f"{rate:.1f}"}, refresh=False)
        bar.update(self.progress.step - bar.n)

    def _report(self) -> None:
        """Print the progress within an epoch now and then, if there is no terminal for a bar."""
        done = self.progress.step % self.plan.steps_per_epoch
        now = time.monotonic()
        if sys.stderr.isatty() or not done or now - self.reported < REPORT_SECONDS:
            return
        self.reported = now
        epoch, rate = self.progress.step // self.plan.steps_per_epoch + 1, self.progress.seconds / done
        left = (self.plan.steps_per_epoch - done) * rate
        self._say(
            f"epoch {epoch}/{self.plan.epochs}  step {done}/{self.plan.steps_per_epoch}  "
            f"loss {self.progress.sums['loss'] / done:.3f}  {self.plan.batch_size / rate:.1f} images/s  "
            f"{left:.0f} s left of the epoch"
        )

    def _say(self, text: str) -> None:
        if self.show and self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

"""State of a run: checkpoint, settings, and lock of the folder."""

import io
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ssd_zoo.detector.ssd import SSD
from ssd_zoo.training.batches import Plan
from ssd_zoo.training.processes import all_gather
from ssd_zoo.weights.files import locked, write_file
from ssd_zoo.weights.formats.checkpoint import read_pickle
from ssd_zoo.weights.formats.zip_archive import check_sums
from ssd_zoo.weights.saved_models import open_saved

if TYPE_CHECKING:
    from accelerate import Accelerator
    from timm.utils.model_ema import ModelEmaV3

__all__ = [
    "State",
    "check_run",
    "check_same",
    "check_shared",
    "lock_folder",
    "read_run_state",
    "read_run",
    "settle_plan",
    "write_checkpoint",
]

State = dict[str, Any]


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder within a with-statement.

    Raises:
        ValueError: If another training holds it.
        OSError: If the folder can't be written to.
    """
    with locked(folder / ".lock", f"Another training writes to {folder} now"):
        yield


def write_checkpoint(state: State, file: Path) -> None:
    """Write a checkpoint atomically; until it is whole, the one before stays.

    Raises:
        OSError: If it can't be written, for example on a full disk. The last good one stays.
    """
    # Through memory, because PyTorch's own writer hides what went wrong with the disk.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_file(file, buffer.getvalue())
    except OSError as error:
        kept = "The last good one stays there." if file.exists() else "There is none from before."
        raise OSError(error.errno, f"The checkpoint {file} can't be written: {error.strerror}. {kept}") from error


def read_run_state(file: Path) -> State:
    """Read a run's checkpoint onto the CPU: `settings`, `progress`, `model`, `optimizer` and more by name.

    Checksums are checked, and no code in the file runs.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file is not a checkpoint of a training by ssd_zoo, or is damaged.
    """
    try:
        state = read_pickle(file)
    except ValueError as error:
        raise ValueError(f"{file} is not a checkpoint of a training by ssd_zoo, or is damaged.") from error
    if not isinstance(state, dict) or not {"settings", "progress", "model", "optimizer"} <= state.keys():
        raise ValueError(f"{file} is not a checkpoint of a training by ssd_zoo.")
    check_sums(file)
    return state


def check_run(output: Path) -> None:
    """Check that a folder has all that its run needs to continue.

    Args:
        output: The run's folder.

    Raises:
        ValueError: If its checkpoint or its best model is missing or damaged.
    """
    other = "Use another folder."
    if (output / "last").is_dir():
        other = f"To train on, begin another run from its weights: --model {output / 'last'} --output OTHER."
    file = output / "checkpoint.pt"
    if not file.exists():
        raise ValueError(f"{output} holds a run without its {file.name}, so it can't be continued. {other}")
    try:
        state = read_run_state(file)
        if any("AP" in row for row in state["progress"]["history"]):
            open_saved(output / "best")
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"The run in {output} can't be continued: {error} {other}") from error


def read_run(output: Path, settings: dict[str, object], *, chosen: Collection[str], show: bool) -> State | None:
    """Read a run's checkpoint, and check that the run may continue.

    If there is one, what interrupted writing left (`.*.part`) is deleted, so no process may be writing there.

    Args:
        output: The run's folder.
        settings: Settings of this call. Those in `chosen` are overwritten, in place, by the run's.
        chosen: Names of the settings that the caller did not give.
        show: Whether to tell on stderr how the run continues.

    Returns:
        The checkpoint's content; None if there is no checkpoint.

    Raises:
        ValueError: If the checkpoint can't be read, or a setting differs from the run's; only epochs may grow.
    """
    file = output / "checkpoint.pt"
    if not file.exists():
        return None
    for unfinished in output.glob(".*.part"):
        unfinished.unlink(missing_ok=True)
    state = read_run_state(file)
    before = state["settings"]
    if before.get("flip") is None:  # Runs of older versions, which say nothing of flips, flip.
        before["flip"] = True
    settings.update({name: before.get(name) for name in chosen})
    check_same(before, settings, output)
    began, epochs = before["epochs"], settings["epochs"]
    if show and epochs != began:
        print(
            f"The run began with {began} epochs and continues to {epochs}; the learning rate "
            "follows the longer schedule from here on.",
            file=sys.stderr,
        )
    elif show and len(state["progress"]["history"]) == epochs:
        print(f"All {epochs} epochs are done. More epochs (--epochs N) continue the run.", file=sys.stderr)
    elif show and 0 < state["progress"].get("planned", 0) <= state["progress"]["step"]:
        progress = state["progress"]
        print(
            f"The run's {progress['elapsed'] / 60:.3g} minutes are over, {progress['step']} steps. To train on, begin "
            f"another run from its weights: --model {output / 'last'} --output OTHER.",
            file=sys.stderr,
        )
    return state


def check_same(before: Mapping[str, object], now: Mapping[str, object], run: Path) -> None:
    """Check that a resumed run has the settings that it began with.

    The number of epochs may grow. Settings that a checkpoint of an older version lacks are not compared.

    Args:
        before: Settings of the checkpoint.
        now: Settings of this call.
        run: The run's folder.

    Raises:
        ValueError: If a setting differs. The message names it and the way on.
    """
    # Runs of older versions say less.
    known = now if "training data" in before else now.keys() & before.keys()
    for name, value in now.items():
        first = before.get(name)
        if name not in known:
            continue
        if name == "epochs" and isinstance(first, int) and isinstance(value, int) and value >= first:
            continue
        if name == "epochs" and (first is None) != (value is None):
            raise ValueError(_other_length(first))
        if first != value:
            fewer = " Only more epochs are possible." if name == "epochs" else ""
            last = run / "last"
            other = (
                f"Use the same setting. Or begin another run from its weights, in another folder: ssd-zoo train DATA "
                f"--model {last} --output OTHER, or fit(from_pretrained({str(last)!r}), …)."
            )
            raise ValueError(
                f"The run in {run} began with {name}={_short(first)}, so it can't go on with {_short(value)}.{fewer} "
                f"{other if last.is_dir() else 'Use the same setting, or another folder.'}"
            )


def check_shared(step: int, output: Path) -> None:
    """Check that all processes found the same checkpoint.

    Args:
        step: The step of this process's checkpoint.
        output: The run's folder.

    Raises:
        ValueError: If they did not.
    """
    steps = all_gather(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"Processes found different checkpoints in {output} (steps {', '.join(map(str, steps))}): "
            "machines that train together have to share this folder."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def settle_plan(plan: Plan, settings: Mapping[str, object], planned: int, minutes: float | None) -> Plan:
    """Return a run's plan, with the batch size and length that it began with.

    Args:
        plan: The plan of this call.
        settings: Settings of the run.
        planned: Number of steps that the run's budget was found to allow; 0 if it is not known yet.
        minutes: The budget, if there is one.

    Raises:
        ValueError: If the run began with epochs and this call has a budget, or the other way round.
    """
    epochs, batch_size = settings["epochs"], cast(int, settings["batch_size"])
    if (epochs is None) != (minutes is not None):
        raise ValueError(_other_length(epochs))
    plan = replace(plan, batch_size=batch_size)
    if epochs is not None:
        return replace(plan, epochs=cast(int, epochs))
    # Until steps are timed, the length is what it would be without a limit; the warm-up begins by it.
    passes = math.ceil(planned / plan.steps_per_epoch) or plan.epochs
    return replace(plan, epochs=passes, max_steps=planned or None)


def load_states(
    state: State | None,
    model: SSD,
    optimizer: torch.optim.Optimizer,
    ema: "ModelEmaV3 | None",
    accelerator: "Accelerator",
) -> None:
    """Load a checkpoint's tensors into the parts of a training.

    A state of None loads nothing.
    """
    if state is None:
        return
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if ema is not None:
        ema.module.load_state_dict(state["ema"])
    if accelerator.scaler is not None and state["scaler"] is not None:
        accelerator.scaler.load_state_dict(state["scaler"])


def _other_length(epochs: object) -> str:
    """Return the message about a run that began with epochs and continues with minutes, or the other way round."""
    began = "minutes=…" if epochs is None else f"epochs={epochs}"
    return (
        f"The run began with {began}. Continue it with the same keyword (--minutes, --epochs), or use another folder."
    )

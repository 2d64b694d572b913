"""Fine-tuning by one call."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Dataset

from ssd_zoo.data.presets import Augmentation, DetectionPresetTrain
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.layers.folded import folded_norms
from ssd_zoo.training.batches import Plan, SeededSamples
from ssd_zoo.training.logs import TensorBoard
from ssd_zoo.training.loop import Progress, Trainer
from ssd_zoo.training.memory import keep_memory
from ssd_zoo.training.optimizers import (
    OptimizerName,
    ScheduleName,
    make_ema,
    make_optimizer,
    make_schedule,
    synchronise_norms,
)
from ssd_zoo.training.processes import all_gather, process
from ssd_zoo.training.run_state import check_same, read_checkpoint
from ssd_zoo.weights.config import describe

__all__ = ["BatchNormMode", "FitResult", "MixedPrecision", "fit"]

BatchNormMode = Literal["train", "frozen", "sync"]
MixedPrecision = Literal["no", "fp16", "bf16"]

# Arguments that change neither the steps of a training nor their result, so that a run may go on with others.
_OF_THE_CALL = {
    *("model", "dataset", "validation", "output", "resume", "device", "mixed_precision", "num_workers", "accumulate"),
    *("evaluate_every", "checkpoint_seconds", "tensorboard", "progress", "licence", "trained_on"),
}
_LEARNING_RATES = {"sgd": 0.01, "adamw": 0.001}


@dataclass
class FitResult:
    """Result of a training.

    Attributes:
        model: The model at its end; the average of weights, where there is one.
        history: One row an epoch: losses, AP, learning rate, images a second.
        best: The best AP on the validation data; -1 without any.
        output: The run's folder; `best` and `last` in it are what `from_pretrained` takes.
    """

    model: SSD
    history: list[dict[str, Any]]
    best: float
    output: Path


@contextmanager
def _own_settings() -> Iterator[None]:
    """Reset accelerate's settings afterwards, because the next training may have others."""
    try:
        from accelerate.state import AcceleratorState, is_initialized
    except ImportError as error:
        raise ImportError('Training needs accelerate: pip install "ssd_zoo[train]".') from error
    callers = is_initialized()
    try:
        yield
    finally:
        if not callers:
            AcceleratorState._reset_state(reset_partial_state=process()[1] == 1)


@_own_settings()
def fit(
    model: SSD,
    dataset: Dataset[Any],
    *,
    output: str | Path,
    validation: Dataset[Any] | None = None,
    epochs: int = 50,
    batch_size: int = 16,
    accumulate: int = 1,
    augmentation: Augmentation | Callable[..., Any] | None = "ssd",
    flip_vertically: bool = False,
    optimizer: OptimizerName = "sgd",
    learning_rate: float | None = None,
    backbone_scale: float = 1.0,
    freeze_backbone: bool = False,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: ScheduleName = "cosine",
    milestones: Sequence[float] = (2 / 3, 8 / 9),
    warmup_steps: int | None = None,
    batch_norm: BatchNormMode = "train",
    ema_decay: float | None = 0.9998,
    clip_norm: float | None = 10.0,
    mixed_precision: MixedPrecision | None = None,
    seed: int = 0,
    num_workers: int = 0,
    evaluate_every: int = 1,
    checkpoint_seconds: float = 300,
    resume: bool = False,
    device: str | None = None,
    tensorboard: bool = True,
    progress: bool = True,
    licence: str | None = None,
    trained_on: str | None = None,
) -> FitResult:
    """Fine-tunes a detector, on whatever processes and devices accelerate finds.

    Order and augmentation depend on the seed and the place in the training alone, and SSD's loss is taken over the
    whole batch, so that several processes, or several parts of a batch, train as one would; only batch norm, where it
    is neither frozen nor synchronised, sees its own part. `output` receives `checkpoint.pt`, `metrics.csv`,
    `curves.png`, `pictures/`, `tensorboard/`, and the models `best/` and `last/`.

    Args:
        model: What a registered builder made; it is trained in place.
        dataset: From `open_dataset`, or any that gives images and torchvision's targets.
        output: The run's folder.
        validation: What AP is measured on; its classes must be the model's.
        epochs: How often the data is gone through.
        batch_size: Images of a step, over all processes.
        accumulate: Parts that a process takes its share of a batch in, to save memory.
        augmentation: A kind of `DetectionPresetTrain`, or a function of image and target; None if the data set does it.
        flip_vertically: Whether a kind of augmentation turns images upside down too.
        optimizer: `"sgd"`, as in the papers, or `"adamw"`.
        learning_rate: Of the head and the extra layers; by default .01 for SGD and .001 for AdamW.
        backbone_scale: The learning rate of the pretrained part of the backbone over that.
        freeze_backbone: Whether the pretrained part of the backbone stays as it is.
        momentum: SGD's, or AdamW's first beta.
        weight_decay: Of all weights but those of norms, and biases.
        schedule: `"cosine"`, `"step"` or `"constant"`.
        milestones: Where `"step"` drops to a tenth, as shares of the training.
        warmup_steps: Steps over which the learning rate rises; by default a twentieth of the training, at most 500.
        batch_norm: `"train"`; `"frozen"` keeps the running statistics, for small batches; `"sync"` shares the batch's
            among GPUs.
        ema_decay: How slowly timm's moving average of the weights, which is evaluated and saved, moves at last; None
            for no average.
        clip_norm: Largest norm of the gradient; None for any.
        mixed_precision: `"no"`, `"fp16"` or `"bf16"`; by default accelerate's configuration.
        seed: What order and augmentation depend on. A model's new layers were drawn before, when it was built.
        num_workers: Processes that read and augment images.
        evaluate_every: Epochs between evaluations, when models, curves and pictures are written too; the last counts
            always.
        checkpoint_seconds: Time between checkpoints; there is one at every evaluation too.
        resume: Whether to go on with the run in `output`, if there is one.
        device: `"cpu"` to leave a GPU alone; by default accelerate's choice.
        tensorboard: Whether to write events for TensorBoard.
        progress: Whether to report on stderr.
        licence: The licence of the weights, for the model card.
        trained_on: Name of the training data, for the model card.

    Raises:
        FloatingPointError: If the loss is not finite; the message names the batch's images.
        ImportError: If accelerate, faster-coco-eval or matplotlib is missing.
        OSError: If a checkpoint can't be written, as on a full disk; the last good one stays.
        ValueError: If arguments make no sense, there is a run in `output` and `resume` is False, it began otherwise, or
            machines that go on with it do not share its folder.
        KeyboardInterrupt: After SIGINT; a checkpoint is written first.
        SystemExit: After SIGTERM; a checkpoint is written first.

    Example:
        >>> from ssd_zoo.data import open_dataset
        >>> train, val = open_dataset("cells", "train"), open_dataset("cells", "val")  # doctest: +SKIP
        >>> model = ssd_zoo.get_model("ssdlite300_mobilenet_v2", weights="COCO_TF_V1", categories=train.categories)
        ... # doctest: +SKIP
        >>> fit(model, train, validation=val, output="runs/cells").best  # doctest: +SKIP
        0.57
    """
    options = dict(locals())
    _check(model, dataset, validation, batch_norm, evaluate_every)
    # A model that can't be saved is an error now, not after the training.
    described = describe(model)
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device == "cpu")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate would train in float32 without a word.
        raise ValueError("Mixed precision in fp16 needs a GPU; on a CPU take 'bf16' or 'no'.")
    plan = Plan(
        num_images=len(dataset),  # type: ignore[arg-type]
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        accumulate=accumulate,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    model = _place(model, accelerator, batch_norm, freeze_backbone)
    settings: dict[str, Any] = {
        "num_images": plan.num_images,
        **{name: value for name, value in options.items() if name not in _OF_THE_CALL},
        **{key: described[key] for key in ("builder", "categories", "default_boxes")},
        "size": list(model.size),
        **described["settings"],
        "augmentation": augmentation if isinstance(augmentation, str) else None,
        "learning_rate": _LEARNING_RATES.get(optimizer) if learning_rate is None else learning_rate,
        "milestones": list(milestones),
        "warmup_steps": min(500, plan.steps // 20) if warmup_steps is None else warmup_steps,
    }
    plain = make_optimizer(
        model,
        optimizer,
        learning_rate=settings["learning_rate"],
        weight_decay=weight_decay,
        momentum=momentum,
        backbone_scale=backbone_scale,
    )
    schedules = make_schedule(
        plain, schedule, steps=plan.steps, warmup_steps=settings["warmup_steps"], milestones=milestones
    )
    ema = None if ema_decay is None else make_ema(model, ema_decay)
    _check_output(Path(output), resume, evaluates=validation is not None)
    start = _load(Path(output), settings, resume, model, plain, ema, accelerator.scaler)
    _check_shared(start.step, output)
    # An optimizer's state is where its model is; moved as a whole, its counts of steps would be on the GPU as well.
    wrapped, prepared = accelerator.prepare(model, plain, device_placement=[True, False])
    trainer = Trainer(
        accelerator=accelerator,
        model=model,
        wrapped=wrapped,
        optimizer=prepared,
        schedule=schedules,
        ema=ema,
        plan=plan,
        samples=SeededSamples(dataset, _augmentation(model, augmentation, flip_vertically), seed),
        validation=validation,
        output=Path(output),
        settings=settings,
        progress=start,
        tensorboard=TensorBoard(Path(output), start.step) if tensorboard and accelerator.is_main_process else None,
        freeze_norms=batch_norm == "frozen",
        clip_norm=clip_norm,
        num_workers=num_workers,
        evaluate_every=evaluate_every,
        checkpoint_seconds=checkpoint_seconds,
        show=progress,
        meta={"licence": licence, "trained_on": trained_on},
    )
    try:
        with keep_memory():
            trainer.run()
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return FitResult(trainer.final, start.history, start.best, Path(output))


def _check(model: Any, dataset: Any, validation: Any, batch_norm: str, evaluate_every: int) -> None:
    if not isinstance(model, SSD):
        raise TypeError(f"fit trains an SSD, got {type(model).__name__}; examples/finetune.py trains any detector.")
    if folded := folded_norms(model):
        raise ValueError(
            f"{len(folded)} norms of the model were folded away at its source, {folded[0]!r} among them. To train "
            "it, restore them by ssd_zoo.restore_norms(model, images) or ssd-zoo convert --images DIR."
        )
    if batch_norm not in get_args(BatchNormMode):
        raise ValueError(
            f"batch_norm must be one of {', '.join(map(repr, get_args(BatchNormMode)))}, got {batch_norm!r}."
        )
    if evaluate_every < 1:
        raise ValueError(f"evaluate_every counts epochs and must be at least 1, got {evaluate_every}.")
    if validation is not None and len(validation) == 0:
        raise ValueError("The validation data has no images. Give other data, or None to measure no AP.")
    for data in (dataset, validation):
        categories = getattr(data, "categories", None)
        # The background bears many names.
        if categories is not None and list(categories)[1:] != model.categories[1:]:
            raise ValueError(
                f"The model's categories are {model.categories}, the data set's {list(categories)}. Build the model "
                "with categories=dataset.categories, or open the data set with categories=model.categories."
            )


def _check_output(output: Path, resume: bool, *, evaluates: bool) -> None:
    """Check that a run can write its output and overwrites none."""
    for package in ("matplotlib", *(["faster_coco_eval"] if evaluates else [])):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'Training needs {package} for its results: pip install "ssd_zoo[train]".')
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"The run's folder {output} can't be made: {error.strerror}") from error
    if not resume and any((output / name).exists() for name in ("checkpoint.pt", "best", "last", "metrics.csv")):
        raise ValueError(f"{output} holds a run; go on with it by resume=True (--resume), or use another folder.")


def _place(model: SSD, accelerator: Any, batch_norm: str, freeze_backbone: bool) -> SSD:
    """Move a model to its device; freeze the backbone or convert norms."""
    if freeze_backbone:
        new = tuple(f"{layer}." for layer in getattr(model.backbone, "new_layers", ()))
        for name, parameter in model.backbone.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(new))
    if batch_norm == "sync":
        if accelerator.device.type != "cuda":
            raise ValueError("batch_norm='sync' needs GPUs; use 'frozen'.")
        if accelerator.num_processes > 1:
            model = synchronise_norms(model)
    # In the layout of the images; on a CPU that is a third faster.
    return model.to(accelerator.device).to(memory_format=torch.channels_last)


def _augmentation(model: SSD, kind: Any, flip_vertically: bool) -> Callable[..., Any] | None:
    if not isinstance(kind, str):
        return kind
    mean = [min(1.0, max(0.0, value)) for value in model.image_mean.flatten().tolist()]
    return DetectionPresetTrain(
        kind,  # type: ignore[arg-type]
        mean=mean,
        size=model.size,
        antialias=model.antialias,
        flip_vertically=flip_vertically,
    )


def _check_shared(step: int, output: str | Path) -> None:
    """Check that all processes found the same checkpoint."""
    steps = all_gather(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"Processes found different checkpoints in {output} (steps {', '.join(map(str, steps))}): "
            "machines that train together have to share this folder."
        )


def _load(
    output: Path, settings: dict[str, Any], resume: bool, model: SSD, optimizer: Any, ema: Any, scaler: Any
) -> Progress:
    """Load a run's checkpoint, if there is one, and return its progress."""
    file = output / "checkpoint.pt"
    if not resume or not file.exists():
        return Progress()
    for unfinished in output.glob(".*.part"):
        unfinished.unlink(missing_ok=True)
    state = read_checkpoint(file)
    check_same(state["settings"], settings, file)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if ema is not None:
        ema.module.load_state_dict(state["ema"])
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])

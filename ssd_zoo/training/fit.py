"""Fine-tune by one call."""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch.utils.data import Dataset

from ssd_zoo.data.presets import Augmentation
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.tiles import check_tiles
from ssd_zoo.models.registry import with_near_keywords
from ssd_zoo.saved.proof import check_rebuild
from ssd_zoo.training.batches import Plan, Sample, SeededSamples, Transform, augmentation_for, describe_data
from ssd_zoo.training.budget import Budget
from ssd_zoo.training.inference import parts_per_item
from ssd_zoo.training.kept_memory import keep_memory
from ssd_zoo.training.logs import Row, TensorBoard
from ssd_zoo.training.loop import Progress, Trainer
from ssd_zoo.training.optimizers import (
    OptimizerName,
    ScheduleName,
    make_ema,
    make_optimizer,
    make_schedule,
    synchronise_norms,
)
from ssd_zoo.training.plan import Choice, evaluation_interval, plan_table, plan_training
from ssd_zoo.training.processes import own_settings
from ssd_zoo.training.ready import BatchNormMode, check_call, obstacles, raise_together, usable_data
from ssd_zoo.training.run_files import RunFiles
from ssd_zoo.training.run_state import check_shared, load_states, lock_folder, read_run, settle_plan
from ssd_zoo.weights.config import describe

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["FitResult", "MixedPrecision", "fit"]

MixedPrecision = Literal["no", "fp16", "bf16"]

# Arguments that change neither the steps of a training nor their result, so that a run may go on with others.
_OF_THE_CALL = {
    *("model", "dataset", "validation", "output", "resume", "device", "mixed_precision", "num_workers", "accumulate"),
    *("evaluate_every", "patience", "minutes", "checkpoint_seconds", "tensorboard", "progress", "licence"),
    *("trained_on", "choices", "command", "tile_overlap"),
}
# What follows from the data unless the caller gives it. A run that is resumed keeps its own.
_CHOSEN = ("epochs", "batch_size", "ema_decay", "warmup_steps", "flip")


@dataclass
class FitResult:
    """Result of a training.

    Attributes:
        model: The trained model; the average of weights, where there is one.
        history: One row per epoch: losses, AP, learning rate, images per second. Figures that could not be measured are
            left out.
        best: The best AP on the validation data; NaN without any.
        output: The run's folder; `from_pretrained` takes `best` and `last` in it.
    """

    model: SSD
    history: list[Row]
    best: float
    output: Path


@with_near_keywords
@own_settings()
def fit(
    model: SSD,
    dataset: Dataset[Sample],
    *,
    output: str | Path,
    validation: Dataset[Sample] | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    augmentation: Augmentation | Transform | None = "light",
    flip: bool | None = None,
    flip_vertically: bool = False,
    tile: int | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    optimizer: OptimizerName = "adamw",
    learning_rate: float | None = None,
    backbone_scale: float = 1.0,
    freeze_backbone: bool = False,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: ScheduleName = "cosine",
    milestones: Sequence[float] = (2 / 3, 8 / 9),
    warmup_steps: int | None = None,
    batch_norm: BatchNormMode = "train",
    ema_decay: float | None = None,
    clip_norm: float | None = 10.0,
    mixed_precision: MixedPrecision | None = None,
    seed: int = 0,
    num_workers: int = 0,
    evaluate_every: int | None = None,
    patience: int | None = None,
    checkpoint_seconds: float = 300,
    resume: bool = False,
    device: str | None = None,
    tensorboard: bool = True,
    progress: bool = True,
    licence: str | None = None,
    trained_on: str | None = None,
    choices: Sequence[Choice] = (),
    command: str | None = None,
) -> FitResult:
    """Fine-tune a detector on images or clips.

    accelerate chooses devices and processes. Order and augmentation depend on the seed and the place in the training
    alone. SSD's loss is taken over the whole batch. So several processes or parts of a batch train as one would. Only
    batch norm sees its own part, unless it is frozen or synchronised. `output` receives `checkpoint.pt`, `metrics.csv`,
    `curves.png`, `pictures/`, `tensorboard/`, the models `best/` and `last/`, and at the end `report.html`.

    Args:
        model: The model, made by a registered builder; it is trained in place. Its input, feature maps and default
            boxes stay as they are; `ssd-zoo train` chooses them before it calls `fit`.
        dataset: From `open_dataset` or `open_video_dataset`, of which objects that can't be used are left out as by
            `usable`; or any other that gives images or clips and targets as for `SSD.forward`.
        output: The run's folder. One training at a time can use it.
        validation: Data set on which AP is measured; its classes must be the model's. `fit` holds no images back:
            without this data set AP is not measured, and the last model is kept.
        epochs: Number of passes over the data; by default chosen by the number of images (`plan_training`).
        minutes: Time of the training with its evaluations, instead of `epochs`. Steps are timed, and the schedule ends
            in time. The report, some seconds, comes on top.
        batch_size: Number of images or clips per step, over all processes; by default 8, or 4 for fewer than 16 images.
        accumulate: Number of parts of a process's share of a batch; more parts need less memory.
        augmentation: A kind of `DetectionPresetTrain`, or a function of image and target; None if the data set does it.
        flip: Whether a kind of augmentation flips images left to right; by default, unless names of classes hold "left"
            or "right", or are single letters or digits.
        flip_vertically: Whether a kind of augmentation flips images vertically too.
        tile: Side, or (height, width), of tiles: the training draws them (`RandomTile`), and the model, which keeps it,
            detects in them. By default the model's own; 0 for none.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side; by default the model's.
        optimizer: `"adamw"`, or `"sgd"` as in the papers.
        learning_rate: Learning rate of the head and the extra layers; by default .01 for SGD and .001 for AdamW.
        backbone_scale: Factor on the learning rate of the backbone's pretrained part.
        freeze_backbone: Whether to leave the backbone's pretrained part as it is.
        momentum: Momentum of SGD, or first beta of AdamW.
        weight_decay: Weight decay of all weights but norms' weights and biases.
        schedule: `"cosine"`, `"step"` or `"constant"`.
        milestones: Drops of `"step"` to a tenth, as shares of the training.
        warmup_steps: Number of steps in which the learning rate rises; by default a twentieth of the training, at most
            500.
        batch_norm: `"train"`; `"frozen"`, which keeps the running statistics, for small batches; or `"sync"`, which
            shares the batch's statistics among GPUs.
        ema_decay: Final decay of timm's moving average of the weights, which is evaluated and saved; by default .998 to
            .9998, by the number of steps; 0 for no average.
        clip_norm: Largest norm of the gradient; None for no limit.
        mixed_precision: `"no"`, `"fp16"` or `"bf16"`; by default accelerate's configuration.
        seed: Seed of order and augmentation. A model's new layers were drawn before, when it was built.
        num_workers: Number of processes that read and augment images.
        evaluate_every: Number of epochs between evaluations, when models, curves and pictures are written too. The last
            epoch is always evaluated. By default there are five to nine evaluations, or fewer if `minutes` is short.
        patience: Number of evaluations without a better AP after which the training ends; 0 for no such end. By default
            3, or 0 if `epochs` is given.
        checkpoint_seconds: Time between checkpoints; there is one at every evaluation too.
        resume: Whether to continue the run in `output`, if there is one. More epochs than it began with lengthen it;
            its learning rate then follows the longer schedule.
        device: `"cpu"` to leave a GPU alone; by default accelerate's choice.
        tensorboard: Whether to write events for TensorBoard.
        progress: Whether to report on stderr.
        licence: Licence of the weights, for the model card.
        trained_on: Name of the training data, for the model card.
        choices: What was chosen before, with reasons, for the report and the model card.
        command: The command to repeat the run, for both.

    Raises:
        FloatingPointError: If the loss or a gradient is not finite; the message names the batch's images.
        ImportError: If accelerate, faster-coco-eval, matplotlib or tensorboard is missing.
        OSError: If the folder or a checkpoint can't be written, as on a full disk; the last good checkpoint stays.
        TypeError: If the model is not an `SSD`.
        ValueError: If more than 1 % of the objects can't be used and the model's `on_invalid_boxes` is `"raise"`,
            arguments contradict each other, `output` holds a run and `resume` is False, another training writes there,
            the run began with other settings, or machines that resume it do not share its folder.
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
    output = Path(output)
    check_call(model, dataset, validation, batch_norm, evaluate_every, epochs, minutes)
    dataset, validation = usable_data(model, dataset), usable_data(model, validation, may_be_empty=True)
    model.tile_overlap = model.tile_overlap if tile_overlap is None else tile_overlap
    model.tile = check_tiles(model.tile if tile is None else tile or None, model.tile_overlap)
    raise_together(obstacles(output, resume=resume, evaluates=validation is not None, tensorboard=tensorboard))
    # A model that can't be saved is an error now, not after the training.
    described = describe(model)
    check_rebuild(model, json.dumps(described))
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device == "cpu")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate would train in float32 without a word.
        raise ValueError("Mixed precision in fp16 needs a GPU; on a CPU take 'bf16' or 'no'.")
    chosen = plan_training(
        len(dataset),  # type: ignore[arg-type]
        batch_size=batch_size,
        epochs=epochs,
        ema_decay=ema_decay,
        evaluate_every=evaluate_every,
        patience=patience,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        augmentation=augmentation,
        flip=flip,
        flip_vertically=flip_vertically,
        classes=model.categories[1:],
        parts=accumulate * accelerator.num_processes,
        minutes=minutes,
        validates=validation is not None,
    )
    plan = Plan(
        num_images=len(dataset),  # type: ignore[arg-type]
        batch_size=chosen.batch_size,
        epochs=chosen.epochs,
        seed=seed,
        accumulate=accumulate,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    model = _place(model, accelerator, batch_norm, freeze_backbone)
    settings: dict[str, object] = {
        "num_images": plan.num_images,
        **{name: value for name, value in options.items() if name not in _OF_THE_CALL},
        "training data": describe_data(dataset),
        "validation data": describe_data(validation),
        **{key: described[key] for key in ("builder", "categories", "default_boxes")},
        "size": list(model.size),
        **{f"{name} of the builder": value for name, value in described["arguments"].items() if name != "size"},
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "tile": model.tile,
        **described["settings"],
        "augmentation": augmentation if isinstance(augmentation, str) else None,
        "learning_rate": chosen.learning_rate,
        "milestones": list(milestones),
        "batch_size": chosen.batch_size,
        "ema_decay": chosen.ema_decay,
        "flip": chosen.flip,
        "warmup_steps": _warmup(plan.steps) if warmup_steps is None and minutes is None else warmup_steps,
        # With a budget the steps are known later, and change.
        "epochs": None if minutes is not None else chosen.epochs,
    }
    main = accelerator.is_main_process
    output.mkdir(parents=True, exist_ok=True)
    with lock_folder(output) if main else nullcontext(), keep_memory():
        taken = [name for name in _CHOSEN if options[name] is None]
        state = read_run(output, settings, chosen=taken, show=progress and main) if resume else None
        start = Progress() if state is None else Progress(**state["progress"])
        plan = settle_plan(plan, settings, start.planned, minutes)
        budget = None
        if minutes is not None:
            # Of the images of an evaluation and of a step, both over all processes.
            images = 0 if validation is None else len(validation) * parts_per_item(model, validation)  # type: ignore[arg-type]
            evaluated = images / plan.batch_size
            budget = Budget(60 * minutes, every=evaluate_every, spent=start.elapsed, evaluated=evaluated)
        if progress and main and state is None:
            print(f"training:\n{plan_table(chosen.choices)}", file=sys.stderr)
        plain = make_optimizer(
            model,
            optimizer,
            learning_rate=chosen.learning_rate,
            weight_decay=weight_decay,
            momentum=momentum,
            backbone_scale=backbone_scale,
        )
        flips = {"flip": cast(bool, settings["flip"]), "flip_vertically": flip_vertically}
        decay = cast(float, settings["ema_decay"])
        ema = make_ema(model, decay) if decay else None
        load_states(state, model, plain, ema, accelerator)
        check_shared(start.step, output)
        # An optimizer's state is where its model is; moved as a whole, its counts of steps would be on the GPU as well.
        wrapped, prepared = accelerator.prepare(model, plain, device_placement=[True, False])
        trainer = Trainer(
            accelerator=accelerator,
            model=model,
            wrapped=wrapped,
            optimizer=prepared,
            make_schedule=lambda steps: make_schedule(
                plain,
                schedule,
                steps=steps,
                warmup_steps=_warmup(steps, settings["warmup_steps"]),
                milestones=milestones,
            ),
            ema=ema,
            plan=plan,
            samples=SeededSamples(dataset, augmentation_for(model, augmentation, **flips), seed),
            settings=settings,
            progress=start,
            tensorboard=TensorBoard(output, start.step) if tensorboard and main else None,
            freeze_norms=batch_norm == "frozen",
            clip_norm=clip_norm,
            num_workers=num_workers,
            evaluate_every=evaluate_every or evaluation_interval(plan.epochs),
            patience=chosen.patience,
            budget=budget,
            checkpoint_seconds=checkpoint_seconds,
            show=progress,
            files=RunFiles(
                output,
                validation,
                choices=[*choices, *chosen.choices],
                command=command,
                meta={"licence": licence, "trained_on": trained_on},
            ),
        )
        try:
            trainer.run()
        finally:
            accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return FitResult(trainer.final, start.history, start.best if start.best >= 0 else math.nan, output)


def _place(model: SSD, accelerator: "Accelerator", batch_norm: str, freeze_backbone: bool) -> SSD:
    """Move a model to its device; freeze backbone and synchronise norms (ValueError without a GPU), if asked for."""
    if freeze_backbone:
        new = tuple(f"{layer}." for layer in getattr(model.backbone, "new_layers", ()))
        for name, parameter in model.backbone.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(new))
    if batch_norm == "sync" and accelerator.device.type != "cuda":
        raise ValueError("batch_norm='sync' needs GPUs; use 'frozen'.")
    if batch_norm == "sync" and accelerator.num_processes > 1:
        model = synchronise_norms(model)
    # In the layout of the images; on a CPU that is a third faster.
    return model.to(accelerator.device).to(memory_format=torch.channels_last)


def _warmup(steps: int, given: object = None) -> int:
    return given if isinstance(given, int) else min(500, steps // 20)

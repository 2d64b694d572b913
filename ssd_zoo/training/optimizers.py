"""Make optimizers, and timm's schedules and averages of weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, cast, get_args

import torch
from torch import nn

from ssd_zoo.detector.ssd import SSD

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler
    from timm.utils.model_ema import ModelEmaV3

__all__ = [
    "OptimizerName",
    "ScheduleName",
    "freeze_norms",
    "make_ema",
    "make_optimizer",
    "make_schedule",
    "synchronise_norms",
]

OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]


class _Warmup(TypedDict):
    """Keywords of timm's schedules."""

    warmup_t: int
    warmup_lr_init: float
    warmup_prefix: bool
    t_in_epochs: bool


def make_optimizer(
    model: nn.Module,
    name: OptimizerName,
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
    backbone_scale: float = 1.0,
) -> torch.optim.Optimizer:
    """Make an optimizer without weight decay of norms and biases.

    Args:
        model: The detector; parameters that do not require gradients are left out.
        name: `"sgd"`, as in the papers, or `"adamw"`.
        learning_rate: Learning rate of the head and the extra layers.
        weight_decay: Weight decay of all weights but norms' weights and biases.
        momentum: Momentum of SGD, or first beta of AdamW.
        backbone_scale: Factor on the learning rate of the backbone's pretrained part.

    Raises:
        ValueError: If there is no such optimizer.
    """
    if name not in get_args(OptimizerName):
        raise ValueError(f"optimizer must be one of {', '.join(map(repr, get_args(OptimizerName)))}, got {name!r}.")
    new = tuple(f"backbone.{layer}." for layer in getattr(getattr(model, "backbone", None), "new_layers", ()))
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            pretrained = key.startswith("backbone.") and not key.startswith(new)
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            # What timm's schedules multiply the rate by.
            "lr_scale": backbone_scale if pretrained else 1.0,
        }
        for (pretrained, decays), parameters in groups.items()
    ]
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=learning_rate, betas=(momentum, 0.999))
    return torch.optim.SGD(settings, lr=learning_rate, momentum=momentum)


def make_schedule(
    optimizer: torch.optim.Optimizer,
    name: ScheduleName,
    *,
    steps: int,
    warmup_steps: int,
    milestones: Sequence[float] = (2 / 3, 8 / 9),
) -> "Scheduler":
    """Make one of timm's schedules, whose rate depends on the step alone.

    Args:
        optimizer: The optimizer. Its rates stay as they are until `step_update(step)`, with the step from 0, sets them.
        name: `"cosine"` down to zero, `"step"` to a tenth at the milestones, or `"constant"`.
        steps: Number of steps of the training.
        warmup_steps: Number of steps in which the rate rises from 1e-6.
        milestones: Drops of `"step"`, as shares of the training.

    Raises:
        ValueError: If there is no such schedule.
    """
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.scheduler.multistep_lr import MultiStepLRScheduler

    if name not in get_args(ScheduleName):
        raise ValueError(f"schedule must be one of {', '.join(map(repr, get_args(ScheduleName)))}, got {name!r}.")
    warmup: _Warmup = {
        "warmup_t": min(warmup_steps, steps),
        "warmup_lr_init": 1e-6,
        "warmup_prefix": False,
        "t_in_epochs": False,
    }
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule: Scheduler
    if name == "cosine":
        schedule = CosineLRScheduler(optimizer, t_initial=max(2, steps), **warmup)
    else:
        # timm looks a step ahead.
        drops = [round(share * steps) + 1 for share in milestones] if name == "step" else []
        schedule = MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=0.1, **warmup)
    # timm sets the rate of the warm-up's start, but a schedule may be made anew within a training.
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return schedule


def make_ema(model: nn.Module, decay: float) -> "ModelEmaV3":
    """Make timm's moving average of weights.

    Its decay begins low and grows to `decay`.
    """
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=decay, use_warmup=True)


def freeze_norms(model: nn.Module, *, whole: bool) -> None:
    """Freeze the running statistics of batch norms, which small batches would spoil.

    Args:
        model: A model in training mode; its norms are put into evaluation mode, until its next `train()`.
        whole: True for all norms, False for those whose own weights do not train or that have none.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = not any(parameter.requires_grad for parameter in module.parameters())
            if whole or frozen:
                module.eval()


def synchronise_norms(model: SSD) -> SSD:
    """Convert batch norms to ones that share statistics among processes, by timm.

    torch's own function would lose the activations that timm's norms hold.

    The model is changed in place.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    return cast(SSD, convert_sync_batchnorm(model))

"""Optimiser set-up: parameter groups by name patterns, frozen parts, fused steps, and the schedules of the papers."""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, MultiStepLR

from kinema.errors import ConfigError

log = logging.getLogger(__name__)

# A recipe without its parameters: a functools.partial of an optimiser class, from a yaml node with `_partial_: true`.
OptimizerRecipe = Callable[..., Optimizer]
# A recipe that takes the optimiser and gives a scheduler, or Lightning's dictionary around one.
SchedulerRecipe = Callable[..., Any]
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def freeze_but(model: nn.Module, trainable: Sequence[str] | None) -> None:
    """Leave only parameters trainable whose name matches one of the patterns; None changes nothing.

    What a network froze itself (the unused head of a backbone) stays frozen.

    Raises:
        ConfigError: for a pattern that matches no parameter.
    """
    if trainable is None:
        return
    names = [name for name, _ in model.named_parameters()]
    for pattern in trainable:
        _expect_match(pattern, names, "task.trainable")
    for name, parameter in model.named_parameters():
        wanted = any(fnmatchcase(name, pattern) for pattern in trainable)
        parameter.requires_grad_(parameter.requires_grad and wanted)


def parameter_groups(model: nn.Module, options: Mapping[str, Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Split the trainable parameters by their options.

    Args:
        model: the network.
        options: name pattern to optimiser options ({"backbone.*": {"lr": 1e-4}, "*.bias": {"weight_decay": 0.0}}). A
            parameter takes the options of every pattern it matches, later ones first. A parameter with the attribute
            `_no_weight_decay` is not decayed.

    Returns:
        Groups for the optimiser; without options a single one, in the model's order.

    Raises:
        ConfigError: for a pattern that matches no parameter, or when nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in options or {}:
        _expect_match(pattern, names, "task.parameter_groups")
    groups: dict[tuple[tuple[str, Any], ...], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        chosen: dict[str, Any] = {"weight_decay": 0.0} if getattr(parameter, "_no_weight_decay", False) else {}
        for pattern, values in (options or {}).items():
            if fnmatchcase(name, pattern):
                chosen.update(values)
        groups.setdefault(tuple(sorted(chosen.items())), []).append(parameter)
    if not groups:
        raise ConfigError("No parameter is left to train. Use task.trainable=null, or other patterns.")
    return [{"params": parameters, **dict(key)} for key, parameters in groups.items()]


def _expect_match(pattern: str, names: Sequence[str], key: str) -> None:
    if not any(fnmatchcase(name, pattern) for name in names):
        near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.3)
        hint = f" A parameter is called {near[0]!r}." if near else ""
        raise ConfigError(f"{key}: no parameter of the model matches {pattern!r}.{hint}")


def build(recipe: OptimizerRecipe, groups: list[dict[str, Any]], *, unscaled_clipping: bool = False) -> Optimizer:
    """Make the optimiser; `fused: true` is kept where it works.

    A fused step is about three times as fast on a CPU and spares kernel launches on a GPU.

    Args:
        recipe: partial of an optimiser class.
        groups: from `parameter_groups`.
        unscaled_clipping: gradients must be clipped between unscaling and step (16-mixed precision with a gradient
            scaler), which a fused step does not allow.
    """
    if isinstance(recipe, partial) and recipe.keywords.get("fused"):
        parameters = [parameter for group in groups for parameter in group["params"]]
        fits = all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in parameters)
        if not fits or unscaled_clipping:
            log.debug("the fused optimiser step is not possible here; taking the plain one")
            recipe = partial(recipe, fused=False)
    return recipe(groups)


def schedule(recipe: SchedulerRecipe, optimizer: Optimizer, total_steps: Callable[[], int]) -> dict[str, Any]:
    """Lightning's dictionary around a scheduler.

    A scheduler with an argument `total_steps` goes on after every optimiser step, and a null there becomes the length
    of the training; every other one goes on after every epoch.

    Args:
        recipe: partial of a scheduler class or of a function below.
        optimizer: its first argument.
        total_steps: number of optimiser steps of the whole training, asked only where needed.
    """
    function = recipe.func if isinstance(recipe, partial) else recipe
    given = dict(recipe.keywords) if isinstance(recipe, partial) else {}
    per_step = "total_steps" in inspect.signature(function).parameters
    missing = {"total_steps": total_steps()} if per_step and given.get("total_steps") is None else {}
    made = recipe(optimizer, **missing)
    return {"scheduler": made, "interval": "step" if per_step else "epoch", "frequency": 1}


def exponential(optimizer: Optimizer, *, gamma: float) -> ExponentialLR:
    """Multiply the learning rate by `gamma` after every epoch: VideoPose3D 0.95, PoseFormer and MotionBERT 0.99."""
    return ExponentialLR(optimizer, gamma)


def milestones(optimizer: Optimizer, *, epochs: Sequence[int], gamma: float) -> MultiStepLR:
    """Multiply the learning rate by `gamma` before each of the named epochs, counted from 0: HumanMAC and SMRNet."""
    return MultiStepLR(optimizer, list(epochs), gamma)


def warmup_cosine(
    optimizer: Optimizer, *, warmup_steps: int, floor: float = 0.0, total_steps: int | None = None
) -> LambdaLR:
    """Rise linearly for `warmup_steps` optimiser steps, then follow half a cosine down to a share of the rate.

    A rise that would take more than half of the training is shortened to a tenth of it, and says so: a short training
    on few clips would never see the rate it was given.

    Args:
        optimizer: whose learning rates are the peak.
        warmup_steps: 0 starts at the peak.
        floor: share of the peak at the end.
        total_steps: length of the training; `schedule` fills it in.
    """
    if total_steps is None or total_steps <= 0 or math.isinf(total_steps):
        raise ConfigError(
            "The warm-up and cosine schedule needs the length of the training. Use trainer.max_steps=10000."
        )
    rise = warmup_steps
    if 2 * warmup_steps > total_steps:
        rise = total_steps // 10
        log.warning(
            "the training has %d steps, too few for a warm-up of %d: it is shortened to %d. "
            "Train for longer (trainer.max_epochs), or say task.scheduler.warmup_steps=%d yourself",
            total_steps, warmup_steps, rise, rise,
        )  # fmt: skip

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def scaler_of(trainer: Any) -> torch.amp.GradScaler | None:
    """The gradient scaler of a Lightning Trainer under 16-mixed precision, else None."""
    return getattr(getattr(trainer, "precision_plugin", None), "scaler", None)

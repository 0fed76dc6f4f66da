"""A training loop without a trainer, and the average of weights tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from scripts.bench.measure import Spent


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights as published: a new tensor for every parameter."""
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.data = old.data * decay + (1 - decay) * new.data


def bare_loop(
    batches: Iterable[dict[str, Tensor]],
    loss: Callable[[dict[str, Tensor]], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    warmup: int,
) -> tuple[Spent, list[float]]:
    """Train for some steps; time per step after the warm-up, and the losses of the first steps.

    Args:
        batches: at least `steps`.
        loss: of a batch.
        optimizer: over all parameters.
        steps: in all.
        warmup: steps that are not timed.
    """
    losses: list[float] = []
    started: Any = None
    for number, batch in enumerate(batches):
        if number == warmup:
            started = time.process_time(), time.perf_counter()
        value = loss(batch)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        if number < warmup:
            losses.append(float(value.detach()))
        if number + 1 == steps:
            break
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    return Spent(cpu / (steps - warmup), wall / (steps - warmup)), losses

"""A network that predicts noise, called for many samples of the same windows: its own shared form, or the plain one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kinema.models.layers.noise import refuse_training, seeing_samples

# Noisy coefficients (W, K, n, F) and the number of the visited step in, the network's output (W, K, n, F) out.
Denoiser = Callable[[Tensor, int], Tensor]


def denoiser(
    model: nn.Module,
    condition: Tensor | None,
    timesteps: Tensor,
    conditioned: int | None = None,
    *,
    level: Tensor | None = None,
    plain: bool = False,
) -> Denoiser:
    """Make the function that a sampler calls at every step, for K samples of each of W windows.

    Args:
        model: a network of `signature.output` "noise", in eval mode. Where it has the ability `denoiser`, what samples
            and steps share is computed once.
        condition: (W, n, F) coefficients of the padded histories; None = no sample sees one.
        timesteps: (S,) int64, the steps in the order in which they are visited.
        conditioned: how many of the K samples of every window see the condition, the first ones; None = all.
        level: (W,) how much of each condition is noise, for networks that take it; None = nothing.
        plain: do without the ability: the reference for tests and benchmarks.

    Raises:
        ConfigError: for a network in training mode; when called, for fewer samples than `conditioned`.
    """
    ability = getattr(model, "denoiser", None)
    if ability is None or plain or level is not None:
        return PlainDenoiser(model, condition, timesteps, conditioned, level)
    made: Denoiser = ability(condition, timesteps, conditioned)
    return made


class PlainDenoiser:
    """One `forward` of all samples, each with a condition of its own."""

    def __init__(
        self,
        model: nn.Module,
        condition: Tensor | None,
        timesteps: Tensor,
        conditioned: int | None = None,
        level: Tensor | None = None,
    ) -> None:
        refuse_training(model)
        self.model, self.condition, self.timesteps, self.conditioned = model, condition, timesteps, conditioned
        self.level = level

    @torch.no_grad()
    def __call__(self, x: Tensor, step: int) -> Tensor:
        windows, count = x.shape[:2]
        seeing = seeing_samples(self.condition, self.conditioned, x)
        t = self.timesteps[step].to(x.device).expand(windows * count)
        condition = present = None
        if seeing and self.condition is not None:
            condition = self.condition.repeat_interleave(count, dim=0)
        if 0 < seeing < count:
            present = (torch.arange(count, device=x.device) < seeing).repeat(windows)
        told = {} if self.level is None else {"level": self.level.repeat_interleave(count)}
        out: Tensor = self.model(x.flatten(0, 1), t, condition, present, **told)
        return out.unflatten(0, (windows, count))

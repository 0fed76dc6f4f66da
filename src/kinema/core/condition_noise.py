"""Noise on what a network is told: levels of 0 (the condition itself) to 1 (nothing but noise), and their mixture.

A network that sees histories at all levels, and is told the level, cannot learn histories by heart; with levels spread
over the samples, some follow the history closely and others choose among all motions.

Source: Ho et al. 2022, "Cascaded diffusion models", conditioning augmentation; the spread over samples is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mixed(condition: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Blend a condition of unit size with noise so that the size stays: cos(level pi/2) c + sin(level pi/2) noise.

    Args:
        condition: (B, m, F).
        noise: (B, m, F) standard normal.
        level: (B,) 0 to 1.
    """
    angle = (level * (math.pi / 2))[:, None, None]
    return condition * angle.cos() + noise * angle.sin()


def trained_levels(draws: Tensor, clean: float, unseen: float) -> Tensor:
    """Levels that are trained: a share sees the condition itself, a share nothing of it, the others any level alike.

    Args:
        draws: (B, 2) uniform in [0, 1).
        clean: share of level 0.
        unseen: share of level 1.

    Returns:
        (B,).
    """
    kind, level = draws.unbind(-1)
    level = torch.where(kind < clean, 0.0, level)
    return torch.where(kind >= 1 - unseen, 1.0, level)


def spread_levels(samples: Tensor, highest: float) -> Tensor:
    """Levels of samples by their number: 0, 1/2, 1/4, 3/4, 1/8, ... of the highest (van der Corput's sequence).

    They cover 0 to the highest evenly for any number of samples, so that the first of many are the same as few.

    Args:
        samples: (K,) int64 numbers, below 2^24.
        highest: level.

    Returns:
        (K,) float32.
    """
    digits = (samples[:, None] >> torch.arange(24, device=samples.device)) & 1
    return highest * (digits * 0.5 ** torch.arange(1, 25, device=samples.device)).sum(-1)

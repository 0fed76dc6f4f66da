"""Several small layers computed as one, on tensors (N, C, T, V) that lie in memory as (N, T, V, C).

Narrow 1x1 convolutions and norms side by side cost mostly their overhead. The modules keep their official names and
their parameters; only the arithmetic is joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def joints_last(x: Tensor) -> Tensor:
    """View (N, C, T, V) as (N, T, V, C)."""
    return x.permute(0, 2, 3, 1)


def channels_second(x: Tensor) -> Tensor:
    """View (N, T, V, C) as (N, C, T, V)."""
    return x.permute(0, 3, 1, 2)


def mix(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of (N, C, T, V) as one matrix product; weight (C', C) or (C', C, 1, 1)."""
    return channels_second(F.linear(joints_last(x), weight.flatten(1), bias))


def mix_all(x: Tensor, convolutions: Sequence[Any]) -> Tensor:
    """1x1 convolutions of one input, their outputs side by side; strides are not looked at."""
    weight = torch.cat([conv.weight for conv in convolutions])
    bias = None if convolutions[0].bias is None else torch.cat([conv.bias for conv in convolutions])
    return mix(x, weight, bias)


def parted(x: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Neighbouring channels of (N, C, T, V) apart, each dense in memory: norms and convolutions are slow on slices."""
    return [channels_second(part.contiguous()) for part in joints_last(x).split(list(widths), dim=-1)]


def norm_all(x: Tensor, norms: Sequence[Any]) -> Tensor:
    """Batch normalisations of neighbouring channels as one; each keeps its own statistics.

    Norms of another class (synchronised ones) or with unlike options are run one by one.
    """
    if not _alike(norms):
        parts = x.split([norm.num_features for norm in norms], dim=1)
        return torch.cat([norm(part) for norm, part in zip(norms, parts, strict=True)], dim=1)
    first: nn.BatchNorm2d = norms[0]
    weight = torch.cat([norm.weight for norm in norms])
    bias = torch.cat([norm.bias for norm in norms])
    mean = torch.cat([norm.running_mean for norm in norms])
    variance = torch.cat([norm.running_var for norm in norms])
    if not first.training:
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, first.eps)
    out = F.batch_norm(x, mean, variance, weight, bias, True, first.momentum or 0.0, first.eps)
    with torch.no_grad():
        sizes = [norm.num_features for norm in norms]
        for norm, own_mean, own_variance in zip(norms, mean.split(sizes), variance.split(sizes), strict=True):
            norm.running_mean.copy_(own_mean)
            norm.running_var.copy_(own_variance)
            norm.num_batches_tracked.add_(1)
    return out


def _alike(norms: Sequence[Any]) -> bool:
    options = {
        (type(norm), norm.training, norm.momentum, norm.eps, norm.affine, norm.track_running_stats)
        for norm in norms
        if isinstance(norm, nn.BatchNorm2d)
    }
    return len(options) == 1 and (
        type(norms[0]) is nn.BatchNorm2d
        and norms[0].momentum is not None
        and norms[0].affine
        and norms[0].track_running_stats
        and all(type(norm) is nn.BatchNorm2d for norm in norms)
    )
